//! The sending half: any number of tasks, one socket.

use std::fmt;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::sync::futures::Notified;
use tokio::task::consume_budget;

use super::reactor::{Reactor, Timer, earlier};
use crate::driver::channel::{Closer, Owned, Sent};
use crate::driver::error::{Error, SendError};
use crate::driver::lines::{Lines, error, unsent};
use crate::driver::sending::Sending;
use crate::machine;
use crate::profile::Profile;

/// Sends on a channel from any task; see [`AsyncChannel::split`](crate::AsyncChannel::split).
///
/// Messages do not mix, and each task's own keep their order if it awaits one before the next (P7).
/// All tasks that wait share the work: what is queued leaves as long as *any* future of this
/// channel is polled, a `send`, a `flush` or a [`receive`](crate::AsyncReceiving::receive). One that
/// is kept and not polled holds up none of the others.
///
/// Dropping the last handle closes what is queued, and this direction: the peer reads the end.
/// [`flush`](Self::flush) first. Nothing here blocks the thread.
pub struct AsyncSending<P: Profile> {
    sending: Sending<P>,
    reactor: Arc<Reactor>,
}

/// A message in the queue, and somebody who comes back for it.
struct Place<'a, P: Profile> {
    lines: &'a Lines<P>,
    number: u64,
}

impl<P: Profile> Drop for Place<'_, P> {
    fn drop(&mut self) {
        self.lines.outbox.leave(self.number);
    }
}

impl<P: Profile> AsyncSending<P> {
    pub(super) const fn new(sending: Sending<P>, reactor: Arc<Reactor>) -> Self {
        Self { sending, reactor }
    }

    /// Puts a message into the queue, waiting for room, and waits until the kernel has it.
    ///
    /// Cancelled while it waits for room, the message is closed and nothing of it is sent. Cancelled
    /// later it stays in the queue and leaves in its turn, whole. Which of the two it was is not
    /// said: who needs to know calls [`try_send`](Self::try_send), which never waits, and then
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// The message comes back: [`Error::Misuse`]; [`Error::DescriptorsRefused`], when the peer accepts
    /// none; [`Error::Io`], when the kernel refuses it otherwise. [`Error::PeerGone`], [`Error::Closed`], a violation of the
    /// peer's, and any error once a part of a message left, are every sender's answer from then on.
    /// What is refused of a message whose `send` was cancelled is closed, counted as
    /// [`lost`](Self::lost), and said by the next flush.
    pub async fn send(&self, message: Owned) -> Result<(), SendError> {
        // A task that only sends lets others run too. Cancelled here: nothing was queued.
        consume_budget().await;
        let (lines, mut wait) = (self.sending.lines(), Wait::new(self));
        let (mut outside, mut place) = (Some(message), None);
        loop {
            // Made before the look: what changes behind the look is not missed.
            let mut changed = pin!(self.reactor.changed.notified());
            changed.as_mut().enable();
            if let Some(message) = outside.take() {
                match lines.offer(message) {
                    Ok(number) => place = Some(Place { lines, number }),
                    Err(SendError { error: Error::WouldBlock, mut messages }) => outside = messages.pop(),
                    Err(error) => return Err(error),
                }
                if place.is_some() {
                    lines.help();
                    self.reactor.changed.notify_waiters();
                }
            }
            if let Some(result) = place.as_ref().and_then(|place| lines.outbox.look(place.number)) {
                return result.map_err(unsent);
            }
            let waited = wait.until(changed).await;
            waited.map_err(|error| SendError::new(error, outside.take().into_iter().collect()))?;
        }
    }

    /// As [`Sending::try_send`](crate::Sending::try_send). What is [`Sent::Pending`] leaves when any
    /// future of this channel is polled.
    ///
    /// # Errors
    /// As [`Sending::try_send`](crate::Sending::try_send).
    pub fn try_send(&self, message: Owned) -> Result<Sent, SendError> {
        let result = self.sending.try_send(message);
        self.reactor.changed.notify_waiters();
        result
    }

    /// Waits until all that was accepted before the first poll has reached the kernel. Cancelling it
    /// loses nothing.
    ///
    /// # Errors
    /// Something did not reach the kernel, now or since the last flush.
    pub async fn flush(&self) -> Result<(), Error> {
        consume_budget().await;
        let (lines, mut wait) = (self.sending.lines(), Wait::new(self));
        let all = lines.outbox.accepted();
        lines.help();
        self.reactor.changed.notify_waiters();
        loop {
            let mut changed = pin!(self.reactor.changed.notified());
            changed.as_mut().enable();
            if let Some(result) = lines.outbox.look_back(all) {
                return result.map_err(error);
            }
            wait.until(changed).await?;
        }
    }

    /// Something was accepted and has not left.
    pub fn has_pending(&self) -> bool {
        self.sending.has_pending()
    }

    /// What was handed to the kernel, whole.
    pub fn sent(&self) -> machine::Sending {
        self.sending.sent()
    }

    /// What was accepted and did not leave: given back to a call that was still there, or closed.
    pub fn lost(&self) -> machine::Sending {
        self.sending.lost()
    }

    /// Wakes every task that waits, on both halves.
    pub fn shutdown(&self) {
        self.sending.shutdown();
    }

    /// A handle that shuts down from any thread.
    pub fn closer(&self) -> Closer {
        self.sending.closer()
    }
}

/// How one task waits for the queue to move, and moves it when the socket lets it.
struct Wait<'a, P: Profile> {
    lines: &'a Lines<P>,
    reactor: &'a Reactor,
    timer: Timer,
}

impl<'a, P: Profile> Wait<'a, P> {
    fn new(sending: &'a AsyncSending<P>) -> Self {
        Self { lines: sending.sending.lines(), reactor: &sending.reactor, timer: Timer::default() }
    }

    /// Until another look is worth it.
    ///
    /// Every attempt at the socket stands behind a readiness or a moment that has come: so two tasks
    /// that wake each other do not do so for ever.
    async fn until(&mut self, mut changed: Pin<&mut Notified<'_>>) -> Result<(), Error> {
        let mut writable = pin!(self.reactor.writable());
        let mut pause = None;
        poll_fn(|cx| {
            if changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let retry = self.lines.retry();
            if retry.is_none() && pause.is_none() && self.lines.outbox.wants_write() {
                let Poll::Ready(ready) = writable.as_mut().poll(cx) else { return Poll::Pending };
                let ready = ready?;
                let full = self.lines.help();
                pause = if full { ready.was_empty() } else { None };
                self.reactor.changed.notify_waiters();
                if pause.is_none() {
                    return Poll::Ready(Ok(()));
                }
            }
            // Without a moment: somebody sends right now, and rings when it leaves.
            ready!(self.timer.poll(self.reactor, cx, earlier(pause, retry)))?;
            self.lines.help();
            self.reactor.changed.notify_waiters();
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl<P: Profile> Clone for AsyncSending<P> {
    fn clone(&self) -> Self {
        Self { sending: self.sending.clone(), reactor: Arc::clone(&self.reactor) }
    }
}

impl<P: Profile> AsFd for AsyncSending<P> {
    /// For options of the socket. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sending.as_fd()
    }
}

impl<P: Profile> fmt::Debug for AsyncSending<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncSending").field(&self.sending).finish()
    }
}
