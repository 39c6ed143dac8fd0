//! Meeting in the reactor.

use std::fmt;
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::channel::AsyncChannel;
use super::reactor::{Reactor, Timer};
use crate::driver::address::Address;
use crate::driver::channel::{Channel, Closer};
use crate::driver::credentials::PeerRule;
use crate::driver::error::Error;
use crate::driver::listener::{LOOK, Listener, PAUSE};
use crate::error::Misuse;
use crate::limits::Limits;
use crate::profile::Profile;

/// A [`Listener`] whose accepts are futures of a Tokio runtime.
///
/// ```
/// use fdpost::{Address, AsyncChannel, AsyncListener, Limits, Listener, Message, Packet};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// # let name = format!("fdpost-async-doc-{}", std::process::id());
/// let listener = Listener::<Packet>::bind(Address::abstract_name(&name), Limits::new())?;
/// let listener = AsyncListener::new(listener)?;
/// let mut client = AsyncChannel::<Packet>::connect(Address::abstract_name(&name), Limits::new()).await?;
/// client.send(Message::new(b"hello")).await?;
/// let mut served = listener.accept().await?;
/// assert_eq!(served.receive().await?.payload(), b"hello");
/// # Ok::<(), fdpost::Error>(())
/// # }).unwrap();
/// ```
pub struct AsyncListener<P: Profile> {
    listener: Listener<P>,
    reactor: Reactor,
}

impl<P: Profile> AsyncListener<P> {
    /// Puts a listener into the reactor of the current runtime.
    ///
    /// # Errors
    /// As [`AsyncChannel::new`].
    ///
    /// # Panics
    /// As [`AsyncChannel::new`].
    pub fn new(listener: Listener<P>) -> Result<Self, Error> {
        let reactor = Reactor::new(listener.socket())?;
        Ok(Self { listener, reactor })
    }

    /// Waits for the next connection. Any number of tasks may. Where this process has no descriptor
    /// left, or the kernel no memory, it tries again by time.
    ///
    /// Cancelling it loses nothing: a connection is taken out of the kernel's queue by the poll that
    /// hands it over, or is kept for the next accept where something is short at that moment.
    ///
    /// # Errors
    /// As [`Listener::accept`]; as [`AsyncChannel::new`].
    pub async fn accept(&self) -> Result<AsyncChannel<P>, Error> {
        let mut timer = Timer::default();
        let mut ready = None;
        loop {
            let until = match self.listener.try_accept() {
                Ok(Some(channel)) => return AsyncChannel::new(channel),
                Ok(None) => {
                    // Shut down by who else holds it: it is ready for ever, and nobody comes.
                    if ready.take().and_then(super::reactor::Ready::was_empty).is_some() {
                        return Err(Error::Closed);
                    }
                    None
                }
                // The listener is readable all the while.
                Err(Error::Pressure { .. }) => Instant::now().checked_add(PAUSE),
                Err(error) => return Err(error),
            };
            match until {
                None => {
                    let mut readable = pin!(self.reactor.readable());
                    let look = Instant::now().checked_add(LOOK);
                    ready = poll_fn(|cx| match readable.as_mut().poll(cx) {
                        Poll::Ready(seen) => Poll::Ready(seen.map(Some)),
                        Poll::Pending => timer.poll(&self.reactor, cx, look).map_ok(|()| None),
                    })
                    .await?;
                }
                Some(_) => poll_fn(|cx| timer.poll(&self.reactor, cx, until)).await?,
            }
        }
    }

    /// The listener, out of the reactor.
    pub fn into_inner(self) -> Listener<P> {
        self.listener
    }

    /// The listener, for what needs no waiting.
    pub const fn get_ref(&self) -> &Listener<P> {
        &self.listener
    }

    /// As [`Listener::shutdown`].
    pub fn shutdown(&self) {
        self.listener.shutdown();
    }

    /// As [`Listener::closer`].
    pub fn closer(&self) -> Closer {
        self.listener.closer()
    }
}

impl<P: Profile> AsyncChannel<P> {
    /// Connects to a listener, waiting while its queue of connections is full.
    ///
    /// Cancelling it leaves nothing behind.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn connect(address: impl Into<Address>, limits: Limits) -> Result<Self, Error> {
        Self::connect_with(address, limits, &PeerRule::new()).await
    }

    /// As [`connect`](Self::connect), to a listener that `rule` lets pass, as
    /// [`Channel::connect_with`] says.
    ///
    /// # Errors
    /// As [`Channel::connect_with`], without [`Error::TimedOut`]; as [`new`](Self::new).
    pub async fn connect_with(
        address: impl Into<Address>,
        limits: Limits,
        rule: &PeerRule,
    ) -> Result<Self, Error> {
        let address = address.into();
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Misuse::NoRuntime.into());
        }
        let mut pause = Duration::from_millis(1);
        loop {
            match Channel::connect_until(address.clone(), limits, rule, None) {
                Ok(channel) => return Self::new(channel),
                // A socket that is not connected cannot be watched for room in the other's queue.
                Err(Error::WouldBlock) => tokio::time::sleep(pause).await,
                Err(error) => return Err(error),
            }
            pause = (pause * 2).min(PAUSE);
        }
    }
}

impl<P: Profile> AsFd for AsyncListener<P> {
    /// For options of the socket.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl<P: Profile> fmt::Debug for AsyncListener<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncListener").field(&self.listener).finish()
    }
}
