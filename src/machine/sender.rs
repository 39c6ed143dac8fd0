//! The sending half.

use alloc::collections::VecDeque;
use core::marker::PhantomData;
use core::mem;
use core::time::Duration;

use crate::error::{Exhausted, Fault, Misuse};
use crate::message::Message;
use crate::profile::{Framing, Outline, Profile};

use super::leftover::Leftover;
use super::outgoing::{self, Outgoing};
use super::packing::Packing;
use super::transmit::{Transmit, Transmits};

/// How long to stay away from a kernel that is short of something: it says "writable" all the
/// while, so that poll(2) would spin. Doubled up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// Messages for which an idle queue keeps its memory.
const IDLE: usize = 8;

/// Takes whole messages and says what of them is to be sent. A message is checked before its
/// first byte leaves, and never given up half-way while the direction lives (P6).
pub struct Sender<P: Profile, F> {
    queue: VecDeque<Outgoing<F>>,
    /// Transmits of the first message that left, and bytes of the one after (streams only).
    gone: usize,
    offset: usize,
    packing: Packing,
    closed: bool,
    packet_limit: Option<usize>,
    retry: Option<Duration>,
    back_off: Duration,
    sending: Sending,
    wire: PhantomData<fn() -> P>,
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

impl Sending {
    /// Counts one message more.
    pub fn count<F>(&mut self, message: &Message<F>) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(message.payload.len() as u64);
        self.descriptors = self.descriptors.saturating_add(message.descriptors.len() as u64);
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
    /// Everything is kept; transmit again at once: what was refused together goes out singly.
    Again,
    /// Nothing of the first message had left: here it is, and the direction lives on.
    Returned(Message<F>),
    /// The direction is closed. Here is what did not leave, whole.
    Closed(Leftover<F>),
}

impl<P: Profile, F> Sender<P, F> {
    /// An empty sender.
    pub const fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            gone: 0,
            offset: 0,
            packing: Packing::new(),
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

    /// The bytes of the largest datagram or packet that the socket takes.
    pub const fn packet_limit(&self) -> Option<usize> {
        self.packet_limit
    }

    /// What was handed to the kernel.
    pub const fn sending(&self) -> Sending {
        self.sending
    }

    /// What waits to be sent, whole or in part.
    pub fn queued(&self) -> Sending {
        let mut queued = Sending::default();
        self.queue.iter().for_each(|outgoing| queued.count(outgoing.message()));
        queued
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
        self.take(Outgoing { message, outline })
    }

    /// Takes a message that was checked.
    ///
    /// # Errors
    /// [`Exhausted::OutOfMemory`]: the message comes back.
    pub fn take(&mut self, outgoing: Outgoing<F>) -> Result<(), (Fault, Message<F>)> {
        if let Err(short) = self.make_room() {
            return Err((short.into(), outgoing.message));
        }
        self.queue.push_back(outgoing);
        Ok(())
    }

    /// Memory for one message more.
    ///
    /// # Errors
    /// [`Exhausted::OutOfMemory`].
    pub fn make_room(&mut self) -> Result<(), Exhausted> {
        let bytes = size_of::<Outgoing<F>>() as u64;
        self.queue.try_reserve(1).map_err(|_| Exhausted::OutOfMemory { bytes })
    }

    /// A message of which the kernel took `count` at once, while nothing waited: `true` if that
    /// was all of it. The rest is queued, in the [room](Self::make_room) that was made before.
    pub fn departed(&mut self, message: Message<F>, outline: &Outline, count: usize) -> bool {
        if outgoing::is_whole::<P, F>(&message, outline, count) {
            self.recover();
            self.sending.count(&message);
            return true;
        }
        self.queue.push_back(Outgoing { message, outline: *outline });
        self.transmitted(count);
        false
    }

    /// The kernel took something: whatever it was short of is over.
    const fn recover(&mut self) {
        self.retry = None;
        self.back_off = BACK_OFF.0;
    }

    /// What [`push`](Self::push) checks, without taking the message.
    ///
    /// # Errors
    /// What the wire, the kernel or the socket would not take.
    pub fn check(&self, message: &Message<F>) -> Result<Outline, Misuse> {
        if self.closed {
            return Err(Misuse::DirectionClosed);
        }
        Outgoing::check::<P>(message, self.packet_limit)
    }

