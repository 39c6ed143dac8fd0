//! Where the next bytes go, and what that holds (P4).

use alloc::vec::Vec;

use super::Receiver;
use crate::error::Exhausted;
use crate::limits::Limits;
use crate::machine::assembly::KEEP;
use crate::machine::counters::Held;
use crate::machine::hunk::{Hunk, SLACK, reserve, shrink};
use crate::machine::table::State;
use crate::profile::{FRAME_MAX, Framing, PacketCaps, Profile, Role};

/// What a stream reads ahead at least: small, so that an idle channel stays small.
const READ_AHEAD: usize = KEEP;

/// And at most: where messages are a little larger, one whole is read at once, and copied, which
/// costs less than a second read. Still larger ones are read in place, header and payload apart.
const READ_AHEAD_MOST: usize = 2 * KEEP;

/// Above so many bytes a payload on datagrams is read in place, one hot buffer for all; below,
/// a batch of several is worth the copy.
const IN_PLACE: usize = KEEP;

/// What is offered to the kernel.
struct Shape {
    /// Hunks of a batch; where headers and payloads come in turn, pairs of them.
    count: usize,
    /// Bytes of each.
    slot: usize,
    /// Descriptors of each.
    room: usize,
}

/// The hunks of one read.
struct Plan {
    first: usize,
    count: usize,
    /// The first one's bytes, and the others'.
    bytes: usize,
    slot: usize,
    /// The first one is the payload's own memory.
    in_place: bool,
}

impl<P: Profile, F> Receiver<P, F> {
    /// What is held now.
    pub fn held(&self) -> Held {
        let spine = self.hunks.capacity().saturating_mul(size_of::<Hunk<F>>());
        let partial = self
            .assembly
            .payload
            .capacity()
            .saturating_add(self.assembly.descriptors.capacity().saturating_mul(size_of::<Option<F>>()));
        let mut held =
            Held { bytes: spine.saturating_add(partial), descriptors: self.assembly.descriptors.len() };
        for hunk in &self.hunks {
            let descriptors = hunk.descriptors.capacity().saturating_mul(size_of::<F>());
            held.bytes = held.bytes.saturating_add(hunk.bytes.capacity()).saturating_add(descriptors);
            held.descriptors = held.descriptors.saturating_add(hunk.descriptors.len());
        }
        held
    }

    /// The most that was held: now, or when bytes were asked for.
    pub fn held_most(&self) -> Held {
        let (now, most) = (self.held(), self.held_most);
        Held { bytes: most.bytes.max(now.bytes), descriptors: most.descriptors.max(now.descriptors) }
    }

    /// The most that a receiver with these limits ever holds (P4): its windows, one payload, and
    /// the descriptors of both.
    pub fn most_held(limits: &Limits, batch: u16) -> Held {
        let Shape { count, slot, room } = Self::shape(limits, batch);
        let payload = Self::payload_most(limits);
        let (hunks, slots) = match P::FRAMING {
            // Payloads are read in place.
            Framing::PartPerDatagram if batch <= 1 => (1, FRAME_MAX),
            Framing::PartPerDatagram if Self::is_paired(batch) => {
                let hunks = Self::hunks_of_pairs(count);
                (hunks, slot.saturating_mul(count).saturating_add(FRAME_MAX.saturating_mul(hunks)))
            }
            _ => (count, slot.saturating_mul(count)),
        };
        let room = room.saturating_add(SLACK);
        let of_hunk = size_of::<Hunk<F>>().saturating_add(room.saturating_mul(size_of::<F>()));
        let parted = usize::from(limits.descriptors);
        Held {
            bytes: of_hunk
                .saturating_mul(hunks)
                .saturating_add(slots)
                .saturating_add(payload)
                .saturating_add(parted.saturating_mul(size_of::<Option<F>>())),
            descriptors: room.saturating_mul(hunks).saturating_add(parted),
        }
    }

    /// The largest buffer of a payload that is kept: where a payload may fill more than half of a
    /// packet's window, that window itself.
    #[inline]
    pub(super) fn payload_most(limits: &Limits) -> usize {
        let payload = (limits.payload.min(P::PAYLOAD_MOST) as usize).max(KEEP);
        match P::FRAMING {
            Framing::MessagesPerPacket(caps) => {
                let window = Self::packet(limits, caps);
                if payload > window / 2 { window } else { payload }
            }
            _ => payload,
        }
    }

    /// Bytes that a packet's window has room for.
    fn packet(limits: &Limits, caps: PacketCaps) -> usize {
        let payload = limits.payload.min(P::PAYLOAD_MOST) as usize;
        payload.saturating_add(P::FIRST.bytes as usize).max(caps.bytes as usize)
    }

    /// Headers and payloads come in turn, and several are read at once.
    fn is_paired(batch: u16) -> bool {
        matches!(P::FRAMING, Framing::PartPerDatagram) && P::PAIRED && batch > 1
    }

    /// Hunks for so many pairs: those at even places take headers, those at odd ones payloads, so
    /// that no header's hunk ever grows. A read begins with either.
    const fn hunks_of_pairs(pairs: usize) -> usize {
        pairs.saturating_mul(2).saturating_add(1)
    }

