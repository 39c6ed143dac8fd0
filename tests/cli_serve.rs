//! `fdpost serve`: every event, every exit status, against the crate and against Python.

#[path = "support/cli.rs"]
mod cli;
mod support;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use cli::{Ended, FD, run, start, start_with};
use fdpost::driver::{FdReply, receive_fd, send_error, send_fd};
use fdpost::profile::packet::REPLY;
use fdpost::{Channel, Head, Libcamera, Limits, Message, Packet, Profile, Stream};
use support::{Ledger, files, identity, libcamera_header, packet_header, raw_send, soon};

const READY: &str = r#"{"event":"ready"}"#;
const CLOSED: &str = r#"{"event":"closed"}"#;
const IDLE: &str = r#"{"event":"idle"}"#;

fn serve(profile: &str, options: &str) -> String {
    format!("serve --fd {FD} --json --profile {profile} {options}")
}

/// Says "hello" with a memfd and a directory, and gets the same back.
fn echo<P: Profile>(kind: u32, options: &str, end: &str, extra: &str) {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<P>::pair(Limits::new().descriptors(2)).unwrap();
    let sent: [OwnedFd; 2] = [files(1).remove(0), File::open("/usr").unwrap().into()];
    let names = sent.each_ref().map(identity);
    let message = sent.into_iter().fold(Message::new(b"hello").with_kind(kind), Message::with);
    // Before the command starts: its idle time is not the test's.
    channel.send(message).unwrap();
    let command = start(&serve(P::NAME, &format!("--reply echo --max-descriptors 2 {options}")), theirs);
    let reply = channel.receive_by(soon()).unwrap();
    assert_eq!((reply.payload(), reply.head().kind, reply.head().flags), (&b"hello"[..], kind, 0));
    assert_eq!([0, 1].map(|index| identity(reply.descriptor(index).unwrap())), names);
    if end == CLOSED {
        drop(channel);
        let said = message_line(extra);
        command.finish().expect(0, &[READY, &said, CLOSED]);
    } else {
        command.finish().expect(0, &[READY, &message_line(extra), IDLE]);
        drop(channel);
    }
    drop(reply);
    ledger.close();
}

fn message_line(extra: &str) -> String {
    let begin =
        r#"{"event":"message","bytes":5,"descriptors":2,"kinds":["memfd","directory"],"data":"68656c6c6f""#;
    format!("{begin}{extra}}}")
}

#[test] // P1, P2
fn each_wire_is_echoed_and_told_field_by_field() {
    echo::<Packet>(7, "", CLOSED, r#","kind":7,"correlation":0"#);
    echo::<Stream>(9, "", CLOSED, r#","kind":9"#);
    // A datagram pair shows no end: silence is all there is to see.
    echo::<Libcamera>(0, "--idle-timeout 1000", IDLE, "");
}

#[test] // P1
fn a_reply_is_one_and_brings_no_more_descriptors_than_were_asked_for() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(2)).unwrap();
    let command = start(&serve("packet", "--reply reverse --max-descriptors 2"), theirs);
    let head = Head { kind: 7, correlation: 11, flags: 0, reply_descriptors: 1 };
    let [first, second] = files(2).try_into().unwrap();
    let name = identity(&first);
    channel.send(Message::new(b"abc").with_head(head).with(first).with(second)).unwrap();
    let reply = channel.receive_by(soon()).unwrap();
    assert_eq!(*reply.head(), Head { flags: REPLY, reply_descriptors: 0, ..head });
    assert_eq!((reply.payload(), reply.descriptor_count()), (&b"cba"[..], 1));
    assert_eq!(identity(reply.descriptor(0).unwrap()), name);
    drop((channel, reply));
    let line = r#"{"event":"message","bytes":3,"descriptors":2,"kinds":["memfd","memfd"],"data":"616263","kind":7,"correlation":11}"#;
    command.finish().expect(0, &[READY, line, CLOSED]);
    ledger.close();
}

#[test] // P1
fn send_fd_is_echoed_and_its_errors_are_told() {
    let ledger = Ledger::open();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let command = start(&serve("send-fd", "--reply reverse"), theirs.into());
    let file = files(1).remove(0);
    send_fd(&ours, &file).unwrap();
    let FdReply::Descriptor(back) = receive_fd(&ours, soon()).unwrap() else { panic!("an error") };
    assert_eq!(identity(&back), identity(&file));
    send_error(&ours, 5, b"abc").unwrap();
    let FdReply::Error { status, text } = receive_fd(&ours, soon()).unwrap() else { panic!("no error") };
    assert_eq!((status, &text[..]), (5, &b"cba"[..]));
    drop((ours, file, back));
    let descriptor = r#"{"event":"message","bytes":0,"descriptors":1,"kinds":["memfd"],"data":""}"#;
    let error = r#"{"event":"peer-error","status":5,"data":"616263"}"#;
    command.finish().expect(0, &[READY, descriptor, error, CLOSED]);
    ledger.close();
}

