//! What is to be sent, lent to whoever makes the system call.

use alloc::collections::{VecDeque, vec_deque};
use core::iter::Take;
use core::marker::PhantomData;
use core::{mem, slice};

use super::outgoing::{self, Outgoing};
use super::packing::{Packing, is_gathered};
use crate::message::Message;
use crate::profile::{Outline, Profile};

/// What one sendmsg(2) is to send: borrowed bytes and descriptors.
#[derive(Debug)]
pub struct Transmit<'a, F> {
    slices: [&'a [u8]; 3],
    descriptors: &'a [Option<F>],
    /// The messages of a packet of several: their gathered payloads and their descriptors.
    lot: Option<Lot<'a, F>>,
}

/// Messages that leave in one packet: `packed` cut where each gathered payload stands.
#[derive(Debug)]
struct Lot<'a, F> {
    packed: &'a [u8],
    cuts: &'a [u32],
    messages: Messages<'a, F>,
    descriptors: usize,
    bytes: usize,
}

/// The messages of a lot, from the queue or from the caller's burst.
#[derive(Debug)]
enum Messages<'a, F> {
    Queued(Take<vec_deque::Iter<'a, Outgoing<F>>>),
    Burst(slice::Iter<'a, Message<F>>),
}

impl<F> Clone for Messages<'_, F> {
    fn clone(&self) -> Self {
        match self {
            Self::Queued(queued) => Self::Queued(queued.clone()),
            Self::Burst(burst) => Self::Burst(burst.clone()),
        }
    }
}

impl<'a, F> Iterator for Messages<'a, F> {
    type Item = &'a Message<F>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Queued(queued) => queued.next().map(Outgoing::message),
            Self::Burst(burst) => burst.next(),
        }
    }
}

impl<'a, F> Transmit<'a, F> {
    /// One of one's own, for what is no [`Profile`].
    pub const fn new(slices: [&'a [u8]; 3], descriptors: &'a [Option<F>]) -> Self {
        Self { slices, descriptors, lot: None }
    }

    /// What a message is sent as, whose [`Outline`] is this one.
    pub fn of_message<P: Profile>(
        message: &'a Message<F>,
        outline: &'a Outline,
    ) -> impl Iterator<Item = Self> + use<'a, P, F> {
        (0..).map_while(|index| outgoing::transmit::<P, F>(message, outline, index))
    }

    /// The first messages of `queue` as they were packed.
    pub(super) fn of_queue(packing: &'a Packing, queue: &'a VecDeque<Outgoing<F>>) -> Self {
        Self::of_lot(packing, Messages::Queued(queue.iter().take(packing.lot())))
    }

    /// The first messages of a burst as they were packed.
    pub(super) fn of_burst(packing: &'a Packing, burst: &'a [Message<F>]) -> Self {
        Self::of_lot(packing, Messages::Burst(burst.get(..packing.lot()).unwrap_or_default().iter()))
    }

    fn of_lot(packing: &'a Packing, messages: Messages<'a, F>) -> Self {
        let (packed, cuts) = packing.packet();
        let (mut descriptors, mut bytes) = (0_usize, packed.len());
        for message in messages.clone() {
            descriptors = descriptors.saturating_add(message.descriptors.len());
            if is_gathered(&message.payload) {
                bytes = bytes.saturating_add(message.payload.len());
            }
        }
        let lot = Lot { packed, cuts, messages, descriptors, bytes };
        Self { slices: [&[], &[], &[]], descriptors: &[], lot: Some(lot) }
    }

    /// The bytes, in order; empty slices among them.
    pub fn slices(&self) -> Slices<'a, F> {
        let lot = self.lot.as_ref();
        Slices {
            plain: self.slices,
            at: 0,
            packed: lot.map_or(&[], |lot| lot.packed),
            cuts: lot.map_or(&[], |lot| lot.cuts),
            start: 0,
            payload: None,
            messages: lot.map(|lot| lot.messages.clone()),
        }
    }

    /// How many bytes.
    pub fn bytes(&self) -> usize {
        let plain = self.slices.iter().fold(0, |sum: usize, slice| sum.saturating_add(slice.len()));
        plain.saturating_add(self.lot.as_ref().map_or(0, |lot| lot.bytes))
    }

    /// The descriptors that ride on the first byte.
    pub fn descriptors(&self) -> impl Iterator<Item = &'a F> + use<'a, F> {
        let messages = self.lot.as_ref().map(|lot| lot.messages.clone());
        let of_lot = messages.into_iter().flatten().flat_map(|message| &message.descriptors);
        self.descriptors.iter().chain(of_lot).flatten()
    }

    /// How many descriptors.
    pub fn descriptor_count(&self) -> usize {
        self.lot.as_ref().map_or(self.descriptors.len(), |lot| lot.descriptors)
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

/// The iterator of [`Transmit::slices`].
#[derive(Debug)]
pub struct Slices<'a, F> {
    plain: [&'a [u8]; 3],
    at: usize,
    packed: &'a [u8],
    cuts: &'a [u32],
    /// `packed` up to here was yielded.
    start: usize,
    /// The gathered payload that comes next.
    payload: Option<&'a [u8]>,
    messages: Option<Messages<'a, F>>,
}

impl<'a, F> Iterator for Slices<'a, F> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(slice) = self.plain.get(self.at).filter(|_| self.messages.is_none()) {
            self.at = self.at.saturating_add(1);
            return Some(slice);
        }
        if let Some(payload) = self.payload.take() {
            return Some(payload);
        }
        let end = match self.cuts.split_first() {
            Some((cut, rest)) => {
                self.cuts = rest;
                let mut payloads = self.messages.iter_mut().flatten().map(Message::payload);
                self.payload = payloads.find(|payload| is_gathered(payload));
                *cut as usize
            }
            None => self.packed.len(),
        };
        let run = self.packed.get(mem::replace(&mut self.start, end)..end)?;
        (!run.is_empty() || self.payload.is_some()).then_some(run)
    }
}

/// The iterator of [`Sender::transmits`](super::Sender::transmits).
pub struct Transmits<'a, P: Profile, F> {
    pub(super) queue: &'a VecDeque<Outgoing<F>>,
    /// The first messages as one packet, if they are to leave so. Nothing follows it: what is
    /// behind is packed when it is the first.
    pub(super) packing: Option<&'a Packing>,
    pub(super) message: usize,
    pub(super) index: usize,
    pub(super) offset: usize,
    pub(super) wire: PhantomData<fn() -> P>,
}

impl<'a, P: Profile, F> Iterator for Transmits<'a, P, F> {
    type Item = Transmit<'a, F>;

    fn next(&mut self) -> Option<Transmit<'a, F>> {
        if let Some(packing) = self.packing.take() {
            self.message = self.queue.len();
            return Some(Transmit::of_queue(packing, self.queue));
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
