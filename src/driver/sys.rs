//! The system calls that need `unsafe`, and nothing else: the one module that may use it, and
//! the only one that calls recvmsg(2) and sendmsg(2) and their kin.
//!
//! What must hold here: whatever the kernel installed is owned before the function returns,
//! whatever the kernel said goes into the hunk, and no message is judged.
#![allow(
    unsafe_code,
    reason = "recvmsg, sendmsg, getsockopt, mmap and numbers of descriptors have no safe form that keeps P2"
)]

mod look;
mod mapping;
mod meeting;
mod receiving;
#[cfg(feature = "tokio")]
mod registered;
mod sending;

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::error::Error;
pub(super) use look::{Status, is_pidfd, status};
pub(super) use mapping::Mapping;
pub(super) use meeting::{accept, peer_pidfd, set_close_on_exec};
pub(super) use receiving::{Extras, discard, receive, sleep};
#[cfg(feature = "tokio")]
pub(super) use registered::{Registered, register, register_peer};
pub(super) use sending::send;

/// Hunks or transmits of one call: their headers lie on the stack.
pub(super) const BATCH: usize = 16;

/// Descriptors below this are never handed out: code that closes or writes to 0, 1 and 2 without
/// looking is everywhere.
const FIRST_SAFE: RawFd = 3;

/// Words that an idle channel keeps (P4): those of a header and of a payload with all the
/// descriptors that one can have.
const KEEP: usize = 272;

/// Control buffers, kept between calls. `u64`, because a `cmsghdr` is aligned like one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    control: Vec<u64>,
    /// The largest capacity that was given back.
    most: usize,
}

impl Scratch {
    /// `slots` times `bytes`, each slot aligned; returns the words of a slot.
    fn prepare(&mut self, slots: usize, bytes: usize) -> Result<usize, Errno> {
        let words = bytes.div_ceil(size_of::<u64>());
        let needed = slots * words;
        if self.control.len() < needed {
            self.control.try_reserve_exact(needed - self.control.len()).map_err(|_| Errno::ENOMEM)?;
            self.control.resize(needed, 0);
        }
        Ok(words)
    }

    /// Nothing is going on: gives back what is not small (P4).
    pub(super) fn release(&mut self) {
        if self.control.capacity() > KEEP {
            self.most = self.most.max(self.control.capacity());
            self.control = Vec::new();
        }
    }

    /// Bytes held now, and at most.
    pub(super) fn held(&self) -> (usize, usize) {
        let words = self.control.capacity();
        (words * size_of::<u64>(), self.most.max(words) * size_of::<u64>())
    }
}

/// EINTR is retried here and nowhere else (P5: every call is MSG_DONTWAIT, so none can hang, but
/// for the one receive that is to wait for ever).
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> Result<usize, Errno> {
    loop {
        match Errno::result(call()) {
            Ok(count) => return Ok(usize::try_from(count).unwrap_or(0)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

pub(super) fn raised(owned: OwnedFd) -> Result<OwnedFd, Errno> {
    raise(owned).map_err(|(errno, _)| errno)
}

/// As [`raised`]; given back, where it cannot be moved.
pub(super) fn raise(owned: OwnedFd) -> Result<OwnedFd, (Errno, OwnedFd)> {
    if owned.as_raw_fd() >= FIRST_SAFE {
        return Ok(owned);
    }
    match fcntl(&owned, FcntlArg::F_DUPFD_CLOEXEC(FIRST_SAFE)) {
        // SAFETY: F_DUPFD_CLOEXEC returned a new descriptor.
        Ok(moved) => Ok(unsafe { OwnedFd::from_raw_fd(moved) }),
        Err(errno) => Err((errno, owned)),
    }
}

/// A descriptor that whoever started this process left open for it, known by its number alone: as
/// a shell does with `3<>file`, socket activation, or `fdpost run`.
///
/// What is returned is a duplicate, close-on-exec and never below 3. So nobody's descriptor is
/// taken away, whoever owns that number here; and the original stays open until the process ends
/// or its owner closes it. Where the other end must see a hang-up before that, shut the socket
/// down ([`Channel::shutdown`](crate::Channel::shutdown)).
///
/// Ask only for numbers that were left for you: what another part of the program has open can be
/// duplicated too.
///
/// ```
/// use std::os::fd::AsRawFd;
/// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
/// let socket = fdpost::inherited(theirs.as_raw_fd())?;
/// assert_ne!(socket.as_raw_fd(), theirs.as_raw_fd());
/// assert!(fdpost::inherited(-1).is_err());
/// # drop(ours);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Io`] of fcntl(2), with EBADF where nothing is open under that number.
pub fn inherited(number: i32) -> Result<OwnedFd, Error> {
    // SAFETY: F_DUPFD_CLOEXEC touches no memory and leaves `number` as it is; of a number that is
    // not open it says EBADF.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, FIRST_SAFE) };
    let copy = Errno::result(copy).map_err(|errno| Error::io("fcntl", errno))?;
    // SAFETY: F_DUPFD_CLOEXEC just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// An integer option of level SOL_SOCKET.
pub(super) fn socket_option(socket: BorrowedFd<'_>, name: i32) -> Result<i32, Errno> {
    // Some options are larger than an int (SO_TIMESTAMPING: two); the first word is the value.
    let mut value = [0_i32; 4];
    let mut length = size_of_val(&value) as libc::socklen_t;
    let (pointer, lengths) = (value.as_mut_ptr().cast(), &raw mut length);
    // SAFETY: the pointer is to `length` bytes, both alive during the call.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, pointer, lengths) };
    Errno::result(result)?;
    Ok(value[0])
}

/// Bytes of what was sent that the peer has not read, as SO_SNDBUF counts them (unix(7), SIOCOUTQ): 0
/// once it has read all.
#[cfg(feature = "broker")]
pub(super) fn unread_bytes(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one integer (net/unix/af_unix.c, unix_ioctl).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(result).map(|_| bytes.unsigned_abs())
}

/// Switches an option of level SOL_SOCKET on or off.
pub(super) fn switch(socket: BorrowedFd<'_>, name: i32, on: bool) -> Result<(), Errno> {
    let (value, length) = (i32::from(on), size_of::<i32>() as libc::socklen_t);
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer is to `length` bytes, alive during the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, pointer, length) };
    Errno::result(result).map(drop)
}

/// Whether getpeername(2) knows a peer.
pub(super) fn is_connected(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    // SAFETY: all zeros is a valid `sockaddr_storage`.
    let mut address: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer is to `length` bytes, both alive during the call.
    let result = unsafe { libc::getpeername(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
    match Errno::result(result) {
        Ok(_) => Ok(true),
        Err(Errno::ENOTCONN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // P4: what control data takes is counted, and given back where it is not little.
    fn scratch_says_what_it_holds() {
        let mut scratch = Scratch::default();
        assert_eq!(scratch.held(), (0, 0));
        assert_eq!(scratch.prepare(2, 17), Ok(3), "words of a slot");
        assert_eq!(scratch.held(), (48, 48));
        scratch.release();
        assert_eq!(scratch.held(), (48, 48), "little is kept");
        assert_eq!(scratch.prepare(1, KEEP * 8), Ok(KEEP));
        scratch.release();
        assert_eq!(scratch.held(), (KEEP * 8, KEEP * 8));
        assert_eq!(scratch.prepare(2, KEEP * 8), Ok(KEEP));
        assert_eq!(scratch.held(), (KEEP * 16, KEEP * 16), "no more than it was asked for");
        scratch.release();
        assert_eq!(scratch.held(), (0, KEEP * 16));
    }
}
