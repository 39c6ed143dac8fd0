//! The classic `send_fd` and `recv_fd`, over any connected socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::PollFlags;

use super::credentials::Credentials;
use super::deadline::Deadline;
use super::error::Error;
use super::wait::{RDHUP, wait};
use super::{socket, sys};
use crate::accept::Policy;
use crate::error::{Exhausted, Misuse, Violation};
use crate::limits::Limits;
use crate::machine::{Hunk, Transmit};
use crate::profile::Framing;
use crate::send_fd::{Scan, check_descriptors, check_error, parse, scan};

/// What the sender said.
#[derive(Debug)]
pub enum FdReply {
    /// Status 0: the descriptor.
    Descriptor(OwnedFd),
    /// Any other status, 1 to 255, and the sender's words.
    Error {
        /// The status.
        status: u8,
        /// The text, which need not be UTF-8.
        text: Vec<u8>,
    },
}

/// Descriptors of a message: one, and room for one too many.
const ROOM: usize = 2;

/// Sends a descriptor: a zero byte and status 0. The descriptor stays the caller's. Waits until
/// the kernel has taken it.
///
/// # Errors
/// [`Error::PeerGone`]; [`Error::DescriptorsRefused`]; [`Error::Io`].
pub fn send_fd(socket: impl AsFd, descriptor: impl AsFd) -> Result<(), Error> {
    send(socket.as_fd(), &[], 0, &[Some(descriptor.as_fd())])
}

/// Sends an error instead of a descriptor: the text, a zero byte, the status.
///
/// # Errors
/// [`Misuse::StatusZero`], [`Misuse::ZeroInText`], before anything is sent; as [`send_fd`].
pub fn send_error(socket: impl AsFd, status: u8, text: impl AsRef<[u8]>) -> Result<(), Error> {
    check_error(status, text.as_ref())?;
    send(socket.as_fd(), text.as_ref(), status, &[])
}

/// Receives a descriptor, or the sender's error with a text of at most 64 KiB. On a stream exactly
/// the message's own bytes are read: what follows begins the next.
///
/// # Errors
/// [`Error::Violation`], after which the socket is shut down both ways; among them
/// [`Violation::PayloadMissing`], when the deadline passes in the middle of a message.
/// [`Error::TimedOut`] and [`Error::Closed`] before one; [`Error::Exhausted`] and [`Error::Io`], after
/// which the socket is usable, unless they came in the middle of a message on a stream: then it is shut
/// down too, and the next call says [`Error::Closed`];
/// [`Misuse::NotConnected`] for a datagram socket to which anybody may send
/// ([`receive_fd_from`]).
pub fn receive_fd(socket: impl AsFd, deadline: Deadline) -> Result<FdReply, Error> {
    receive_fd_within(socket, &Limits::new(), deadline)
}

/// As [`receive_fd`], with a text of at most `limits.payload` bytes.
///
/// # Errors
/// As [`receive_fd`].
pub fn receive_fd_within(socket: impl AsFd, limits: &Limits, deadline: Deadline) -> Result<FdReply, Error> {
    receive_fd_judged(socket.as_fd(), limits, None, deadline)
}

/// As [`receive_fd_within`], of the kinds that `policy` accepts in the place 0.
///
/// # Errors
/// As [`receive_fd`]; [`Violation::DescriptorKind`] among the violations, and the descriptor is closed.
/// Where this process cannot find out what it is, as [`Policy::check`] says, it is closed too, and the
/// socket stays usable: the next message stands by itself.
pub fn receive_fd_accepting(
    socket: impl AsFd,
    limits: &Limits,
    policy: &Policy,
    deadline: Deadline,
) -> Result<FdReply, Error> {
    receive_fd_judged(socket.as_fd(), limits, Some(policy), deadline)
}

fn receive_fd_judged(
    socket: BorrowedFd<'_>,
    limits: &Limits,
    policy: Option<&Policy>,
    deadline: Deadline,
) -> Result<FdReply, Error> {
    let framing = socket::framing(socket)?;
    if !sys::is_connected(socket).map_err(|errno| Error::io("getpeername", errno))? {
        return Err(Misuse::NotConnected.into());
    }
    let mut reading = Reading::new(socket, framing, limits, deadline)?;
    let answer = reading.message().and_then(|reply| {
        if let (FdReply::Descriptor(descriptor), Some(policy)) = (&reply, policy) {
            policy.check_one(0, descriptor.as_fd())?;
        }
        Ok(reply)
    });
    match answer {
        // A shutdown leaves what is queued to be read: neither what comes behind a violation nor the
        // rest of a message may be taken for another one (P3).
        Err(Error::Violation(_)) => end(socket),
        Err(_) if reading.is_torn() => end(socket),
        _ => {}
    }
    answer
}

