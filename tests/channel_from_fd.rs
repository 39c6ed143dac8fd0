//! What a socket must be to become a channel, and what `from_fd` leaves alone.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{after, message, set_option, soon};
use fdpost::{Channel, Error, Libcamera, Limits, Misuse, Packet, Profile};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, connect, getsockname, listen, socket,
    socketpair,
};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use support::{Ledger, files};

const UNIX: AddressFamily = AddressFamily::Unix;

fn made(kind: SockType) -> OwnedFd {
    socket(UNIX, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn connected(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(UNIX, kind, None, SockFlag::empty()).unwrap()
}

/// Bound to an address of the kernel's choice.
fn bound(kind: SockType) -> (OwnedFd, UnixAddr) {
    let made = made(kind);
    bind(made.as_raw_fd(), &UnixAddr::new_unnamed()).unwrap();
    let address = getsockname(made.as_raw_fd()).unwrap();
    (made, address)
}

#[track_caller]
fn refused<P: Profile>(socket: impl Into<OwnedFd>) -> Error {
    let socket = socket.into();
    let number = socket.as_raw_fd();
    let error = Channel::<P>::from_fd(socket, Limits::new()).unwrap_err();
    assert!(!support::descriptors().contains_key(&number), "a refused socket is closed");
    error
}

#[test] // P9
fn what_is_no_unix_socket() {
    let ledger = Ledger::open();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(refused::<Packet>(stream), Misuse::NotUnix { domain: libc::AF_INET }.into());
    assert_eq!(refused::<Packet>(listener), Misuse::NotUnix { domain: libc::AF_INET }.into());
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagram.connect(datagram.local_addr().unwrap()).unwrap();
    assert_eq!(refused::<Libcamera>(datagram), Misuse::NotUnix { domain: libc::AF_INET }.into());
    let no_socket = Error::Io { call: "getsockopt", errno: Errno::ENOTSOCK as i32 };
    assert_eq!(refused::<Packet>(files(1).remove(0)), no_socket);
    assert_eq!(refused::<Libcamera>(nix::unistd::pipe().unwrap().0), no_socket);
    ledger.close();
}

#[test] // P9
fn a_socket_of_another_type() {
    let ledger = Ledger::open();
    let (packet, datagram, stream) = (libc::SOCK_SEQPACKET, libc::SOCK_DGRAM, libc::SOCK_STREAM);
    for (kind, found) in [(SockType::Datagram, datagram), (SockType::Stream, stream)] {
        let error = Misuse::SocketType { wire: "packet", expected: packet, found };
        assert_eq!(refused::<Packet>(connected(kind).0), error.into());
    }
    for (kind, found) in [(SockType::SeqPacket, packet), (SockType::Stream, stream)] {
        let error = Misuse::SocketType { wire: "libcamera", expected: datagram, found };
        assert_eq!(refused::<Libcamera>(connected(kind).0), error.into());
    }
    ledger.close();
}

#[test] // P9; case 58
fn a_socket_without_one_peer() {
    let ledger = Ledger::open();
    let (listening, _) = bound(SockType::SeqPacket);
    listen(&listening, Backlog::new(1).unwrap()).unwrap();
    assert_eq!(refused::<Packet>(listening), Misuse::Listening.into());
    assert_eq!(refused::<Packet>(made(SockType::SeqPacket)), Misuse::NotConnected.into());
    assert_eq!(refused::<Packet>(bound(SockType::SeqPacket).0), Misuse::NotConnected.into());
    assert_eq!(refused::<Libcamera>(made(SockType::Datagram)), Misuse::NotConnected.into());
    assert_eq!(refused::<Libcamera>(bound(SockType::Datagram).0), Misuse::NotConnected.into());
    ledger.close();
}

#[test] // P2, P9; case 54
fn options_that_crowd_out_descriptors() {
    let ledger = Ledger::open();
    let options = [
        ("SO_TIMESTAMP", libc::SO_TIMESTAMP),
        ("SO_TIMESTAMPNS", libc::SO_TIMESTAMPNS),
        ("SO_TIMESTAMP_NEW", 63),
        ("SO_TIMESTAMPNS_NEW", 64),
        ("SO_PASSSEC", libc::SO_PASSSEC),
        ("SO_TIMESTAMPING", libc::SO_TIMESTAMPING),
    ];
    for (option, name) in options {
        for kind in [SockType::Datagram, SockType::SeqPacket] {
            let (socket, _peer) = connected(kind);
            set_option(&socket, name, if name == libc::SO_TIMESTAMPING { 1 << 3 } else { 1 }).unwrap();
            let error = match kind {
                SockType::Datagram => refused::<Libcamera>(socket),
                _ => refused::<Packet>(socket),
            };
            assert_eq!(error, Misuse::SocketOption { option }.into());
        }
    }
    ledger.close();
}

#[test] // P4
fn limits_that_mean_nothing() {
    let ledger = Ledger::open();
    let (socket, _peer) = connected(SockType::SeqPacket);
    let error = Channel::<Packet>::from_fd(socket, Limits::new().descriptors(254)).unwrap_err();
    let limit = "descriptors";
    assert_eq!(error, Misuse::LimitOutOfRange { limit, value: 254, least: 0, most: 253 }.into());
    let error = Channel::<Libcamera>::pair(Limits::new().minimum_rate(0)).unwrap_err();
    let (limit, most) = ("minimum_rate", u32::MAX.into());
    assert_eq!(error, Misuse::LimitOutOfRange { limit, value: 0, least: 1, most }.into());
    drop(_peer);
    ledger.close();
}

fn takes_it_as_it_is<P: Profile>(kind: SockType) {
    let ledger = Ledger::open();
    for flag in [OFlag::empty(), OFlag::O_NONBLOCK] {
        let (socket, other) = connected(kind);
        fcntl(&socket, FcntlArg::F_SETFL(flag)).unwrap();
        let before = fcntl(&socket, FcntlArg::F_GETFL).unwrap();
        let mut ours = Channel::<P>::from_fd(socket, Limits::new()).unwrap();
        let mut theirs = Channel::<P>::from_fd(other, Limits::new()).unwrap();
        let after_exec = fcntl(&ours, FcntlArg::F_GETFD).unwrap();
        assert_eq!(FdFlag::from_bits_retain(after_exec), FdFlag::FD_CLOEXEC);
        // Waiting and not waiting are the call's choice, not the flag's.
        assert!(ours.try_receive().unwrap().is_none());
        assert_eq!(ours.receive_by(after(20)).unwrap_err(), Error::TimedOut);
        theirs.send(message(b"word", vec![])).unwrap();
        assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"word");
        driver::fill(&mut ours);
        assert_eq!(fcntl(&ours, FcntlArg::F_GETFL).unwrap(), before, "{flag:?}");
    }
    ledger.close();
}

#[test] // P5
fn the_nonblocking_flag_is_neither_needed_nor_changed() {
    takes_it_as_it_is::<Libcamera>(SockType::Datagram);
    takes_it_as_it_is::<Packet>(SockType::SeqPacket);
}

#[test] // P1
fn named_sockets_carry_messages() {
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(1);
    let ((one, first), (two, second)) = (bound(SockType::Datagram), bound(SockType::Datagram));
    connect(one.as_raw_fd(), &second).unwrap();
    connect(two.as_raw_fd(), &first).unwrap();
    goes_over::<Libcamera>(one, two, limits);

    let (listening, address) = bound(SockType::SeqPacket);
    listen(&listening, Backlog::new(1).unwrap()).unwrap();
    let client = made(SockType::SeqPacket);
    connect(client.as_raw_fd(), &address).unwrap();
    let server = owned(accept(listening.as_raw_fd()).unwrap());
    goes_over::<Packet>(client, server, limits);
    drop(listening);
    ledger.close();
}

fn goes_over<P: Profile>(one: OwnedFd, two: OwnedFd, limits: Limits) {
    let mut one = Channel::<P>::from_fd(one, limits).unwrap();
    let mut two = Channel::<P>::from_fd(two, limits).unwrap();
    one.send(message(b"there", files(1))).unwrap();
    assert_eq!(two.receive_by(soon()).unwrap().descriptor_count(), 1);
    two.send(message(b"back", files(1))).unwrap();
    assert_eq!(one.receive_by(soon()).unwrap().payload(), b"back");
}

#[allow(unsafe_code, reason = "accept returns the new descriptor as a number")]
fn owned(number: i32) -> OwnedFd {
    // SAFETY: accept(2) just made it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Both kinds of sender's papers on: they take control space of their own.
fn beside_credentials<P: Profile>(kind: SockType) {
    const SO_PASSPIDFD: i32 = 76;
    let ledger = Ledger::open();
    for options in [&[libc::SO_PASSCRED][..], &[SO_PASSPIDFD], &[libc::SO_PASSCRED, SO_PASSPIDFD]] {
        for count in [0, 1, 2, 3, 253] {
            let (socket, other) = connected(kind);
            if let Some(error) = options.iter().find_map(|name| set_option(&socket, *name, 1).err()) {
                assert_eq!(error, Errno::ENOPROTOOPT);
                println!("skipped: this kernel has no SO_PASSPIDFD (Linux 6.5)");
                continue;
            }
            let limits = Limits::new().descriptors(count);
            let mut ours = Channel::<P>::from_fd(socket, limits).unwrap();
            let mut theirs = Channel::<P>::from_fd(other, limits).unwrap();
            theirs.send(message(b"with papers", files(count.into()))).unwrap();
            let came = ours.receive_by(soon()).unwrap();
            assert_eq!(came.descriptor_count(), usize::from(count), "{options:?}");
            assert_eq!(ledger.more(), 2 + usize::from(count), "no pidfd stays");
        }
    }
    ledger.close();
}

#[test] // P1, P2; case 48
fn credentials_and_pidfds_take_no_descriptors_room() {
    beside_credentials::<Libcamera>(SockType::Datagram);
    beside_credentials::<Packet>(SockType::SeqPacket);
}
