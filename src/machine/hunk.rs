//! Where a read puts what it brings.

use alloc::vec::Vec;
use core::mem;

use crate::error::{Exhausted, Malformed, Violation};
use crate::profile::FRAME_MAX;
use crate::wire::control::Credentials;

/// Descriptors that may come beyond the room offered: into the room of control messages that the
/// socket's own options add (SO_PASSPIDFD's comes last, so descriptors can fill it). They are as
/// much too many as any, and are owned all the same.
pub const SLACK: usize = 8;

/// What one recvmsg(2) brings: bytes, descriptors, and what the kernel said about them. The
/// receiver lends it ([`Receiver::windows`](super::Receiver::windows)), the driver fills it.
#[derive(Debug)]
pub struct Hunk<F> {
    pub(super) bytes: Vec<u8>,
    /// `bytes` up to here were there before this read (a payload gathered in place).
    pub(super) from: usize,
    pub(super) room: usize,
    /// Where the first bytes may go apart, and how many did.
    head_room: usize,
    pub(super) head: [u8; FRAME_MAX],
    pub(super) head_stored: usize,
    /// Bytes that the kernel had, which is more than were stored if it cut them.
    pub(super) length: usize,
    pub(super) descriptors: Vec<F>,
    pub(super) descriptor_room: usize,
    pub(super) control_cut: bool,
    pub(super) malformed: Option<Malformed>,
    pub(super) unknown: Option<(i32, i32)>,
    pub(super) credentials: Option<Credentials>,
    pub(super) end: bool,
    /// The buffer is the payload's own, lent so that it need not be copied.
    pub(super) in_place: bool,
}

