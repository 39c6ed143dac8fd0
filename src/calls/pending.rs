//! The calls whose answers may still come.

use alloc::collections::VecDeque;
use core::marker::PhantomData;
use core::time::Duration;

use crate::calls::correlate::{Correlate, Kind, Role};
use crate::calls::request::Request;
use crate::calls::values::{Answer, CallId, Counters, Incoming, Refused};
use crate::error::{Exhausted, Fault, Misuse, Violation};
use crate::limits::SCM_MAX_FD;
use crate::message::{Head, Message};

/// Bytes at the beginning of a payload that a wire may use to mark a call.
const MARKED: usize = 8;

/// Calls in flight for which memory is kept when there are none: who makes one at a time allocates
/// once, and who made a thousand holds little afterwards (P4).
const KEPT: usize = 64;

/// A call whose answer may still come.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u32,
    command: u32,
    reply_descriptors: u8,
    /// `None`: given up.
    waits: Option<Waits>,
}

/// Until when; `None`: for ever.
#[derive(Clone, Copy, Debug)]
struct Waits(Option<Duration>);

/// A message that was made a call and has not left yet.
#[derive(Debug)]
#[must_use = "begin the call once its message left, or restore the message"]
pub struct Prepared {
    id: u32,
    command: u32,
    head: Head,
    start: [u8; MARKED],
}

/// The calls of one side of a conversation over the wire `P`. See the [module's head](super).
#[derive(Debug)]
pub struct PendingCalls<P> {
    role: Role,
    /// In the order of their ids.
    entries: VecDeque<Entry>,
    most: u32,
    next: u32,
    /// Not later than the earliest deadline of those that wait.
    earliest: Option<Duration>,
    /// A call of the peer's waits for its answer, on a wire without ids.
    asked: bool,
    poisoned: bool,
    counters: Counters,
    wire: PhantomData<fn() -> P>,
}

impl<P: Correlate> PendingCalls<P> {
    /// Nobody called yet; the answers of `most` calls may be awaited together.
    pub const fn new(role: Role, most: u32) -> Self {
        Self {
            role,
            entries: VecDeque::new(),
            most,
            next: 1,
            earliest: None,
            asked: false,
            poisoned: false,
            counters: Counters { begun: 0, answered: 0, late: 0, pending: 0, given_up: 0 },
            wire: PhantomData,
        }
    }

