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
#[cfg(feature = "tokio")]
mod registered;

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::error::Error;
use crate::error::Malformed;
use crate::machine::{Hunk, Transmit};
use crate::profile::Framing;
use crate::wire::control::{self, Item, Layout};

pub(super) use look::{Status, is_pidfd, status};
pub(super) use mapping::Mapping;
pub(super) use meeting::{accept, peer_pidfd, set_close_on_exec};
#[cfg(feature = "tokio")]
pub(super) use registered::{Registered, register};

/// Hunks or transmits of one call: their headers lie on the stack.
pub(super) const BATCH: usize = 16;

/// Never waits, never raises SIGPIPE; descriptors arrive close-on-exec.
const RECEIVE_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Descriptors below this are never handed out: code that closes or writes to 0, 1 and 2 without
/// looking is everywhere.
const FIRST_SAFE: RawFd = 3;

/// Control messages that the socket's options add.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    pub(super) credentials: bool,
    pub(super) pidfd: bool,
}

impl Extras {
    /// Control bytes to offer for `descriptors`. CMSG_LEN and not CMSG_SPACE for the last
    /// message: the kernel counts padding as room (net/core/scm.c, scm_max_fds).
    fn room(self, descriptors: usize) -> usize {
        let layout = Layout::NATIVE;
        let credentials = if self.credentials { layout.space(size_of::<libc::ucred>()) } else { 0 };
        let rights = size_of::<RawFd>() * descriptors;
        if self.pidfd {
            credentials + layout.space(rights) + layout.length(size_of::<RawFd>())
        } else {
            credentials + layout.length(rights)
        }
    }
}

/// Control buffers, kept between calls. `u64`, because a `cmsghdr` is aligned like one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    control: Vec<u64>,
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

    pub(super) fn capacity_bytes(&self) -> usize {
        self.control.capacity() * size_of::<u64>()
    }
}

