//! The flusher at work.

use super::call::Own;
use super::shared::Shared;
use super::waiting::Calls;
use super::{Outbox, Patience, Sink, Step};
use crate::machine::{Leftover, Outgoing, Sender};
use crate::profile::Profile;
use crate::sync::{MutexGuard, broken, lock};

/// The flusher's role, put back when it is dropped: also by a sink that panics.
pub(super) struct Tenure<'a, P: Profile, F, E: Copy> {
    outbox: &'a Outbox<P, F, E>,
    patience: Patience,
    sender: Option<Sender<P, F>>,
}

/// What the flusher came for.
pub(super) enum Goal<'a, F> {
    /// Its own messages.
    Own,
    /// All up to this number.
    All(u64),
    /// Room for this one.
    Room(&'a Outgoing<F>),
}

/// Why the flusher left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The queue is empty, there is room for the caller's message, or the direction died.
    Over,
    /// Its share is done; whoever waits takes over.
    HandedOver,
    /// The socket is full, and the caller cannot wait any longer.
    Blocked,
}

impl<'a, P: Profile, F, E: Copy> Tenure<'a, P, F, E> {
    pub(super) fn begin(
        outbox: &'a Outbox<P, F, E>,
        shared: &mut Shared<P, F, E>,
        patience: Patience,
    ) -> Self {
        shared.steadfast = patience == Patience::Forever;
        shared.overtime = false;
        let sender = shared.sender.take().or_else(|| broken("two-flushers").then(Sender::new));
        Self { outbox, patience, sender }
    }

    /// Flushes. `own` are the caller's messages: what the kernel refuses of them comes back.
    pub(super) fn run(
        mut self,
        mut shared: MutexGuard<'a, Shared<P, F, E>>,
        goal: Goal<'_, F>,
        own: &Own,
        sink: &mut impl Sink<P, F, Error = E>,
    ) -> (MutexGuard<'a, Shared<P, F, E>>, Left) {
        let outbox = self.outbox;
        let mut more = 0_u32;
        let left = loop {
            let Some(sender) = self.sender.as_mut() else { break Left::Over };
            if let Some(error) = shared.dead {
                let rest = sender.close();
                shared = self.give_up(shared, rest, own, error);
                break Left::Over;
            }
            if broken("takes-the-newest-first") {
                shared.inbox.make_contiguous().reverse();
            }
            sender.append(&mut shared.inbox);
            if sender.is_empty() {
                break Left::Over;
            }
            let reached = match goal {
                Goal::Own => shared.is_settled(own.last()),
                Goal::All(number) => shared.is_settled(number),
                Goal::Room(entry) if shared.has_room(entry, &outbox.bounds) => break Left::Over,
                Goal::Room(_) => false,
            };
            if reached {
                if more >= outbox.bounds.tenure {
                    shared.overtime = true;
                    let stays = self.patience == Patience::Forever && !shared.waiting.has_successors();
                    if !stays && !broken("never-hands-over") {
                        break Left::HandedOver;
                    }
                }
                more = more.saturating_add(1);
            }
            drop(shared);
            let before = sender.sending();
            sender.pack();
            let step = sink.transmit(sender);
            let after = sender.sending();
            shared = lock(&outbox.shared);
            shared.note_sent(before, after);
            if broken("leaves-without-a-look") && sender.is_empty() {
                break Left::HandedOver;
            }
            match step {
                Step::Took => {
                    let calls = shared.call_for_progress(&outbox.bounds);
                    shared = outbox.tell(shared, calls);
                }
                Step::Full if self.patience == Patience::None => break Left::Blocked,
                Step::Full => {
                    let calls = shared.call_for_room(&outbox.bounds);
                    drop(shared);
                    outbox.notify(calls);
                    let in_time = sink.wait(sender);
                    shared = lock(&outbox.shared);
                    if !in_time {
                        break Left::Blocked;
                    }
                }
                Step::Refused(message, error) => {
                    let orphan = shared.settle_lost(message, own, error);
                    let calls = shared.waiting.call_all();
                    drop(shared);
                    outbox.notify(calls);
                    drop(orphan);
                    shared = lock(&outbox.shared);
                }
                Step::Over(messages, error) => {
                    let error = if broken("an-error-is-forgotten") {
                        error
                    } else {
                        *shared.dead.get_or_insert(error)
                    };
                    shared = self.give_up(shared, messages, own, error);
                    break Left::Over;
                }
            }
        };
        let calls = self.put_back(&mut shared);
        // Inside the lock: outside it somebody else might meet the caller's messages, and not the
        // caller.
        outbox.notify(calls);
        (shared, left)
    }

    /// The direction died with `rest` in the sender, and what is behind it in the inbox.
    fn give_up(
        &mut self,
        mut shared: MutexGuard<'a, Shared<P, F, E>>,
        rest: Leftover<F>,
        own: &Own,
        error: E,
    ) -> MutexGuard<'a, Shared<P, F, E>> {
        let orphans = shared.lose(rest, own, error);
        let calls = self.put_back(&mut shared);
        let behind = shared.abandon(own, error);
        drop(shared);
        self.outbox.notify(calls);
        drop((orphans, behind));
        lock(&self.outbox.shared)
    }

    /// The role is free again, and whoever waits looks whether to take it.
    fn put_back(&mut self, shared: &mut Shared<P, F, E>) -> Calls {
        let Some(sender) = self.sender.take() else { return Calls::default() };
        shared.sender = Some(sender);
        (shared.steadfast, shared.overtime) = (false, false);
        if !shared.is_pending() {
            shared.release();
        }
        if broken("no-wake") { Calls::default() } else { shared.waiting.call_all() }
    }
}

impl<P: Profile, F, E: Copy> Drop for Tenure<'_, P, F, E> {
    fn drop(&mut self) {
        if self.sender.is_some() && !broken("a-panic-keeps-the-role") {
            let outbox = self.outbox;
            let mut shared = lock(&outbox.shared);
            let calls = self.put_back(&mut shared);
            drop(shared);
            outbox.notify(calls);
        }
    }
}
