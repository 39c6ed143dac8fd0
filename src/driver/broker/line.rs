//! One connection.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::broker::Outcome;
use crate::driver::channel::Channel;
use crate::driver::deadline::Deadline;
use crate::driver::error::{Error, SendError};
use crate::driver::wait::wait;
use crate::message::Message;
use crate::profile::Packet;

pub(super) struct Line {
    pub(super) channel: Channel<Packet>,
    /// Of the process that connected, while it serves a name (BR-15).
    pub(super) process: Option<OwnedFd>,
    /// It stands in the broker's queue of those who may have something to say.
    pub(super) queued: bool,
    /// Its socket has no room, and is watched for it.
    pub(super) full: bool,
}

impl Line {
    pub(super) const fn new(channel: Channel<Packet>) -> Self {
        Self { channel, process: None, queued: false, full: false }
    }

    /// Whether an answer would fit: "writable" means that three quarters of SO_SNDBUF are free
    /// (net/unix/af_unix.c, unix_writable). Or nobody is there any more, and answers matter to
    /// nobody.
    pub(super) fn has_room(&self, until: Deadline) -> Result<bool, Error> {
        let seen = wait(self.channel.as_fd(), PollFlags::POLLOUT, until)?;
        Ok(seen.intersects(PollFlags::POLLOUT | PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Hands over a message if there is room; else its descriptor is closed.
    pub(super) fn send(&mut self, message: Message<OwnedFd>) -> Outcome {
        match self.channel.try_send(message) {
            // A packet leaves whole.
            Ok(_) => Outcome::Sent,
            Err(SendError { error, .. }) => match error {
                Error::WouldBlock => Outcome::Full,
                Error::PeerGone { .. } | Error::Closed => Outcome::Gone,
                Error::DescriptorsRefused => Outcome::Refused,
                Error::Io { errno, .. } if errno == Errno::EPERM as i32 => Outcome::Refused,
                _ => Outcome::Short,
            },
        }
    }
}
