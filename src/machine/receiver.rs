//! The receiving half.

mod refusal;
mod windows;

use alloc::vec::Vec;
use core::time::Duration;

use super::assembly::Assembly;
use super::counters::{Held, Received};
use super::hunk::Hunk;
use super::intake::{self, Position, Step};
use super::table::{self, Action, Input, State};
use crate::error::{Exhausted, Fault, Misuse, Violation};
use crate::limits::Limits;
use crate::message::Message;
use crate::profile::{Framing, Profile};

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
    /// Hunks that are lent out: `lent` of them, from `first` on.
    first: usize,
    lent: usize,
    /// Hunks that were filled, and how many of them are used up.
    filled: usize,
    next: usize,
    at: Position,
    arrived: Duration,
    assembly: Assembly<P, F>,
    received: Received,
    held_most: Held,
    /// Payload bytes of the message that was delivered last: what the next is likely to have.
    last: usize,
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
            first: 0,
            lent: 0,
            filled: 0,
            next: 0,
            at: Position::default(),
            arrived: Duration::ZERO,
            assembly: Assembly::new(&limits),
            received: Received::default(),
            held_most: Held::default(),
            last: 0,
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
        self.state == State::Idle && !self.has_input()
    }

    /// Whether something that was read is still to be looked at by [`poll`](Self::poll).
    pub fn has_input(&self) -> bool {
        let left = self.hunks.get(self.next..self.filled).unwrap_or_default();
        match (self.state, left) {
            (State::Ended | State::Failed, _) | (_, []) => false,
            // A packet is used up only when its end is looked at, by the next `poll`.
            (_, [last]) => !self.at.is_at_the_end::<P, F>(last),
            _ => true,
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
                Ok(Step::Input(input)) => match self.transition(input) {
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
                    if self.breach(fault).is_none() {
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
        (self.first, self.lent) = result?;
        Ok(Some(self.lent()))
    }

    /// The hunks that [`windows`](Self::windows) lent, until they are [handled](Self::handle).
    pub fn lent(&mut self) -> &mut [Hunk<F>] {
        let end = self.first.saturating_add(self.lent);
        self.hunks.get_mut(self.first..end).unwrap_or_default()
    }

    /// The first `filled` hunks of [`windows`](Self::windows) were filled at `now`, a duration
    /// since any fixed moment; 0 = "would block".
    pub fn handle(&mut self, now: Duration, filled: usize) {
        if self.next < self.filled || (filled > 0 && self.lent == 0) {
            return; // nothing was lent, so nothing can have been filled
        }
        let filled = filled.min(self.lent);
        self.lent().iter_mut().take(filled).for_each(Hunk::settle);
        self.lent = 0;
        self.next = self.first;
        self.filled = self.first.saturating_add(filled);
        self.at = Position::default();
        self.arrived = now;
        if filled > 0 {
            if matches!(P::FRAMING, Framing::Stream { .. }) && self.deadline().is_some() {
                let bytes = self.hunks.get(self.next).map_or(0, Hunk::stored);
                self.assembly.read(now, bytes, &self.limits);
            }
            return;
        }
        self.reclaim();
        // Only now, with all that came looked at, is an overdue message the peer's fault (P5).
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.transition(Input::Overdue);
        }
        self.assembly.caught_up();
        self.release();
    }

    /// Runs `input` through the table and does what only the machine can do about it.
    #[inline]
    fn transition(&mut self, input: Input) -> Option<Action> {
        let (next, action) = table::step(self.state, input)?;
        self.state = next;
        match action {
            Action::Begin => self.assembly.begun = self.arrived,
            Action::Continue | Action::Deliver => {}
            Action::Finish => self.forget(),
            Action::Miss => {
                self.fault = Some(self.missing().into());
                self.forget();
            }
            Action::Refuse => {}
        }
        Some(action)
    }

    /// A rule was broken, or descriptors were lost: kept, and returned for ever.
    #[cold]
    fn breach(&mut self, fault: Fault) -> Option<Action> {
        let action = self.transition(Input::Breach)?;
        if action == Action::Refuse {
            self.fault = Some(fault);
            self.forget();
        }
        Some(action)
    }

    fn missing(&self) -> Violation {
        let (expected, received) = (self.assembly.part.bytes.into(), self.assembly.gathered.into());
        Violation::PayloadMissing { expected, received }
    }

    #[inline]
    fn deliver(&mut self, message: &mut Message<F>) {
        self.assembly.deliver(message, &self.limits, Self::payload_most(&self.limits));
        self.last = message.payload.len();
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
            if hunk.descriptors.is_empty() {
                hunk.descriptors = Vec::new();
            }
        }
    }
}
