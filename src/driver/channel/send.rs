//! The sending half of a channel.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::{Channel, Owned};
use crate::driver::deadline::Deadline;
use crate::driver::error::{Error, SendError, classify};
use crate::driver::socket;
use crate::driver::wait::RDHUP;
use crate::error::Misuse;
use crate::machine::{Outcome, Outgoing, Transmit};
use crate::profile::{Framing, Outline, Profile};

/// How a send ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a pending message needs flush_by, or a receive, to leave"]
#[non_exhaustive]
pub enum Sent {
    /// The kernel has all of it. That is not "delivered": the peer may never read it.
    Complete,
    /// Its first part left, the rest did not fit and goes first from now on (P6).
    Pending,
}

/// What became of a message right away.
enum First {
    /// The kernel has it.
    Left,
    /// It is queued, and the kernel has no room for it.
    Blocked(Flush),
    /// It is queued behind others, or its rest is.
    Queued,
}

/// Why a message is not even tried.
enum Refused {
    Misuse(Misuse),
    /// With what was stranded.
    Dead(SendError),
}

impl Refused {
    fn of(self, message: Owned) -> SendError {
        match self {
            Self::Misuse(misuse) => SendError::new(misuse, vec![message]),
            Self::Dead(mut error) => {
                error.messages.push(message);
                error
            }
        }
    }
}

/// What a flush came to.
pub(in crate::driver) enum Flush {
    Done,
    /// Wait for "writable".
    Full,
    /// Wait by time.
    Pressure(Errno),
}

impl<P: Profile> Channel<P> {
    /// Hands a message to the kernel, waiting for room for ever if need be.
    ///
    /// # Errors
    /// As [`send_by`](Self::send_by), without [`Error::TimedOut`].
    pub fn send(&mut self, message: Owned) -> Result<(), SendError> {
        match self.send_by(message, Deadline::NEVER)? {
            Sent::Complete | Sent::Pending => Ok(()),
        }
    }

    /// Hands a message to the kernel, waiting for room until the deadline. What is pending goes
    /// first. [`Sent::Pending`], if the deadline passed after the message's first part left.
    ///
    /// # Errors
    /// The message comes back with its descriptors: [`Error::Misuse`], when it is of a kind that
    /// is never sent; [`Error::TimedOut`]; [`Error::DescriptorsRefused`], when the peer accepts none;
    /// [`Error::Io`], when the kernel refuses it for another reason. [`Error::PeerGone`], [`Error::Closed`] after a shutdown of
    /// ours, and any error once a part of a message
    /// left, close this direction: every later call says the same, and all that did not leave
    /// comes back.
    pub fn send_by(&mut self, message: Owned, deadline: Deadline) -> Result<Sent, SendError> {
        self.send_watching(message, deadline, PollFlags::empty())
    }

    /// As [`send_by`](Self::send_by), but does not wait on while there is something to be read: then
    /// the message comes back with [`Error::WouldBlock`], as it would from
    /// [`try_send`](Self::try_send). For who must read to make room at the other end.
    pub(in crate::driver) fn send_unless_readable(
        &mut self,
        message: Owned,
        deadline: Deadline,
    ) -> Result<Sent, SendError> {
        self.send_watching(message, deadline, PollFlags::POLLIN | RDHUP)
    }

    fn send_watching(
        &mut self,
        message: Owned,
        deadline: Deadline,
        watched: PollFlags,
    ) -> Result<Sent, SendError> {
        let blocked = match self.send_first(message)? {
            First::Left => return Ok(Sent::Complete),
            First::Blocked(flush) => Some(flush),
            First::Queued => None,
        };
        match self.flush_after(blocked, deadline, watched) {
            Err(SendError { error, messages }) if messages.is_empty() => match self.sender.recall() {
                None if matches!(error, Error::TimedOut | Error::WouldBlock) => Ok(Sent::Pending),
                recalled => Err(SendError::new(error, recalled.into_iter().collect())),
            },
            Err(error) => Err(error),
            Ok(()) => Ok(Sent::Complete),
        }
    }

    /// Hands a message to the kernel if it has room now.
    ///
    /// # Errors
    /// As [`send_by`](Self::send_by); instead of [`Error::TimedOut`] there is
    /// [`Error::WouldBlock`], or [`Error::Pressure`] where waiting for "writable" would not help.
    pub fn try_send(&mut self, message: Owned) -> Result<Sent, SendError> {
        let flush = match self.send_first(message)? {
            First::Left => return Ok(Sent::Complete),
            First::Blocked(flush) => flush,
            First::Queued => self.flush()?,
        };
        let error = match flush {
            Flush::Done => return Ok(Sent::Complete),
            Flush::Full => Error::WouldBlock,
            Flush::Pressure(errno) => Error::Pressure { errno: errno as i32 },
        };
        match self.sender.recall() {
            Some(message) => Err(SendError::new(error, vec![message])),
            None => Ok(Sent::Pending),
        }
    }

