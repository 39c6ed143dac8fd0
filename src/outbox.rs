//! Many threads, one socket (P7): whole messages go into one queue, and one thread at a time
//! hands them to the kernel.
//!
//! Who sends puts a message into the queue; if nobody is flushing, the sender itself becomes the
//! *flusher*, and the others return at once. The flusher's role is the [`Sender`] itself: whoever
//! holds it flushes, and a drop guard puts it back, so that a panic strands nobody. No lock is
//! held while a system call runs or foreign code is dropped.
//!
//! - A flusher that will stay until the queue is empty or somebody takes over (one that called
//!   [`send`](Outbox::send) with [`Patience::Forever`]) is *steadfast*: only behind such a one does a
//!   blocking sender return before its message has left. Behind any other it waits, so that
//!   what it said to have accepted is never stranded when that one leaves.
//! - After its own message and [`Bounds::tenure`] more transmits the flusher is in *overtime*:
//!   blocking senders wait for the role instead of returning, and one of them gets it. A
//!   steadfast flusher hands over to nobody who might leave earlier.
//! - "Would block" is owned: a blocking flusher waits for the socket; one that cannot wait puts
//!   the role back, wakes somebody who can, and says [`Done::Pending`].
//! - Who waits for its own message looks after the queue before it returns, whatever became of
//!   that message: a flusher may have handed over to it meanwhile.
//! - Those who wait for room are woken together when half of the queue is free, or before the
//!   flusher waits for the socket: not one by one with each message that leaves.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod bounds;
mod call;
mod look;
mod send;
mod shared;
mod sink;
mod tenure;
mod waiting;

use std::time::Instant;

use crate::error::Fault;
use crate::machine::{Sender, Sending};
use crate::message::Message;
use crate::profile::Profile;
use crate::sync::{Condvar, Mutex, MutexGuard, broken, lock, wait_until};
use call::Own;
use shared::Shared;
use tenure::{Goal, Left, Tenure};
use waiting::{Awaited, Calls};

pub use bounds::Bounds;
pub use sink::{Sink, Step};

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// Until this moment.
    Until(Instant),
    /// For ever.
    Forever,
}

impl Patience {
    const fn until(self) -> Option<Instant> {
        match self {
            Self::Until(instant) => Some(instant),
            Self::None | Self::Forever => None,
        }
    }
}

/// How a call ended well. Accepted is not delivered, and neither is handed to the kernel: the
/// peer may never read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The kernel has all of it.
    Complete,
    /// It is in the queue, and leaves in its turn.
    Pending,
}

/// A message was not accepted, or did not leave.
#[derive(Debug)]
pub struct Unsent<F, E> {
    /// Why.
    pub why: Why<E>,
    /// The message; `None` where a part of it had left.
    pub message: Option<Message<F>>,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why<E> {
    /// The caller's mistake, or no memory.
    Fault(Fault),
    /// The queue is full, and so is the socket.
    Full,
    /// The deadline passed; there never was room.
    TimedOut,
    /// What the sink said.
    Sink(E),
}

/// The queue of many senders of one channel.
pub struct Outbox<P: Profile, F, E> {
    shared: Mutex<Shared<P, F, E>>,
    /// What those wait on who wait for room, and all others.
    room: Condvar,
    changed: Condvar,
    bounds: Bounds,
}

impl<P: Profile, F, E: Copy> Outbox<P, F, E> {
    /// An outbox around a sender, and what that has queued.
    pub fn new(sender: Sender<P, F>, bounds: Bounds) -> Self {
        let shared = Mutex::new(Shared::new(sender));
        Self { shared, room: Condvar::new(), changed: Condvar::new(), bounds }
    }

    /// Somebody who could not stay leaves to the receiver what nobody here waits to take.
    fn depart(
        shared: MutexGuard<'_, Shared<P, F, E>>,
        patience: Patience,
        sink: &mut impl Sink<P, F, Error = E>,
    ) {
        let stranded = patience != Patience::Forever && shared.watched && shared.is_stranded();
        drop(shared);
        if stranded && !broken("does-not-wake-the-receiver") {
            sink.wake_receiver();
        }
    }