    /// Makes a message a call, to be [begun](Self::begin) or [restored](Prepared::restore) before the
    /// next one is prepared. How many descriptors its answer may carry is what its head's
    /// `reply_descriptors` says; `accepted` is how many this side takes at all.
    ///
    /// # Errors
    /// The message is unchanged. [`Misuse`]; [`Exhausted::CallsInFlight`].
    pub fn prepare<F>(&mut self, message: &mut Message<F>, accepted: u8) -> Result<Prepared, Fault> {
        if self.role == Role::Answerer && !P::BOTH_CALL {
            return Err(Misuse::OneSideCalls { wire: P::NAME }.into());
        }
        if self.poisoned {
            return Err(Misuse::CallGivenUp { wire: P::NAME }.into());
        }
        let asked = message.head.reply_descriptors;
        if asked > accepted.min(SCM_MAX_FD) {
            return Err(Misuse::ReplyDescriptorsAsked { asked, accepted }.into());
        }
        let limit = if P::IDS { self.most } else { self.most.min(1) };
        if self.entries.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            let Counters { pending, given_up, .. } = self.counters;
            return Err(Exhausted::CallsInFlight { pending, given_up, limit }.into());
        }
        // What `begin` needs, so that it cannot fail.
        if self.entries.try_reserve(1).is_err() {
            return Err(Exhausted::OutOfMemory { bytes: size_of::<Entry>() as u64 }.into());
        }
        let id = self.free_id();
        let (head, start) = (message.head, start_of(&message.payload));
        let command = P::ask(&mut message.head, &mut message.payload, id).inspect_err(|_| {
            message.head = head;
        })?;
        Ok(Prepared { id, command, head, start })
    }

    /// The message left, or some of it: from now on it can be answered, and is awaited until
    /// `deadline`.
    pub fn begin(&mut self, prepared: Prepared, deadline: Option<Duration>) -> CallId {
        let Prepared { id, command, head, .. } = prepared;
        let entry =
            Entry { id, command, reply_descriptors: head.reply_descriptors, waits: Some(Waits(deadline)) };
        let place = self.entries.partition_point(|other| other.id < id);
        self.entries.insert(place, entry);
        self.next = id.wrapping_add(1);
        self.earliest = self.earliest.into_iter().chain(deadline).min();
        self.counters.begun = self.counters.begun.saturating_add(1);
        self.counters.pending = self.counters.pending.saturating_add(1);
        CallId(id)
    }

    /// Says what a message that came is.
    ///
    /// # Errors
    /// It breaks a rule of calls: the end of the conversation.
    pub fn handle<F>(&mut self, message: Message<F>) -> Result<Incoming<F>, Refused<F>> {
        let kind = match P::kind(&message.head, &message.payload, self.role) {
            Ok(kind) => kind,
            Err(violation) => return Err(Refused { violation, message }),
        };
        match kind {
            Kind::Plain => Ok(Incoming::Message(message)),
            Kind::Request(request) => {
                if self.asked {
                    return Err(Refused { violation: Violation::CallOverlap, message });
                }
                self.asked = !P::IDS;
                Ok(Incoming::Request(request, message))
            }
            Kind::Answer { id, command, error } => {
                let came = message.descriptor_count();
                match self.take(id, command, came) {
                    Err(violation) => Err(Refused { violation, message }),
                    Ok(Taken::Late) => Ok(Incoming::Late(message)),
                    Ok(Taken::Awaited(call)) => {
                        let answer = if error { Answer::Error(message) } else { Answer::Reply(message) };
                        Ok(Incoming::Answered(call, answer))
                    }
                }
            }
        }
    }

    /// Removes the call that is answered, if this is an answer to it.
    fn take(&mut self, id: u32, command: u32, came: usize) -> Result<Taken, Violation> {
        let found = if P::IDS {
            self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
        } else {
            // The only one.
            self.entries.len().checked_sub(1)
        };
        let unknown = Violation::ReplyUnknown { correlation: id };
        let (place, entry) =
            found.and_then(|place| Some((place, *self.entries.get(place)?))).ok_or(unknown)?;
        if entry.command != command {
            return Err(Violation::ReplyCommand { expected: entry.command, received: command });
        }
        let allowed = usize::from(entry.reply_descriptors);
        if came > allowed {
            let (allowed, received) =
                (entry.reply_descriptors.into(), u32::try_from(came).unwrap_or(u32::MAX));
            return Err(Violation::ReplyDescriptors { allowed, received });
        }
        self.entries.remove(place);
        if self.entries.is_empty() && self.entries.capacity() > KEPT {
            self.entries = VecDeque::new();
        }
        match entry.waits {
            Some(waits) => {
                self.counters.pending = self.counters.pending.saturating_sub(1);
                self.counters.answered = self.counters.answered.saturating_add(1);
                self.no_longer_waits(waits);
                Ok(Taken::Awaited(CallId(entry.id)))
            }
            None => {
                self.counters.given_up = self.counters.given_up.saturating_sub(1);
                self.counters.late = self.counters.late.saturating_add(1);
                Ok(Taken::Late)
            }
        }
    }

    /// Makes `message` the answer to a call of the peer's; [`answered`](Self::answered) once it left.
    ///
    /// # Errors
    /// The message is unchanged: [`Misuse`].
    pub fn answer<F>(
        &self,
        request: &Request,
        message: &mut Message<F>,
        error: bool,
    ) -> Result<Prepared, Misuse> {
        if request.answered {
            return Err(Misuse::AnsweredBefore { correlation: request.correlation() });
        }
        let (allowed, descriptors) = (request.reply_descriptors(), message.descriptor_count());
        if descriptors > usize::from(allowed) {
            return Err(Misuse::ReplyDescriptors { allowed, descriptors: descriptors as u64 });
        }
        let (head, start) = (message.head, start_of(&message.payload));
        P::answer(&mut message.head, &mut message.payload, request, error).inspect_err(|_| {
            message.head = head;
        })?;
        Ok(Prepared { id: request.correlation(), command: request.command(), head, start })
    }

    /// The answer left, or some of it.
    pub const fn answered(&mut self, request: &mut Request) {
        request.answered = true;
        self.asked = false;
    }

    /// Checks a message that asks for nothing and answers nothing.
    ///
    /// # Errors
    /// It does: [`Misuse`].
    pub fn check_plain<F>(&self, message: &Message<F>) -> Result<(), Misuse> {
        P::plain(&message.head, &message.payload)
    }

    /// Gives a call up: its answer is no longer awaited, and dropped when it comes. `false`: it was
    /// not awaited.
    pub fn give_up(&mut self, call: CallId) -> bool {
        let found = self.entries.binary_search_by_key(&call.0, |entry| entry.id).ok();
        let Some(entry) = found.and_then(|place| self.entries.get_mut(place)) else { return false };
        let Some(waits) = entry.waits.take() else { return false };
        self.counters.pending = self.counters.pending.saturating_sub(1);
        self.counters.given_up = self.counters.given_up.saturating_add(1);
        self.poisoned |= !P::IDS;
        self.no_longer_waits(waits);
        true
    }

    /// The next call that is overdue, which is given up by this.
    pub fn expired(&mut self, now: Duration) -> Option<CallId> {
        self.earliest.filter(|earliest| *earliest <= now)?;
        let due = |entry: &&Entry| matches!(entry.waits, Some(Waits(Some(deadline))) if deadline <= now);
        let call = CallId(self.entries.iter().find(due)?.id);
        self.give_up(call);
        Some(call)
    }

    /// When the next call is overdue.
    pub const fn deadline(&self) -> Option<Duration> {
        self.earliest
    }

    /// The conversation ended, and no answer can come: the next call that waited for one.
    pub fn abandon(&mut self) -> Option<CallId> {
        while let Some(entry) = self.entries.pop_front() {
            if entry.waits.is_some() {
                self.counters.pending = self.counters.pending.saturating_sub(1);
                return Some(CallId(entry.id));
            }
        }
        self.counters.given_up = 0;
        self.earliest = None;
        None
    }

    /// A call was given up on a wire without ids: its late answer could be taken for another's, so
    /// the conversation is over.
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// How many were made, and what became of them.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Not 0, and not out.
    fn free_id(&self) -> u32 {
        let mut id = self.next.max(1);
        // Ends: fewer are out than there are ids.
        while self.entries.binary_search_by_key(&id, |entry| entry.id).is_ok() {
            id = id.wrapping_add(1).max(1);
        }
        id
    }

    fn no_longer_waits(&mut self, Waits(deadline): Waits) {
        if deadline.is_some() && deadline == self.earliest {
            let deadlines = self.entries.iter().filter_map(|entry| entry.waits?.0);
            self.earliest = deadlines.min();
        }
    }
}

/// What an answer found.
enum Taken {
    Awaited(CallId),
    Late,
}

impl Prepared {
    /// Makes the message what it was before: it did not leave.
    pub fn restore<F>(self, message: &mut Message<F>) {
        message.head = self.head;
        message.payload.iter_mut().zip(self.start).for_each(|(place, byte)| *place = byte);
    }
}

/// The first bytes of a payload; zeros beyond its end.
fn start_of(payload: &[u8]) -> [u8; MARKED] {
    let mut start = [0; MARKED];
    start.iter_mut().zip(payload).for_each(|(place, byte)| *place = *byte);
    start
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
