//! A whole channel in the reactor.

use std::fmt;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::PollFlags;
use tokio::task::consume_budget;

use super::reactor::{Reactor, Ready, Timer};
use super::receiving::{AsyncReceiving, receive_into};
use super::sending::AsyncSending;
use crate::accept::Policy;
use crate::driver::channel::{Channel, Closer, Flush, Owned, Sent};
use crate::driver::deadline::Deadline;
use crate::driver::error::{Error, SendError};
use crate::driver::reaper::Reaper;
use crate::driver::stats::Stats;
use crate::limits::Limits;
use crate::outbox::Bounds;
use crate::profile::Profile;

/// A [`Channel`] whose calls are futures of a Tokio runtime.
///
/// Deadlines are the runtime's: `tokio::time::timeout(patience, channel.receive())`. Each future says
/// what it leaves behind when it is cancelled. The assembly deadline of [`Limits`] holds by itself.
///
/// ```
/// use fdpost::{AsyncChannel, Limits, Message, Packet};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let (mut ours, theirs) = AsyncChannel::<Packet>::pair(Limits::new())?;
/// let mut theirs = AsyncChannel::<Packet>::from_fd(theirs, Limits::new())?; // usually another process
/// ours.send(Message::new(b"frame 7")).await?;
/// assert_eq!(theirs.receive().await?.payload(), b"frame 7");
/// # Ok::<(), fdpost::Error>(())
/// # }).unwrap();
/// ```
pub struct AsyncChannel<P: Profile> {
    channel: Channel<P>,
    reactor: Arc<Reactor>,
    timer: Timer,
}

impl<P: Profile> AsyncChannel<P> {
    /// Puts a channel into the reactor of the current runtime. Its socket's O_NONBLOCK flag is
    /// neither needed nor changed.
    ///
    /// # Errors
    /// [`Misuse::NoRuntime`](crate::Misuse::NoRuntime); [`Error::Io`] of epoll_ctl(2). The channel is
    /// dropped then.
    ///
    /// # Panics
    /// In a runtime without `enable_io` and `enable_time`, as all of Tokio does.
    pub fn new(channel: Channel<P>) -> Result<Self, Error> {
        let reactor = Arc::new(Reactor::new(channel.socket())?);
        Ok(Self { channel, reactor, timer: Timer::default() })
    }

