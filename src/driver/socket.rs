//! What a socket must be to carry a wire.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, getsockname, shutdown, socket, socketpair,
};

use super::error::Error;
use super::sys;
use crate::error::Misuse;
use crate::profile::{Framing, PacketCaps, Profile};

/// Options that make the kernel write control messages of their own, which no wire has and which
/// take the room of descriptors (seen: SO_TIMESTAMP crowded out the only one). Numbers of
/// asm-generic/socket.h, so that a 32-bit libc's choice between old and new does not hide one.
const CROWDING: [(&str, i32); 6] = [
    ("SO_TIMESTAMP", 29),
    SO_PASSSEC,
    ("SO_TIMESTAMPNS", 35),
    ("SO_TIMESTAMPING", 37),
    // Before SO_TIMESTAMP_NEW, which the kernel calls on as well then.
    ("SO_TIMESTAMPNS_NEW", 64),
    ("SO_TIMESTAMP_NEW", 63),
];

/// Of those the one that an accepted socket has from its listener (net/unix/af_unix.c,
/// unix_stream_connect), and that a manager sets on one: systemd's `PassSecurity=`.
const SO_PASSSEC: (&str, i32) = ("SO_PASSSEC", 34);

/// SO_INQ (Linux 6.18), on streams: bytes left to be read, as one more control message.
const SO_INQ: i32 = 84;

/// SO_PASSPIDFD (Linux 6.5).
const SO_PASSPIDFD: i32 = 76;

/// SO_PASSRIGHTS (Linux 6.16): on unless it is switched off.
const SO_PASSRIGHTS: i32 = 83;

/// What the kernel takes of SO_SNDBUF for itself (net/unix/af_unix.c: `len > sk_sndbuf - 32` is
/// EMSGSIZE).
const SNDBUF_OVERHEAD: usize = 32;

/// Beyond about this size no datagram is sent, however large SO_SNDBUF: its memory must be one
/// piece (net/core/sock.c, sock_alloc_send_pskb; the largest kmalloc is 4 MiB).
const DATAGRAM_MOST: usize = 4 * 1024 * 1024;

/// A payload that fits whatever SO_SNDBUF is set to: its least is 4608 (include/net/sock.h,
/// SOCK_MIN_SNDBUF).
pub(super) const ALWAYS_FITS: usize = 4096;

fn socket_type<P: Profile>() -> SockType {
    match P::FRAMING {
        Framing::PartPerDatagram => SockType::Datagram,
        Framing::MessagesPerPacket(_) => SockType::SeqPacket,
        Framing::Stream { .. } => SockType::Stream,
    }
}

/// The framing that a socket's type gives, for what is no profile.
pub(super) fn framing(socket: BorrowedFd<'_>) -> Result<Framing, Error> {
    match type_of(socket)? {
        libc::SOCK_STREAM => Ok(Framing::Stream { read_ahead: false }),
        libc::SOCK_SEQPACKET => {
            Ok(Framing::MessagesPerPacket(PacketCaps { messages: 1, bytes: u32::MAX, descriptors: 1 }))
        }
        libc::SOCK_DGRAM => Ok(Framing::PartPerDatagram),
        found => Err(Misuse::SocketType { wire: "send_fd", expected: libc::SOCK_STREAM, found }.into()),
    }
}

/// SO_TYPE.
pub(super) fn type_of(socket: BorrowedFd<'_>) -> Result<i32, Error> {
    sys::socket_option(socket, libc::SO_TYPE).map_err(|errno| Error::io("getsockopt", errno))
}

/// shutdown(2), both ways.
pub(super) fn shut(socket: BorrowedFd<'_>) {
    // ENOTCONN: the peer was faster.
    let _already_closed = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

/// Ends the sending direction: the peer reads the end behind what was sent. On a datagram socket
/// it reads nothing (net/unix/af_unix.c, unix_shutdown).
pub(super) fn shut_writing(socket: BorrowedFd<'_>) {
    let _already_closed = shutdown(socket.as_raw_fd(), Shutdown::Write);
}

/// A new socket of the wire's type, for a name.
///
/// # Errors
/// [`Misuse::PairsOnly`] for a wire of datagrams.
pub(super) fn unconnected<P: Profile>() -> Result<OwnedFd, Error> {
    connected_type::<P>()?;
    let socket = socket(AddressFamily::Unix, socket_type::<P>(), SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Error::io("socket", errno))?;
    sys::raised(socket).map_err(|errno| Error::io("fcntl", errno))
}

/// Refuses a wire that no listener can carry.
pub(super) fn connected_type<P: Profile>() -> Result<(), Error> {
    match P::FRAMING {
        Framing::PartPerDatagram => Err(Misuse::PairsOnly { wire: P::NAME }.into()),
        Framing::MessagesPerPacket(_) | Framing::Stream { .. } => Ok(()),
    }
}

/// Nobody can send descriptors to this socket, or to one that is accepted from it, from now on:
/// who tries gets EPERM (net/unix/af_unix.c), and nothing of a stranger's is ever installed or
/// kept alive in the queue (P9). It belongs to the socket, whoever holds it: so only for sockets
/// that we made. What is queued already still comes.
pub(super) fn refuse_descriptors(socket: BorrowedFd<'_>) {
    // A kernel without it says so: there, the receiver refuses what came.
    let _unknown = sys::switch(socket, SO_PASSRIGHTS, false);
}

/// The other way round: for a socket that changes hands, since what it was told to refuse was the
/// former holder's wish.
pub(super) fn admit_descriptors(socket: BorrowedFd<'_>) {
    // A kernel without it admits them anyway.
    let _unknown = sys::switch(socket, SO_PASSRIGHTS, true);
}

/// Two connected sockets of the wire's type.
pub(super) fn pair<P: Profile>() -> Result<(OwnedFd, OwnedFd), Error> {
    pair_of(socket_type::<P>())
}

/// Two connected sockets of a type.
pub(super) fn pair_of(kind: SockType) -> Result<(OwnedFd, OwnedFd), Error> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| Error::io("socketpair", errno))?;
    let raised = |socket| sys::raised(socket).map_err(|errno| Error::io("fcntl", errno));
    Ok((raised(ours)?, raised(theirs)?))
}

