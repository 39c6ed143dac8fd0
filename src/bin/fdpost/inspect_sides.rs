//! What a relay needs of a side, whatever its wire.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use fdpost::driver::{FdReply, send_error, send_fd};
use fdpost::{Deadline, Error, Head, Limits, Message, Policy, SendError, Transport};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use crate::conversation::receive_classic;

/// One of two sides.
pub(crate) trait Side: AsFd {
    fn try_receive(&mut self) -> Result<Option<Message>, Error>;
    fn try_send(&mut self, message: Message) -> Result<(), SendError>;
    /// Sends what is pending, as far as that goes now.
    fn flush(&mut self) -> Result<(), SendError>;
    fn has_pending(&self) -> bool;
    fn wants_write(&self) -> bool;
    fn timeout(&self) -> Option<Duration>;
    fn shutdown(&self);
}

/// A side of a wire of messages.
pub(crate) struct Messages(pub(crate) Box<dyn Transport>);

impl AsFd for Messages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Side for Messages {
    fn try_receive(&mut self) -> Result<Option<Message>, Error> {
        self.0.try_receive()
    }

    fn try_send(&mut self, message: Message) -> Result<(), SendError> {
        // What is pending the relay flushes.
        let _complete_or_pending = self.0.try_send(message)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.0.flush_by(Deadline::at(Instant::now()))
    }

    fn has_pending(&self) -> bool {
        self.0.has_pending()
    }

    fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    fn timeout(&self) -> Option<Duration> {
        self.0.timeout()
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}

/// A side that speaks `send_fd`. Its messages are a descriptor each, or an error: the status as
/// their kind, the text as their payload. Nothing is ever pending: a few bytes leave whole, or the
/// socket was not writable.
pub(crate) struct Classic {
    socket: OwnedFd,
    limits: Limits,
    policy: Option<Policy>,
}

impl Classic {
    pub(crate) const fn new(socket: OwnedFd, limits: Limits, policy: Option<Policy>) -> Self {
        Self { socket, limits, policy }
    }

    fn is_ready(&self, events: PollFlags) -> Result<bool, Error> {
        match poll(&mut [PollFd::new(self.socket.as_fd(), events)], PollTimeout::ZERO) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Error::Io { call: "poll", errno: errno as i32 }),
        }
    }
}

impl AsFd for Classic {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Side for Classic {
    /// A message that has begun is waited for, at most as long as the limits say.
    fn try_receive(&mut self) -> Result<Option<Message>, Error> {
        if !self.is_ready(PollFlags::POLLIN)? {
            return Ok(None);
        }
        let whole = Deadline::after(self.limits.assembly_timeout);
        Ok(Some(match receive_classic(&self.socket, &self.limits, self.policy.as_ref(), whole)? {
            FdReply::Descriptor(descriptor) => Message::new([]).with(descriptor),
            FdReply::Error { status, text } => {
                Message::new(text).with_head(Head { kind: status.into(), ..Head::default() })
            }
        }))
    }

    fn try_send(&mut self, message: Message) -> Result<(), SendError> {
        let sent = match self.is_ready(PollFlags::POLLOUT) {
            Ok(true) => match (message.descriptor(0), u8::try_from(message.head().kind)) {
                (Some(descriptor), _) => send_fd(&self.socket, descriptor),
                (None, status) => send_error(&self.socket, status.unwrap_or(u8::MAX), message.payload()),
            },
            Ok(false) => Err(Error::WouldBlock),
            Err(error) => Err(error),
        };
        sent.map_err(|error| SendError { error, messages: vec![message] })
    }

    fn flush(&mut self) -> Result<(), SendError> {
        Ok(())
    }

    fn has_pending(&self) -> bool {
        false
    }

    fn wants_write(&self) -> bool {
        false
    }

    fn timeout(&self) -> Option<Duration> {
        None
    }

    fn shutdown(&self) {
        // ENOTCONN: it has gone by itself.
        let _no_peer_to_tell = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}
