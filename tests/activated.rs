//! Socket activation: listeners that somebody else made.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/meeting.rs"]
mod meeting;
mod support;

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use driver::soon;
use fdpost::{
    Channel, Error, Libcamera, Limits, Listener, Message, Misuse, Packet, PeerRule, Profile, Stream,
    activated,
};
use meeting::Directory;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use support::{Ledger, assert_child, child_value};

const LIMITS: Limits = Limits::new();

/// What a manager does: a socket that listens at `path`.
fn manage(path: &Path, kind: SockType) -> OwnedFd {
    let listening = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listening.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listening, Backlog::new(8).unwrap()).unwrap();
    listening
}

/// Starts the test again as a service with these sockets from number 3 on, and these variables.
fn service(test: &str, sockets: &[&OwnedFd], variables: &str) -> Child {
    // What whoever runs the tests left open would be taken for a manager's.
    let others: String = (3 + sockets.len()..10).map(|number| format!(" {number}>&-")).collect();
    let script = format!("{variables} exec \"$0\" \"$@\"{others}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("FDPOST_CHILD", "service");
    let mappings = (3..)
        .zip(sockets)
        .map(|(child_fd, socket)| FdMapping { parent_fd: socket.try_clone().unwrap(), child_fd });
    command.fd_mappings(mappings.collect()).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Serves one client: says who it is.
fn serve_one<P: Profile>(socket: OwnedFd, name: &str) {
    let listener = Listener::<P>::from_fd(socket, LIMITS, PeerRule::new()).unwrap();
    let mut served = listener.accept_by(soon()).unwrap();
    served.send(Message::new(name)).unwrap();
    assert_eq!(served.receive_by(soon()).unwrap_err(), Error::Closed);
}

#[test]
fn a_manager_hands_over_its_sockets_by_name() {
    const NAME: &str = "a_manager_hands_over_its_sockets_by_name";
    if child_value().is_some() {
        for number in [3, 4] {
            assert!(!closes_on_exec(number));
        }
        let sockets = activated().unwrap();
        // Not the originals, which nobody owns here; and no child of this process gets either.
        for (one, number) in sockets.iter().zip([3, 4]) {
            assert!(one.socket.as_raw_fd() > 4);
            assert!(closes_on_exec(number) && closes_on_exec(one.socket.as_raw_fd()));
        }
        assert_eq!(activated().unwrap().len(), 2, "it may be asked again");
        for one in sockets {
            match &one.name[..] {
                "control" => serve_one::<Packet>(one.socket, "control"),
                other => serve_one::<Stream>(one.socket, other),
            }
        }
        return;
    }
    let ledger = Ledger::open();
    let directory = Directory::new();
    let (control, data) = (directory.join("control"), directory.join("data"));
    let sockets = [manage(&control, SockType::SeqPacket), manage(&data, SockType::Stream)];
    let variables = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=control:data";
    // The second time over what the first left: the manager's sockets, O_NONBLOCK by now.
    for _ in 0..2 {
        let started = service(NAME, &[&sockets[0], &sockets[1]], variables);
        let mut client = Channel::<Packet>::connect_by(&control, LIMITS, soon()).unwrap();
        assert_eq!(client.receive_by(soon()).unwrap().payload(), b"control");
        drop(client);
        let mut client = Channel::<Stream>::connect_by(&data, LIMITS, soon()).unwrap();
        assert_eq!(client.receive_by(soon()).unwrap().payload(), b"data");
        drop(client);
        assert_child(&started.wait_with_output().unwrap());
        assert_eq!(directory.names(), ["control", "data"], "the files are the manager's");
    }
    drop((sockets, directory));
    ledger.close();
}

#[allow(unsafe_code, reason = "a number has no other form")]
fn closes_on_exec(number: i32) -> bool {
    // SAFETY: it is open: a manager left it, or it is owned by who asks.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    FdFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFD).unwrap()).contains(FdFlag::FD_CLOEXEC)
}

#[test]
fn variables_for_another_process_are_none_of_ours() {
    const NAME: &str = "variables_for_another_process_are_none_of_ours";
    if child_value().is_some() {
        assert!(activated().unwrap().is_empty());
        return;
    }
    let ledger = Ledger::open();
    for variables in ["LISTEN_PID=1 LISTEN_FDS=1", "LISTEN_FDS=1", "LISTEN_PID=$$ LISTEN_FDS=0", ""] {
        assert_child(&service(NAME, &[], variables).wait_with_output().unwrap());
    }
    ledger.close();
}

#[test]
fn what_was_announced_and_is_not_open_is_an_error() {
    const NAME: &str = "what_was_announced_and_is_not_open_is_an_error";
    if child_value().is_some() {
        let error = activated().unwrap_err();
        assert!(matches!(error, Error::Io { call: "fcntl", errno: nix::libc::EBADF }), "{error:?}");
        return;
    }
    let ledger = Ledger::open();
    // More than may be open.
    assert_child(&service(NAME, &[], "LISTEN_PID=$$ LISTEN_FDS=1000000").wait_with_output().unwrap());
    ledger.close();
}

#[test]
fn what_is_no_listener_of_the_wire_is_named() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let refuse = |socket: OwnedFd| Listener::<Packet>::from_fd(socket, LIMITS, PeerRule::new()).unwrap_err();
    let (channel, end) = Channel::<Packet>::pair(LIMITS).unwrap();
    assert_eq!(refuse(end), Error::Misuse(Misuse::NotListening));
    let stream = UnixListener::bind(directory.join("stream")).unwrap();
    let wrong = refuse(stream.into());
    assert!(matches!(wrong, Error::Misuse(Misuse::SocketType { wire: "packet", .. })), "{wrong:?}");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(matches!(refuse(tcp.into()), Error::Misuse(Misuse::NotUnix { .. })));
    assert!(matches!(refuse(support::files(1).remove(0)), Error::Io { call: "getsockopt", .. }));
    let listening = manage(&directory.join("packet"), SockType::SeqPacket);
    let twin = listening.try_clone().unwrap();
    let pairs = Listener::<Libcamera>::from_fd(twin, LIMITS, PeerRule::new()).unwrap_err();
    assert_eq!(pairs, Error::Misuse(Misuse::PairsOnly { wire: "libcamera" }));
    let twin = listening.try_clone().unwrap();
    let limit = Listener::<Packet>::from_fd(twin, LIMITS.descriptors(254), PeerRule::new()).unwrap_err();
    assert!(matches!(limit, Error::Misuse(Misuse::LimitOutOfRange { .. })));
    // As `PassSecurity=` sets it: each connection would have it, and be refused for it.
    let twin = listening.try_clone().unwrap();
    driver::set_option(&twin, nix::libc::SO_PASSSEC, 1).unwrap();
    let crowded = Listener::<Packet>::from_fd(twin, LIMITS, PeerRule::new()).unwrap_err();
    assert_eq!(crowded, Error::Misuse(Misuse::SocketOption { option: "SO_PASSSEC" }));
    driver::set_option(&listening, nix::libc::SO_PASSSEC, 0).unwrap();
    assert!(!flags(&listening).contains(OFlag::O_NONBLOCK), "what is refused stays as it was");
    let twin = listening.try_clone().unwrap();
    drop(Listener::<Packet>::from_fd(twin, LIMITS, PeerRule::new()).unwrap());
    assert!(flags(&listening).contains(OFlag::O_NONBLOCK));
    drop((channel, listening, directory));
    ledger.close();
}

fn flags(socket: &impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(socket.as_fd(), FcntlArg::F_GETFL).unwrap())
}

#[test] // P5
fn a_listener_that_another_holder_shut_down_is_over() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let listening = manage(&directory.join("socket"), SockType::SeqPacket);
    let twin = listening.try_clone().unwrap();
    let listener = Listener::<Packet>::from_fd(twin, LIMITS, PeerRule::new()).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| listener.accept());
        nix::sys::socket::shutdown(listening.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap_err(), Error::Closed);
    });
    drop((listener, listening, directory));
    ledger.close();
}