    /// As [`Channel::pair`].
    ///
    /// # Errors
    /// As [`Channel::pair`] and [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn pair(limits: Limits) -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) = Channel::pair(limits)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// As [`Channel::from_fd`].
    ///
    /// # Errors
    /// As [`Channel::from_fd`] and [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn from_fd(socket: OwnedFd, limits: Limits) -> Result<Self, Error> {
        Self::new(Channel::from_fd(socket, limits)?)
    }

    /// The channel, out of the reactor: with what it has read and not delivered, and what is pending.
    pub fn into_inner(self) -> Channel<P> {
        self.channel
    }

    /// Waits for the next message. Meanwhile what is pending to be sent is sent.
    ///
    /// Cancelling it loses nothing: a message is handed over whole by the poll that completes it, and
    /// what has come of the next one stays in the channel. The assembly deadline of a message that
    /// has begun runs on, and is looked at by the next `receive`.
    ///
    /// # Errors
    /// As [`Channel::receive`]; [`Misuse::NoRuntime`](crate::Misuse::NoRuntime), when the runtime is
    /// gone and nothing is lost ([`into_inner`](Self::into_inner)).
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
        let Self { channel, reactor, timer } = self;
        receive_into(channel, reactor, timer, message).await
    }

    /// The next message if it is there.
    ///
    /// # Errors
    /// As [`Channel::try_receive`].
    pub fn try_receive(&mut self) -> Result<Option<Owned>, Error> {
        self.channel.try_receive()
    }

    /// Hands a message to the kernel, waiting for room. What is pending goes first.
    ///
    /// Cancelled before its first byte left, the message is closed and nothing of it is sent.
    /// Cancelled between its parts, the rest is [pending](Self::has_pending) and goes first with the
    /// next send, flush or receive: the peer gets it whole (P6). Where nothing was pending before, that
    /// something is afterwards says which of the two it was. Who must not lose a message to a
    /// cancellation waits with [`ready_to_send`](Self::ready_to_send) and then calls
    /// [`try_send`](Self::try_send), which gives it back.
    ///
    /// # Errors
    /// As [`Channel::send`]; [`Misuse::NoRuntime`](crate::Misuse::NoRuntime) with the message.
    pub async fn send(&mut self, message: Owned) -> Result<(), SendError> {
        // A task that only sends lets others run too. Cancelled here: the message is closed.
        consume_budget().await;
        let Self { channel, reactor, timer } = self;
        channel.push(message)?;
        let begun = Begun(channel);
        flush(begun.0, reactor, timer).await.map_err(|mut unsent| {
            if unsent.messages.is_empty() {
                unsent.messages.extend(begun.0.recall());
            }
            unsent
        })
    }

    /// Hands a message to the kernel if it has room now.
    ///
    /// # Errors
    /// As [`Channel::try_send`].
    pub fn try_send(&mut self, message: Owned) -> Result<Sent, SendError> {
        self.channel.try_send(message)
    }

    /// Waits until nothing is pending and the socket has room. A larger message than there is room
    /// for can still come back from [`try_send`](Self::try_send). Cancelling it loses nothing.
    ///
    /// # Errors
    /// As [`flush`](Self::flush); [`Error::Io`] of poll(2).
    pub async fn ready_to_send(&mut self) -> Result<(), SendError> {
        self.flush().await?;
        let Self { channel, reactor, timer } = self;
        let back = |error| SendError::new(error, Vec::new());
        loop {
            let ready = reactor.writable().await.map_err(back)?;
            let now = Deadline::after(Duration::ZERO);
            if !channel.socket().wait(PollFlags::POLLOUT, now).map_err(back)?.is_empty() {
                return Ok(());
            }
            if let Some(pause) = ready.was_empty() {
                poll_fn(|cx| timer.poll(reactor, cx, Some(pause))).await.map_err(back)?;
            }
        }
    }

    /// Waits until nothing is pending. Cancelling it loses nothing: the rest stays pending.
    ///
    /// # Errors
    /// As [`Channel::flush_by`], without [`Error::TimedOut`].
    pub async fn flush(&mut self) -> Result<(), SendError> {
        let Self { channel, reactor, timer } = self;
        channel.check_alive()?;
        flush(channel, reactor, timer).await
    }

    /// As [`Channel::has_pending`].
    pub fn has_pending(&self) -> bool {
        self.channel.has_pending()
    }

    /// As [`Channel::set_policy`].
    pub fn set_policy(&mut self, policy: Policy) {
        self.channel.set_policy(policy);
    }

    /// As [`Channel::watch_peer`].
    ///
    /// # Errors
    /// As [`Channel::watch_peer`]; [`Error::Io`] of epoll_ctl(2).
    pub fn watch_peer(&mut self, pidfd: OwnedFd) -> Result<(), Error> {
        self.channel.watch_peer(pidfd)?;
        self.reactor.watch_peer(self.channel.socket())
    }

    /// As [`Channel::set_reaper`].
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        self.channel.set_reaper(reaper);
    }

    /// As [`Channel::set_batch`].
    pub fn set_batch(&mut self, hunks: u16) {
        self.channel.set_batch(hunks);
    }

    /// Wakes every task that waits on this channel; what is queued is still delivered, then
    /// [`Error::Closed`]. From another thread: [`closer`](Self::closer).
    pub fn shutdown(&self) {
        self.channel.shutdown();
    }

    /// A handle that can [`shutdown`](Self::shutdown) this channel from any thread.
    pub fn closer(&self) -> Closer {
        self.channel.closer()
    }

    /// Counters since the channel was made.
    pub fn stats(&self) -> Stats {
        self.channel.stats()
    }

    /// A sending half for any number of tasks, and a receiving half; as [`Channel::split`].
    ///
    /// ```
    /// use fdpost::{AsyncChannel, Limits, Message, Packet};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// let (ours, theirs) = AsyncChannel::<Packet>::pair(Limits::new())?;
    /// let mut theirs = AsyncChannel::<Packet>::from_fd(theirs, Limits::new())?;
    /// let (sending, _receiving) = ours.split();
    /// for number in 0..4 {
    ///     let sending = sending.clone();
    ///     tokio::spawn(async move { sending.send(Message::new([number])).await });
    /// }
    /// for _ in 0..4 {
    ///     theirs.receive().await?;
    /// }
    /// # Ok::<(), fdpost::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn split(self) -> (AsyncSending<P>, AsyncReceiving<P>) {
        self.split_within(Bounds::new())
    }

    /// As [`split`](Self::split), with bounds of one's own on what may be queued.
    pub fn split_within(self, bounds: Bounds) -> (AsyncSending<P>, AsyncReceiving<P>) {
        let (sending, receiving) = self.channel.split_within(bounds);
        let receiving = AsyncReceiving::new(receiving, Arc::clone(&self.reactor), self.timer);
        (AsyncSending::new(sending, self.reactor), receiving)
    }
}

/// A message that was pushed and may be given up as long as nothing of it left.
struct Begun<'a, P: Profile>(&'a mut Channel<P>);

impl<P: Profile> Drop for Begun<'_, P> {
    fn drop(&mut self) {
        drop(self.0.recall());
    }
}

/// Until nothing is pending. Keeps everything if the runtime is gone.
async fn flush<P: Profile>(
    channel: &mut Channel<P>,
    reactor: &Reactor,
    timer: &mut Timer,
) -> Result<(), SendError> {
    let back = |error| SendError::new(error, Vec::new());
    let mut ready: Option<Ready<'_>> = None;
    loop {
        let until = match channel.flush()? {
            Flush::Done => return Ok(()),
            Flush::Full => ready.take().and_then(Ready::was_empty),
            // A socket that lacks memory is "writable" all the while.
            Flush::Pressure(_) => channel.back_off_end().instant(),
        };
        match until {
            None => ready = Some(reactor.writable().await.map_err(back)?),
            Some(_) => poll_fn(|cx| timer.poll(reactor, cx, until)).await.map_err(back)?,
        }
    }
}

impl<P: Profile> TryFrom<Channel<P>> for AsyncChannel<P> {
    type Error = Error;

    /// As [`AsyncChannel::new`].
    fn try_from(channel: Channel<P>) -> Result<Self, Error> {
        Self::new(channel)
    }
}

impl<P: Profile> From<AsyncChannel<P>> for Channel<P> {
    /// As [`AsyncChannel::into_inner`].
    fn from(channel: AsyncChannel<P>) -> Self {
        channel.into_inner()
    }
}

impl<P: Profile> AsFd for AsyncChannel<P> {
    /// For options of the socket. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl<P: Profile> fmt::Debug for AsyncChannel<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncChannel").field(&self.channel).finish()
    }
}
