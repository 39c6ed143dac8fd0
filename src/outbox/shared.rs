//! What the lock guards.

use std::collections::VecDeque;
use std::time::Duration;

use super::Bounds;
use super::call::{Brought, Own};
use super::waiting::{Calls, Waiting};
use crate::error::Exhausted;
use crate::machine::{Leftover, Outgoing, Sender, Sending};
use crate::message::Message;
use crate::profile::Profile;
use crate::sync::broken;

/// Entries for which an idle queue keeps its memory.
const KEEP: usize = 8;

pub(super) struct Shared<P: Profile, F, E> {
    /// Accepted, and not with the sender yet.
    pub(super) inbox: VecDeque<Outgoing<F>>,
    /// The flusher's role: `None` while somebody has it.
    pub(super) sender: Option<Sender<P, F>>,
    /// All that was ever accepted, and of it what reached the kernel and what did not.
    accepted: Sending,
    sent: Sending,
    pub(super) lost: Sending,
    /// The flusher stays until the queue is empty or somebody takes over.
    pub(super) steadfast: bool,
    /// The flusher has done its share: the next one is to take over.
    pub(super) overtime: bool,
    pub(super) waiting: Waiting,
    /// A receiver sleeps, and looks after what is pending once it is woken.
    pub(super) watched: bool,
    /// What did not leave and whose sender is there, and why.
    returned: Vec<(u64, Message<F>, E)>,
    /// The first fatal error, for everybody.
    pub(super) dead: Option<E>,
    /// Why the kernel refused a message of somebody who had left, and the message's number.
    refusal: Option<(u64, E)>,
}

impl<P: Profile, F, E: Copy> Shared<P, F, E> {
    pub(super) fn new(sender: Sender<P, F>) -> Self {
        let (sent, queued) = (sender.sending(), sender.queued());
        let accepted = Sending {
            messages: sent.messages.saturating_add(queued.messages),
            bytes: sent.bytes.saturating_add(queued.bytes),
            descriptors: sent.descriptors.saturating_add(queued.descriptors),
        };
        Self {
            inbox: VecDeque::new(),
            sender: Some(sender),
            accepted,
            sent,
            lost: Sending::default(),
            steadfast: false,
            overtime: false,
            waiting: Waiting::new(),
            watched: false,
            returned: Vec::new(),
            dead: None,
            refusal: None,
        }
    }

    /// Accepts as much of what a call brought as there is room for; `own` learns the numbers.
    pub(super) fn accept(
        &mut self,
        brought: &mut impl Brought<F>,
        own: &mut Own,
        bounds: &Bounds,
    ) -> Result<(), Exhausted> {
        while brought.first().is_some_and(|next| self.has_room(next, bounds)) {
            let number = self.accepted.messages.saturating_add(1);
            own.reserve(number)?;
            let bytes = size_of::<Outgoing<F>>() as u64;
            self.inbox.try_reserve(1).map_err(|_| Exhausted::OutOfMemory { bytes })?;
            if let Some(next) = brought.take_first() {
                self.accepted.count(next.message());
                self.inbox.push_back(next);
                own.add(number);
            }
        }
        Ok(())
    }

    pub(super) fn has_room(&self, entry: &Outgoing<F>, bounds: &Bounds) -> bool {
        bounds.admit(&self.load(), entry.message())
    }

    /// What is queued, the lot in flight counted.
    pub(super) fn load(&self) -> Sending {
        let less = |all: u64, sent: u64, lost: u64| all.saturating_sub(sent).saturating_sub(lost);
        Sending {
            messages: less(self.accepted.messages, self.sent.messages, self.lost.messages),
            bytes: less(self.accepted.bytes, self.sent.bytes, self.lost.bytes),
            descriptors: less(self.accepted.descriptors, self.sent.descriptors, self.lost.descriptors),
        }
    }

    /// The number of the message accepted last. They leave in the order of their numbers.
    pub(super) const fn accepted(&self) -> u64 {
        self.accepted.messages
    }

    /// How many of them left or were lost: all with a number up to this one.
    pub(super) const fn settled(&self) -> u64 {
        self.sent.messages.saturating_add(self.lost.messages)
    }

    pub(super) fn is_settled(&self, number: u64) -> bool {
        self.settled() >= number || broken("flush-returns-early")
    }

    pub(super) fn is_pending(&self) -> bool {
        self.settled() < self.accepted.messages
    }

    pub(super) fn role_is_free(&self) -> bool {
        self.sender.is_some() || (broken("two-flushers") && !self.inbox.is_empty())
    }

    /// Somebody flushes who will not leave what is queued now.
    pub(super) fn is_in_good_hands(&self) -> bool {
        let steadfast = self.steadfast || broken("returns-behind-try-send");
        !self.role_is_free() && steadfast && !self.overtime
    }

    /// Something is pending, and nobody flushes.
    pub(super) fn is_stranded(&self) -> bool {
        self.role_is_free() && self.is_pending()
    }

    /// Something waits for room in the socket, and nobody waits with it.
    pub(super) fn wants_write(&self) -> bool {
        self.is_stranded() && self.retry().is_none()
    }

    pub(super) fn retry(&self) -> Option<Duration> {
        self.sender.as_ref()?.deadline()
    }