#[test] // the contract: at most 64 bytes of a payload are shown
fn a_long_payload_is_told_by_its_first_bytes() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    channel.send(Message::new([0xa5; 65])).unwrap();
    drop(channel);
    let shown = "a5".repeat(64);
    let line =
        format!(r#"{{"event":"message","bytes":65,"descriptors":0,"kinds":[],"data":"{shown}","kind":0}}"#);
    start(&serve("stream", ""), theirs).finish().expect(0, &[READY, &line, CLOSED]);
    ledger.close();
}

#[test] // a datagram pair: only a send shows that the peer is gone
fn libcamera_closes_when_a_reply_cannot_be_sent() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Libcamera>::pair(Limits::new()).unwrap();
    channel.send(Message::new(b"x")).unwrap();
    drop(channel);
    let line = r#"{"event":"message","bytes":1,"descriptors":0,"kinds":[],"data":"78"}"#;
    start(&serve("libcamera", "--reply echo"), theirs).finish().expect(0, &[READY, line, CLOSED]);
    ledger.close();
}

/// What the command says of these raw bytes and so many descriptors, which break a rule.
fn refused<P: Profile>(options: &str, bytes: &[u8], descriptors: usize) -> Ended {
    let (ours, theirs) = Channel::<P>::pair(Limits::new()).unwrap();
    raw_send(&ours.as_fd().try_clone_to_owned().unwrap(), bytes, &files(descriptors));
    let ended = start(&serve(P::NAME, options), theirs).finish();
    drop(ours);
    ended
}

#[test] // P1, P3, P4
fn a_violation_is_told_with_its_numbers_and_ends_with_65() {
    let ledger = Ledger::open();
    let ended = refused::<Packet>("", &packet_header(0, 1), 0);
    let line = r#"{"event":"violation","rule":"too-many-descriptors","declared":1,"limit":0,"text":"1 descriptors are declared, at most 0 are accepted"}"#;
    ended.expect(65, &[READY, line]);
    ended.says("too-many-descriptors");
    ended.says("--max-descriptors");
    let ended = refused::<Packet>("--max-descriptors 2", &packet_header(0, 2), 1);
    let line = r#"{"event":"violation","rule":"descriptor-count","declared":2,"received":1,"text":"1 descriptors came where 2 were declared"}"#;
    ended.expect(65, &[READY, line]);
    let ended = refused::<Libcamera>("--max-payload 9", &libcamera_header(10, 0), 0);
    let line = r#"{"event":"violation","rule":"payload-too-large","declared":10,"limit":9,"text":"a payload of 10 bytes is declared, at most 9 are accepted"}"#;
    ended.expect(65, &[READY, line]);
    ended.says("--max-payload");
    ledger.close();
}

#[test] // P5
fn a_message_begun_has_the_assembly_timeout() {
    let ledger = Ledger::open();
    let ended = refused::<Libcamera>("--assembly-timeout 50", &libcamera_header(10, 0), 0);
    let line = r#"{"event":"violation","rule":"payload-missing","expected":10,"received":0,"text":"a message was begun and 0 of 10 bytes came of the part awaited"}"#;
    ended.expect(65, &[READY, line]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    raw_send(&ours, b"tex", &[]);
    let ended = start(&serve("send-fd", "--assembly-timeout 50"), theirs.into()).finish();
    let line = r#"{"event":"violation","rule":"payload-missing","expected":5,"received":3,"text":"a message was begun and 3 of 5 bytes came of the part awaited"}"#;
    ended.expect(65, &[READY, line]);
    drop(ours);
    ledger.close();
}

#[test]
fn the_handshake_is_answered_and_a_wrong_one_refused() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    channel.send(Message::new([0x1f])).unwrap();
    let command = start(&serve("stream", "--handshake"), theirs);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), [0xf1]);
    drop(channel);
    command.finish().expect(0, &[READY, r#"{"event":"handshake"}"#, CLOSED]);
    let (mut channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    channel.send(Message::new([0x1f, 0])).unwrap();
    let ended = start(&serve("stream", "--handshake"), theirs).finish();
    let line = r#"{"event":"violation","rule":"handshake","expected":31,"bytes":2,"text":"the handshake's 0x1f did not come alone and in time; 2 bytes came"}"#;
    ended.expect(65, &[READY, line]);
    ended.says("handshake");
    drop(channel);
    ledger.close();
}

#[test] // P2: ours, and not the peer's
fn descriptors_lost_to_our_own_limit_end_with_74() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    let sent = files(3).into_iter().fold(Message::new(b"x"), Message::with);
    channel.send(sent).unwrap();
    let mut shell = Command::new("sh");
    // 0 to 4 are open: the standard ones, the socket and the command's duplicate of it. What whoever
    // runs the tests left open is not.
    shell.args(["-c", "exec 4>&- 5>&-; ulimit -n 6; exec \"$0\" \"$@\""]).arg(env!("CARGO_BIN_EXE_fdpost"));
    shell.args(serve("packet", "--max-descriptors 3").split_whitespace());
    let ended = start_with(shell, Some(theirs)).finish();
    let line = r#"{"event":"error","rule":"descriptors-lost","text":"1 of up to 3 descriptors could be installed (RLIMIT_NOFILE, or a security module)"}"#;
    ended.expect(74, &[READY, line]);
    ended.says("ulimit -n");
    drop(channel);
    ledger.close();
}

#[test]
fn people_get_lines_of_their_own() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    channel.send(Message::new(b"a\nb").with_kind(3).with(files(1).remove(0))).unwrap();
    drop(channel);
    let ended = start(&format!("serve --fd {FD} --profile packet --max-descriptors 1"), theirs).finish();
    let line = r#"message: 3 bytes "a\nb", 1 descriptor (memfd), kind 3, correlation 0"#;
    ended.expect(0, &["ready", line, "closed"]);
    assert_eq!(ended.err, "");
    ledger.close();
}