    fn shape(limits: &Limits, batch: u16) -> Shape {
        let header = P::FIRST.bytes as usize;
        let payload = limits.payload.min(P::PAYLOAD_MOST) as usize;
        let most = usize::from(limits.descriptors);
        let (slot, most) = match P::FRAMING {
            Framing::PartPerDatagram => (payload.max(header), most),
            Framing::MessagesPerPacket(caps) => {
                let slot = Self::packet(limits, caps);
                // Honest senders pack without knowing our limit on a single message.
                (slot, if most == 0 { 0 } else { most.max(caps.descriptors.into()) })
            }
            Framing::Stream { .. } => (READ_AHEAD_MOST, most),
        };
        let room = most.saturating_add(1);
        let each = if Self::is_paired(batch) { 2 } else { 1 };
        let count = match P::FRAMING {
            Framing::Stream { .. } => 1,
            _ => usize::from(batch)
                .checked_div(each)
                .unwrap_or(1)
                .min((limits.held_bytes as usize).checked_div(slot).unwrap_or(1))
                .min(usize::from(limits.held_descriptors).checked_div(room.saturating_mul(each)).unwrap_or(1))
                .max(1),
        };
        Shape { count, slot, room }
    }

    /// What the next read is to fill.
    fn plan(&self, shape: &Shape) -> Plan {
        let needed = self.assembly.needed();
        let payload = self.assembly.part.role == Role::Payload;
        let header = P::FIRST.bytes as usize;
        let one = |bytes, in_place| Plan { first: 0, count: 1, bytes, slot: 0, in_place };
        match P::FRAMING {
            Framing::PartPerDatagram if self.batch <= 1 => one(needed, payload),
            Framing::PartPerDatagram if Self::is_paired(self.batch) => {
                let batches = shape.count > 1;
                let whole = shape.count.saturating_mul(2);
                let slot = shape.slot;
                match payload {
                    // The payload and the next header.
                    true if !batches || needed > IN_PLACE => {
                        Plan { first: 1, count: 2, bytes: needed, slot, in_place: true }
                    }
                    true => Plan { first: 1, count: whole, bytes: slot, slot, in_place: false },
                    false if !batches || self.last > IN_PLACE => one(header, false),
                    false => Plan { first: 0, count: whole, bytes: header, slot, in_place: false },
                }
            }
            Framing::PartPerDatagram | Framing::MessagesPerPacket(_) => {
                let Shape { count, slot, .. } = *shape;
                Plan { first: 0, count, bytes: slot, slot, in_place: false }
            }
            Framing::Stream { read_ahead: false } => one(needed, payload),
            Framing::Stream { read_ahead: true } if payload && needed >= READ_AHEAD => one(needed, true),
            Framing::Stream { read_ahead: true } => {
                let whole = self.last.saturating_add(FRAME_MAX);
                let next = if whole > READ_AHEAD_MOST { needed } else { whole.max(READ_AHEAD) };
                one(next, false)
            }
        }
    }

    /// Prepares the hunks of the next read; says where they begin and how many they are.
    pub(super) fn lend(&mut self) -> Result<(usize, usize), Exhausted> {
        let shape = Self::shape(&self.limits, self.batch);
        let paired = Self::is_paired(self.batch);
        let most = if paired { Self::hunks_of_pairs(shape.count) } else { shape.count };
        if self.hunks.len() > most {
            self.hunks.truncate(most);
            shrink(&mut self.hunks, most);
        }
        let Plan { first, count, bytes, slot, in_place } = self.plan(&shape);
        let end = first.saturating_add(count);
        let missing = end.saturating_sub(self.hunks.len());
        if missing > 0 {
            reserve(&mut self.hunks, missing)?;
            self.hunks.extend((0..missing).map(|_| Hunk::new()));
        }
        let header = P::FIRST.bytes as usize;
        let hunks = self.hunks.get_mut(first..end).unwrap_or_default();
        if let (true, Some(hunk)) = (in_place, hunks.first_mut()) {
            hunk.lend(&mut self.assembly.payload);
        }
        if let (Framing::MessagesPerPacket(_), Some(hunk)) = (P::FRAMING, hunks.first_mut()) {
            hunk.exchange(&mut self.assembly.payload);
        }
        // Two pieces cost a read of a small packet a tenth, so the last message decides.
        let large = matches!(P::FRAMING, Framing::MessagesPerPacket(_)) && self.last > shape.slot / 2;
        for (place, hunk) in (first..end).zip(hunks) {
            let bytes = match place {
                _ if place == first => bytes,
                _ if paired && place % 2 == 0 => header,
                _ => slot,
            };
            hunk.prepare(bytes, shape.room)?;
            if large {
                hunk.offer_head(header);
            }
        }
        Ok((first, count))
    }

    /// Takes a payload's buffer back that was lent and not filled.
    pub(super) fn reclaim(&mut self) {
        for hunk in &mut self.hunks {
            if hunk.in_place {
                hunk.bytes.truncate(hunk.from);
            }
            hunk.come_home(&mut self.assembly.payload);
        }
    }

    /// Nothing is going on: gives back what is not small (P4). Between bursts an allocation is
    /// cheap beside the wait.
    pub(super) fn release(&mut self) {
        self.hunks.truncate(1);
        shrink(&mut self.hunks, 1);
        for hunk in &mut self.hunks {
            if hunk.bytes.capacity() > KEEP {
                hunk.bytes = Vec::new();
            }
        }
        // What a reused message left behind. With a read-ahead buffer of KEEP beside it, an idle
        // channel stays below 8 KiB.
        if self.state == State::Idle && self.assembly.payload.capacity() > KEEP / 2 {
            self.assembly.payload = Vec::new();
        }
    }

    pub(super) fn note_held(&mut self) {
        self.held_most = self.held_most();
    }
}
