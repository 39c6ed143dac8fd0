//! One connection.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::PollFlags;

use crate::broker::Outcome;
use crate::driver::channel::Channel;
use crate::driver::deadline::Deadline;
use crate::driver::error::{Error, SendError};
use crate::driver::sys;
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
    /// When an end was sent to it, and all before had been read.
    unread_since: Option<Instant>,
    /// That was too long ago.
    pub(super) overdue: bool,
}

/// What came of a message.
pub(super) struct Handed {
    pub(super) outcome: Outcome,
    /// The broker's user has as many descriptors in flight as the kernel allows (ETOOMANYREFS).
    pub(super) too_many: bool,
}

impl Line {
    pub(super) const fn new(channel: Channel<Packet>) -> Self {
        Self { channel, process: None, queued: false, full: false, unread_since: None, overdue: false }
    }

    /// Whether an answer would fit: "writable" means that three quarters of SO_SNDBUF are free
    /// (net/unix/af_unix.c, unix_writable). Or nobody is there any more, and answers matter to
    /// nobody.
    pub(super) fn has_room(&self, until: Deadline) -> Result<bool, Error> {
        let seen = wait(self.channel.as_fd(), PollFlags::POLLOUT, until)?;
        Ok(seen.intersects(PollFlags::POLLOUT | PollFlags::POLLHUP | PollFlags::POLLERR))
    }

    /// Hands over a message if there is room; else its descriptor is closed.
    pub(super) fn send(&mut self, message: Message<OwnedFd>) -> Handed {
        let brings_end = message.descriptor_count() > 0;
        let since = if brings_end { self.unread_since() } else { None };
        let sent = self.channel.try_send(message);
        if brings_end && sent.is_ok() {
            self.unread_since = since.or_else(|| Some(Instant::now()));
        }
        let many = Error::Pressure { errno: Errno::ETOOMANYREFS as i32 };
        let too_many = matches!(&sent, Err(SendError { error, .. }) if *error == many);
        let outcome = match sent {
            // A packet leaves whole.
            Ok(_) => Outcome::Sent,
            Err(SendError { error, .. }) => match error {
                Error::WouldBlock => Outcome::Full,
                Error::PeerGone { .. } | Error::Closed => Outcome::Gone,
                Error::DescriptorsRefused => Outcome::Refused,
                Error::Io { errno, .. } if errno == Errno::EPERM as i32 => Outcome::Refused,
                _ => Outcome::Short,
            },
        };
        Handed { outcome, too_many }
    }

    /// Since when it has an end that it does not read, though its socket may have room.
    pub(super) fn unread_since(&mut self) -> Option<Instant> {
        if matches!(sys::unread_bytes(self.channel.as_fd()), Ok(0)) {
            self.unread_since = None;
        }
        self.unread_since
    }
}