#[test]
fn a_wrong_command_line_ends_with_64_and_one_sentence() {
    let ledger = Ledger::open();
    for (words, said) in [
        ("serve --profile packet", "--fd <N>"),
        ("serve --fd 3", "--profile"),
        ("serve --fd 3 --profile tcp", "invalid value 'tcp'"),
        ("serve --fd -1 --profile packet", "-1"),
        ("serve --fd 3 --profile packet --max-descriptors 254", "254 is not in 0..=253"),
        ("serve --fd 3 --profile packet --handshake", "only the wire stream has a handshake"),
        ("serve --fd 99 --profile packet", "no descriptor of that number is open"),
        ("serve --fd 0 --profile packet", "no socket"),
        ("serve --fd 0 --profile send-fd", "no socket"),
        ("nonsense", "unrecognized subcommand 'nonsense'"),
    ] {
        let ended = run(words);
        ended.expect(64, &[]);
        ended.says(said);
    }
    // The wrong type of socket is the caller's mistake too.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ended = start(&serve("packet", ""), theirs.into()).finish();
    ended.expect(64, &[]);
    ended.says("needs a socket of type");
    drop(ours);
    assert_eq!(run("").status, Some(64), "no subcommand");
    for help in ["--help", "serve --help", "send --help", "run --help", "--version"] {
        let ended = run(help);
        assert_eq!((ended.status, &ended.err[..], ended.out.is_empty()), (Some(0), "", false), "{help}");
    }
    ledger.close();
}

#[test] // P2
fn an_inherited_descriptor_is_a_duplicate_of_its_own() {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::os::fd::AsRawFd;
    let ledger = Ledger::open();
    let file = files(1).remove(0);
    let copy = fdpost::inherited(file.as_raw_fd()).unwrap();
    assert_eq!((identity(&copy), ledger.more()), (identity(&file), 2));
    let flags = FdFlag::from_bits_retain(fcntl(&copy, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    let standard = fdpost::inherited(0).unwrap();
    assert!(standard.as_raw_fd() > 2);
    drop(copy);
    assert_eq!(identity(&file), identity(&fdpost::inherited(file.as_raw_fd()).unwrap()), "still open");
    let closed = file.as_raw_fd();
    drop((file, standard));
    for number in [closed, -1, i32::MAX] {
        let error = fdpost::inherited(number).unwrap_err();
        assert_eq!(error.errno(), Some(nix::errno::Errno::EBADF as i32), "{number}");
    }
    ledger.close();
}

#[test] // the events are what others rely on: losing them is an error
fn an_output_that_fails_is_said() {
    let ledger = Ledger::open();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" >/dev/full"]).arg(env!("CARGO_BIN_EXE_fdpost"));
    shell.args(serve("stream", "").split_whitespace());
    let ended = start_with(shell, Some(theirs.into())).finish();
    ended.expect(74, &[]);
    ended.says("standard output");
    drop(ours);
    ledger.close();
}