    pub(super) const fn sent(&self) -> Sending {
        self.sent
    }

    /// Notes what the sender handed over since it had handed over `before`.
    pub(super) fn note_sent(&mut self, before: Sending, now: Sending) {
        self.sent.messages = self.sent.messages.saturating_add(now.messages.saturating_sub(before.messages));
        self.sent.bytes = self.sent.bytes.saturating_add(now.bytes.saturating_sub(before.bytes));
        let descriptors = now.descriptors.saturating_sub(before.descriptors);
        self.sent.descriptors = self.sent.descriptors.saturating_add(descriptors);
    }

    /// Who waits for what just became true.
    pub(super) fn call_for_progress(&mut self, bounds: &Bounds) -> Calls {
        let (settled, load) = (self.settled(), self.load());
        self.waiting.call_for_progress(settled, &load, bounds)
    }

    /// Who waits for room, before a flusher waits for the socket.
    pub(super) fn call_for_room(&mut self, bounds: &Bounds) -> Calls {
        let load = self.load();
        self.waiting.call_for_room(&load, bounds)
    }

    /// The next in turn will not leave. It goes back to its sender, if that is `here` or waits;
    /// else it is returned, to be dropped outside the lock.
    pub(super) fn settle_lost(&mut self, message: Message<F>, here: &Own, error: E) -> Option<Message<F>> {
        self.lost.count(&message);
        let number = self.settled();
        let there = here.contains(number) || self.waiting.owns(number);
        // Without memory for it it is treated as if its sender had left.
        if there && !broken("a-refusal-is-dropped") && self.returned.try_reserve(1).is_ok() {
            self.returned.push((number, message, error));
            return None;
        }
        self.note_refusal(number, error);
        if broken("forgets-the-queue") {
            std::mem::forget(message);
            return None;
        }
        Some(message)
    }

    /// For the next flush to say: nobody is there to get the message back.
    pub(super) fn note_refusal(&mut self, number: u64, error: E) {
        self.refusal.get_or_insert((number, error));
    }

    /// Some of these did not leave.
    pub(super) fn has_returned(&self, own: &Own) -> bool {
        self.returned.iter().any(|(number, ..)| own.contains(*number))
    }

    /// Those of these that did not leave, in order, and why the first did not.
    pub(super) fn give_back(&mut self, own: &Own, mut back: impl FnMut(Message<F>)) -> Option<E> {
        let mut first = None;
        while let Some(place) = self.returned.iter().position(|(number, ..)| own.contains(*number)) {
            let (_, message, error) = self.returned.remove(place);
            first.get_or_insert(error);
            back(message);
        }
        first
    }

    /// Why a message up to this number was refused, once.
    pub(super) fn take_refusal(&mut self, number: u64) -> Option<E> {
        Some(self.refusal.take_if(|(refused, _)| *refused <= number)?.1)
    }

    /// What nobody will send any more, counted: to be dropped outside the lock.
    pub(super) fn abandon(&mut self, here: &Own, error: E) -> Vec<Message<F>> {
        let rest = self.sender.as_mut().map(Sender::close).unwrap_or_default();
        let mut orphans = self.lose(rest, here, error);
        // Behind the messages of a flusher at work, which finds out by itself.
        while self.role_is_free() {
            let Some(entry) = self.inbox.pop_front() else { break };
            let Some(orphan) = self.settle_lost(entry.into_message(), here, error) else { continue };
            carry_out(&mut orphans, orphan);
        }
        orphans
    }

    /// These will not leave: what nobody gets back is to be dropped outside the lock.
    pub(super) fn lose(&mut self, rest: Leftover<F>, here: &Own, error: E) -> Vec<Message<F>> {
        let mut orphans = Vec::new();
        for message in rest {
            if let Some(orphan) = self.settle_lost(message, here, error) {
                carry_out(&mut orphans, orphan);
            }
        }
        orphans
    }

    /// Nothing is queued: an idle channel holds little (P4).
    pub(super) fn release(&mut self) {
        if self.inbox.capacity() > KEEP {
            self.inbox = VecDeque::new();
        }
        if let Some(sender) = &mut self.sender {
            sender.release();
        }
    }
}

/// Without memory to carry it out of the lock it is closed here.
fn carry_out<F>(orphans: &mut Vec<Message<F>>, orphan: Message<F>) {
    if orphans.try_reserve(1).is_ok() {
        orphans.push(orphan);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Packet;

    #[test] // P4: what a burst had taken is given back, and what a few messages take is kept.
    fn an_idle_queue_holds_little() {
        for (messages, kept) in [(100, false), (3, true)] {
            let mut shared = Shared::<Packet, (), ()>::new(Sender::new());
            let one = || Outgoing::new::<Packet>(Message::new([1]), None).unwrap();
            let mut burst: VecDeque<_> = (0..messages).map(|_| one()).collect();
            shared.accept(&mut burst, &mut Own::new(), &Bounds::new()).unwrap();
            while shared.inbox.pop_front().is_some() {}
            let before = shared.inbox.capacity();
            assert_eq!(before > KEEP, !kept, "{before}");
            shared.release();
            assert_eq!(shared.inbox.capacity(), if kept { before } else { 0 });
        }
    }
}
