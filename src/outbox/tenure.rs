//! The flusher at work.

use super::shared::Shared;
use super::{Outbox, Patience, Sink, Step};
use crate::machine::{Outgoing, Sender};
use crate::message::Message;
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
    /// Its message of this number.
    Own(u64),
    /// All up to this number.
    All(u64),
    /// Room for this one.
    Room(&'a Outgoing<F>),
}

impl<F> Goal<'_, F> {
    const fn own(&self) -> Option<u64> {
        match self {
            Self::Own(number) => Some(*number),
            Self::All(_) | Self::Room(_) => None,
        }
    }
}

/// Why the flusher left.
pub(super) enum Left<E> {
    /// The queue is empty, somebody takes over, its share is done, there is room for the
    /// caller's message, or the direction died.
    Over,
    /// The socket is full, and the caller cannot wait any longer.
    Blocked,
    /// It cannot be waited for.
    Unable(E),
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

    /// Flushes.
    pub(super) fn run(
        mut self,
        mut shared: MutexGuard<'a, Shared<P, F, E>>,
        goal: Goal<'_, F>,
        sink: &mut impl Sink<P, F, Error = E>,
    ) -> (MutexGuard<'a, Shared<P, F, E>>, Left<E>) {
        let outbox = self.outbox;
        let mut more = 0_u32;
        let left = loop {
            let Some(sender) = self.sender.as_mut() else { break Left::Over };
            if let Some(error) = shared.dead {
                let rest = sender.close();
                shared = self.give_up(shared, rest, goal.own(), error);
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
                Goal::Own(number) | Goal::All(number) => shared.is_settled(number),
                Goal::Room(entry) if shared.has_room(entry, &outbox.bounds) => break Left::Over,
                Goal::Room(_) => false,
            };
            if reached {
                if more >= outbox.bounds.tenure {
                    shared.overtime = true;
                    let stays = self.patience == Patience::Forever && shared.successors == 0;
                    if !stays && !broken("never-hands-over") {
                        break Left::Over;
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
                break Left::Over;
            }
            if shared.waiting > 0 && after.messages > before.messages && !broken("no-wake") {
                outbox.changed.notify_all();
            }
            match step {
                Step::Took => {}
                Step::Full if self.patience == Patience::None => break Left::Blocked,
                Step::Full => {
                    drop(shared);
                    let waited = sink.wait(sender);
                    shared = lock(&outbox.shared);
                    match waited {
                        Ok(true) => {}
                        Ok(false) => break Left::Blocked,
                        Err(error) => break Left::Unable(error),
                    }
                }
                Step::Refused(message, error) => {
                    let orphan = shared.settle_lost(message, goal.own(), error);
                    if shared.waiting > 0 {
                        outbox.changed.notify_all();
                    }
                    drop(shared);
                    drop(orphan);
                    shared = lock(&outbox.shared);
                }
                Step::Over(messages, error) => {
                    let error = if broken("an-error-is-forgotten") {
                        error
                    } else {
                        *shared.dead.get_or_insert(error)
                    };
                    shared = self.give_up(shared, messages, goal.own(), error);
                    break Left::Over;
                }
            }
        };
        self.put_back(&mut shared);
        (shared, left)
    }

    /// The direction died with `rest` in the sender, and what is behind it in the inbox.
    fn give_up(
        &mut self,
        mut shared: MutexGuard<'a, Shared<P, F, E>>,
        rest: Vec<Message<F>>,
        own: Option<u64>,
        error: E,
    ) -> MutexGuard<'a, Shared<P, F, E>> {
        let rest = rest.into_iter();
        let mut orphans: Vec<_> =
            rest.filter_map(|message| shared.settle_lost(message, own, error)).collect();
        self.put_back(&mut shared);
        orphans.extend(shared.abandon(error));
        drop(shared);
        drop(orphans);
        lock(&self.outbox.shared)
    }

    /// The role is free again, and whoever waits looks whether to take it.
    fn put_back(&mut self, shared: &mut Shared<P, F, E>) {
        if let Some(sender) = self.sender.take() {
            shared.sender = Some(sender);
            (shared.steadfast, shared.overtime) = (false, false);
            if shared.waiting > 0 && !broken("no-wake") {
                self.outbox.changed.notify_all();
            }
        }
    }
}

impl<P: Profile, F, E: Copy> Drop for Tenure<'_, P, F, E> {
    fn drop(&mut self) {
        if self.sender.is_some() && !broken("a-panic-keeps-the-role") {
            let outbox = self.outbox;
            self.put_back(&mut lock(&outbox.shared));
        }
    }
}
