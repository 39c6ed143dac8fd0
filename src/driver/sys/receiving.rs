//! recvmsg(2) and recvmmsg(2), and owning what they install.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use super::{BATCH, Scratch, raised, retry};
use crate::error::Malformed;
use crate::machine::Hunk;
use crate::profile::{FRAME_MAX, Framing};
use crate::wire::control::{self, Item, Layout};

/// Never waits; descriptors arrive close-on-exec.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;

/// Control messages that the socket's options add.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::driver) struct Extras {
    pub(in crate::driver) credentials: bool,
    pub(in crate::driver) pidfd: bool,
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

/// recvmsg(2) or, into several hunks, recvmmsg(2): says how many were filled. Descriptors are
/// owned by the hunks (P2) before anything is parsed.
pub(in crate::driver) fn receive(
    socket: BorrowedFd<'_>,
    framing: Framing,
    extras: Extras,
    scratch: &mut Scratch,
    hunks: &mut [Hunk<OwnedFd>],
) -> Result<usize, Errno> {
    // As an input flag MSG_TRUNC asks for a packet's real length; on a stream it would discard.
    let trunc = if matches!(framing, Framing::Stream { .. }) { 0 } else { libc::MSG_TRUNC };
    match hunks {
        [hunk] => one(socket, FLAGS | trunc, extras, scratch, hunk),
        hunks => several(socket, FLAGS | trunc, extras, scratch, hunks),
    }
}

/// recvmsg(2) that sleeps until something comes, into one hunk. Signals do not end it. Where the
/// socket has O_NONBLOCK on, or SO_RCVTIMEO, it says EAGAIN all the same.
pub(in crate::driver) fn sleep(
    socket: BorrowedFd<'_>,
    extras: Extras,
    scratch: &mut Scratch,
    hunk: &mut Hunk<OwnedFd>,
) -> Result<usize, Errno> {
    one(socket, (FLAGS & !libc::MSG_DONTWAIT) | libc::MSG_TRUNC, extras, scratch, hunk)
}

fn one(
    socket: BorrowedFd<'_>,
    flags: i32,
    extras: Extras,
    scratch: &mut Scratch,
    hunk: &mut Hunk<OwnedFd>,
) -> Result<usize, Errno> {
    let words = scratch.prepare(1, extras.room(hunk.descriptor_room()))?;
    let slot = scratch.control.get_mut(..words).unwrap_or_default();
    let mut vectors = [NO_VECTOR; 2];
    let [apart, vector] = &mut vectors;
    // SAFETY: all zeros is a valid `msghdr`: null pointers with lengths of 0.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    aim(&mut header, vector, slot, extras, hunk);
    let mut head = [0_u8; FRAME_MAX];
    let head_room = hunk.head_room().min(head.len());
    if head_room > 0 {
        vector.iov_len = vector.iov_len.saturating_sub(head_room);
        *apart = libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: head_room };
        header.msg_iov = vectors.as_mut_ptr();
        header.msg_iovlen = 2;
    }
    // SAFETY: the header points to spare capacity of the hunk, to `head` and to the scratch buffer,
    // all of at least the lengths given, alive and not otherwise borrowed during the call.
    let length = retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, flags) })?;
    let [_, vector] = vectors;
    hunk.set_head(head.get(..length.min(head_room)).unwrap_or_default());
    take(hunk, &header, vector.iov_len, slot, length, length.min(head_room));
    Ok(1)
}