    /// A part of a message waits for room: call [`flush_by`](Self::flush_by), or any receive,
    /// when the socket is writable. `false` while the kernel is short of something, although a
    /// part waits: the socket is writable all the while then, and
    /// [`timeout`](Self::timeout) says when to try again.
    pub fn wants_write(&self) -> bool {
        self.has_pending() && self.sender.deadline().is_none()
    }

    /// A part of a message waits, for room or for time.
    pub fn has_pending(&self) -> bool {
        !self.sender.is_empty()
    }

    /// Waits until nothing is pending any more.
    ///
    /// # Errors
    /// [`Error::TimedOut`] keeps what is pending; others close this direction and hand it back,
    /// as [`send_by`](Self::send_by) says.
    pub fn flush_by(&mut self, deadline: Deadline) -> Result<(), SendError> {
        self.check_alive()?;
        self.flush_until(deadline, PollFlags::empty())
    }

    /// Hands a message over at once where nothing waits before it, or queues it.
    fn send_first(&mut self, message: Owned) -> Result<First, SendError> {
        if self.has_pending() {
            return self.push(message).map(|()| First::Queued);
        }
        let outline = match self.checked(&message) {
            Ok(outline) => outline,
            Err(refused) => return Err(refused.of(message)),
        };
        // Before the first byte leaves: the rest may have to be queued (P6).
        if let Err(short) = self.sender.make_room() {
            return Err(SendError::new(short, vec![message]));
        }
        self.read_ahead();
        let transmits = Transmit::of_message::<P>(&message, &outline);
        match self.socket.send(P::FRAMING, &mut self.scratch, transmits) {
            Ok(count) => {
                let whole = self.sender.departed(message, &outline, count);
                Ok(if whole { First::Left } else { First::Queued })
            }
            Err(errno) => {
                self.take(Outgoing::checked(message, outline))?;
                Ok(self.failed(errno)?.map_or(First::Queued, First::Blocked))
            }
        }
    }

    /// Checks a message and takes it, behind what is pending.
    pub(in crate::driver) fn push(&mut self, message: Owned) -> Result<(), SendError> {
        match self.checked(&message) {
            Ok(outline) => self.take(Outgoing::checked(message, outline)),
            Err(refused) => Err(refused.of(message)),
        }
    }

    fn take(&mut self, outgoing: Outgoing<OwnedFd>) -> Result<(), SendError> {
        self.sender.take(outgoing).map_err(|(fault, message)| SendError::new(fault, vec![message]))
    }

    /// What can be known before the first byte leaves (P6).
    fn checked(&mut self, message: &Owned) -> Result<Outline, Refused> {
        if self.condemned.is_some() || self.dead.is_some() {
            self.check_alive().map_err(Refused::Dead)?;
        }
        // SO_SNDBUF may have been lowered since it was asked for. A packet would be refused
        // whole; here the header would be out by then (P6).
        let in_parts = matches!(P::FRAMING, Framing::PartPerDatagram);
        if in_parts && message.payload().len() > socket::ALWAYS_FITS {
            self.ask_packet_limit();
        }
        match self.sender.check(message) {
            // Or raised.
            Err(Misuse::PayloadTooLarge { .. }) if self.ask_packet_limit() => self.sender.check(message),
            checked => checked,
        }
        .map_err(Refused::Misuse)
    }

    /// Asks the socket anew what it takes; `false` if it does not say.
    pub(super) fn ask_packet_limit(&mut self) -> bool {
        let limit = socket::packet_limit::<P>(self.socket.as_fd());
        limit.map(|limit| self.sender.set_packet_limit(limit)).is_ok()
    }

    /// Why the kernel refused a message of which nothing had left.
    pub(super) fn refusal(&mut self, errno: Errno, message: &Owned) -> Error {
        if errno == Errno::EMSGSIZE && self.ask_packet_limit() {
            if let Err(misuse) = self.sender.check(message) {
                return misuse.into();
            }
        }
        Error::of_send(errno, message.descriptor_count())
    }

    /// What ended this direction, where a send found it.
    pub(in crate::driver) const fn unsendable(&self) -> Option<Error> {
        self.dead
    }

    /// Hands back what was stranded, if this direction is dead.
    pub(in crate::driver) fn check_alive(&mut self) -> Result<(), SendError> {
        let Some(error) = self.condemned.or(self.dead) else { return Ok(()) };
        if self.unlisted.len() == 0 {
            self.unlisted = self.sender.close();
        }
        Err(SendError::new(error, self.list()))
    }

