//! The receiving half, and how any asynchronous channel receives.

use std::fmt;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::reactor::{Reactor, Timer, earlier};
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
        let (channel, reactor) = (self.receiving.channel(), &*self.reactor);
        loop {
            // Made before the first look: what changes behind the look is not missed.
            let mut changed = pin!(reactor.changed.notified());
            let received = poll_fn(|cx| {
                if changed.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                poll_receive(channel, reactor, &mut self.timer, message, cx).map(Some)
            });
            if let Some(result) = received.await {
                return result;
            }
        }
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

/// Ready with a message or an error; else the task is woken when another look is worth it.
///
/// Every attempt at the socket stands behind a readiness or a moment that has come: so two tasks
/// that wake each other do not do so for ever.
pub(super) fn poll_receive<P: Profile>(
    channel: &mut Channel<P>,
    reactor: &Reactor,
    timer: &mut Timer,
    message: &mut Owned,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    let (mut unread_until, mut unsent_until) = (None, None);
    loop {
        // One packet may have brought many.
        match channel.take_held(message) {
            Ok(false) => {}
            result => return told(reactor, result),
        }
        if unread_until.is_none() {
            if let Poll::Ready(ready) = reactor.poll_readable(cx) {
                let ready = ready?;
                match attempt(channel, reactor, message) {
                    Ok(false) => unread_until = ready.was_empty(),
                    result => return told(reactor, result),
                }
                continue;
            }
        }
        if unsent_until.is_none() && channel.waits_for_room() {
            if let Poll::Ready(ready) = reactor.poll_writable(cx) {
                let ready = ready?;
                if channel.flush_aside() {
                    unsent_until = ready.was_empty();
                }
                reactor.changed.notify_waiters();
                continue;
            }
        }
        let at = earlier(earlier(unread_until, unsent_until), channel.due());
        if timer.poll(reactor, cx, at).is_pending() {
            return Poll::Pending;
        }
        (unread_until, unsent_until) = (None, None);
        // Only a read that says "would block" behind the deadline makes a message overdue (P5).
        match attempt(channel, reactor, message) {
            Ok(false) => {}
            result => return told(reactor, result),
        }
    }
}

fn attempt<P: Profile>(
    channel: &mut Channel<P>,
    reactor: &Reactor,
    message: &mut Owned,
) -> Result<bool, Error> {
    // It sends too, whatever that was waiting for: whose message left is told, and who found this
    // task sending.
    let had_pending = channel.is_queueing();
    let result = channel.try_receive_into(message);
    if had_pending || channel.is_queueing() {
        reactor.changed.notify_waiters();
    }
    result
}

/// An error here is the end of both halves, or may be: all who wait look.
fn told(reactor: &Reactor, result: Result<bool, Error>) -> Poll<Result<(), Error>> {
    if result.is_err() {
        reactor.changed.notify_waiters();
    }
    Poll::Ready(result.map(drop))
}
