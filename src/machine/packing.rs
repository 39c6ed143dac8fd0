//! Several messages in one packet, where the wire allows it: what is queued leaves together.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::assembly::KEEP;
use super::outgoing::Outgoing;
use crate::profile::{Framing, Profile};

/// How the first messages of a queue leave.
#[derive(Debug, Default)]
pub(super) struct Packing {
    bytes: Vec<u8>,
    /// How many messages `bytes` holds; 0: the first leaves alone.
    lot: usize,
    /// So many leave one by one, because the packet that held them was refused as a whole.
    singly: usize,
}

impl Packing {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), lot: 0, singly: 0 }
    }

    /// Copies as many messages from the front together as the wire's caps and the socket allow. A
    /// message alone stays where it is, and so does all where memory is short.
    pub(super) fn pack<P: Profile, F>(&mut self, queue: &VecDeque<Outgoing<F>>, packet_limit: Option<usize>) {
        self.lot = 0;
        let Framing::MessagesPerPacket(caps) = P::FRAMING else { return };
        if self.singly > 0 {
            return;
        }
        let most = packet_limit.unwrap_or(usize::MAX).min(caps.bytes as usize);
        let (mut bytes, mut descriptors, mut lot) = (0_usize, 0_usize, 0_usize);
        for queued in queue.iter().take(caps.messages as usize) {
            bytes = bytes.saturating_add(queued.bytes());
            descriptors = descriptors.saturating_add(queued.message.descriptors.len());
            if bytes > most || descriptors > usize::from(caps.descriptors) {
                break;
            }
            lot = lot.saturating_add(1);
        }
        if lot < 2 {
            return;
        }
        self.bytes.clear();
        let needed = queue.iter().take(lot).fold(0_usize, |sum, queued| sum.saturating_add(queued.bytes()));
        if self.bytes.try_reserve(needed).is_err() {
            return;
        }
        for queued in queue.iter().take(lot) {
            self.bytes.extend_from_slice(queued.outline.header.as_slice());
            self.bytes.extend_from_slice(&queued.message.payload);
            self.bytes.extend_from_slice(queued.outline.trailer.as_slice());
        }
        self.lot = lot;
    }

    /// The packet, and how many messages it holds.
    pub(super) fn packet(&self) -> Option<(&[u8], usize)> {
        (self.lot > 0).then_some((self.bytes.as_slice(), self.lot))
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
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
    }
}
