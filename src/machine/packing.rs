//! Several messages in one packet, where the wire allows it: what is queued, or handed in as a
//! burst, leaves together. Small payloads are copied behind their headers; large ones stay where
//! they are, and the kernel gathers them.

use alloc::vec::Vec;

use super::outgoing::Outgoing;
use crate::message::Message;
use crate::profile::{Framing, Outline, PacketCaps, Profile};

/// Payloads above this are gathered by an iovec of their own. Below, a copy is cheaper than the
/// two vectors more that the kernel has to import for it: one for the payload, one for the next
/// header (measured: some 50 ns each, a copy of 2 KiB as much as both).
const COPIED: usize = 2048;
/// Payloads gathered in one packet. `packet`'s 64 KiB hold no more above [`COPIED`].
const GATHERED: usize = 32;
/// The buffer that an idle sender may keep (P4): with a receiver's memory beside it a channel
/// stays below 8 KiB.
const KEEP_PACKED: usize = 2048;

/// How the first messages of a queue or of a burst leave.
#[derive(Debug)]
pub(super) struct Packing {
    /// Headers, copied payloads, trailers: the packet without what is gathered.
    bytes: Vec<u8>,
    /// Where in `bytes` each gathered payload stands.
    cuts: [u32; GATHERED],
    cut: usize,
    /// How many messages the packet holds; 0: the first leaves alone.
    lot: usize,
    /// So many leave one by one, because the packet that held them was refused as a whole.
    singly: usize,
}

/// Whether a payload is gathered and not copied.
pub(super) const fn is_gathered(payload: &[u8]) -> bool {
    payload.len() > COPIED
}

impl Packing {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), cuts: [0; GATHERED], cut: 0, lot: 0, singly: 0 }
    }

    /// Packs as many of the queued messages as fit.
    pub(super) fn pack<'a, P: Profile, F: 'a>(
        &mut self,
        queue: impl ExactSizeIterator<Item = &'a Outgoing<F>>,
        packet_limit: Option<usize>,
    ) {
        let Some(mut room) = self.begin::<P>(queue.len(), packet_limit) else { return };
        for queued in queue {
            if !self.add(&mut room, &queued.message, &queued.outline) {
                break;
            }
        }
        self.end();
    }

    /// Packs as many of the burst's messages as fit, up to one that is of a kind that is never
    /// sent.
    pub(super) fn pack_burst<P: Profile, F>(&mut self, burst: &[Message<F>], packet_limit: Option<usize>) {
        let Some(mut room) = self.begin::<P>(burst.len(), packet_limit) else { return };
        for message in burst {
            let fits = Outgoing::check::<P>(message, packet_limit)
                .is_ok_and(|outline| self.add(&mut room, message, &outline));
            if !fits {
                break;
            }
        }
        self.end();
    }

    /// What a packet may hold, if one of several is to be made at all.
    fn begin<P: Profile>(&mut self, messages: usize, packet_limit: Option<usize>) -> Option<PacketCaps> {
        self.lot = 0;
        let Framing::MessagesPerPacket(caps) = P::FRAMING else { return None };
        if messages < 2 || self.singly > 0 {
            return None;
        }
        self.bytes.clear();
        self.cut = 0;
        let socket = u32::try_from(packet_limit.unwrap_or(usize::MAX)).unwrap_or(u32::MAX);
        Some(PacketCaps { bytes: caps.bytes.min(socket), ..caps })
    }

    /// Adds a message within `room`; `false` if it does not fit, or memory is short.
    fn add<F>(&mut self, room: &mut PacketCaps, message: &Message<F>, outline: &Outline) -> bool {
        let (header, trailer) = (outline.header.as_slice(), outline.trailer.as_slice());
        let payload = message.payload.as_slice();
        let around = header.len().saturating_add(trailer.len());
        let left = (|| {
            let bytes = u32::try_from(around.saturating_add(payload.len())).ok()?;
            let descriptors = u8::try_from(message.descriptors.len()).ok()?;
            Some(PacketCaps {
                messages: room.messages.checked_sub(1)?,
                bytes: room.bytes.checked_sub(bytes)?,
                descriptors: room.descriptors.checked_sub(descriptors)?,
            })
        })();
        let Some(left) = left else { return false };
        let gathered = is_gathered(payload);
        let copied = if gathered { around } else { around.saturating_add(payload.len()) };
        if self.bytes.try_reserve(copied).is_err() {
            return false;
        }
        if gathered {
            let Some(cut) = self.cuts.get_mut(self.cut) else { return false };
            self.bytes.extend_from_slice(header);
            *cut = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
            self.cut = self.cut.saturating_add(1);
        } else {
            self.bytes.extend_from_slice(header);
            self.bytes.extend_from_slice(payload);
        }
        self.bytes.extend_from_slice(trailer);
        *room = left;
        self.lot = self.lot.saturating_add(1);
        true
    }

    /// A message alone stays where it is.
    const fn end(&mut self) {
        if self.lot < 2 {
            self.lot = 0;
        }
    }

    /// How many messages the packet holds; 0: the first leaves alone.
    pub(super) const fn lot(&self) -> usize {
        self.lot
    }

    /// The packet without what is gathered, and where that stands.
    pub(super) fn packet(&self) -> (&[u8], &[u32]) {
        (self.bytes.as_slice(), self.cuts.get(..self.cut).unwrap_or_default())
    }

    /// How many messages the transmit that the kernel took held.
    pub(super) fn taken(&mut self) -> usize {
        let lot = core::mem::take(&mut self.lot).max(1);
        self.singly = self.singly.saturating_sub(lot);
        lot
    }

    /// The kernel took nothing: `true` if what it refused is to be tried message by message.
    pub(super) fn refused(&mut self) -> bool {
        self.singly = core::mem::take(&mut self.lot);
        self.singly > 0
    }

    /// The queue changed: what was packed is no more.
    pub(super) const fn forget(&mut self) {
        self.lot = 0;
    }

    /// Nothing is queued: an idle sender holds little (P4).
    pub(super) fn release(&mut self) {
        self.singly = 0;
        self.lot = 0;
        if self.bytes.capacity() > KEEP_PACKED {
            self.bytes = Vec::new();
        }
    }
}
