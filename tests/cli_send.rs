//! `fdpost send`: what leaves, what comes back, and every exit status.

#[path = "support/cli.rs"]
mod cli;
mod support;

use std::fs::{self, File};
use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cli::{FD, fdpost, run, start, start_with};
use fdpost::driver::{FdReply, receive_fd, send_error, send_fd};
use fdpost::profile::packet::REPLY;
use fdpost::{Channel, Head, Libcamera, Limits, Memfd, Message, Packet, Profile, Stream};
use support::{Ledger, files, identity, packet_header, raw_send, soon};

/// A directory of this test's own, gone when it ends.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

fn send(profile: &str, options: &str) -> String {
    format!("send --fd {FD} --profile {profile} --json --timeout 20000 {options}")
}

/// Payload and two open files arrive, in order and read-only.
fn arrives<P: Profile>(options: &str, kind: u32) {
    let ledger = Ledger::open();
    let directory = Directory::new(P::NAME);
    let names = [directory.file("one", b"1"), directory.file("two", b"2")];
    let (mut channel, theirs) = Channel::<P>::pair(Limits::new().descriptors(2)).unwrap();
    let attached = format!("--attach {} --attach {}", names[0], names[1]);
    let command = start(&send(P::NAME, &format!("--data hello {attached} {options}")), theirs);
    let message = channel.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.head()), (&b"hello"[..], &Head { kind, ..Head::default() }));
    for (index, name) in names.iter().enumerate() {
        let descriptor = message.descriptor(index).unwrap();
        assert_eq!(identity(descriptor), PathBuf::from(name));
        let mut file = File::from(descriptor.try_clone().unwrap());
        assert!(file.write_all(b"x").is_err(), "open for writing");
    }
    command.finish().expect(0, &[]);
    drop((channel, message));
    drop(directory);
    ledger.close();
}

#[test] // P1, P2
fn each_wire_carries_text_and_open_files() {
    arrives::<Libcamera>("", 0);
    arrives::<Packet>("--kind 7", 7);
    arrives::<Stream>("--kind 4294967295", u32::MAX);
}

#[test] // P1
fn data_comes_from_a_file_and_from_standard_input() {
    let ledger = Ledger::open();
    let directory = Directory::new("data");
    let bytes: Vec<u8> = (0..=255).collect();
    let name = directory.file("bytes", &bytes);
    let (mut channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    start(&send("stream", &format!("--data-file {name}")), theirs.try_clone().unwrap())
        .finish()
        .expect(0, &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), bytes);
    let mut command = fdpost(&send("stream", "--data-file -"));
    command.stdin(Stdio::from(File::open(&name).unwrap()));
    start_with(command, Some(theirs)).finish().expect(0, &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), bytes);
    drop(channel);
    drop(directory);
    ledger.close();
}