    /// Waits until all that was accepted before has reached the kernel.
    ///
    /// # Errors
    /// [`Why::TimedOut`] or, with [`Patience::None`], [`Why::Full`]: nothing is lost.
    /// [`Why::Sink`]: something did not reach it, now or since the last flush.
    pub fn flush(&self, mut patience: Patience, sink: &mut impl Sink<P, F, Error = E>) -> Result<(), Why<E>> {
        let ran_out = if patience == Patience::None { Why::Full } else { Why::TimedOut };
        let nothing = Own::new();
        let mut shared = lock(&self.shared);
        let all = shared.accepted();
        let flushed = loop {
            if let Some(error) = shared.dead.or_else(|| shared.take_refusal(all)) {
                break Err(Why::Sink(error));
            }
            if shared.is_settled(all) {
                break Ok(());
            }
            if shared.role_is_free() {
                let tenure = Tenure::begin(self, &mut shared, patience);
                let left;
                (shared, left) = tenure.run(shared, Goal::All(all), &nothing, sink);
                if left == Left::Blocked {
                    break Err(ran_out);
                }
                continue;
            }
            if patience == Patience::None {
                break Err(ran_out);
            }
            let in_time;
            (shared, in_time) = self.wait(shared, Awaited::Settled(all), &nothing, patience, false);
            if !in_time {
                patience = Patience::None;
            }
        };
        Self::depart(shared, patience, sink);
        flushed
    }

    /// Sends what is pending as far as that goes now, if nobody else does: for whoever works on
    /// the channel anyway. What goes wrong is the next sender's to hear. `true`: it met "would
    /// block".
    pub fn help(&self, sink: &mut impl Sink<P, F, Error = E>) -> bool {
        let mut shared = lock(&self.shared);
        if shared.dead.is_none() && shared.role_is_free() && shared.is_pending() {
            let all = shared.accepted();
            let tenure = Tenure::begin(self, &mut shared, Patience::None);
            let left;
            (shared, left) = tenure.run(shared, Goal::All(all), &Own::new(), sink);
            return left == Left::Blocked && shared.retry().is_none();
        }
        false
    }

    /// Something waits, and nobody does anything about it: wait until the socket is writable and
    /// [`help`](Self::help), or send or flush anything.
    pub fn wants_write(&self) -> bool {
        lock(&self.shared).wants_write()
    }

    /// For a receiver that is about to sleep: as [`wants_write`](Self::wants_write), and from now
    /// on a flusher that leaves something behind calls [`Sink::wake_receiver`], until
    /// [`awake`](Self::awake).
    pub fn asleep(&self) -> bool {
        let mut shared = lock(&self.shared);
        shared.watched = true;
        shared.wants_write()
    }

    /// The receiver does not sleep any more.
    pub fn awake(&self) {
        lock(&self.shared).watched = false;
    }

    /// When to [`help`](Self::help) although no event says so: the kernel was short of something.
    pub fn deadline(&self) -> Option<core::time::Duration> {
        lock(&self.shared).retry()
    }

    /// Something was accepted and is not settled.
    pub fn has_pending(&self) -> bool {
        lock(&self.shared).is_pending()
    }

    /// What reached the kernel.
    pub fn sent(&self) -> Sending {
        lock(&self.shared).sent()
    }

    /// What was accepted and did not leave, because the kernel refused it or the direction died:
    /// given back to a caller that was still there, or closed.
    pub fn lost(&self) -> Sending {
        lock(&self.shared).lost
    }

    /// Ends the direction: every sender is told `error`, now and for ever, and what is queued is
    /// closed and counted as lost, unless its sender is still there. What a flusher is just
    /// handing over may still leave.
    pub fn close(&self, error: E) {
        let mut shared = lock(&self.shared);
        if !broken("a-close-is-forgotten") {
            shared.dead.get_or_insert(error);
        }
        let rest = shared.abandon(&Own::new(), error);
        let calls = if broken("a-close-tells-nobody") { Calls::default() } else { shared.waiting.call_all() };
        drop(shared);
        self.notify(calls);
        drop(rest);
    }

    /// Waits for what `awaited` says, or for any other reason to look. A sender that stays until
    /// its message left is a successor to whoever flushes; and what the kernel refuses while its
    /// owner waits goes back to the owner.
    fn wait<'a>(
        &'a self,
        mut shared: MutexGuard<'a, Shared<P, F, E>>,
        awaited: Awaited,
        own: &Own,
        patience: Patience,
        sends: bool,
    ) -> (MutexGuard<'a, Shared<P, F, E>>, bool) {
        let condition = if awaited == Awaited::Room { &self.room } else { &self.changed };
        let ticket = shared.waiting.enter(awaited, own, patience, sends);
        let (mut shared, in_time) = wait_until(condition, shared, patience.until());
        shared.waiting.leave(&ticket, own);
        (shared, in_time)
    }

    fn notify(&self, calls: Calls) {
        if calls.room {
            self.room.notify_all();
        }
        if calls.others {
            self.changed.notify_all();
        }
    }

    /// Notifies outside the lock: who is woken wants it at once.
    fn tell<'a>(
        &'a self,
        shared: MutexGuard<'a, Shared<P, F, E>>,
        calls: Calls,
    ) -> MutexGuard<'a, Shared<P, F, E>> {
        if calls == Calls::default() {
            return shared;
        }
        drop(shared);
        self.notify(calls);
        lock(&self.shared)
    }
}
