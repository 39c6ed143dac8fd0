//! When a call is worth another attempt.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{self, Sleep};

use crate::driver::channel::Socket;
use crate::driver::error::Error;
use crate::driver::sys;
use crate::error::Misuse;

/// How long to stay away from a socket that is said to be ready, for ever, and is not: a peer of a
/// datagram pair that connects its end elsewhere leaves such a one behind.
const PAUSE: Duration = Duration::from_millis(10);

/// A socket in the reactor of the runtime in which it was registered.
pub(super) struct Reactor {
    fd: AsyncFd<sys::Registered>,
    /// The process whose end is the conversation's.
    peer: OnceLock<AsyncFd<sys::Registered>>,
    home: Handle,
    /// The queue of a channel that was split has changed: whoever awaits anything of it looks again.
    pub(super) changed: Notify,
}

/// The socket was ready when this was made.
#[must_use = "a readiness that proves empty must be given up, or the next wait does not wait"]
pub(super) struct Ready<'a> {
    guard: AsyncFdReadyGuard<'a, sys::Registered>,
    lasting: bool,
}

impl Ready<'_> {
    /// A call said "would block" since. When to try again although nobody says so, if the readiness
    /// is of the kind that is not given up (the reactor takes a hang-up for final).
    pub(super) fn was_empty(mut self) -> Option<Instant> {
        // Asked first: a guard that was cleared knows nothing any more.
        let ready = self.guard.ready();
        if !self.lasting {
            self.guard.clear_ready();
        }
        (self.lasting || ready.is_read_closed() || ready.is_write_closed()).then(|| Instant::now() + PAUSE)
    }
}

impl Reactor {
    /// # Panics
    /// In a runtime without `enable_io` and `enable_time`.
    pub(super) fn new(socket: &Arc<Socket>) -> Result<Self, Error> {
        let home = Handle::try_current().map_err(|_| Misuse::NoRuntime)?;
        // Where there are no timers, this panics: here, and not in the middle of a conversation.
        drop(time::sleep(Duration::ZERO));
        let fd = sys::register(Arc::clone(socket)).map_err(|error| failure(&error))?;
        let reactor = Self { fd, peer: OnceLock::new(), home, changed: Notify::new() };
        reactor.watch_peer(socket)?;
        Ok(reactor)
    }

    /// Watches for the end of the process that the socket is to outlive, if there is one.
    pub(super) fn watch_peer(&self, socket: &Arc<Socket>) -> Result<(), Error> {
        // Also called long after the reactor was made.
        let _at_home = self.home.enter();
        if let Some(peer) = sys::register_peer(socket).map_err(|error| failure(&error))? {
            let _watched_already = self.peer.set(peer);
        }
        Ok(())
    }

    /// Something can be read, the watched peer has ended, or something went wrong: the one thing that
    /// a peer of a datagram pair shows that connected its end elsewhere.
    pub(super) async fn readable(&self) -> Result<Ready<'_>, Error> {
        self.or_ended(self.fd.ready(Interest::READABLE | Interest::ERROR)).await
    }

    /// There is room, or the watched peer has ended.
    pub(super) async fn writable(&self) -> Result<Ready<'_>, Error> {
        self.or_ended(self.fd.writable()).await
    }

    async fn or_ended<'a>(
        &'a self,
        ready: impl Future<Output = io::Result<AsyncFdReadyGuard<'a, sys::Registered>>>,
    ) -> Result<Ready<'a>, Error> {
        let ended = async {
            match self.peer.get() {
                Some(peer) => peer.readable().await,
                None => pending().await,
            }
        };
        let (mut ready, mut ended) = (pin!(ready), pin!(ended));
        let seen = poll_fn(|cx| match ready.as_mut().poll(cx) {
            Poll::Ready(guard) => Poll::Ready(guard.map(|guard| Ready { guard, lasting: false })),
            Poll::Pending => ended.as_mut().poll(cx).map_ok(|guard| Ready { guard, lasting: true }),
        });
        seen.await.map_err(|error| failure(&error))
    }
}

/// The reactor fails with an errno of epoll_ctl(2), or because it is gone.
fn failure(error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) => Error::Io { call: "epoll_ctl", errno },
        None => Misuse::NoRuntime.into(),
    }
}

/// One task's alarm. Made when it is first needed: most waits have no end.
#[derive(Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    at: Option<Instant>,
}

impl Timer {
    /// Ready when the moment has passed; never, without one.
    pub(super) fn poll(
        &mut self,
        reactor: &Reactor,
        cx: &mut Context<'_>,
        at: Option<Instant>,
    ) -> Poll<Result<(), Error>> {
        let Some(at) = at else { return Poll::Pending };
        // A timer whose runtime is gone panics. The socket's readiness says it with an error.
        if let Poll::Ready(Err(gone)) = pin!(reactor.readable()).poll(cx) {
            return Poll::Ready(Err(gone));
        }
        if at <= Instant::now() {
            return Poll::Ready(Ok(()));
        }
        let sleep = self.sleep.get_or_insert_with(|| {
            let _made_at_home = reactor.home.enter();
            Box::pin(time::sleep_until(at.into()))
        });
        if self.at.replace(at) != Some(at) || sleep.is_elapsed() {
            sleep.as_mut().reset(at.into());
        }
        sleep.as_mut().poll(cx).map(Ok)
    }
}

/// The earlier one of two moments, each of which may never come.
pub(super) fn earlier(one: Option<Instant>, two: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(two).min()
}