    /// What was left behind and nobody has yet, with room for one message more. Where there is no
    /// memory for so long a list, it is for a later call to say.
    fn list(&mut self) -> Vec<Owned> {
        let mut back = std::mem::take(&mut self.stranded);
        if back.try_reserve_exact(self.unlisted.len().saturating_add(1)).is_err() {
            self.stranded = back;
            return Vec::new();
        }
        back.extend(self.unlisted.by_ref());
        back
    }

    /// Keeps what came back to nobody.
    pub(super) fn strand(&mut self, mut messages: Vec<Owned>) {
        if self.stranded.is_empty() {
            self.stranded = messages;
        } else if self.stranded.try_reserve(messages.len()).is_ok() {
            self.stranded.append(&mut messages);
        }
    }

    /// As far as it goes without waiting.
    pub(in crate::driver) fn flush(&mut self) -> Result<Flush, SendError> {
        if !self.sender.is_empty() {
            self.read_ahead();
        }
        while !self.sender.is_empty() {
            let transmits = self.sender.transmits();
            match self.socket.send(P::FRAMING, &mut self.scratch, transmits) {
                Ok(count) => self.sender.transmitted(count),
                Err(errno) => {
                    if let Some(blocked) = self.failed(errno)? {
                        return Ok(blocked);
                    }
                }
            }
        }
        Ok(Flush::Done)
    }

    /// Takes back what was pushed last, if nothing of it left.
    #[cfg(feature = "tokio")]
    pub(in crate::driver) fn recall(&mut self) -> Option<Owned> {
        self.sender.recall()
    }

    /// What follows from the kernel's not taking the first of what is queued. `None`: try again.
    fn failed(&mut self, errno: Errno) -> Result<Option<Flush>, SendError> {
        match self.sender.failed(self.epoch.elapsed(), classify(errno)) {
            Outcome::Wait => Ok(Some(Flush::Full)),
            Outcome::BackOff => Ok(Some(Flush::Pressure(errno))),
            Outcome::Again => Ok(None),
            Outcome::Returned(message) => {
                let error = self.refusal(errno, &message);
                Err(SendError::new(error, vec![message]))
            }
            Outcome::Closed(leftover) => {
                let error = self.died(errno, leftover.first());
                self.unlisted = leftover;
                let mut messages = self.list();
                // Whoever sends gets at least its own.
                if messages.is_empty() {
                    messages.extend(self.unlisted.next_back());
                }
                Err(SendError::new(error, messages))
            }
        }
    }

    /// This direction is dead, and every later call says why. `begun`: of which a part had left.
    pub(super) fn died(&mut self, errno: Errno, begun: Option<&Owned>) -> Error {
        let error = match Error::of_send(errno, begun.map_or(0, Owned::descriptor_count)) {
            // It was this side that ended it.
            Error::PeerGone { .. } if self.was_shut_down() => Error::Closed,
            error => error,
        };
        self.dead = Some(error);
        error
    }

    /// When the kernel may have room again. A message *to* us has no say in it.
    pub(in crate::driver) fn back_off_end(&self) -> Deadline {
        let at = self.sender.deadline().and_then(|at| self.epoch.checked_add(at));
        at.map_or(Deadline::NEVER, Deadline::at)
    }

    /// Keeps everything if the deadline passes, or if something that is watched happens.
    pub(super) fn flush_until(&mut self, deadline: Deadline, watched: PollFlags) -> Result<(), SendError> {
        self.flush_after(None, deadline, watched)
    }

    /// As [`flush_until`](Self::flush_until), after a first try that ended so.
    fn flush_after(
        &mut self,
        mut tried: Option<Flush>,
        deadline: Deadline,
        watched: PollFlags,
    ) -> Result<(), SendError> {
        loop {
            let flush = match tried.take() {
                Some(flush) => flush,
                None => self.flush()?,
            };
            if matches!(flush, Flush::Done) {
                return Ok(());
            }
            self.wait_for_room(&flush, deadline, watched)
                .map_err(|error| SendError::new(error, Vec::new()))?;
        }
    }

    /// Waits until it is worth another try, unless something that is watched happens first.
    pub(super) fn wait_for_room(
        &self,
        flush: &Flush,
        deadline: Deadline,
        watched: PollFlags,
    ) -> Result<(), Error> {
        let (events, until) = match flush {
            Flush::Done => return Ok(()),
            Flush::Full => (PollFlags::POLLOUT, deadline),
            // No event to wait for but a hang-up: a socket that lacks memory is "writable".
            Flush::Pressure(_) => (PollFlags::empty(), self.back_off_end().min(deadline)),
        };
        if deadline.has_passed() {
            return Err(Error::TimedOut);
        }
        let seen = self.wait(events | watched, until)?;
        if seen.intersects(watched) { Err(Error::WouldBlock) } else { Ok(()) }
    }
}
