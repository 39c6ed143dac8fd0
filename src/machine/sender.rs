//! The sending half.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::mem;
use core::time::Duration;

use crate::error::{Exhausted, Fault, Misuse};
use crate::limits::SCM_MAX_FD;
use crate::message::Message;
use crate::profile::{Carrier, Framing, Outline, Profile};

/// How long to stay away from a kernel that is short of something: it says "writable" all the
/// while, so that poll(2) would spin. Doubled up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// Takes whole messages and says what of them is to be sent. A message is checked before its
/// first byte leaves, and never given up half-way while the direction lives (P6).
pub struct Sender<P: Profile, F> {
    queue: VecDeque<Queued<F>>,
    /// Transmits of the first message that left, and bytes of the one after (streams only).
    gone: usize,
    offset: usize,
    closed: bool,
    packet_limit: Option<usize>,
    retry: Option<Duration>,
    back_off: Duration,
    sending: Sending,
    wire: PhantomData<fn() -> P>,
}

struct Queued<F> {
    message: Message<F>,
    outline: Outline,
}

/// What a sender handed to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// Whole messages.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Their descriptors.
    pub descriptors: u64,
}

/// What one sendmsg(2) is to send: borrowed bytes and descriptors.
#[derive(Debug)]
pub struct Transmit<'a, F> {
    slices: [&'a [u8]; 3],
    descriptors: &'a [Option<F>],
}

impl<'a, F> Transmit<'a, F> {
    /// One of one's own, for what is no [`Profile`].
    pub const fn new(slices: [&'a [u8]; 3], descriptors: &'a [Option<F>]) -> Self {
        Self { slices, descriptors }
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
        self.descriptors.iter().flatten()
    }

    /// How many descriptors.
    pub const fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// Without the first `count` bytes, which left, and the descriptors with them.
    #[must_use]
    pub fn skip(mut self, mut count: usize) -> Self {
        if count > 0 {
            self.descriptors = &[];
        }
        for slice in &mut self.slices {
            let gone = count.min(slice.len());
            *slice = slice.get(gone..).unwrap_or_default();
            count = count.saturating_sub(gone);
        }
        self
    }
}

/// Why the kernel did not take what was transmitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// Not now: wait until the socket is writable.
    WouldBlock,
    /// It is short of memory or of descriptors in flight: wait by time, since the socket stays
    /// writable.
    Pressure,
    /// It will not take this message.
    Refused,
    /// There is no peer any more.
    Gone,
}

/// What follows from a [`Failure`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome<F> {
    /// Everything is kept; transmit again when the socket is writable.
    Wait,
    /// Everything is kept; transmit again at [`Sender::deadline`].
    BackOff,
    /// Nothing of the first message had left: here it is, and the direction lives on.
    Returned(Message<F>),
    /// The direction is closed. Here is what did not leave, whole.
    Closed(Vec<Message<F>>),
}

