//! What the lock guards.

use std::collections::VecDeque;
use std::time::Duration;

use super::Bounds;
use crate::error::Exhausted;
use crate::machine::{Outgoing, Sender, Sending};
use crate::message::Message;
use crate::profile::Profile;
use crate::sync::broken;

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
    /// Threads that wait on the condition, and those of them to whom a steadfast flusher may
    /// hand over.
    pub(super) waiting: usize,
    pub(super) successors: usize,
    /// Numbers of messages whose senders wait; what of these did not leave, and why.
    pub(super) owners: Vec<u64>,
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
            waiting: 0,
            successors: 0,
            owners: Vec::new(),
            returned: Vec::new(),
            dead: None,
            refusal: None,
        }
    }

    /// Takes a message for which there [is room](Self::has_room), and gives it its number.
    pub(super) fn accept(&mut self, entry: Outgoing<F>) -> u64 {
        self.accepted.count(entry.message());
        self.inbox.push_back(entry);
        self.accepted.messages
    }

    /// Memory for one message more.
    pub(super) fn reserve(&mut self) -> Result<(), Exhausted> {
        let bytes = size_of::<Outgoing<F>>() as u64;
        self.inbox.try_reserve(1).map_err(|_| Exhausted::OutOfMemory { bytes })
    }

    pub(super) fn has_room(&self, entry: &Outgoing<F>, bounds: &Bounds) -> bool {
        let load = self.load();
        let message = entry.message();
        load.messages == 0
            || (load.messages < bounds.messages.into()
                && load.bytes.saturating_add(message.payload().len() as u64) <= bounds.bytes
                && load.descriptors.saturating_add(message.descriptor_count() as u64)
                    <= bounds.descriptors.into())
    }

    /// What is queued, the lot in flight counted.
    fn load(&self) -> Sending {
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

    /// The next in turn will not leave. It goes back to its sender, if that is `here` or waits;
    /// else it is returned, to be dropped outside the lock.
    pub(super) fn settle_lost(
        &mut self,
        message: Message<F>,
        here: Option<u64>,
        error: E,
    ) -> Option<Message<F>> {
        self.lost.count(&message);
        let number = self.settled();
        let there = here == Some(number) || self.owners.contains(&number);
        if there && !broken("a-refusal-is-dropped") {
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

    /// The owner of this number is gone, or was told.
    pub(super) fn disown(&mut self, number: u64) {
        self.owners.retain(|owner| *owner != number);
    }

    /// The message of this number, if it did not leave.
    pub(super) fn take_returned(&mut self, number: u64) -> Option<(Message<F>, E)> {
        let place = self.returned.iter().position(|(returned, ..)| *returned == number)?;
        let (_, message, error) = self.returned.swap_remove(place);
        Some((message, error))
    }

    /// Why a message up to this number was refused, once.
    pub(super) fn take_refusal(&mut self, number: u64) -> Option<E> {
        Some(self.refusal.take_if(|(refused, _)| *refused <= number)?.1)
    }

    /// What nobody will send any more, counted: to be dropped outside the lock.
    pub(super) fn abandon(&mut self, error: E) -> Vec<Message<F>> {
        let mut rest = self.sender.as_mut().map(Sender::close).unwrap_or_default();
        // Behind the messages of a flusher at work, which finds out by itself.
        if self.role_is_free() {
            rest.extend(std::mem::take(&mut self.inbox).into_iter().map(Outgoing::into_message));
        }
        rest.into_iter().filter_map(|message| self.settle_lost(message, None, error)).collect()
    }
}
