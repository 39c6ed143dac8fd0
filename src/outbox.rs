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
#![forbid(unsafe_code)]

mod look;
mod shared;
mod tenure;

use std::time::Instant;

use crate::error::Fault;
use crate::machine::{Outgoing, Sender, Sending};
use crate::message::Message;
use crate::profile::Profile;
use crate::sync::{Condvar, Mutex, MutexGuard, broken, lock, wait_until};
use shared::Shared;
use tenure::{Goal, Left, Tenure};

/// What may be queued, the lot in flight counted. A message that exceeds a bound by itself is
/// taken when nothing else is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Messages. Default 1024: a burst, and no more than a reader wakes for.
    pub messages: u32,
    /// Payload bytes. Default 1 MiB: some times what a socket holds.
    pub bytes: u64,
    /// Descriptors. Default 256: they count against RLIMIT_NOFILE, often 1024.
    pub descriptors: u32,
    /// Transmits after its own message that a flusher sends before it hands over. Default 64.
    pub tenure: u32,
}

impl Bounds {
    /// The defaults.
    pub const fn new() -> Self {
        Self { messages: 1024, bytes: 1024 * 1024, descriptors: 256, tenure: 64 }
    }

    /// Sets the messages.
    #[must_use]
    pub const fn messages(mut self, messages: u32) -> Self {
        self.messages = messages;
        self
    }

    /// Sets the payload bytes.
    #[must_use]
    pub const fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the descriptors.
    #[must_use]
    pub const fn descriptors(mut self, descriptors: u32) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// Sets the transmits of a tenure.
    #[must_use]
    pub const fn tenure(mut self, transmits: u32) -> Self {
        self.tenure = transmits;
        self
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new()
    }
}

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

/// What one attempt to hand something to the kernel came to.
#[derive(Debug)]
pub enum Step<F, E> {
    /// The kernel took some, and the sender knows.
    Took,
    /// Not now.
    Full,
    /// The kernel does not take the first message; the direction lives on.
    Refused(Message<F>, E),
    /// The direction is over. What did not leave, in order.
    Over(Vec<Message<F>>, E),
}

/// Where the flusher writes to.
pub trait Sink<P: Profile, F> {
    /// Why the kernel did not take it, in words that every sender is told.
    type Error: Copy;

    /// One attempt, without waiting.
    fn transmit(&mut self, sender: &mut Sender<P, F>) -> Step<F, Self::Error>;

    /// Waits until another attempt may succeed. `false`: the caller's patience has ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    fn wait(&mut self, sender: &Sender<P, F>) -> Result<bool, Self::Error>;
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
    /// Whatever a waiting thread may wait for.
    changed: Condvar,
    bounds: Bounds,
}

impl<P: Profile, F, E: Copy> Outbox<P, F, E> {
    /// An outbox around a sender, and what that has queued.
    pub fn new(sender: Sender<P, F>, bounds: Bounds) -> Self {
        Self { shared: Mutex::new(Shared::new(sender)), changed: Condvar::new(), bounds }
    }

    /// Puts a message into the queue, and flushes if nobody does. See the module's head for when
    /// this returns before the message has left.
    ///
    /// # Errors
    /// The message comes back: it was not accepted, or it did not leave while this call was
    /// there. What does not leave after its sender has returned is closed and counted as
    /// [lost](Self::lost).
    pub fn send(
        &self,
        message: Message<F>,
        packet_limit: Option<usize>,
        patience: Patience,
        sink: &mut impl Sink<P, F, Error = E>,
    ) -> Result<Done, Unsent<F, E>> {
        let mut entry = match Outgoing::new::<P>(message, packet_limit) {
            Ok(entry) => Some(entry),
            Err((misuse, message)) => return Unsent::new(Why::Fault(misuse.into()), Some(message)),
        };
        let mut own = None;
        let mut shared = lock(&self.shared);
        loop {
            if let Some((message, error)) = own.and_then(|own| shared.take_returned(own)) {
                return Unsent::new(Why::Sink(error), Some(message));
            }
            if own.is_some_and(|own| shared.is_settled(own)) {
                return Ok(Done::Complete);
            }
            let back = |entry: Option<Outgoing<F>>, why| Unsent::new(why, entry.map(Outgoing::into_message));
            if let Some(error) = shared.dead {
                return back(entry, Why::Sink(error));
            }
            if let Some(new) = entry.take_if(|entry| shared.has_room(entry, &self.bounds)) {
                match shared.reserve() {
                    Ok(()) => own = Some(shared.accept(new)),
                    Err(short) => return back(Some(new), Why::Fault(short.into())),
                }
            }
            let ran_out = if patience == Patience::None { Why::Full } else { Why::TimedOut };
            if shared.role_is_free() && shared.is_pending() {
                let tenure = Tenure::begin(self, &mut shared, patience);
                let goal = own.map_or_else(|| entry.as_ref().map_or(Goal::All(0), Goal::Room), Goal::Own);
                let left;
                (shared, left) = tenure.run(shared, goal, sink);
                match left {
                    Left::Over => {}
                    // Accepted before it was the turn of whatever went wrong: it stays so.
                    Left::Unable(_) | Left::Blocked if own.is_some() => return Ok(Done::Pending),
                    Left::Unable(error) => return back(entry, Why::Sink(error)),
                    Left::Blocked => return back(entry, ran_out),
                }
                continue;
            }
            let in_good_hands = own.is_some() && shared.is_in_good_hands();
            if patience == Patience::None || in_good_hands {
                return if own.is_some() { Ok(Done::Pending) } else { back(entry, ran_out) };
            }
            let in_time;
            (shared, in_time) = self.wait(shared, own, patience, true);
            // What came meanwhile counts, however late.
            let news = shared.dead.is_some() || own.is_some_and(|own| shared.is_settled(own));
            if !in_time && !news {
                return if own.is_some() { Ok(Done::Pending) } else { back(entry, ran_out) };
            }
        }
    }

