//! A channel whose wire is chosen at run time.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::channel::{Channel, Closer, Sent};
use super::deadline::Deadline;
use super::error::{Error, SendError};
use super::reaper::Reaper;
use super::stats::Stats;
use crate::accept::Policy;
use crate::message::Message;
use crate::profile::Profile;

/// What every [`Channel`] can do, whatever its wire: for code that does not care which it speaks.
/// Each method is the channel's of the same name.
///
/// ```
/// use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Stream, Transport};
///
/// fn open(wire: &str) -> Result<Box<dyn Transport>, Error> {
///     Ok(match wire {
///         "libcamera" => Box::new(Channel::<Libcamera>::pair(Limits::new())?.0),
///         "stream" => Box::new(Channel::<Stream>::pair(Limits::new())?.0),
///         _ => Box::new(Channel::<Packet>::pair(Limits::new())?.0),
///     })
/// }
/// let mut transport = open("stream")?;
/// assert_eq!(transport.wire(), "stream");
/// # Ok::<(), Error>(())
/// ```
pub trait Transport: AsFd + Send {
    /// The wire's name.
    fn wire(&self) -> &'static str;
    /// Hands a message to the kernel, waiting for ever if need be.
    ///
    /// # Errors
    /// As [`Channel::send`].
    fn send(&mut self, message: Message<OwnedFd>) -> Result<(), SendError>;
    /// Hands a message to the kernel, waiting until the deadline.
    ///
    /// # Errors
    /// As [`Channel::send_by`].
    fn send_by(&mut self, message: Message<OwnedFd>, deadline: Deadline) -> Result<Sent, SendError>;
    /// Hands a message to the kernel if it has room now.
    ///
    /// # Errors
    /// As [`Channel::try_send`].
    fn try_send(&mut self, message: Message<OwnedFd>) -> Result<Sent, SendError>;
    /// Waits until nothing is pending.
    ///
    /// # Errors
    /// As [`Channel::flush_by`].
    fn flush_by(&mut self, deadline: Deadline) -> Result<(), SendError>;
    /// A part of a message waits for room: wait until the socket is writable.
    fn wants_write(&self) -> bool;
    /// A part of a message waits, for room or for time.
    fn has_pending(&self) -> bool;
    /// Waits for the next message, for ever if need be.
    ///
    /// # Errors
    /// As [`Channel::receive`].
    fn receive(&mut self) -> Result<Message<OwnedFd>, Error>;
    /// Waits for the next message until the deadline.
    ///
    /// # Errors
    /// As [`Channel::receive_by`].
    fn receive_by(&mut self, deadline: Deadline) -> Result<Message<OwnedFd>, Error>;
    /// Waits for the next message into one whose memory is used again.
    ///
    /// # Errors
    /// As [`Channel::receive_into`].
    fn receive_into(&mut self, message: &mut Message<OwnedFd>, deadline: Deadline) -> Result<(), Error>;
    /// The next message if it is there.
    ///
    /// # Errors
    /// As [`Channel::try_receive`].
    fn try_receive(&mut self) -> Result<Option<Message<OwnedFd>>, Error>;
    /// For event loops: when to call although the socket is silent.
    fn timeout(&self) -> Option<Duration>;
    /// Wakes every call that waits.
    fn shutdown(&self);
    /// A handle that shuts down from any thread.
    fn closer(&self) -> Closer;
    /// Who gets the descriptors of refused messages.
    fn set_reaper(&mut self, reaper: Box<dyn Reaper>);
    /// Which kinds of descriptors are accepted.
    fn set_policy(&mut self, policy: Policy);
    /// Counters.
    fn stats(&self) -> Stats;
}

impl<P: Profile<Declared: Send>> Transport for Channel<P> {
    fn wire(&self) -> &'static str {
        P::NAME
    }

    fn send(&mut self, message: Message<OwnedFd>) -> Result<(), SendError> {
        Self::send(self, message)
    }

    fn send_by(&mut self, message: Message<OwnedFd>, deadline: Deadline) -> Result<Sent, SendError> {
        Self::send_by(self, message, deadline)
    }

    fn try_send(&mut self, message: Message<OwnedFd>) -> Result<Sent, SendError> {
        Self::try_send(self, message)
    }

    fn flush_by(&mut self, deadline: Deadline) -> Result<(), SendError> {
        Self::flush_by(self, deadline)
    }

    fn wants_write(&self) -> bool {
        Self::wants_write(self)
    }

    fn has_pending(&self) -> bool {
        Self::has_pending(self)
    }

    fn receive(&mut self) -> Result<Message<OwnedFd>, Error> {
        Self::receive(self)
    }

    fn receive_by(&mut self, deadline: Deadline) -> Result<Message<OwnedFd>, Error> {
        Self::receive_by(self, deadline)
    }

    fn receive_into(&mut self, message: &mut Message<OwnedFd>, deadline: Deadline) -> Result<(), Error> {
        Self::receive_into(self, message, deadline)
    }

    fn try_receive(&mut self) -> Result<Option<Message<OwnedFd>>, Error> {
        Self::try_receive(self)
    }

    fn timeout(&self) -> Option<Duration> {
        Self::timeout(self)
    }

    fn shutdown(&self) {
        Self::shutdown(self);
    }

    fn closer(&self) -> Closer {
        Self::closer(self)
    }

    fn set_reaper(&mut self, reaper: Box<dyn Reaper>) {
        Self::set_boxed_reaper(self, reaper);
    }

    fn set_policy(&mut self, policy: Policy) {
        Self::set_policy(self, policy);
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }
}