/// Refuses a socket that cannot carry the wire; makes it close-on-exec.
pub(super) fn check<P: Profile>(socket: &OwnedFd) -> Result<(), Error> {
    if check_type::<P>(socket.as_fd())? {
        return Err(Misuse::Listening.into());
    }
    if !sys::is_connected(socket.as_fd()).map_err(|errno| Error::io("getpeername", errno))? {
        return Err(Misuse::NotConnected.into());
    }
    for option in CROWDING {
        check_off(socket.as_fd(), option)?;
    }
    if matches!(P::FRAMING, Framing::Stream { .. }) {
        // This one cannot be asked for, only set; a kernel without it says so, which is as well.
        let _unknown = sys::switch(socket.as_fd(), SO_INQ, false);
    }
    set_close_on_exec(socket.as_fd())
}

/// Refuses a socket on which the wire's peers cannot be accepted; makes it close-on-exec.
pub(super) fn check_listening<P: Profile>(socket: BorrowedFd<'_>) -> Result<(), Error> {
    connected_type::<P>()?;
    if !check_type::<P>(socket)? {
        return Err(Misuse::NotListening.into());
    }
    // Said now, and not of each connection.
    check_off(socket, SO_PASSSEC)?;
    set_close_on_exec(socket)
}

fn check_off(socket: BorrowedFd<'_>, (option, name): (&'static str, i32)) -> Result<(), Error> {
    if is_on(socket, name)? { Err(Misuse::SocketOption { option }.into()) } else { Ok(()) }
}

/// Refuses a socket of another domain or type than the wire's; says whether it listens.
fn check_type<P: Profile>(socket: BorrowedFd<'_>) -> Result<bool, Error> {
    let option = |name| sys::socket_option(socket, name).map_err(|errno| Error::io("getsockopt", errno));
    let domain = option(libc::SO_DOMAIN)?;
    if domain != libc::AF_UNIX {
        return Err(Misuse::NotUnix { domain }.into());
    }
    let (found, expected) = (option(libc::SO_TYPE)?, socket_type::<P>() as i32);
    if found != expected {
        return Err(Misuse::SocketType { wire: P::NAME, expected, found }.into());
    }
    Ok(option(libc::SO_ACCEPTCONN)? != 0)
}

/// Whether the socket itself has a name.
pub(super) fn is_named(socket: BorrowedFd<'_>) -> Result<bool, Error> {
    let name = getsockname::<UnixAddr>(socket.as_raw_fd()).map_err(|errno| match errno {
        // Of another domain, which `check` says better.
        Errno::EINVAL => Error::Misuse(Misuse::PeerUnknown),
        errno => Error::io("getsockname", errno),
    })?;
    Ok(name.path().is_some() || name.as_abstract().is_some())
}

fn set_close_on_exec(socket: BorrowedFd<'_>) -> Result<(), Error> {
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop).map_err(|errno| Error::io("fcntl", errno))
}

/// What the socket's own control messages take, beside descriptors.
pub(super) fn control_extras(socket: BorrowedFd<'_>) -> Result<sys::Extras, Error> {
    Ok(sys::Extras { credentials: is_on(socket, libc::SO_PASSCRED)?, pidfd: is_on(socket, SO_PASSPIDFD)? })
}

/// An option that this kernel does not know is off.
fn is_on(socket: BorrowedFd<'_>, name: i32) -> Result<bool, Error> {
    match sys::socket_option(socket, name) {
        Ok(value) => Ok(value != 0),
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(Error::io("getsockopt", errno)),
    }
}

/// Bytes of the largest datagram or packet that this socket takes; `None` for a stream.
pub(super) fn packet_limit<P: Profile>(socket: BorrowedFd<'_>) -> Result<Option<usize>, Error> {
    if matches!(P::FRAMING, Framing::Stream { .. }) {
        return Ok(None);
    }
    let buffer =
        sys::socket_option(socket, libc::SO_SNDBUF).map_err(|errno| Error::io("getsockopt", errno))?;
    let buffer = usize::try_from(buffer).unwrap_or(0);
    Ok(Some(buffer.saturating_sub(SNDBUF_OVERHEAD).min(DATAGRAM_MOST)))
}