impl<P: Profile, F> Sender<P, F> {
    /// An empty sender.
    pub const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            gone: 0,
            offset: 0,
            closed: false,
            packet_limit: None,
            retry: None,
            back_off: BACK_OFF.0,
            sending: Sending { messages: 0, bytes: 0, descriptors: 0 },
            wire: PhantomData,
        }
    }

    /// Sets the bytes of the largest datagram or packet that the socket takes; `None` for a
    /// stream.
    pub const fn set_packet_limit(&mut self, bytes: Option<usize>) {
        self.packet_limit = bytes;
    }

    /// What was handed to the kernel.
    pub const fn sending(&self) -> Sending {
        self.sending
    }

    /// Nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Part of a message left and the rest did not.
    pub const fn begun(&self) -> bool {
        self.gone > 0 || self.offset > 0
    }

    /// When to transmit again after [`Outcome::BackOff`].
    pub const fn deadline(&self) -> Option<Duration> {
        self.retry
    }

    /// Checks a message and takes it.
    ///
    /// # Errors
    /// The message comes back, with the [`Misuse`] that the wire, the kernel or the socket would
    /// not take, or [`Exhausted::OutOfMemory`]. Nothing was sent.
    pub fn push(&mut self, message: Message<F>) -> Result<(), (Fault, Message<F>)> {
        let outline = match self.check(&message) {
            Ok(outline) => outline,
            Err(misuse) => return Err((misuse.into(), message)),
        };
        if self.queue.try_reserve(1).is_err() {
            let bytes = size_of::<Queued<F>>() as u64;
            return Err((Exhausted::OutOfMemory { bytes }.into(), message));
        }
        self.queue.push_back(Queued { message, outline });
        Ok(())
    }

    /// What [`push`](Self::push) checks, without taking the message.
    ///
    /// # Errors
    /// What the wire, the kernel or the socket would not take.
    pub fn check(&self, message: &Message<F>) -> Result<Outline, Misuse> {
        if self.closed {
            return Err(Misuse::DirectionClosed);
        }
        if let Some(index) = message.descriptors.iter().position(Option::is_none) {
            return Err(Misuse::DescriptorTaken { index: index as u64 });
        }
        let too_many = |limit: u8| Misuse::TooManyDescriptors {
            descriptors: message.descriptors.len() as u64,
            limit: limit.into(),
        };
        let descriptors = u8::try_from(message.descriptors.len()).map_err(|_| too_many(SCM_MAX_FD))?;
        if descriptors > SCM_MAX_FD {
            return Err(too_many(SCM_MAX_FD));
        }
        let bytes = message.payload.len();
        let too_large = |limit: u64| Misuse::PayloadTooLarge { bytes: bytes as u64, limit };
        let payload = u32::try_from(bytes).ok().filter(|payload| *payload <= P::PAYLOAD_MOST);
        let payload = payload.ok_or_else(|| too_large(P::PAYLOAD_MOST.into()))?;
        let outline = P::encode(&message.head, payload, descriptors)?;
        if let Some(limit) = self.packet_limit {
            let around = match P::FRAMING {
                Framing::MessagesPerPacket(_) => {
                    outline.header.as_slice().len().saturating_add(outline.trailer.as_slice().len())
                }
                Framing::PartPerDatagram | Framing::Stream { .. } => 0,
            };
            let limit = limit.saturating_sub(around);
            if bytes > limit {
                return Err(too_large(limit as u64));
            }
        }
        Ok(outline)
    }

    /// What is to be sent, from where the last one stopped.
    pub fn transmits(&self) -> Transmits<'_, P, F> {
        Transmits { queue: &self.queue, message: 0, index: self.gone, offset: self.offset, wire: PhantomData }
    }

    /// The kernel took `count`: datagrams or packets; on a stream, bytes of the first transmit.
    pub fn transmitted(&mut self, count: usize) {
        self.retry = None;
        self.back_off = BACK_OFF.0;
        if !matches!(P::FRAMING, Framing::Stream { .. }) {
            for _ in 0..count {
                if self.queue.is_empty() {
                    return; // more than there was to send
                }
                self.gone = self.gone.saturating_add(1);
                self.retire();
            }
            return;
        }
        self.offset = self.offset.saturating_add(count);
        while self.transmits().next().is_some_and(|transmit| transmit.bytes() == 0) {
            self.gone = self.gone.saturating_add(1);
            self.offset = 0;
            self.retire();
        }
    }

    /// Drops the first message if all of it left: the kernel holds its descriptors now.
    fn retire(&mut self) {
        let Some(first) = self.queue.front() else { return };
        if first.transmit::<P>(self.gone).is_some() {
            return;
        }
        self.gone = 0;
        let Sending { messages, bytes, descriptors } = self.sending;
        self.sending = Sending {
            messages: messages.saturating_add(1),
            bytes: bytes.saturating_add(first.message.payload.len() as u64),
            descriptors: descriptors.saturating_add(first.message.descriptors.len() as u64),
        };
        self.queue.pop_front();
    }

    /// The kernel did not take the first transmit. `now` as for the receiver.
    pub fn failed(&mut self, now: Duration, failure: Failure) -> Outcome<F> {
        self.retry = None;
        match failure {
            Failure::WouldBlock => Outcome::Wait,
            Failure::Pressure => {
                self.retry = Some(now.saturating_add(self.back_off));
                self.back_off = self.back_off.saturating_mul(2).min(BACK_OFF.1);
                Outcome::BackOff
            }
            Failure::Refused if !self.begun() => match self.queue.pop_front() {
                Some(Queued { message, .. }) => Outcome::Returned(message),
                None => Outcome::Wait,
            },
            Failure::Refused | Failure::Gone => Outcome::Closed(self.close()),
        }
    }

    /// Takes the newest message back, if nothing of it left.
    pub fn recall(&mut self) -> Option<Message<F>> {
        if self.begun() && self.queue.len() == 1 {
            return None;
        }
        let newest = self.queue.pop_back()?;
        if self.queue.is_empty() {
            self.retry = None; // nothing is left to be tried again
        }
        Some(newest.message)
    }

    /// Closes the direction; hands back what did not leave, whole and in order.
    pub fn close(&mut self) -> Vec<Message<F>> {
        self.closed = true;
        (self.gone, self.offset, self.retry) = (0, 0, None);
        mem::take(&mut self.queue).into_iter().map(|queued| queued.message).collect()
    }
}

