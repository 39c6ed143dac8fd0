//! What is to be sent, lent to whoever makes the system call.

use alloc::collections::{VecDeque, vec_deque};
use core::iter;
use core::marker::PhantomData;
use core::mem;

use super::outgoing::Outgoing;
use crate::profile::Profile;

/// What one sendmsg(2) is to send: borrowed bytes and descriptors.
#[derive(Debug)]
pub struct Transmit<'a, F> {
    slices: [&'a [u8]; 3],
    descriptors: &'a [Option<F>],
    /// The messages of a packet of several: their descriptors, one after the other.
    lot: iter::Take<vec_deque::Iter<'a, Outgoing<F>>>,
    count: usize,
}

impl<'a, F> Transmit<'a, F> {
    /// One of one's own, for what is no [`Profile`].
    pub fn new(slices: [&'a [u8]; 3], descriptors: &'a [Option<F>]) -> Self {
        let lot = vec_deque::Iter::default().take(0);
        Self { slices, descriptors, lot, count: descriptors.len() }
    }

    /// The first `messages` of `queue`, whose bytes were copied together.
    pub(super) fn of_lot(bytes: &'a [u8], queue: &'a VecDeque<Outgoing<F>>, messages: usize) -> Self {
        let lot = queue.iter().take(messages);
        let count = lot.clone().map(|queued| queued.message.descriptors.len()).fold(0, usize::saturating_add);
        Self { slices: [bytes, &[], &[]], descriptors: &[], lot, count }
    }

    /// The bytes, in order; empty slices among them.
    pub const fn slices(&self) -> [&'a [u8]; 3] {
        self.slices
    }

    /// How many bytes.
    pub fn bytes(&self) -> usize {
        self.slices.iter().fold(0, |sum: usize, slice| sum.saturating_add(slice.len()))
    }

    /// The descriptors that ride on the first byte.
    pub fn descriptors(&self) -> impl Iterator<Item = &'a F> + use<'a, F> {
        let of_lot = self.lot.clone().flat_map(|queued| &queued.message.descriptors);
        self.descriptors.iter().chain(of_lot).flatten()
    }

    /// How many descriptors.
    pub const fn descriptor_count(&self) -> usize {
        self.count
    }

    /// Without the first `count` bytes, which left, and the descriptors with them.
    #[must_use]
    pub fn skip(mut self, mut count: usize) -> Self {
        if count > 0 {
            self = Self::new(self.slices, &[]);
        }
        for slice in &mut self.slices {
            let gone = count.min(slice.len());
            *slice = slice.get(gone..).unwrap_or_default();
            count = count.saturating_sub(gone);
        }
        self
    }
}

/// The iterator of [`Sender::transmits`](super::Sender::transmits).
pub struct Transmits<'a, P: Profile, F> {
    pub(super) queue: &'a VecDeque<Outgoing<F>>,
    /// The first messages as one packet, if they are to leave so, and how many they are. Nothing
    /// follows it: what is behind is packed when it is the first.
    pub(super) packet: Option<(&'a [u8], usize)>,
    pub(super) message: usize,
    pub(super) index: usize,
    pub(super) offset: usize,
    pub(super) wire: PhantomData<fn() -> P>,
}

impl<'a, P: Profile, F> Iterator for Transmits<'a, P, F> {
    type Item = Transmit<'a, F>;

    fn next(&mut self) -> Option<Transmit<'a, F>> {
        if let Some((bytes, messages)) = self.packet.take() {
            self.message = self.queue.len();
            return Some(Transmit::of_lot(bytes, self.queue, messages));
        }
        loop {
            let queued = self.queue.get(self.message)?;
            if let Some(transmit) = queued.transmit::<P>(self.index) {
                self.index = self.index.saturating_add(1);
                return Some(transmit.skip(mem::take(&mut self.offset)));
            }
            self.message = self.message.saturating_add(1);
            self.index = 0;
        }
    }
}
