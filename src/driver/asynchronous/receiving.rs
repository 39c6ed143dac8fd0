//! The receiving half, and how any asynchronous channel receives.

use std::fmt;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::task::consume_budget;

use super::reactor::{Reactor, Ready, Timer, earlier};
use crate::accept::Policy;
use crate::driver::channel::{Channel, Closer, Owned};
use crate::driver::error::Error;
use crate::driver::reaper::Reaper;
use crate::driver::receiving::Receiving;
use crate::driver::stats::Stats;
use crate::profile::Profile;

/// Receives on a channel while other tasks send; see [`AsyncChannel::split`](crate::AsyncChannel::split).
pub struct AsyncReceiving<P: Profile> {
    receiving: Receiving<P>,
    reactor: Arc<Reactor>,
    timer: Timer,
}

impl<P: Profile> AsyncReceiving<P> {
    pub(super) const fn new(receiving: Receiving<P>, reactor: Arc<Reactor>, timer: Timer) -> Self {
        Self { receiving, reactor, timer }
    }

    /// Waits for the next message. Meanwhile what other tasks left behind in the queue is sent.
    ///
    /// Cancelling it loses nothing; see [`AsyncChannel::receive`](crate::AsyncChannel::receive).
    ///
    /// # Errors
    /// As [`Channel::receive`](crate::Channel::receive); [`Misuse::NoRuntime`](crate::Misuse::NoRuntime).
    pub async fn receive(&mut self) -> Result<Owned, Error> {
        let mut message = Owned::default();
        self.receive_into(&mut message).await?;
        Ok(message)
    }

    /// As [`receive`](Self::receive), into a message whose memory is used again; what it held is
    /// dropped first. Cancelled, it is empty.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn receive_into(&mut self, message: &mut Owned) -> Result<(), Error> {
        receive_into(self.receiving.channel(), &self.reactor, &mut self.timer, message).await
    }

    /// The next message if it is there.
    ///
    /// # Errors
    /// As [`Channel::try_receive`](crate::Channel::try_receive).
    pub fn try_receive(&mut self) -> Result<Option<Owned>, Error> {
        let result = self.receiving.try_receive();
        // What was pending may have left, and a violation closes the queue.
        self.reactor.changed.notify_waiters();
        result
    }

    /// As [`Channel::set_policy`](crate::Channel::set_policy).
    pub fn set_policy(&mut self, policy: Policy) {
        self.receiving.set_policy(policy);
    }

    /// As [`Channel::set_reaper`](crate::Channel::set_reaper).
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        self.receiving.set_reaper(reaper);
    }

    /// As [`Channel::set_batch`](crate::Channel::set_batch).
    pub fn set_batch(&mut self, hunks: u16) {
        self.receiving.set_batch(hunks);
    }

    /// Wakes every task that waits, on both halves.
    pub fn shutdown(&self) {
        self.receiving.shutdown();
    }

    /// A handle that shuts down from any thread.
    pub fn closer(&self) -> Closer {
        self.receiving.closer()
    }

    /// Counters of both halves.
    pub fn stats(&self) -> Stats {
        self.receiving.stats()
    }
}

impl<P: Profile> AsFd for AsyncReceiving<P> {
    /// For options of the socket. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiving.as_fd()
    }
}

impl<P: Profile> fmt::Debug for AsyncReceiving<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncReceiving").field(&self.receiving).finish()
    }
}

/// Why a task that receives looks again.
enum Next<'a> {
    Changed,
    Readable(Ready<'a>),
    Writable(Ready<'a>),
    Due,
}

/// Waits for the next message.
///
/// Every attempt at the socket stands behind a readiness or a moment that has come: so two tasks
/// that wake each other do not do so for ever.
pub(super) async fn receive_into<P: Profile>(
    channel: &mut Channel<P>,
    reactor: &Reactor,
    timer: &mut Timer,
    message: &mut Owned,
) -> Result<(), Error> {
    message.clear();
    // A task that only receives lets others run too. Cancelled here: nothing was read.
    consume_budget().await;
    let (mut unread_until, mut unsent_until) = (None, None);
    loop {
        // Made before the look: what changes behind the look is not missed.
        let mut changed = pin!(reactor.changed.notified());
        changed.as_mut().enable();
        // One packet may have brought many.
        if told(reactor, channel.take_held(message))? {
            return Ok(());
        }
        let (mut readable, mut writable) = (pin!(reactor.readable()), pin!(reactor.writable()));
        let waits_for_room = channel.waits_for_room();
        let due = earlier(earlier(unread_until, unsent_until), channel.due());
        let next = poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(Next::Changed));
            }
            if unread_until.is_none() {
                if let Poll::Ready(ready) = readable.as_mut().poll(cx) {
                    return Poll::Ready(ready.map(Next::Readable));
                }
            }
            if waits_for_room && unsent_until.is_none() {
                if let Poll::Ready(ready) = writable.as_mut().poll(cx) {
                    return Poll::Ready(ready.map(Next::Writable));
                }
            }
            timer.poll(reactor, cx, due).map_ok(|()| Next::Due)
        });
        let came = match next.await? {
            Next::Changed => continue,
            Next::Readable(ready) => {
                let came = attempt(channel, reactor, message)?;
                unread_until = if came { None } else { ready.was_empty() };
                came
            }
            Next::Writable(ready) => {
                unsent_until = if channel.flush_aside() { ready.was_empty() } else { None };
                reactor.changed.notify_waiters();
                false
            }
            // Only a read that says "would block" behind the deadline makes a message overdue (P5).
            Next::Due => {
                (unread_until, unsent_until) = (None, None);
                attempt(channel, reactor, message)?
            }
        };
        if came {
            return Ok(());
        }
    }
}

fn attempt<P: Profile>(
    channel: &mut Channel<P>,
    reactor: &Reactor,
    message: &mut Owned,
) -> Result<bool, Error> {
    // It sends too, whatever was waiting or came into the queue meanwhile: whose message left is
    // told, and who found this task sending. Where nothing was pending before and nothing was
    // accepted since, it did neither.
    let before = channel.queued();
    let result = told(reactor, channel.try_receive_into(message));
    let quiet =
        |(accepted, pending): (u64, bool)| !pending && channel.queued().is_some_and(|now| now.0 == accepted);
    if !before.is_none_or(quiet) {
        reactor.changed.notify_waiters();
    }
    result
}

/// An error is the end of both halves, or may be: all who wait look.
fn told(reactor: &Reactor, result: Result<bool, Error>) -> Result<bool, Error> {
    if result.is_err() {
        reactor.changed.notify_waiters();
    }
    result
}
