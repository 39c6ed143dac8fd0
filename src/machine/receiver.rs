//! The receiving half.

mod refusal;

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::assembly::{Assembly, KEEP};
use super::counters::{Held, Received};
use super::hunk::{Hunk, SLACK, reserve};
use super::intake::{self, Position, Step};
use super::table::{self, Action, Input, State};
use crate::error::{Exhausted, Fault, Misuse, Violation};
use crate::limits::Limits;
use crate::message::Message;
use crate::profile::{FRAME_MAX, Framing, Profile, Role};

/// The most that a stream reads ahead: small, so that an idle channel stays small, and larger
/// payloads are read in place anyway.
const READ_AHEAD: usize = KEEP;

/// Turns what the kernel handed over into messages of the wire `P`, or into one error for ever.
///
/// The order of calls stands in [the module's head](super).
pub struct Receiver<P: Profile, F> {
    limits: Limits,
    batch: u16,
    state: State,
    /// Set in `Failed`, and returned for ever.
    fault: Option<Fault>,
    hunks: Vec<Hunk<F>>,
    /// Hunks that are lent out.
    lent: usize,
    /// Hunks that were filled, and how many of them are used up.
    filled: usize,
    next: usize,
    at: Position,
    arrived: Duration,
    assembly: Assembly<P, F>,
    received: Received,
    held_most: Held,
}

impl<P: Profile, F> Receiver<P, F> {
    /// A receiver that reads one part or packet at a time.
    ///
    /// # Errors
    /// [`Misuse::LimitOutOfRange`], as [`Limits::check`] says.
    pub fn new(limits: Limits) -> Result<Self, Misuse> {
        limits.check()?;
        let limits = limits.payload(limits.payload.min(P::PAYLOAD_MOST));
        Ok(Self {
            limits,
            batch: 1,
            state: State::Idle,
            fault: None,
            hunks: Vec::new(),
            lent: 0,
            filled: 0,
            next: 0,
            at: Position::default(),
            arrived: Duration::ZERO,
            assembly: Assembly::new(&limits),
            received: Received::default(),
            held_most: Held::default(),
        })
    }

    /// Reads up to `hunks` datagrams or packets at a time, as far as the limits on what may be
    /// held allow. Streams always read one hunk.
    #[must_use]
    pub fn batch(mut self, hunks: u16) -> Self {
        self.set_batch(hunks);
        self
    }

    /// As [`batch`](Self::batch), from the next [`windows`](Self::windows) on.
    pub fn set_batch(&mut self, hunks: u16) {
        self.batch = hunks.max(1);
    }

    /// What it accepts; the payload is never above what the wire carries.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether all that was read has been delivered, and no message has begun: nothing would be lost
    /// with this receiver.
    pub fn is_between(&self) -> bool {
        let left = self.hunks.get(self.next..self.filled).unwrap_or_default();
        self.state == State::Idle
            && match left {
                [] => true,
                // A packet is used up only when its end is looked at, by the next `poll`.
                [last] => self.at.is_at_the_end::<P, F>(last),
                _ => false,
            }
    }

    /// The final fault, if there is one. Messages that came before it may still be to be polled.
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What was delivered.
    pub const fn received(&self) -> Received {
        self.received
    }