    /// Waits until all that was accepted before has reached the kernel.
    ///
    /// # Errors
    /// [`Why::TimedOut`] or, with [`Patience::None`], [`Why::Full`]: nothing is lost.
    /// [`Why::Sink`]: something did not reach it, now or since the last flush.
    pub fn flush(&self, patience: Patience, sink: &mut impl Sink<P, F, Error = E>) -> Result<(), Why<E>> {
        let mut shared = lock(&self.shared);
        let all = shared.accepted();
        let ran_out = if patience == Patience::None { Why::Full } else { Why::TimedOut };
        loop {
            if let Some(error) = shared.dead.or_else(|| shared.take_refusal(all)) {
                return Err(Why::Sink(error));
            }
            if shared.is_settled(all) {
                return Ok(());
            }
            if shared.role_is_free() {
                let tenure = Tenure::begin(self, &mut shared, patience);
                let left;
                (shared, left) = tenure.run(shared, Goal::All(all), sink);
                match left {
                    Left::Over => {}
                    Left::Unable(error) => return Err(Why::Sink(error)),
                    Left::Blocked => return Err(ran_out),
                }
                continue;
            }
            if patience == Patience::None {
                return Err(ran_out);
            }
            let in_time;
            (shared, in_time) = self.wait(shared, None, patience, false);
            if !in_time && !shared.is_settled(all) && shared.dead.is_none() {
                return Err(ran_out);
            }
        }
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
            (shared, left) = tenure.run(shared, Goal::All(all), sink);
            return matches!(left, Left::Blocked) && shared.retry().is_none();
        }
        false
    }

    /// Something waits, and nobody does anything about it: wait until the socket is writable and
    /// [`help`](Self::help), or send or flush anything.
    pub fn wants_write(&self) -> bool {
        let shared = lock(&self.shared);
        shared.role_is_free() && shared.is_pending() && shared.retry().is_none()
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
    /// closed and counted as lost. What a flusher is just handing over may still leave.
    pub fn close(&self, error: E) {
        let mut shared = lock(&self.shared);
        if !broken("a-close-is-forgotten") {
            shared.dead.get_or_insert(error);
        }
        let rest = shared.abandon(error);
        drop(shared);
        self.changed.notify_all();
        drop(rest);
    }

    /// Waits for any change. A sender that stays until its message left is a successor to
    /// whoever flushes; and what the kernel refuses while its owner waits goes back to the owner.
    fn wait<'a>(
        &'a self,
        mut shared: MutexGuard<'a, Shared<P, F, E>>,
        own: Option<u64>,
        patience: Patience,
        sends: bool,
    ) -> (MutexGuard<'a, Shared<P, F, E>>, bool) {
        let succeeds = sends && patience == Patience::Forever;
        shared.waiting += 1;
        shared.successors += usize::from(succeeds);
        shared.owners.extend(own);
        let (mut shared, in_time) = wait_until(&self.changed, shared, patience.until());
        shared.waiting -= 1;
        shared.successors -= usize::from(succeeds);
        shared.owners.retain(|owner| Some(*owner) != own);
        (shared, in_time)
    }
}

impl<F, E> Unsent<F, E> {
    fn new<T>(why: Why<E>, message: Option<Message<F>>) -> Result<T, Self> {
        Err(Self { why, message })
    }
}