    /// Takes all of `queue`, which the caller had checked, behind what is there: where many
    /// threads send, each checks its own. Nothing is taken on a closed direction, and where
    /// memory is short (P4) as long as something is queued; an empty sender needs none.
    pub fn append(&mut self, queue: &mut VecDeque<Outgoing<F>>) {
        if self.closed {
            return;
        }
        if self.queue.is_empty() {
            mem::swap(&mut self.queue, queue);
        } else if self.queue.try_reserve(queue.len()).is_ok() {
            self.queue.append(queue);
        }
    }

    /// Gives back memory that a burst had taken, where nothing is queued (P4).
    pub fn release(&mut self) {
        if self.queue.is_empty() && self.queue.capacity() > IDLE {
            self.queue = VecDeque::new();
        }
    }

    /// Puts as many of the messages that wait into one packet as the wire allows; without this
    /// call, or on a wire that has no such packets, each leaves by itself. A lot that the kernel
    /// refuses goes out singly until past the message at fault.
    pub fn pack(&mut self) {
        self.packing.pack::<P, F>(self.queue.iter(), self.packet_limit);
    }

    /// Packs messages from the front of `burst` into one packet, while nothing is queued; says how
    /// many. 0: the first leaves alone, or is of a kind that is never sent.
    pub fn pack_burst(&mut self, burst: &[Message<F>]) -> usize {
        self.packing.pack_burst::<P, F>(burst, self.packet_limit);
        self.packing.lot()
    }

    /// The packet that was made of the first messages of this `burst`, if there is one.
    pub fn burst<'a>(&'a self, burst: &'a [Message<F>]) -> Option<Transmit<'a, F>> {
        (self.packing.lot() > 0).then(|| Transmit::of_burst(&self.packing, burst))
    }

    /// The kernel took the packet, or the first message alone; says how many messages that were.
    pub fn burst_left(&mut self, burst: &[Message<F>]) -> usize {
        self.recover();
        let lot = self.packing.taken();
        burst.iter().take(lot).for_each(|message| self.sending.count(message));
        lot
    }

    /// The burst is over, or given up: with nothing queued, nothing is left to be tried again.
    pub fn burst_over(&mut self) {
        self.packing.release();
        if self.queue.is_empty() {
            self.retry = None;
            self.release();
        }
    }

    /// What is to be sent, from where the last one stopped.
    pub fn transmits(&self) -> Transmits<'_, P, F> {
        Transmits {
            queue: &self.queue,
            packing: Some(&self.packing).filter(|packing| packing.lot() > 0),
            message: 0,
            index: self.gone,
            offset: self.offset,
            wire: PhantomData,
        }
    }

    /// The kernel took `count`: datagrams or packets; on a stream, bytes of the first transmit.
    pub fn transmitted(&mut self, count: usize) {
        self.recover();
        if !matches!(P::FRAMING, Framing::Stream { .. }) {
            for _ in 0..count {
                for _ in 0..self.packing.taken() {
                    if self.queue.is_empty() {
                        return; // more than there was to send
                    }
                    self.gone = self.gone.saturating_add(1);
                    self.retire();
                }
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
        self.sending.count(&first.message);
        self.queue.pop_front();
        if self.queue.is_empty() {
            self.packing.release();
        }
    }

    /// The kernel did not take the first transmit. `now` as for the receiver.
    pub fn failed(&mut self, now: Duration, failure: Failure) -> Outcome<F> {
        self.retry = None;
        if failure == Failure::Refused && self.packing.refused() {
            return Outcome::Again;
        }
        self.packing.forget();
        match failure {
            Failure::WouldBlock => Outcome::Wait,
            Failure::Pressure => {
                self.retry = Some(now.saturating_add(self.back_off));
                self.back_off = self.back_off.saturating_mul(2).min(BACK_OFF.1);
                Outcome::BackOff
            }
            Failure::Refused if !self.begun() => match self.queue.pop_front() {
                Some(Outgoing { message, .. }) => Outcome::Returned(message),
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
        self.packing.forget();
        let newest = self.queue.pop_back()?;
        if self.queue.is_empty() {
            self.retry = None; // nothing is left to be tried again
            self.packing.release();
        }
        Some(newest.message)
    }

    /// Closes the direction; hands back what did not leave, whole and in order.
    pub fn close(&mut self) -> Leftover<F> {
        self.closed = true;
        (self.gone, self.offset, self.retry) = (0, 0, None);
        self.packing = Packing::new();
        Leftover::of(mem::take(&mut self.queue))
    }
}

impl<P: Profile, F> Default for Sender<P, F> {
    fn default() -> Self {
        Self::new()
    }
}