impl<P: Profile, F> Default for Sender<P, F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Queued<F> {
    /// The transmit at `index`, if the message has so many.
    fn transmit<P: Profile>(&self, index: usize) -> Option<Transmit<'_, F>> {
        let (header, trailer) = (self.outline.header.as_slice(), self.outline.trailer.as_slice());
        let payload = self.message.payload.as_slice();
        let carrier = self.outline.carrier;
        let all = self.message.descriptors.as_slice();
        let on = |part: Carrier| if carrier == part { all } else { &[] };
        let transmit = |slices, descriptors| Some(Transmit { slices, descriptors });
        match (P::FRAMING, index) {
            (Framing::PartPerDatagram, 0) => transmit([header, &[], &[]], on(Carrier::Header)),
            (Framing::PartPerDatagram, 1) => transmit([payload, &[], &[]], on(Carrier::Payload)),
            (Framing::PartPerDatagram, 2) if !trailer.is_empty() => {
                transmit([trailer, &[], &[]], on(Carrier::Trailer))
            }
            (Framing::MessagesPerPacket(_), 0) => transmit([header, payload, trailer], all),
            // Descriptors ride on the first byte of their part: what comes before it is a send of
            // its own.
            (Framing::Stream { .. }, 0) => match carrier {
                Carrier::Payload if !all.is_empty() => transmit([header, &[], &[]], &[]),
                Carrier::Trailer if !all.is_empty() => transmit([header, payload, &[]], &[]),
                _ => transmit([header, payload, trailer], all),
            },
            (Framing::Stream { .. }, 1) if !all.is_empty() => match carrier {
                Carrier::Header => None,
                Carrier::Payload => transmit([payload, trailer, &[]], all),
                Carrier::Trailer => transmit([trailer, &[], &[]], all),
            },
            _ => None,
        }
    }
}

/// The iterator of [`Sender::transmits`].
pub struct Transmits<'a, P: Profile, F> {
    queue: &'a VecDeque<Queued<F>>,
    message: usize,
    index: usize,
    offset: usize,
    wire: PhantomData<fn() -> P>,
}

impl<'a, P: Profile, F> Iterator for Transmits<'a, P, F> {
    type Item = Transmit<'a, F>;

    fn next(&mut self) -> Option<Transmit<'a, F>> {
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