    /// When the message that has begun is overdue; `None` between messages.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Header | State::Body => Some(self.assembly.deadline(&self.limits)),
            State::Idle | State::Ended | State::Failed => None,
        }
    }

    /// The next message, if one is whole.
    ///
    /// # Errors
    /// [`Fault::Violation`] and [`Exhausted::DescriptorsLost`] come after the messages before
    /// them and are final: the same again at every call. [`Exhausted::OutOfMemory`] is not:
    /// nothing was lost, the call may be repeated.
    pub fn poll(&mut self) -> Result<Option<Message<F>>, Fault> {
        let mut message = Message::default();
        Ok(self.poll_into(&mut message)?.then_some(message))
    }

    /// As [`poll`](Self::poll), into a message whose memory is used again; what it held before is
    /// dropped. `false` if no message is whole.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn poll_into(&mut self, message: &mut Message<F>) -> Result<bool, Fault> {
        message.clear();
        loop {
            if let Some(fault) = self.fault {
                return Err(fault);
            }
            let hunk = self.hunks.get_mut(self.next).filter(|_| self.next < self.filled);
            let (Some(hunk), State::Idle | State::Header | State::Body) = (hunk, self.state) else {
                return Ok(false);
            };
            match intake::step(hunk, &mut self.at, &mut self.assembly, &self.limits) {
                Ok(Step::NextHunk) => {
                    self.next = self.next.saturating_add(1);
                    self.at = Position::default();
                }
                Ok(Step::Input(input)) => match self.transition(input, None) {
                    Some(Action::Deliver) => {
                        self.deliver(message);
                        return Ok(true);
                    }
                    Some(_) => {}
                    // What no row names does not happen, and nothing after it does either.
                    None => return Ok(false),
                },
                Err(Fault::Exhausted(short @ Exhausted::OutOfMemory { .. })) => return Err(short.into()),
                Err(fault) => {
                    if self.transition(Input::Breach, Some(fault)).is_none() {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Where the next bytes go: at least one hunk, or `None` at the end.
    ///
    /// # Errors
    /// The final fault; [`Misuse::InputPending`] before `poll` has seen all input;
    /// [`Exhausted::OutOfMemory`], after which the call may be repeated.
    pub fn windows(&mut self) -> Result<Option<&mut [Hunk<F>]>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.state == State::Ended {
            return Ok(None);
        }
        if self.next < self.filled {
            return Err(Misuse::InputPending.into());
        }
        self.reclaim();
        let result = self.lend();
        self.note_held();
        let count = result?;
        self.lent = count;
        Ok(self.hunks.get_mut(..count))
    }

    /// The first `filled` hunks of [`windows`](Self::windows) were filled at `now`, a duration
    /// since any fixed moment; 0 = "would block".
    pub fn handle(&mut self, now: Duration, filled: usize) {
        if self.next < self.filled || (filled > 0 && self.lent == 0) {
            return; // nothing was lent, so nothing can have been filled
        }
        let filled = filled.min(mem::take(&mut self.lent));
        self.next = 0;
        self.filled = filled;
        self.at = Position::default();
        self.arrived = now;
        if filled > 0 {
            self.hunks.iter_mut().take(filled).for_each(Hunk::settle);
            return;
        }
        self.reclaim();
        // Only now, with all that came looked at, is an overdue message the peer's fault (P5).
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.transition(Input::Overdue, None);
        }
        self.release();
    }

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
        let (count, slot, room) = Self::slots(limits, batch);
        let payload = (limits.payload.min(P::PAYLOAD_MOST) as usize).max(KEEP);
        let slot = match P::FRAMING {
            // Payloads are read in place.
            Framing::PartPerDatagram if batch <= 1 => FRAME_MAX,
            _ => slot,
        };
        let room = room.saturating_add(SLACK);
        let of_hunk =
            size_of::<Hunk<F>>().saturating_add(slot).saturating_add(room.saturating_mul(size_of::<F>()));
        let parted = usize::from(limits.descriptors);
        Held {
            bytes: of_hunk
                .saturating_mul(count)
                .saturating_add(payload)
                .saturating_add(parted.saturating_mul(size_of::<Option<F>>())),
            descriptors: room.saturating_mul(count).saturating_add(parted),
        }
    }

    /// Hunks of a batch, bytes of each, descriptors of each.
    fn slots(limits: &Limits, batch: u16) -> (usize, usize, usize) {
        let header = P::FIRST.bytes as usize;
        let payload = limits.payload.min(P::PAYLOAD_MOST) as usize;
        let most = usize::from(limits.descriptors);
        let (slot, most) = match P::FRAMING {
            Framing::PartPerDatagram => (payload.max(header), most),
            Framing::MessagesPerPacket(caps) => {
                let slot = payload.saturating_add(header).max(caps.bytes as usize);
                // Honest senders pack without knowing our limit on a single message.
                (slot, if most == 0 { 0 } else { most.max(caps.descriptors.into()) })
            }
            Framing::Stream { .. } => (READ_AHEAD, most),
        };
        let room = most.saturating_add(1);
        let count = match P::FRAMING {
            Framing::Stream { .. } => 1,
            _ => usize::from(batch)
                .min((limits.held_bytes as usize).checked_div(slot).unwrap_or(1))
                .min(usize::from(limits.held_descriptors).checked_div(room).unwrap_or(1))
                .max(1),
        };
        (count, slot, room)
    }

    /// Prepares the hunks; says how many.
    fn lend(&mut self) -> Result<usize, Exhausted> {
        let (count, slot, room) = Self::slots(&self.limits, self.batch);
        if self.hunks.len() > count {
            self.hunks.truncate(count);
            self.hunks.shrink_to_fit();
        }
        let missing = count.saturating_sub(self.hunks.len());
        reserve(&mut self.hunks, missing)?;
        self.hunks.extend((0..missing).map(|_| Hunk::new()));
        let needed = self.assembly.needed();
        let payload = self.assembly.part.role == Role::Payload;
        let (bytes, in_place) = match P::FRAMING {
            Framing::PartPerDatagram if self.batch <= 1 => (needed, payload),
            Framing::Stream { read_ahead: false } => (needed, payload),
            Framing::Stream { read_ahead: true } if payload && needed >= READ_AHEAD => (needed, true),
            _ => (slot, false),
        };
        if let (true, Some(hunk)) = (in_place, self.hunks.first_mut()) {
            hunk.lend(&mut self.assembly.payload);
        }
        for hunk in self.hunks.iter_mut().take(count) {
            hunk.prepare(bytes, room)?;
        }
        Ok(count)
    }

    /// Takes a payload's buffer back that was lent and not filled.
    fn reclaim(&mut self) {
        for hunk in &mut self.hunks {
            if hunk.in_place {
                hunk.bytes.truncate(hunk.from);
            }
            hunk.come_home(&mut self.assembly.payload);
        }
    }

    /// Runs `input` through the table and does what only the machine can do about it.
    fn transition(&mut self, input: Input, fault: Option<Fault>) -> Option<Action> {
        let (next, action) = table::step(self.state, input)?;
        self.state = next;
        match action {
            Action::Begin => self.assembly.begun = self.arrived,
            Action::Continue | Action::Deliver => {}
            Action::Finish => self.forget(),
            Action::Miss => self.fault = Some(self.missing().into()),
            Action::Refuse => self.fault = fault,
        }
        if self.fault.is_some() {
            self.forget();
        }
        Some(action)
    }

    fn missing(&self) -> Violation {
        let (expected, received) = (self.assembly.part.bytes.into(), self.assembly.gathered.into());
        Violation::PayloadMissing { expected, received }
    }

    fn deliver(&mut self, message: &mut Message<F>) {
        self.assembly.deliver(message, &self.limits);
        let Received { messages, bytes, descriptors } = self.received;
        self.received = Received {
            messages: messages.saturating_add(1),
            bytes: bytes.saturating_add(message.payload.len() as u64),
            descriptors: descriptors.saturating_add(message.descriptors.len() as u64),
        };
    }

    /// Nothing more will be read: gives the memory back. Descriptors wait for
    /// [`refused`](Self::refused).
    fn forget(&mut self) {
        self.assembly.payload = Vec::new();
        for hunk in &mut self.hunks {
            hunk.bytes = Vec::new();
        }
    }

    /// Nothing is going on: gives back what is not small (P4). Between bursts an allocation is
    /// cheap beside the wait.
    fn release(&mut self) {
        self.hunks.truncate(1);
        if self.hunks.capacity() > 1 {
            self.hunks.shrink_to_fit();
        }
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

    fn note_held(&mut self) {
        self.held_most = self.held_most();
    }
}