/// Throws away all that is queued on a socket that was shut down, so that no more comes. Takes no
/// memory: without room for control data the kernel closes what descriptors there are.
pub(in crate::driver) fn discard(socket: BorrowedFd<'_>) {
    // On SOCK_SEQPACKET 0 bytes are a packet of none or the end, and as many of those wait as the
    // sender's SO_SNDBUF has room for: 10,923 were seen. With SO_PASSCRED a packet brings credentials,
    // for which there is no room, and so MSG_CTRUNC (net/core/scm.c, scm_recv_unix); the end does not.
    // On a stream the end says it too, and 0 bytes are nothing else.
    let packets = !matches!(super::socket_option(socket, libc::SO_TYPE), Ok(libc::SOCK_STREAM));
    let told_apart = packets && setsockopt(&socket, sockopt::PassCred, &true).is_ok();
    let mut bytes = [0; 4096];
    // The largest SO_SNDBUF has room for no more (2 GiB, of which an empty packet takes 512 at least).
    // Without the option, which only a filter of system calls refuses, not so long: the end looks the same.
    let mut empty = 0..match (packets, told_apart) {
        (false, _) => 0,
        (true, false) => 1024,
        (true, true) => 1 << 22,
    };
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    loop {
        // SAFETY: all zeros is a valid `msghdr`: null pointers with lengths of 0.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &raw mut vector;
        header.msg_iovlen = 1;
        // SAFETY: the header points to one vector, and that to `bytes`, which live through the call.
        match retry(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) }) {
            Ok(1..) => {}
            Ok(_) if told_apart && header.msg_flags & libc::MSG_CTRUNC == 0 => return,
            Ok(_) if empty.next().is_some() => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn several(
    socket: BorrowedFd<'_>,
    flags: i32,
    extras: Extras,
    scratch: &mut Scratch,
    hunks: &mut [Hunk<OwnedFd>],
) -> Result<usize, Errno> {
    let count = hunks.len().min(BATCH);
    let hunks = hunks.get_mut(..count).unwrap_or_default();
    let bytes = hunks.iter().map(|hunk| extras.room(hunk.descriptor_room())).max().unwrap_or(0);
    let words = scratch.prepare(count, bytes)?;
    let mut vectors = [NO_VECTOR; BATCH];
    // SAFETY: all zeros is a valid `mmsghdr`: null pointers with lengths of 0.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    // The kernel writes over the control room's length at each call: it is set anew every time.
    let slots = scratch.control.chunks_exact_mut(words.max(1));
    for (((hunk, vector), header), slot) in hunks.iter_mut().zip(&mut vectors).zip(&mut headers).zip(slots) {
        aim(&mut header.msg_hdr, vector, slot, extras, hunk);
    }
    // SAFETY: as in `one`, for each of the first `count` headers.
    let filled = retry(|| unsafe {
        let none = ptr::null_mut();
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, flags as _, none) as _
    })?;
    let slots = scratch.control.chunks_exact(words.max(1));
    for (((hunk, vector), header), slot) in
        hunks.iter_mut().zip(&vectors).zip(&headers).zip(slots).take(filled)
    {
        take(hunk, &header.msg_hdr, vector.iov_len, slot, header.msg_len as usize, 0);
    }
    Ok(filled)
}

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// Points a header to the room that a hunk and a control slot have.
fn aim(
    header: &mut libc::msghdr,
    vector: &mut libc::iovec,
    slot: &mut [u64],
    extras: Extras,
    hunk: &mut Hunk<OwnedFd>,
) {
    let room = hunk.room();
    let spare = hunk.buffer().spare_capacity_mut();
    vector.iov_len = room.min(spare.len());
    vector.iov_base = spare.as_mut_ptr().cast();
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header.msg_control = slot.as_mut_ptr().cast();
    header.msg_controllen = extras.room(hunk.descriptor_room()) as _;
}

/// Takes what the kernel said: of `length` bytes it stored `apart` elsewhere and then up to `room`
/// behind the hunk's own.
fn take(
    hunk: &mut Hunk<OwnedFd>,
    header: &libc::msghdr,
    room: usize,
    slot: &[u64],
    length: usize,
    apart: usize,
) {
    // SAFETY: the slot's words are initialised, and a `u64` may be read as bytes.
    let control = unsafe { std::slice::from_raw_parts(slot.as_ptr().cast::<u8>(), size_of_val(slot)) };
    let used = size(header.msg_controllen).min(control.len());
    if used > 0 {
        own(hunk, &control[..used]);
    }
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        hunk.set_control_cut();
    }
    hunk.set_length(length);
    let stored = length.saturating_sub(apart).min(room);
    let buffer = hunk.buffer();
    let end = buffer.len() + stored;
    // SAFETY: the kernel wrote `stored` bytes from the old length on, and `room` was within the
    // spare capacity.
    unsafe { buffer.set_len(end) };
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