/// EINTR is retried here and nowhere else (P5: every call is MSG_DONTWAIT, so none can hang).
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> Result<usize, Errno> {
    loop {
        match Errno::result(call()) {
            Ok(count) => return Ok(usize::try_from(count).unwrap_or(0)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// recvmsg(2) or, into several hunks, recvmmsg(2): says how many were filled. Descriptors are
/// owned by the hunks (P2) before anything is parsed.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    framing: Framing,
    extras: Extras,
    scratch: &mut Scratch,
    hunks: &mut [Hunk<OwnedFd>],
) -> Result<usize, Errno> {
    let count = hunks.len().min(BATCH);
    let hunks = hunks.get_mut(..count).unwrap_or_default();
    let bytes = hunks.iter().map(|hunk| extras.room(hunk.descriptor_room())).max().unwrap_or(0);
    let words = scratch.prepare(count, bytes)?;
    // As an input flag MSG_TRUNC asks for a packet's real length; on a stream it would discard.
    let trunc = if matches!(framing, Framing::Stream { .. }) { 0 } else { libc::MSG_TRUNC };

    let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: all zeros is a valid `mmsghdr`: null pointers with lengths of 0.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let slots = scratch.control.chunks_exact_mut(words.max(1));
    for (((hunk, vector), header), slot) in hunks.iter_mut().zip(&mut vectors).zip(&mut headers).zip(slots) {
        let room = hunk.room();
        let spare = hunk.buffer().spare_capacity_mut();
        vector.iov_len = room.min(spare.len());
        vector.iov_base = spare.as_mut_ptr().cast();
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = slot.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = extras.room(hunk.descriptor_room()) as _;
    }
    let filled = if count == 1 {
        let header = &mut headers[0].msg_hdr;
        // SAFETY: the header points to spare capacity of the hunk and to the scratch buffer, both
        // of at least the lengths given, both alive and not otherwise borrowed during the call.
        let call = || unsafe { libc::recvmsg(socket.as_raw_fd(), header, RECEIVE_FLAGS | trunc) };
        let length = retry(call)?;
        headers[0].msg_len = u32::try_from(length).unwrap_or(u32::MAX);
        1
    } else {
        let flags = RECEIVE_FLAGS | trunc;
        // SAFETY: as above, for each of the first `count` headers.
        let call = || unsafe {
            let none = ptr::null_mut();
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, flags as _, none) as _
        };
        retry(call)?
    };
    let slots = scratch.control.chunks_exact(words.max(1));
    for (((hunk, vector), header), slot) in
        hunks.iter_mut().zip(&vectors).zip(&headers).zip(slots).take(filled)
    {
        // SAFETY: a slot is `words` initialised words, and a `u64` may be read as bytes.
        let control =
            unsafe { std::slice::from_raw_parts(slot.as_ptr().cast::<u8>(), words * size_of::<u64>()) };
        let used = size(header.msg_hdr.msg_controllen).min(control.len());
        own(hunk, &control[..used]);
        if header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0 {
            hunk.set_control_cut();
        }
        let length = header.msg_len as usize;
        hunk.set_length(length);
        let stored = length.min(vector.iov_len);
        let buffer = hunk.buffer();
        let end = buffer.len() + stored;
        // SAFETY: the kernel wrote `stored` bytes from the old length on, and `vector.iov_len`
        // was within the spare capacity.
        unsafe { buffer.set_len(end) };
    }
    Ok(filled)
}

/// `size_t` with glibc, `socklen_t` with musl.
fn size(length: impl TryInto<usize>) -> usize {
    length.try_into().unwrap_or(usize::MAX)
}

/// Adopts every descriptor that `control` names. Nothing here allocates.
fn own(hunk: &mut Hunk<OwnedFd>, control: &[u8]) {
    let mut lost = false;
    for item in control::items(control, Layout::NATIVE) {
        match item {
            Item::Descriptor(descriptor) => match adopt(descriptor) {
                Some(owned) if !lost => hunk.adopt(owned),
                // Installed and not to be kept: lost to our own limits. What comes behind it goes
                // too, as when the kernel stops: the next one would take its place (P1).
                _ => {
                    lost = true;
                    hunk.set_control_cut();
                }
            },
            // Asked for by the socket's option and by no wire: closed.
            Item::Pidfd(pidfd) if pidfd >= 0 => drop(adopt(pidfd)),
            Item::Pidfd(_) => {}
            Item::Credentials(credentials) => hunk.set_credentials(credentials),
            Item::Unknown { level, kind } => hunk.set_unknown(level, kind),
            // What SO_RIGHTS_NOTRUNC puts in the place of a descriptor that did not fit.
            Item::Malformed(Malformed::NegativeDescriptor { .. }) => {
                lost = true;
                hunk.set_control_cut();
            }
            Item::Malformed(malformed) => hunk.set_malformed(malformed),
        }
    }
}

/// Owns an installed descriptor, moved above the standard ones where the process had closed
/// those. `None` if it could not be moved; it is closed then.
fn adopt(descriptor: RawFd) -> Option<OwnedFd> {
    // SAFETY: recvmsg just installed it in this process and named it once, in a control message
    // that is walked once: nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    raised(owned).ok()
}

/// Moves a descriptor above the standard ones, where it is not already; closed, where it cannot.
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

/// sendmsg(2) or, for several, sendmmsg(2). On a stream one transmit is sent and the bytes taken
/// are returned; otherwise how many transmits were taken. Their descriptors left with them.
pub(super) fn send<'a, F: AsRawFd + 'a>(
    socket: BorrowedFd<'_>,
    framing: Framing,
    scratch: &mut Scratch,
    transmits: impl Iterator<Item = Transmit<'a, F>>,
) -> Result<usize, Errno> {
    let most = if matches!(framing, Framing::Stream { .. }) { 1 } else { BATCH };
    let mut lent: [Option<Transmit<'a, F>>; BATCH] = [const { None }; BATCH];
    let mut count = 0;
    let mut bytes = 0;
    for (place, transmit) in lent.iter_mut().zip(transmits).take(most) {
        bytes = bytes.max(Layout::NATIVE.space(size_of::<RawFd>() * transmit.descriptor_count()));
        *place = Some(transmit);
        count += 1;
    }
    let words = scratch.prepare(count, bytes)?;

    let mut vectors = [[libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; 3]; BATCH];
    // SAFETY: all zeros is a valid `mmsghdr`: null pointers with lengths of 0.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let slots = scratch.control.chunks_exact_mut(words.max(1));
    for (((transmit, vectors), header), slot) in
        lent.iter().flatten().zip(&mut vectors).zip(&mut headers).zip(slots)
    {
        let mut used = 0;
        for slice in transmit.slices().into_iter().filter(|slice| !slice.is_empty()) {
            // sendmsg only reads what `iov_base` points to, whatever its type says.
            vectors[used] = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            used += 1;
        }
        header.msg_hdr.msg_iov = vectors.as_mut_ptr();
        header.msg_hdr.msg_iovlen = used as _;
        if transmit.descriptor_count() > 0 {
            // SAFETY: a slot is `words` initialised words, and a `u64` may be written as bytes.
            let control = unsafe {
                std::slice::from_raw_parts_mut(slot.as_mut_ptr().cast::<u8>(), words * size_of::<u64>())
            };
            let mut descriptors = transmit.descriptors().map(AsRawFd::as_raw_fd);
            let numbers = (0..transmit.descriptor_count()).map(|_| descriptors.next().unwrap_or(-1));
            let used = control::encode_rights(control, Layout::NATIVE, numbers).ok_or(Errno::EINVAL)?;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = used as _;
        }
    }
    match count {
        0 => Ok(0),
        1 => {
            let header = &headers[0].msg_hdr;
            // SAFETY: the header points to slices and descriptors that `lent` borrows, and to the
            // scratch buffer.
            let taken = retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), header, SEND_FLAGS) })?;
            Ok(if most == 1 { taken } else { 1 })
        }
        // SAFETY: as above, for each of the first `count` headers.
        count => retry(|| unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, SEND_FLAGS as _) as _
        }),
    }
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

/// Switches an option of level SOL_SOCKET off.
pub(super) fn switch_off(socket: BorrowedFd<'_>, name: i32) -> Result<(), Errno> {
    let (value, length) = (0_i32, size_of::<i32>() as libc::socklen_t);
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