impl<F> Hunk<F> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            from: 0,
            room: 0,
            head_room: 0,
            head: [0; FRAME_MAX],
            head_stored: 0,
            length: 0,
            descriptors: Vec::new(),
            descriptor_room: 0,
            control_cut: false,
            malformed: None,
            unknown: None,
            credentials: None,
            end: false,
            in_place: false,
        }
    }

    /// A hunk of one's own, for what is no [`Profile`](crate::profile::Profile).
    ///
    /// # Errors
    /// [`Exhausted::OutOfMemory`].
    pub fn with_room(bytes: usize, descriptors: usize) -> Result<Self, Exhausted> {
        let mut hunk = Self::new();
        hunk.prepare(bytes, descriptors)?;
        Ok(hunk)
    }

    /// Bytes that a read may store: never more, whatever the buffer's capacity.
    pub const fn room(&self) -> usize {
        self.room
    }

    /// The first so many bytes may be stored apart, by [`set_head`](Self::set_head); 0 = they may
    /// not. The room for the others is less by as many.
    pub const fn head_room(&self) -> usize {
        self.head_room
    }

    /// What was read first, up to [`head_room`](Self::head_room) bytes of it, does not stand in the
    /// buffer but here: a payload behind it can be taken over with its buffer. Before
    /// [`fill`](Self::fill), which brings the others.
    pub fn set_head(&mut self, bytes: &[u8]) {
        let stored = bytes.len().min(self.head_room);
        if let (Some(place), Some(bytes)) = (self.head.get_mut(..stored), bytes.get(..stored)) {
            place.copy_from_slice(bytes);
            self.head_stored = stored;
        }
    }

    /// The next read may store its first `bytes` apart.
    pub(super) fn offer_head(&mut self, bytes: usize) {
        self.head_room = bytes.min(self.head.len()).min(self.room);
    }

    /// Descriptors to offer the kernel room for: one more than may come, so that one too many is
    /// told from a process that ran out.
    pub const fn descriptor_room(&self) -> usize {
        self.descriptor_room
    }

    /// The buffer, with at least [`room`](Self::room) bytes of spare capacity. Append what was
    /// read; bytes that it holds already belong to the receiver.
    pub const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The length that the kernel gave: with MSG_TRUNC as an input flag the packet's real one,
    /// even where it was cut.
    pub const fn set_length(&mut self, length: usize) {
        self.length = length;
    }

    /// Owns a descriptor that the kernel installed. Never allocates: one for which there is no
    /// place, beyond what was offered and [`SLACK`], is dropped at once, and counts as cut.
    pub fn adopt(&mut self, descriptor: F) {
        if self.descriptors.len() < self.descriptor_room.saturating_add(SLACK) {
            self.descriptors.push(descriptor);
        } else {
            self.control_cut = true;
        }
    }

    /// The kernel cut control data (MSG_CTRUNC), or a descriptor that it installed could not be
    /// kept.
    pub const fn set_control_cut(&mut self) {
        self.control_cut = true;
    }

    /// Control data was malformed. The first such error is kept.
    pub fn set_malformed(&mut self, malformed: Malformed) {
        self.malformed.get_or_insert(malformed);
    }

    /// A control message of an unknown type came. The first is kept.
    pub fn set_unknown(&mut self, level: i32, kind: i32) {
        self.unknown.get_or_insert((level, kind));
    }

    /// The sender's credentials came along (SO_PASSCRED).
    pub const fn set_credentials(&mut self, credentials: Credentials) {
        self.credentials = Some(credentials);
    }

    /// The conversation is over, where the framing itself cannot say so (SOCK_DGRAM: a hang-up,
    /// or a peer known to be dead).
    pub const fn set_end(&mut self) {
        self.end = true;
    }

    /// The bytes that this read stored, but for those that were stored apart.
    pub fn stored_bytes(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }

    /// Bytes that the kernel had, which is more than were stored where it cut them.
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The driver said that nothing more comes: [`set_end`](Self::set_end).
    pub const fn is_end(&self) -> bool {
        self.end
    }

    /// The descriptors that it brought, in order.
    pub fn descriptors(&self) -> &[F] {
        &self.descriptors
    }

    /// The descriptors that it brought, in order, to be owned by the caller.
    pub fn take_descriptors(&mut self) -> impl Iterator<Item = F> + use<'_, F> {
        self.descriptors.drain(..)
    }

    /// Control data was cut, as [`set_control_cut`](Self::set_control_cut) says.
    pub const fn is_control_cut(&self) -> bool {
        self.control_cut
    }

    /// The sender's credentials, where they came along.
    pub const fn credentials(&self) -> Option<Credentials> {
        self.credentials
    }

    /// Whether control data was what it should be.
    ///
    /// # Errors
    /// [`Violation::ControlMalformed`], [`Violation::ControlUnknown`].
    pub const fn check_control(&self) -> Result<(), Violation> {
        match (self.malformed, self.unknown) {
            (Some(malformed), _) => Err(Violation::ControlMalformed(malformed)),
            (None, Some((level, kind))) => Err(Violation::ControlUnknown { level, kind }),
            (None, None) => Ok(()),
        }
    }

    /// Does what recvmsg(2) would with a packet of `bytes` and `descriptors`: cuts bytes and
    /// descriptors to the room offered and notes it. For drivers that receive by other means and
    /// for tests; on a stream, hand in no more than [`room`](Self::room) bytes.
    pub fn fill(&mut self, bytes: &[u8], descriptors: impl IntoIterator<Item = F>) {
        let room = self.room.saturating_sub(self.head_stored);
        let stored = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.bytes.extend_from_slice(stored);
        self.length = self.head_stored.saturating_add(bytes.len());
        for descriptor in descriptors {
            if self.descriptors.len() < self.descriptor_room {
                self.adopt(descriptor);
            } else {
                self.control_cut = true;
            }
        }
    }

    /// Lends the payload's own buffer, until [`come_home`](Self::come_home).
    pub(super) const fn lend(&mut self, payload: &mut Vec<u8>) {
        mem::swap(&mut self.bytes, payload);
        self.in_place = true;
    }

    /// Gives the payload its buffer back, with what was read into it.
    pub(super) fn come_home(&mut self, payload: &mut Vec<u8>) {
        if mem::replace(&mut self.in_place, false) {
            mem::swap(&mut self.bytes, payload);
            self.bytes.clear();
            self.from = 0;
        }
    }

    /// Makes the buffer the payload's own. The hunk is used up then.
    pub(super) fn hand_over(&mut self, payload: &mut Vec<u8>) {
        mem::swap(&mut self.bytes, payload);
        self.bytes.clear();
        (self.from, self.length, self.head_stored) = (0, 0, 0);
    }

    /// Puts what was stored apart where it would have been otherwise; there is room for it.
    #[cold]
    pub(crate) fn join(&mut self) {
        let head = self.head.get(..self.head_stored).unwrap_or_default();
        if append(&mut self.bytes, head).is_err() {
            return;
        }
        let read = self.bytes.get_mut(self.from..).unwrap_or_default();
        if self.head_stored <= read.len() {
            read.rotate_right(self.head_stored);
        }
        self.head_stored = 0;
    }

    /// Takes the payload's buffer, which is empty, where that is the larger one: a message that is
    /// used again brought it in place of the one that became its payload.
    pub(super) fn exchange(&mut self, payload: &mut Vec<u8>) {
        if self.bytes.capacity() < payload.capacity() && payload.is_empty() {
            self.bytes.clear();
            mem::swap(&mut self.bytes, payload);
        }
    }

    /// Makes it ready for a read of this much room. Fails before anything is lent.
    pub(super) fn prepare(&mut self, room: usize, descriptor_room: usize) -> Result<(), Exhausted> {
        if !self.in_place {
            self.bytes.clear();
        }
        self.from = self.bytes.len();
        self.room = room;
        (self.head_room, self.head_stored) = (0, 0);
        self.length = 0;
        self.descriptors.clear();
        self.control_cut = false;
        self.malformed = None;
        self.unknown = None;
        self.credentials = None;
        self.end = false;
        reserve(&mut self.bytes, room)?;
        reserve(&mut self.descriptors, descriptor_room.saturating_add(SLACK))?;
        self.descriptor_room = descriptor_room;
        Ok(())
    }

    /// Believes no more than what was offered.
    pub(super) fn settle(&mut self) {
        self.bytes.truncate(self.from.saturating_add(self.room).saturating_sub(self.head_stored));
        self.length = self.length.max(self.stored());
        // Only all of the first header may stand apart from what follows.
        if self.head_stored < self.head_room {
            self.join();
        }
    }

    /// Bytes that this read stored.
    pub(super) fn stored(&self) -> usize {
        self.bytes.len().saturating_sub(self.from).saturating_add(self.head_stored)
    }

    /// Bytes were cut (MSG_TRUNC).
    pub(super) fn cut(&self) -> bool {
        self.length > self.stored()
    }

    /// The read brought nothing at all: the end, where the framing has one.
    pub fn is_void(&self) -> bool {
        self.length == 0 && self.descriptors.is_empty() && !self.control_cut
    }
}