fn end(socket: BorrowedFd<'_>) {
    socket::shut(socket);
    sys::discard(socket);
}

/// Receives on a datagram socket bound at a path, to which anybody may send: one datagram is one
/// message, and `rule` says by its sender's credentials whether it counts. SO_PASSCRED must have
/// been on before the message was sent. A message that breaks a rule ends nothing: the next may be
/// somebody else's.
///
/// # Errors
/// [`Misuse::NoCredentials`]; [`Error::SenderRefused`], and the message is dropped; as
/// [`receive_fd`].
pub fn receive_fd_from(
    socket: impl AsFd,
    limits: &Limits,
    deadline: Deadline,
    rule: impl FnOnce(&Credentials) -> bool,
) -> Result<(FdReply, Credentials), Error> {
    let socket = socket.as_fd();
    let framing = socket::framing(socket)?;
    if !matches!(framing, Framing::PartPerDatagram) {
        return Err(Misuse::SocketType {
            wire: "send_fd",
            expected: libc::SOCK_DGRAM,
            found: socket::type_of(socket)?,
        }
        .into());
    }
    if !socket::control_extras(socket)?.credentials {
        return Err(Misuse::NoCredentials.into());
    }
    let mut reading = Reading::new(socket, framing, limits, deadline)?;
    reading.datagram_of(rule)
}

/// One message being received.
struct Reading<'a> {
    socket: BorrowedFd<'a>,
    framing: Framing,
    extras: sys::Extras,
    scratch: sys::Scratch,
    limit: usize,
    deadline: Deadline,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    cut: bool,
    whole: bool,
}

impl<'a> Reading<'a> {
    fn new(
        socket: BorrowedFd<'a>,
        framing: Framing,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        Ok(Self {
            socket,
            framing,
            extras: socket::control_extras(socket)?,
            scratch: sys::Scratch::default(),
            limit: limits.payload as usize,
            deadline,
            bytes: Vec::new(),
            descriptors: Vec::new(),
            cut: false,
            whole: false,
        })
    }

    /// A part of a message was taken out of a stream, and the rest was not.
    fn is_torn(&self) -> bool {
        matches!(self.framing, Framing::Stream { .. }) && !self.whole && !self.bytes.is_empty()
    }

    fn message(&mut self) -> Result<FdReply, Error> {
        match self.framing {
            Framing::Stream { .. } => self.stream(),
            _ => {
                let hunk = self.packet()?;
                if matches!(self.framing, Framing::MessagesPerPacket(_)) && hunk.stored_bytes().is_empty() {
                    return Err(self.end(&hunk));
                }
                self.whole_packet()
            }
        }
    }

    fn datagram_of(
        &mut self,
        rule: impl FnOnce(&Credentials) -> bool,
    ) -> Result<(FdReply, Credentials), Error> {
        let hunk = self.packet()?;
        let Some(credentials) = hunk.credentials() else { return Err(Misuse::NoCredentials.into()) };
        let sender = Credentials { pid: credentials.pid, uid: credentials.uid, gid: credentials.gid };
        if !rule(&sender) {
            let Credentials { pid, uid, gid } = sender;
            return Err(Error::SenderRefused { pid, uid, gid });
        }
        Ok((self.whole_packet()?, sender))
    }

    /// Two bytes at a time while text may still come, so that a read never reaches into the next
    /// message; one for the status.
    fn stream(&mut self) -> Result<FdReply, Error> {
        // Text that was looked at: looking at it again for every two bytes takes a minute for a
        // few hundred KiB.
        let mut seen: usize = 0;
        loop {
            let rest = self.bytes.get(seen..).unwrap_or_default();
            let needed = match scan(rest, self.limit.saturating_sub(seen)) {
                Ok(Scan::Needs(needed)) => needed,
                Ok(Scan::Whole { reply, .. }) => {
                    let (status, text) = (reply.status, seen.saturating_add(reply.text.len()));
                    return self.answer(status, text);
                }
                // The same of all bytes, for its numbers.
                Err(violation) => {
                    return Err(scan(&self.bytes, self.limit).err().unwrap_or(violation).into());
                }
            };
            if needed > 1 {
                seen = self.bytes.len();
            }
            let hunk = self.read(needed)?;
            if hunk.stored_bytes().is_empty() {
                return Err(self.end(&hunk));
            }
        }
    }

