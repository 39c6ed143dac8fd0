//! What the halves of a channel, and who closes it from outside, share.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::driver::deadline::Deadline;
use crate::driver::error::Error;
use crate::driver::socket;
use crate::driver::sys::{self, Scratch};
use crate::driver::wait::wait_for;
use crate::machine::Transmit;
use crate::profile::Framing;

/// Shuts a channel or a listener down from any thread. Does not keep its socket open.
#[derive(Clone, Debug)]
pub struct Closer(Weak<Socket>);

impl Closer {
    pub(in crate::driver) fn of(socket: &Arc<Socket>) -> Self {
        Self(Arc::downgrade(socket))
    }

    /// As [`Channel::shutdown`](crate::Channel::shutdown); nothing, if the channel is gone.
    pub fn shutdown(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.shutdown();
        }
    }
}

/// The socket, whether it was this side that shut it down, and who is to be outlived.
#[derive(Debug)]
pub(in crate::driver) struct Socket {
    descriptor: OwnedFd,
    shut: AtomicBool,
    /// A pidfd: readable for ever once its process has ended (pidfd_open(2)).
    peer: OnceLock<OwnedFd>,
}

impl Socket {
    pub(in crate::driver) const fn new(descriptor: OwnedFd) -> Self {
        Self { descriptor, shut: AtomicBool::new(false), peer: OnceLock::new() }
    }

    pub(in crate::driver) fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    /// Ends with this process from now on. The pidfd comes back, if another one is watched.
    pub(super) fn watch(&self, pidfd: OwnedFd) -> Result<(), OwnedFd> {
        self.peer.set(pidfd)
    }

    /// The pidfd that is watched.
    pub(in crate::driver) fn watched(&self) -> Option<BorrowedFd<'_>> {
        self.peer.get().map(AsFd::as_fd)
    }

    /// As [`wait_for`], with POLLHUP once the watched process has ended.
    pub(in crate::driver) fn wait_or_hear(
        &self,
        events: PollFlags,
        bell: Option<BorrowedFd<'_>>,
        until: Deadline,
    ) -> Result<(PollFlags, bool), Error> {
        let (seen, [rings, ended]) = wait_for(self.as_fd(), events, [bell, self.watched()], until)?;
        Ok((if ended { seen | PollFlags::POLLHUP } else { seen }, rings))
    }

    /// As [`wait_or_hear`](Self::wait_or_hear), without a bell.
    pub(in crate::driver) fn wait(&self, events: PollFlags, until: Deadline) -> Result<PollFlags, Error> {
        self.wait_or_hear(events, None, until).map(|(seen, _)| seen)
    }

    /// As [`sys::send`]. To a process that has ended nothing is sent: there is nobody to read it,
    /// though others may hold its end; and on a datagram socket the kernel would throw away what
    /// it had sent and nobody has read (net/unix/af_unix.c, unix_dgram_disconnected).
    pub(in crate::driver) fn send<'a, F: AsRawFd + 'a>(
        &self,
        framing: Framing,
        scratch: &mut Scratch,
        transmits: impl Iterator<Item = Transmit<'a, F>>,
    ) -> Result<usize, Errno> {
        let ended = self.watched().is_some_and(|pidfd| {
            let now = Deadline::after(Duration::ZERO);
            // Where poll(2) fails, the send will say what there is to say.
            wait_for(pidfd, PollFlags::POLLIN, [None; 2], now).is_ok_and(|(seen, _)| !seen.is_empty())
        });
        if ended {
            return Err(Errno::ECONNREFUSED);
        }
        sys::send(self.as_fd(), framing, scratch, transmits)
    }

    /// Whether this side shut it down.
    pub(in crate::driver) fn was_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    pub(in crate::driver) fn shutdown(&self) {
        // Before the call: who sees the end must find the reason.
        self.shut.store(true, Ordering::SeqCst);
        socket::shut(self.as_fd());
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
