//! `--accept`: which kinds of descriptors the command takes.

#[path = "support/cli.rs"]
mod cli;
mod support;
#[path = "support/inspect.rs"]
mod watched;

use std::fs::File;
use std::os::fd::OwnedFd;

use cli::{Ended, FD, run, start};
use fdpost::driver::send_fd;
use fdpost::{Channel, Libcamera, Limits, Memfd, Message, Packet, Profile, Stream};
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use support::{Ledger, files, is_shut_down, soon};
use watched::{between, end};

/// Milliseconds after which a command that misses what it should refuse ends all the same.
const IDLE: &str = "30000";
const READY: &str = r#"{"event":"ready"}"#;
const CLOSED: &str = r#"{"event":"closed"}"#;

fn pipe() -> OwnedFd {
    pipe2(OFlag::O_CLOEXEC).unwrap().0
}

/// What `serve` says of one message with this descriptor.
fn served<P: Profile>(accept: &str, descriptor: OwnedFd) -> Ended {
    let (mut ours, theirs) = Channel::<P>::pair(Limits::new()).unwrap();
    // Sent before it starts, so that nothing depends on time.
    ours.send(Message::new(b"x").with(descriptor)).unwrap();
    ours.shutdown();
    drop(ours);
    start(&format!("serve --fd {FD} --profile {} --json --idle-timeout {IDLE} {accept}", P::NAME), theirs)
        .finish()
}

fn taken(descriptor: OwnedFd, accept: &str, kind: &str) {
    let ended = served::<Packet>(accept, descriptor);
    let message = format!(
        r#"{{"event":"message","bytes":1,"descriptors":1,"kinds":["{kind}"],"data":"78","kind":0,"correlation":0}}"#
    );
    ended.expect(0, &[READY, &message, CLOSED]);
}

#[track_caller]
fn refused(ended: &Ended, required: &str, found: &str) {
    let violation = format!(
        r#"{{"event":"violation","rule":"descriptor-kind","slot":0,"required":"{required}","found":"{found}","text":"descriptor 0 is {found}, where {required} is accepted"}}"#
    );
    ended.expect(65, &[READY, &violation]);
    ended.says("accept this kind with --accept");
}

#[test] // P9
fn each_kind_is_taken_where_it_is_accepted() {
    let ledger = Ledger::open();
    taken(files(1).remove(0), "--accept memfd", "memfd");
    taken(Memfd::sealed("sealed", b"x").unwrap(), "--accept sealed-memfd", "memfd");
    taken(File::open("/proc/self/exe").unwrap().into(), "--accept file", "file");
    taken(Channel::<Packet>::pair(Limits::new()).unwrap().1, "--accept socket", "socket");
    taken(pipe(), "--accept pipe", "pipe");
    taken(File::open("/dev/null").unwrap().into(), "--accept any", "device");
    // Any of several; and a number of one's own.
    taken(pipe(), "--accept memfd --accept pipe --max-descriptors 1", "pipe");
    ledger.close();
}

#[test] // P9
fn another_kind_is_a_violation_on_every_wire() {
    let ledger = Ledger::open();
    let pipe_end = "a pipe, open for reading";
    refused(&served::<Packet>("--accept memfd", pipe()), "a memfd with seals none", pipe_end);
    refused(&served::<Stream>("--accept socket", pipe()), "a socket", pipe_end);
    refused(&served::<Packet>("--accept file", pipe()), "a regular file", pipe_end);
    let bare = "a memfd or a file on tmpfs of 0 bytes that cannot be sealed";
    let sealed = "a memfd with seals shrink, write";
    refused(&served::<Packet>("--accept sealed-memfd", files(1).remove(0)), sealed, bare);
    refused(&served::<Stream>("--accept pipe --accept pidfd", files(1).remove(0)), "a pipe", bare);
    let (ours, theirs) = Channel::<Libcamera>::pair(Limits::new()).unwrap();
    let mut ours = ours;
    ours.send(Message::new(b"x").with(pipe())).unwrap();
    let words = format!("serve --fd {FD} --profile libcamera --json --idle-timeout {IDLE} --accept pidfd");
    refused(&start(&words, theirs).finish(), "a pidfd", pipe_end);
    drop(ours);
    ledger.close();
}

#[test] // P9
fn send_fd_too() {
    let ledger = Ledger::open();
    for (accept, violated) in [("--accept pipe", false), ("--accept socket --accept memfd", true)] {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        send_fd(&ours, pipe()).unwrap();
        let words = format!("serve --fd {FD} --profile send-fd --json --idle-timeout {IDLE} {accept}");
        let running = start(&words, theirs);
        if violated {
            refused(&running.finish(), "a socket", "a pipe, open for reading");
        } else {
            drop(ours);
            let message = r#"{"event":"message","bytes":0,"descriptors":1,"kinds":["pipe"],"data":""}"#;
            running.finish().expect(0, &[READY, message, CLOSED]);
        }
    }
    ledger.close();
}

#[test] // P3
fn inspect_ends_both_sides() {
    let ledger = Ledger::open();
    let (mut one, mut two, running) = between::<Packet>(&["--accept", "memfd", "--idle-timeout", IDLE]);
    one.send(Message::new(b"good").with(files(1).remove(0))).unwrap();
    assert_eq!(two.receive_by(soon()).unwrap().descriptor_count(), 1);
    two.send(Message::new(b"bad").with(pipe())).unwrap();
    let (status, lines, err) = end(running);
    assert_eq!((status, err.as_str()), (Some(65), ""), "{lines:?}");
    let [.., violation] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&violation["rule"], &violation["from"]), (&"descriptor-kind".into(), &"fd-4".into()));
    assert_eq!(violation["found"], "a pipe, open for reading");
    assert!(is_shut_down(&one) && is_shut_down(&two));
    drop((one, two));

    let pair = || socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let ((one, end_one), (two, end_two)) = (pair(), pair());
    let arguments = [
        "--profile",
        "send-fd",
        "--fd",
        "3",
        "--fd",
        "4",
        "--json",
        "--accept",
        "socket",
        "--idle-timeout",
        IDLE,
    ];
    let running = watched::start(&arguments, vec![end_one, end_two]);
    send_fd(&one, pipe()).unwrap();
    let (status, lines, _) = end(running);
    assert_eq!(status, Some(65), "{lines:?}");
    assert_eq!(lines.last().unwrap()["rule"], "descriptor-kind");
    drop((one, two));
    ledger.close();
}

#[test] // P9
fn a_reply_is_looked_at_too() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    let mut ours = ours;
    let words = format!("send --fd {FD} --profile packet --data x --expect-reply --json --accept memfd");
    let running = start(&words, theirs);
    ours.receive_by(soon()).unwrap();
    let reply = Message::new(b"y").with(pipe());
    ours.send(reply).unwrap();
    let ended = running.finish();
    assert_eq!((ended.status, ended.out.len()), (Some(65), 1), "{ended:?}");
    assert!(ended.out[0].contains(r#""rule":"descriptor-kind""#), "{ended:?}");
    drop(ours);
    ledger.close();
}

#[test]
fn an_unknown_kind_is_usage() {
    let ended = run("serve --fd 3 --profile packet --accept rock");
    assert_eq!(ended.status, Some(64));
    ended.says("rock");
}
