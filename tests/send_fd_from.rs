//! `send_fd` on datagram sockets bound at a path, to which anyone may send (`docs/PROTOCOL.md`,
//! SF-10 and SF-11).

mod support;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fdpost::Credentials;
use fdpost::driver::{FdReply, receive_fd, receive_fd_from, send_error, send_fd};
use fdpost::{Channel, Deadline, Error, Libcamera, Limits, Misuse, Violation};
use nix::libc::{SOCK_DGRAM, SOCK_STREAM};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use support::{Ledger, child_value, files, identity, libcamera_header, raw_send, soon};

/// A socket bound at a path of its own, which is gone with it.
struct Bound {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Bound {
    fn new(name: &str, credentials: bool) -> Self {
        let path = std::env::temp_dir().join(format!("fdpost-{}-{name}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        setsockopt(&socket, sockopt::PassCred, &credentials).unwrap();
        Self { socket, path }
    }

    fn sender(&self) -> OwnedFd {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(&self.path).unwrap();
        socket.into()
    }

    fn receive(&self, rule: impl FnOnce(&Credentials) -> bool) -> Result<(FdReply, Credentials), Error> {
        receive_fd_from(&self.socket, &Limits::new(), soon(), rule)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// This process, as the kernel names it.
fn us() -> Credentials {
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    Credentials { pid: std::process::id() as i32, uid, gid }
}

/// The same test in another process, which sends what `FDPOST_CHILD` says.
fn spawn(test: &str, say: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--test-threads=1"]).env("FDPOST_CHILD", say);
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test] // P2, P9
fn sf_10_anyone_may_send_and_a_rule_decides() {
    if let Some(path) = child_value() {
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(path).unwrap();
        send_error(&socket, 5, "from another process").unwrap();
        send_fd(&socket, io::stdin()).unwrap();
        return;
    }
    let ledger = Ledger::open();
    let bound = Bound::new("anyone", true);
    let test = "sf_10_anyone_may_send_and_a_rule_decides";
    let mut child = spawn(test, bound.path.to_str().unwrap());
    let theirs = Credentials { pid: child.id() as i32, ..us() };

    let (reply, sender) = bound.receive(|sender| sender.uid == us().uid).unwrap();
    let FdReply::Error { status: 5, text } = reply else { panic!("{reply:?}") };
    assert_eq!((text, sender), (b"from another process".to_vec(), theirs));
    // Not everybody: the message is dropped with its descriptor, and names its sender.
    let Credentials { pid, uid, gid } = theirs;
    let refused = bound.receive(|sender| *sender == us()).unwrap_err();
    assert_eq!(refused, Error::SenderRefused { pid, uid, gid });
    assert!(child.wait().unwrap().success());

    // The socket is as usable as before, for this process and for a message that is none.
    let sender = bound.sender();
    let file = files(1).remove(0);
    for bytes in [&b"no status"[..], b"\0", b"", b"\0\0\0"] {
        raw_send(&sender, bytes, &[]);
        let zeros = bytes.iter().filter(|byte| **byte == 0).count() as u64;
        let expected = Violation::Status { bytes: bytes.len() as u64, zeros };
        assert_eq!(bound.receive(|_| true).unwrap_err(), Error::Violation(expected));
    }
    for (status, count, expected) in [
        (0, 0, Violation::DescriptorCount { declared: 1, received: 0 }),
        (0, 2, Violation::DescriptorCount { declared: 1, received: 2 }),
        (1, 1, Violation::DescriptorUnexpected { received: 1 }),
    ] {
        raw_send(&sender, &[0, status], &files(count));
        assert_eq!(bound.receive(|_| true).unwrap_err(), Error::Violation(expected));
    }
    send_fd(&sender, &file).unwrap();
    let (FdReply::Descriptor(came), from) = bound.receive(|_| true).unwrap() else { panic!("an error") };
    assert_eq!((identity(&came), from), (identity(&file), us()));
    // Whose message is refused is not judged by what it says.
    raw_send(&sender, b"nonsense", &files(2));
    let Credentials { pid, uid, gid } = us();
    assert_eq!(bound.receive(|_| false).unwrap_err(), Error::SenderRefused { pid, uid, gid });
    let waited = receive_fd_from(&bound.socket, &Limits::new(), Deadline::after(Duration::ZERO), |_| true);
    assert_eq!(waited.unwrap_err(), Error::TimedOut);
    drop((bound, sender, file, came));
    ledger.close();
}

#[test] // P9; case 58
fn sf_10_without_credentials_nothing_is_taken() {
    let ledger = Ledger::open();
    let bound = Bound::new("nobody", false);
    let sender = bound.sender();
    send_fd(&sender, files(1).remove(0)).unwrap();
    assert_eq!(bound.receive(|_| true).unwrap_err(), Error::Misuse(Misuse::NoCredentials));
    // Not even read: with the option on it is still there, and now the kernel says whose it is.
    // (What was sent before carries its sender's names since Linux 3.2 only where the sender asked.)
    setsockopt(&bound.socket, sockopt::PassCred, &true).unwrap();
    send_error(&sender, 9, "afterwards").unwrap();
    let first = bound.receive(|sender| *sender == us());
    assert!(first.is_err() || matches!(first, Ok((FdReply::Descriptor(_), _))), "{first:?}");
    let (reply, from) = bound.receive(|_| true).unwrap();
    assert!(matches!(reply, FdReply::Error { status: 9, .. }) && from == us(), "{reply:?}");
    drop((bound, sender, first));
    ledger.close();
}

#[test] // P1, P9; case 58
fn sf_11_an_unconnected_socket_is_refused() {
    let ledger = Ledger::open();
    let bound = Bound::new("unconnected", true);
    let sender = bound.sender();
    raw_send(&sender, &libcamera_header(3, 0), &[]);
    let refused = receive_fd(&bound.socket, soon()).unwrap_err();
    assert_eq!(refused, Error::Misuse(Misuse::NotConnected));
    // Two senders' headers and payloads would mix.
    let socket = bound.socket.try_clone().unwrap().into();
    let refused = Channel::<Libcamera>::from_fd(socket, Limits::new()).unwrap_err();
    assert_eq!(refused, Error::Misuse(Misuse::NotConnected));
    assert_eq!(refused.to_string(), "the socket is not connected to one peer");
    // Neither read a byte.
    let mut bytes = [0; 64];
    bound.socket.set_nonblocking(true).unwrap();
    assert_eq!(bound.socket.recv(&mut bytes).unwrap(), 8);
    drop((bound, sender));
    ledger.close();
}

#[test]
fn senders_are_a_matter_of_datagrams() {
    let ledger = Ledger::open();
    for kind in [SockType::Stream, SockType::SeqPacket] {
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        setsockopt(&ours, sockopt::PassCred, &true).unwrap();
        send_error(&theirs, 1, "text").unwrap();
        let refused = receive_fd_from(&ours, &Limits::new(), soon(), |_| true).unwrap_err();
        let expected = Misuse::SocketType { wire: "send_fd", expected: SOCK_DGRAM, found: kind as i32 };
        assert_eq!(refused, Error::Misuse(expected));
        // With credentials on, a connected socket is read like any other.
        assert!(matches!(receive_fd(&ours, soon()), Ok(FdReply::Error { status: 1, .. })));
        send_fd(&theirs, files(1).remove(0)).unwrap();
        let reply = receive_fd(&ours, soon()).unwrap();
        assert!(matches!(&reply, FdReply::Descriptor(came) if came.as_raw_fd() >= 3), "{reply:?}");
    }
    assert_eq!(SockType::Stream as i32, SOCK_STREAM);
    ledger.close();
}
