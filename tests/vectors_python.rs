//! Peers written in Python, with `socket.socketpair`, `sendmsg` and `recv_fds`: another
//! implementation of every wire on the other end, in both directions.

mod support;

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fdpost::driver::{FdReply, receive_fd, send_error, send_fd};
use fdpost::{Channel, Head, Libcamera, Limits, Memfd, Message, Packet, Profile, Stream};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use support::{Ledger, soon};

const LIMITS: Limits = Limits::new().descriptors(16);

fn vectors(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file)
}

/// Python, or nothing where there is none (said in words) or an old one (`recv_fds` came with 3.9).
fn python() -> Option<Command> {
    let mut probe = Command::new("python3");
    probe.args(["-c", "import os, socket; socket.recv_fds; os.memfd_create"]).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(Command::new("python3"));
    }
    println!("skipped: no python3 with socket.recv_fds (apt-get install python3)");
    None
}

/// A peer and the end that it made and handed over.
fn peer(wire: &str, kind: &str) -> Option<(Child, OwnedFd)> {
    let mut python = python()?;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    python.arg(vectors("peer.py")).args([wire, kind]).stdin(theirs);
    let child = python.spawn().unwrap();
    match receive_fd(&ours, soon()).unwrap() {
        FdReply::Descriptor(socket) => Some((child, socket)),
        reply => panic!("{reply:?}"),
    }
}

fn text(descriptor: impl AsFd) -> Vec<u8> {
    let descriptor = descriptor.as_fd().try_clone_to_owned().unwrap();
    let mut bytes = vec![0; 64];
    let length = nix::sys::uio::pread(&descriptor, &mut bytes, 0).unwrap();
    bytes.truncate(length);
    bytes
}

fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// Sends messages of many shapes, each answered; `head` and `answer` are the wire's own.
fn converse<P: Profile>(kind: &str, head: Head, answer: Head) {
    let ledger = Ledger::open();
    let Some((mut child, socket)) = peer(P::NAME, kind) else { return };
    let mut channel = Channel::<P>::from_fd(socket, LIMITS).unwrap();
    for (bytes, count) in [(1, 0), (5, 1), (0, 3), (4096, 16), (60_000, 2), (256, 0)] {
        let payload: Vec<u8> = (0..bytes).map(|index| (index % 255) as u8).collect();
        let texts: Vec<Vec<u8>> = (0..count).map(|index| format!("text {index};").into_bytes()).collect();
        let message = Message::new(payload.clone()).with_head(head);
        let memfds = texts.iter().map(|text| Memfd::sealed("ours", text).unwrap());
        channel.send(memfds.fold(message, Message::with)).unwrap();

        let mut reply = channel.receive_by(soon()).unwrap();
        assert_eq!(*reply.head(), answer, "{}", P::NAME);
        let expected = [&reversed(&payload)[..], b"|", &texts.concat()].concat();
        assert!(reply.payload() == expected, "{}: {bytes} bytes, {count} descriptors", P::NAME);
        let came: Vec<Vec<u8>> = reply.take_all().map(text).collect();
        assert_eq!(came, texts.iter().map(|text| reversed(text)).collect::<Vec<_>>());
    }
    channel.send(Message::new(b"end").with_head(head)).unwrap();
    assert!(child.wait().unwrap().success());
    drop(channel);
    ledger.close();
}

#[test] // P1, P2
fn libcamera_with_python() {
    converse::<Libcamera>("DGRAM", Head::default(), Head::default());
}

#[test] // P1, P2
fn packet_with_python() {
    let head = Head { kind: 6, correlation: 99, reply_descriptors: 16, ..Head::default() };
    let answer = Head { kind: 7, correlation: 99, flags: 1, reply_descriptors: 0 };
    converse::<Packet>("SEQPACKET", head, answer);
}

#[test] // P1, P2
fn stream_with_python() {
    let head = Head { kind: 6, ..Head::default() };
    converse::<Stream>("STREAM", head, Head { kind: 7, ..head });
}

#[test] // P1, P2
fn send_fd_with_python() {
    for kind in ["STREAM", "SEQPACKET", "DGRAM"] {
        let ledger = Ledger::open();
        let Some((mut child, socket)) = peer("send_fd", kind) else { return };
        for status in [1, 2, 200, 255] {
            let words = format!("status {status}");
            send_error(&socket, status, &words).unwrap();
            let FdReply::Error { status: next, text } = receive_fd(&socket, soon()).unwrap() else {
                panic!()
            };
            assert_eq!((next, text), (status % 255 + 1, reversed(words.as_bytes())), "{kind}");
        }
        for words in ["one", "two and more"] {
            send_fd(&socket, Memfd::sealed("ours", words.as_bytes()).unwrap()).unwrap();
            let FdReply::Descriptor(came) = receive_fd(&socket, soon()).unwrap() else { panic!("{kind}") };
            assert_eq!(text(&came), reversed(words.as_bytes()), "{kind}");
        }
        send_error(&socket, 1, "end").unwrap();
        assert!(child.wait().unwrap().success());
        drop(socket);
        ledger.close();
    }
}

#[test]
fn make_py_writes_the_same_vectors_again() {
    let ledger = Ledger::open();
    let Some(mut python) = python() else { return };
    let directory = std::env::temp_dir().join(format!("fdpost-vectors-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let made = python.arg(vectors("make.py")).arg(&directory).status().unwrap();
    assert!(made.success());
    for file in ["stream.json", "send_fd.json"] {
        let [mut kept, mut again] = [String::new(), String::new()];
        std::fs::File::open(vectors(file)).unwrap().read_to_string(&mut kept).unwrap();
        std::fs::File::open(directory.join(file)).unwrap().read_to_string(&mut again).unwrap();
        assert!(!kept.is_empty() && kept == again, "{file} is not what make.py writes");
    }
    std::fs::remove_dir_all(&directory).unwrap();
    ledger.close();
}
