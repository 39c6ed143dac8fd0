//! send(2), sendmsg(2) and sendmmsg(2).

use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use super::{BATCH, Scratch, retry};
use crate::machine::Transmit;
use crate::profile::Framing;
use crate::wire::control::{self, Layout};

/// Never waits, never raises SIGPIPE.
const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Up to so many bytes are put together before the call: the kernel imports one vector sooner
/// than two.
const JOINED: usize = 1024 + 64;

/// Vectors of one call. What a packet of several messages takes is bounded by its packer: 32
/// payloads gathered, a run of headers and small payloads before each and behind the last.
const VECTORS: usize = 66;

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// send(2), sendmsg(2) or, for several, sendmmsg(2). On a stream one transmit is sent and the
/// bytes taken are returned; otherwise how many transmits were taken. Their descriptors left with
/// them.
pub(in crate::driver) fn send<'a, F: AsRawFd + 'a>(
    socket: BorrowedFd<'_>,
    framing: Framing,
    scratch: &mut Scratch,
    mut transmits: impl Iterator<Item = Transmit<'a, F>>,
) -> Result<usize, Errno> {
    let Some(first) = transmits.next() else { return Ok(0) };
    if matches!(framing, Framing::Stream { .. }) {
        return one(socket, scratch, &first);
    }
    match transmits.next() {
        None => one(socket, scratch, &first).map(|_| 1),
        Some(second) => several(socket, scratch, [first, second].into_iter().chain(transmits)),
    }
}

/// One transmit: how many of its bytes were taken.
fn one<'a, F: AsRawFd + 'a>(
    socket: BorrowedFd<'_>,
    scratch: &mut Scratch,
    transmit: &Transmit<'a, F>,
) -> Result<usize, Errno> {
    let bytes = transmit.bytes();
    if bytes > JOINED {
        return gathered(socket, scratch, transmit);
    }
    let mut joined = [const { MaybeUninit::<u8>::uninit() }; JOINED];
    let mut at = 0;
    for slice in transmit.slices() {
        let Some(place) = joined.get_mut(at..at + slice.len()) else { break };
        // SAFETY: `place` is as long as `slice`, and the stack's own.
        unsafe { ptr::copy_nonoverlapping(slice.as_ptr(), place.as_mut_ptr().cast(), slice.len()) };
        at += slice.len();
    }
    let vector = libc::iovec { iov_base: joined.as_mut_ptr().cast(), iov_len: at };
    vectored(socket, scratch, transmit, &[vector])
}

/// A transmit whose bytes stay where they are.
fn gathered<'a, F: AsRawFd + 'a>(
    socket: BorrowedFd<'_>,
    scratch: &mut Scratch,
    transmit: &Transmit<'a, F>,
) -> Result<usize, Errno> {
    let mut vectors = [NO_VECTOR; VECTORS];
    let slices = transmit.slices().filter(|slice| !slice.is_empty());
    let mut used = 0;
    for (place, slice) in vectors.iter_mut().zip(slices) {
        *place = vector(slice);
        used += 1;
    }
    vectored(socket, scratch, transmit, &vectors[..used])
}

/// sendmsg and its kin only read what `iov_base` points to, whatever its type says.
const fn vector(slice: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() }
}

/// send(2) where one vector is all there is: it needs no header that the kernel would have to
/// fetch (measured: a twelfth of a send and a receive). Else sendmsg(2).
fn vectored<'a, F: AsRawFd + 'a>(
    socket: BorrowedFd<'_>,
    scratch: &mut Scratch,
    transmit: &Transmit<'a, F>,
    vectors: &[libc::iovec],
) -> Result<usize, Errno> {
    if let ([vector], 0) = (vectors, transmit.descriptor_count()) {
        let (base, length) = (vector.iov_base.cast_const(), vector.iov_len);
        // SAFETY: the vector covers initialised bytes that outlive the call.
        return retry(|| unsafe { libc::send(socket.as_raw_fd(), base, length, FLAGS) });
    }
    let words = scratch.prepare(1, rights(transmit))?;
    // SAFETY: all zeros is a valid `msghdr`: null pointers with lengths of 0.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = vectors.as_ptr().cast_mut();
    header.msg_iovlen = vectors.len() as _;
    attach(&mut header, scratch.control.get_mut(..words).unwrap_or_default(), transmit)?;
    // SAFETY: the header points to vectors of bytes and to control data that outlive the call.
    retry(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &header, FLAGS) })
}

/// Two transmits or more, as many as one call takes.
fn several<'a, F: AsRawFd + 'a>(
    socket: BorrowedFd<'_>,
    scratch: &mut Scratch,
    transmits: impl Iterator<Item = Transmit<'a, F>>,
) -> Result<usize, Errno> {
    let mut lent: [Option<Transmit<'a, F>>; BATCH] = [const { None }; BATCH];
    let mut count = 0;
    let mut bytes = 0;
    for (place, transmit) in lent.iter_mut().zip(transmits) {
        bytes = bytes.max(rights(&transmit));
        *place = Some(transmit);
        count += 1;
    }
    let words = scratch.prepare(count, bytes)?;
    let mut vectors = [[NO_VECTOR; 3]; BATCH];
    // SAFETY: all zeros is a valid `mmsghdr`: null pointers with lengths of 0.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut slots = scratch.control.chunks_exact_mut(words.max(1));
    for ((transmit, vectors), header) in lent.iter().flatten().zip(&mut vectors).zip(&mut headers) {
        let mut used = 0;
        // Of several each is a message by itself, of three slices at most.
        for (place, slice) in vectors.iter_mut().zip(transmit.slices().filter(|slice| !slice.is_empty())) {
            *place = vector(slice);
            used += 1;
        }
        header.msg_hdr.msg_iov = vectors.as_mut_ptr();
        header.msg_hdr.msg_iovlen = used as _;
        attach(&mut header.msg_hdr, slots.next().unwrap_or_default(), transmit)?;
    }
    // SAFETY: each of the first `count` headers points to slices that `lent` borrows and to the
    // scratch buffer.
    retry(|| unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as _, FLAGS as _) as _ })
}

/// Control bytes that a transmit's descriptors take.
fn rights<F>(transmit: &Transmit<'_, F>) -> usize {
    match transmit.descriptor_count() {
        0 => 0,
        count => Layout::NATIVE.space(size_of::<RawFd>() * count),
    }
}

/// Writes the descriptors into `slot` and points the header to it.
fn attach<F: AsRawFd>(
    header: &mut libc::msghdr,
    slot: &mut [u64],
    transmit: &Transmit<'_, F>,
) -> Result<(), Errno> {
    if transmit.descriptor_count() == 0 {
        return Ok(());
    }
    // SAFETY: the slot's words are initialised, and a `u64` may be written as bytes.
    let control =
        unsafe { std::slice::from_raw_parts_mut(slot.as_mut_ptr().cast::<u8>(), size_of_val(slot)) };
    let mut descriptors = transmit.descriptors().map(AsRawFd::as_raw_fd);
    let numbers = (0..transmit.descriptor_count()).map(|_| descriptors.next().unwrap_or(-1));
    let used = control::encode_rights(control, Layout::NATIVE, numbers).ok_or(Errno::EINVAL)?;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = used as _;
    Ok(())
}