#[test] // the status is a contract, whoever reads the sentence
fn the_status_is_the_same_where_nobody_reads_the_sentence() {
    let ledger = Ledger::open();
    for (words, status) in [
        ("serve --listen @ --profile packet", 64),
        ("serve --profile packet --no-such-option", 64),
        ("send --connect /no/such/socket --profile packet --data x", 74),
        ("call --profile packet --data x --timeout 50 -- sleep 60", 75),
    ] {
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full"]).arg(env!("CARGO_BIN_EXE_fdpost"));
        shell.args(words.split_whitespace());
        start_with(shell, None).finish().expect(status, &[]);
    }
    ledger.close();
}

#[test]
fn completions_and_manual_pages_are_printed() {
    let ledger = Ledger::open();
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&format!("completions {shell}"));
        assert_eq!(ended.status, Some(0));
        assert!(ended.out.iter().any(|line| line.contains("max-descriptors")), "{shell}");
    }
    let page = run("man serve");
    assert_eq!(page.status, Some(0));
    assert!(page.out.iter().any(|line| line.contains("max\\-descriptors")), "{:?}", page.out);
    assert!(run("man").out.iter().any(|line| line.contains("fdpost\\-serve")));
    let unknown = run("man nonsense");
    unknown.expect(64, &[]);
    unknown.says("no subcommand nonsense");
    ledger.close();
}

/// The other side in Python, by the documented bytes alone: `socket.send_fds` and `recv_fds`.
const PYTHON: &str = r#"
import json, os, socket, struct, subprocess, sys, tempfile
def serve(kind, profile, *options):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    command = [sys.argv[1], "serve", "--fd", str(theirs.fileno()), "--profile", profile, "--json", *options]
    child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE)
    theirs.close()
    ours.settimeout(30)
    return ours, child
def end(ours, child):
    ours.close()
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 0, (child.returncode, out)
    return [json.loads(line) for line in out.splitlines()]
def same(one, two):
    return os.path.sameopenfile(one, two)
file = tempfile.TemporaryFile()
# A message is sent in two pieces: the machine may stall between them.
echo = ["--reply", "reverse", "--max-descriptors", "1", "--assembly-timeout", "30000"]

ours, child = serve(socket.SOCK_STREAM, "stream", *echo)
ours.sendall(struct.pack("=IIB3x", 7, 3, 1) + b"abc")
socket.send_fds(ours, [b"\x77"], [file.fileno()])
data, fds = b"", []
while len(data) < 16:
    more, got, _, _ = socket.recv_fds(ours, 16 - len(data), 2)
    data, fds = data + more, fds + got
assert data == struct.pack("=IIB3x", 7, 3, 1) + b"cba\x77", data
assert len(fds) == 1 and same(fds[0], file.fileno())
events = end(ours, child)
assert [event["event"] for event in events] == ["ready", "message", "closed"], events
assert events[1] == dict(event="message", bytes=3, descriptors=1, kinds=["file"], data="616263", kind=7), events

ours, child = serve(socket.SOCK_DGRAM, "libcamera", "--idle-timeout", "3000", *echo)
ours.send(struct.pack("=IB3x", 3, 1))
socket.send_fds(ours, [b"abc"], [file.fileno()])
assert ours.recv(100) == struct.pack("=IB3x", 3, 1)
data, fds, _, _ = socket.recv_fds(ours, 100, 2)
assert data == b"cba" and len(fds) == 1 and same(fds[0], file.fileno())
assert [event["event"] for event in end(ours, child)] == ["ready", "message", "idle"]

ours, child = serve(socket.SOCK_SEQPACKET, "packet", *echo)
socket.send_fds(ours, [struct.pack("<BBBBIII", 1, 0, 1, 1, 3, 7, 9) + b"abc"], [file.fileno()])
data, fds, _, _ = socket.recv_fds(ours, 100, 2)
assert data == struct.pack("<BBBBIII", 1, 1, 1, 0, 3, 7, 9) + b"cba", data
assert len(fds) == 1 and same(fds[0], file.fileno())
assert [event["event"] for event in end(ours, child)] == ["ready", "message", "closed"]

ours, child = serve(socket.SOCK_STREAM, "send-fd", *echo)
socket.send_fds(ours, [b"\0\0"], [file.fileno()])
data, fds, _, _ = socket.recv_fds(ours, 2, 2)
assert data == b"\0\0" and len(fds) == 1 and same(fds[0], file.fileno())
ours.sendall(b"no\0\x09")
assert ours.recv(4, socket.MSG_WAITALL) == b"on\0\x09"
assert [event["event"] for event in end(ours, child)] == ["ready", "message", "peer-error", "closed"]
print("four wires")
"#;

#[test] // P1
fn python_speaks_to_it_on_every_wire() {
    let ledger = Ledger::open();
    if let Some(python) = cli::python(PYTHON) {
        let ended = start_with(python, None).finish();
        ended.expect(0, &["four wires"]);
    }
    ledger.close();
}