#[test] // P1, P2
fn a_reply_is_printed_and_its_descriptors_are_saved() {
    let ledger = Ledger::open();
    let directory = Directory::new("saved");
    let into = directory.0.join("new");
    let (mut channel, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    let options = format!("--data ask --expect-reply --save-descriptors {}", into.display());
    let command = start(&send("packet", &options), theirs);
    let request = channel.receive_by(soon()).unwrap();
    let asked = Head { kind: 0, correlation: 1, flags: 0, reply_descriptors: 253 };
    assert_eq!((request.payload(), request.head()), (&b"ask"[..], &asked));
    let mut file = File::open(directory.file("file", b"on disk")).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    let head = Head { flags: REPLY, reply_descriptors: 0, ..asked };
    let reply = Message::new(b"told").with_head(head).with(Memfd::sealed("memory", b"in memory").unwrap());
    let reply = reply.with(File::open("/usr").unwrap().into()).with(file.try_clone().unwrap().into());
    // Open for writing only: it has contents, and nobody here may read them.
    let write_only = File::create(directory.0.join("write-only")).unwrap();
    channel.send(reply.with(write_only.into())).unwrap();
    let line = r#"{"event":"message","bytes":4,"descriptors":4,"kinds":["memfd","directory","file","file"],"data":"746f6c64","kind":0,"correlation":1}"#;
    command.finish().expect(0, &[line]);
    let saved = |name: &str| fs::read_to_string(into.join(name)).unwrap();
    assert_eq!((saved("0"), saved("2")), ("in memory".to_owned(), "on disk".to_owned()));
    assert_eq!(saved("1.txt"), "directory: it has no contents to copy\n");
    assert!(saved("3.txt").starts_with("file: Bad file descriptor"), "{}", saved("3.txt"));
    let mut names: Vec<_> = fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0", "1.txt", "2", "3.txt"]);
    assert_eq!(file.stream_position().unwrap(), 7, "the offset is the sender's");
    drop((channel, request, file));
    drop(directory);
    ledger.close();
}

#[test] // P5
fn no_reply_in_time_ends_with_75() {
    let ledger = Ledger::open();
    let (channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    let words = format!("send --fd {FD} --profile stream --expect-reply --timeout 50 --json");
    let ended = start(&words, theirs).finish();
    ended.expect(75, &[]);
    ended.says("no reply came in time");
    drop(channel);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let words = format!("send --fd {FD} --profile send-fd --error 1 --expect-reply --timeout 50");
    start(&words, theirs.into()).finish().expect(75, &[]);
    drop(ours);
    ledger.close();
}

#[test] // P5: nor does sending wait for ever
fn a_peer_that_does_not_read_ends_it_with_75() {
    let ledger = Ledger::open();
    let (channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    let directory = Directory::new("large");
    let large = directory.file("large", &vec![0; 4 << 20]);
    let words = format!("send --fd {FD} --profile stream --timeout 50 --data-file {large}");
    let ended = start(&words, theirs).finish();
    ended.expect(75, &[]);
    ended.says("not sent");
    drop(channel);
    drop(directory);
    ledger.close();
}

#[test] // P3
fn a_reply_that_breaks_a_rule_ends_with_65() {
    let ledger = Ledger::open();
    let (channel, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    raw_send(&channel.as_fd().try_clone_to_owned().unwrap(), &packet_header(5, 0), &[]);
    let ended = start(&send("packet", "--expect-reply"), theirs).finish();
    let line = r#"{"event":"violation","rule":"frame-overrun","declared":5,"remaining":0,"text":"a frame declares 5 bytes where 0 are left in its packet"}"#;
    ended.expect(65, &[line]);
    ended.says("frame-overrun");
    drop(channel);
    ledger.close();
}

#[test]
fn a_peer_that_closes_or_is_gone_ends_it_with_74() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    let command = start(&send("stream", "--expect-reply"), theirs);
    drop(channel.receive_by(soon()).unwrap());
    drop(channel);
    let ended = command.finish();
    ended.expect(74, &[r#"{"event":"closed"}"#]);
    ended.says("closed without a reply");
    let (channel, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    drop(channel);
    let ended = start(&send("packet", "--data x"), theirs).finish();
    ended.expect(74, &[]);
    ended.says("the peer is gone");
    ledger.close();
}

#[test]
fn it_begins_the_handshake() {
    let ledger = Ledger::open();
    let (mut channel, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    channel.send(Message::new([0xf1])).unwrap();
    let ended = start(&send("stream", "--handshake --data x"), theirs).finish();
    ended.expect(0, &[r#"{"event":"handshake"}"#]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), [0x1f]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"x");
    let (silent, theirs) = Channel::<Stream>::pair(Limits::new()).unwrap();
    let ended = start(&send("stream", "--handshake --data x"), theirs).finish();
    assert_eq!(ended.status, Some(65));
    ended.says("handshake");
    drop((channel, silent));
    ledger.close();
}

#[test] // P1
fn send_fd_carries_a_file_or_an_error_both_ways() {
    let ledger = Ledger::open();
    let (ours, theirs) = UnixStream::pair().unwrap();
    send_fd(&ours, &files(1)[0]).unwrap();
    let words = send("send-fd", "--attach /usr --expect-reply");
    let ended = start(&words, theirs.try_clone().unwrap().into()).finish();
    ended.expect(0, &[r#"{"event":"message","bytes":0,"descriptors":1,"kinds":["memfd"],"data":""}"#]);
    let FdReply::Descriptor(came) = receive_fd(&ours, soon()).unwrap() else { panic!("an error") };
    assert_eq!(identity(&came), PathBuf::from("/usr"));
    send_error(&ours, 9, b"no").unwrap();
    let ended = start(&send("send-fd", "--error 255 --data why --expect-reply"), theirs.into()).finish();
    ended.expect(0, &[r#"{"event":"peer-error","status":9,"data":"6e6f"}"#]);
    let FdReply::Error { status, text } = receive_fd(&ours, soon()).unwrap() else { panic!("no error") };
    assert_eq!((status, &text[..]), (255, &b"why"[..]));
    drop((ours, came));
    ledger.close();
}

#[test]
fn what_a_wire_has_no_place_for_ends_with_64() {
    let ledger = Ledger::open();
    for (words, said) in [
        ("--profile libcamera", "no empty messages"),
        ("--profile libcamera --data x --kind 1", "no kind"),
        ("--profile packet --error 1", "only send-fd sends errors"),
        ("--profile packet --handshake", "only the wire stream"),
        ("--profile packet --data x --data-file y", "cannot be used with"),
        ("--profile packet --kind x", "invalid value 'x'"),
        ("--profile packet --save-descriptors x", "--expect-reply"),
        ("--profile send-fd", "one descriptor or an error"),
        ("--profile send-fd --attach a --attach b", "one descriptor or an error"),
        ("--profile send-fd --attach a --data x", "text with an error only"),
        ("--profile send-fd --error 0", "status 0"),
        ("--profile send-fd --error 256", "256"),
        ("--profile send-fd --error 1 --kind 1", "no kind"),
        ("--profile packet --fd 99", "no descriptor of that number"),
    ] {
        let fd = if words.contains("--fd") { "" } else { "--fd 3" };
        let ended = run(&format!("send {fd} {words}"));
        ended.expect(64, &[]);
        ended.says(said);
    }
    let (ours, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    let ended = start(&send("packet", "--attach /nonexistent"), theirs).finish();
    ended.expect(74, &[]);
    assert!(ended.err.contains("/nonexistent") && ended.err.lines().count() == 1, "{}", ended.err);
    drop(ours);
    ledger.close();
}
