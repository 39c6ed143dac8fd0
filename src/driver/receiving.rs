//! The receiving half of a channel that was split.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::channel::{Channel, Closer};
use super::deadline::Deadline;
use super::error::Error;
use super::reaper::Reaper;
use super::stats::Stats;
use crate::accept::Policy;
use crate::message::Message;
use crate::profile::Profile;

/// Receives on a channel while other threads send; see [`Channel::split`](crate::Channel::split).
/// Each method is the channel's of the same name.
pub struct Receiving<P: Profile>(Channel<P>);

impl<P: Profile> Receiving<P> {
    pub(super) const fn new(channel: Channel<P>) -> Self {
        Self(channel)
    }

    #[cfg(feature = "tokio")]
    pub(super) const fn channel(&mut self) -> &mut Channel<P> {
        &mut self.0
    }

    /// Waits for the next message, for ever if need be.
    ///
    /// # Errors
    /// As [`Channel::receive`](crate::Channel::receive).
    pub fn receive(&mut self) -> Result<Message<OwnedFd>, Error> {
        self.0.receive()
    }

    /// Waits for the next message. Meanwhile what a [`try_send`](crate::Sending::try_send) left
    /// behind is sent.
    ///
    /// # Errors
    /// As [`Channel::receive_by`](crate::Channel::receive_by).
    pub fn receive_by(&mut self, deadline: Deadline) -> Result<Message<OwnedFd>, Error> {
        self.0.receive_by(deadline)
    }

    /// The next message if it is there.
    ///
    /// # Errors
    /// As [`Channel::try_receive`](crate::Channel::try_receive).
    pub fn try_receive(&mut self) -> Result<Option<Message<OwnedFd>>, Error> {
        self.0.try_receive()
    }

    /// Waits for the next message into one whose memory is used again.
    ///
    /// # Errors
    /// As [`Channel::receive_into`](crate::Channel::receive_into).
    pub fn receive_into(&mut self, message: &mut Message<OwnedFd>, deadline: Deadline) -> Result<(), Error> {
        self.0.receive_into(message, deadline)
    }

    /// Who gets the descriptors of refused messages.
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        self.0.set_reaper(reaper);
    }

    /// Which kinds of descriptors are accepted.
    pub fn set_policy(&mut self, policy: Policy) {
        self.0.set_policy(policy);
    }

    /// Reads so many datagrams or packets in one system call.
    pub fn set_batch(&mut self, hunks: u16) {
        self.0.set_batch(hunks);
    }

    /// Tries again for this long before a receive sleeps.
    pub fn set_spin(&mut self, moment: Duration) {
        self.0.set_spin(moment);
    }

    /// For event loops: when to call although the socket is silent.
    pub fn timeout(&self) -> Option<Duration> {
        self.0.timeout()
    }

    /// Wakes every call that waits, on both halves.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    /// A handle that shuts down from any thread.
    pub fn closer(&self) -> Closer {
        self.0.closer()
    }

    /// Counters of both halves.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

impl<P: Profile> AsFd for Receiving<P> {
    /// For poll(2) and the like. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<P: Profile> fmt::Debug for Receiving<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiving").field(&self.0).finish()
    }
}