    /// One read; its bytes and descriptors are taken over.
    fn read(&mut self, room: usize) -> Result<Hunk<OwnedFd>, Error> {
        let mut hunk = Hunk::with_room(room, ROOM)?;
        // Before anything is taken out of the socket: what comes is not lost for want of memory.
        let short = |bytes: usize| Exhausted::OutOfMemory { bytes: bytes as u64 };
        self.bytes.try_reserve(room).map_err(|_| short(room))?;
        self.descriptors.try_reserve(ROOM).map_err(|_| short(ROOM * size_of::<OwnedFd>()))?;
        let mut hung_up = false;
        loop {
            let one = std::slice::from_mut(&mut hunk);
            match sys::receive(self.socket, self.framing, self.extras, &mut self.scratch, one) {
                Ok(_) => break,
                // A datagram socket that was shut down keeps saying "would block".
                Err(Errno::EAGAIN) if hung_up => return Err(Error::Closed),
                Err(Errno::EAGAIN) if self.deadline.has_passed() => return Err(self.late()),
                Err(Errno::EAGAIN) => {
                    let seen = wait(self.socket, PollFlags::POLLIN | RDHUP, self.deadline)?;
                    hung_up = seen.intersects(PollFlags::POLLHUP | RDHUP);
                }
                Err(Errno::ECONNRESET) => {} // said once; what the peer sent before is still there
                Err(errno) => return Err(Error::io("recvmsg", errno)),
            }
        }
        self.bytes.extend_from_slice(hunk.stored_bytes());
        let (cut, checked) = (hunk.is_control_cut(), hunk.check_control());
        self.cut |= cut;
        self.descriptors.extend(hunk.take_descriptors());
        checked?;
        Ok(hunk)
    }

    fn packet(&mut self) -> Result<Hunk<OwnedFd>, Error> {
        // One byte more than is allowed, so that one too many is seen.
        self.read(self.limit.saturating_add(3))
    }

    fn whole_packet(&mut self) -> Result<FdReply, Error> {
        let reply = parse(&self.bytes, self.limit)?;
        let (status, text) = (reply.status, reply.text.len());
        self.answer(status, text)
    }

    /// A read of no bytes, where that is the end.
    fn end(&self, hunk: &Hunk<OwnedFd>) -> Error {
        if !self.bytes.is_empty() {
            return self.missing();
        }
        let descriptors = u32::try_from(self.descriptors.len()).unwrap_or(u32::MAX);
        if descriptors > 0 || hunk.is_control_cut() {
            return Violation::EmptyPacket { descriptors }.into();
        }
        Error::Closed
    }

    /// The deadline passed.
    fn late(&self) -> Error {
        if self.bytes.is_empty() { Error::TimedOut } else { self.missing() }
    }

    fn missing(&self) -> Error {
        let received = self.bytes.len() as u64;
        let needed = match scan(&self.bytes, self.limit) {
            Ok(Scan::Needs(needed)) => needed as u64,
            _ => 0,
        };
        Violation::PayloadMissing { expected: received.saturating_add(needed), received }.into()
    }

    fn answer(&mut self, status: u8, text: usize) -> Result<FdReply, Error> {
        self.whole = true;
        let received = u32::try_from(self.descriptors.len()).unwrap_or(u32::MAX);
        check_descriptors(status, received, self.cut)?;
        self.bytes.truncate(text);
        Ok(match self.descriptors.pop() {
            Some(descriptor) => FdReply::Descriptor(descriptor),
            None => FdReply::Error { status, text: std::mem::take(&mut self.bytes) },
        })
    }
}

fn send(
    socket: BorrowedFd<'_>,
    text: &[u8],
    status: u8,
    descriptors: &[Option<BorrowedFd<'_>>],
) -> Result<(), Error> {
    let framing = socket::framing(socket)?;
    let mut scratch = sys::Scratch::default();
    let tail = [0, status];
    let length = text.len().saturating_add(tail.len());
    let mut gone = 0;
    while gone < length {
        let transmit = Transmit::new([text, &tail, &[]], descriptors).skip(gone);
        let step = match sys::send(socket, framing, &mut scratch, std::iter::once(transmit)) {
            Ok(taken) if matches!(framing, Framing::Stream { .. }) => {
                gone = gone.saturating_add(taken);
                Ok(())
            }
            Ok(_) => return Ok(()),
            Err(Errno::EAGAIN) => wait(socket, PollFlags::POLLOUT, Deadline::NEVER).map(drop),
            Err(errno) => Err(Error::of_send(errno, descriptors.len())),
        };
        if step.is_err() && gone > 0 {
            // Half a message is out: whatever came next would be misread.
            socket::shut(socket);
        }
        step?;
    }
    Ok(())
}