/// What a hunk holds from `offset` on, as far as that lies in one piece: what was stored apart, then
/// its buffer.
#[inline]
pub(super) fn rest<'a>(apart: &'a [u8], bytes: &'a [u8], offset: usize) -> &'a [u8] {
    match offset.checked_sub(apart.len()) {
        Some(offset) => bytes.get(offset..).unwrap_or_default(),
        None => apart.get(offset..).unwrap_or_default(),
    }
}

/// Room for `additional` more elements, exactly, or an error instead of an abort (P4).
pub(super) fn reserve<T>(vector: &mut Vec<T>, additional: usize) -> Result<(), Exhausted> {
    vector.try_reserve_exact(additional).map_err(|_| Exhausted::OutOfMemory {
        bytes: (additional as u64).saturating_mul(size_of::<T>() as u64),
    })
}

/// Appends. Where room was made before this asks for none; it asks all the same, since only so does
/// the optimiser know that nothing here can panic (`make nopanic`).
#[inline]
pub(super) fn append(vector: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Exhausted> {
    reserve(vector, bytes.len())?;
    vector.extend_from_slice(bytes);
    Ok(())
}

/// Moves the first `count` descriptors, or as many as there are. Fails before any is moved.
#[inline]
pub(super) fn move_descriptors<F>(
    from: &mut Vec<F>,
    count: usize,
    to: &mut Vec<Option<F>>,
) -> Result<(), Exhausted> {
    let count = count.min(from.len());
    reserve(to, count)?;
    for descriptor in from.drain(..count) {
        // Room was made; said once more for the proof, as in `append`.
        if to.len() < to.capacity() {
            to.push(Some(descriptor));
        }
    }
    Ok(())
}

/// Gives back memory beyond room for `most` elements, or for as many as there are. Not shrink_to, which
/// aborts where the allocator has no smaller piece: then the larger one stays (P4).
pub(crate) fn shrink<T>(vector: &mut Vec<T>, most: usize) {
    let mut smaller = Vec::new();
    if vector.capacity() > most.max(vector.len()) && smaller.try_reserve_exact(most.max(vector.len())).is_ok()
    {
        smaller.append(vector);
        *vector = smaller;
    }
}

/// Drops memory above `most` elements that a caller's message brought in by a swap.
pub(super) fn bound<T>(vector: &mut Vec<T>, most: usize) {
    if vector.capacity() > most {
        *vector = Vec::new();
    }
}
