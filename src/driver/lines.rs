//! What the halves of a split channel share: the queue, the socket, and the bell.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::bell::Bell;
use super::channel::{Owned, Sent, Socket};
use super::deadline::Deadline;
use super::error::{Error, SendError, classify};
use super::wait::RDHUP;
use super::{socket, sys};
use crate::error::{Fault, Misuse};
use crate::machine::{Outcome, Sender};
use crate::outbox::{Done, Outbox, Patience, Sink, Step, Unsent, Why};
use crate::profile::{Framing, Profile};

/// How soon to look again where poll(2) itself fails.
const POLL_AGAIN: Duration = Duration::from_millis(5);

/// How often a receiver looks by itself whether it has something to send, where there is no
/// descriptor for a bell.
const LOOK: Duration = Duration::from_millis(100);

/// What all handles of a channel share, and its receiving half.
pub(super) struct Lines<P: Profile> {
    pub(super) socket: Arc<Socket>,
    pub(super) outbox: Outbox<P, OwnedFd, Error>,
    epoch: Instant,
    packet_limit: Option<usize>,
    bell: Bell,
}

impl<P: Profile> Lines<P> {
    pub(super) fn new(
        socket: Arc<Socket>,
        outbox: Outbox<P, OwnedFd, Error>,
        epoch: Instant,
        packet_limit: Option<usize>,
    ) -> Self {
        Self { socket, outbox, epoch, packet_limit, bell: Bell::default() }
    }

    pub(super) fn line(&self, deadline: Deadline) -> Line<'_, P> {
        Line { lines: self, scratch: sys::Scratch::default(), deadline }
    }

    /// Sends what is pending, as far as that goes now. `true`: the socket is full.
    pub(super) fn help(&self) -> bool {
        self.outbox.help(&mut self.line(Deadline::NEVER))
    }

    /// When the kernel, which was short of something, may have room again.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.epoch.checked_add(self.outbox.deadline()?)
    }

    /// Sleeps until there is something to read, or to send for others.
    pub(super) fn wait_to_receive(&self, until: Deadline) -> Result<PollFlags, Error> {
        let bell = self.bell.hear();
        let out = if self.outbox.asleep() { PollFlags::POLLOUT } else { PollFlags::empty() };
        // Asked after it was said that this thread sleeps: from then on the bell rings.
        let retry = self.retry().map(Deadline::at);
        let look = bell.is_none().then(|| Deadline::after(LOOK));
        let until = retry.into_iter().chain(look).fold(until, Deadline::min);
        let waited = self.socket.wait_or_hear(PollFlags::POLLIN | RDHUP | out, bell, until);
        self.outbox.awake();
        let (seen, rings) = waited?;
        if rings {
            self.bell.hush();
        }
        Ok(seen)
    }

    pub(super) fn send(&self, message: Owned, patience: Patience) -> Result<Sent, SendError> {
        let line = &mut self.line(deadline(patience));
        let done = self.within(message, |message, limit| self.outbox.send(message, limit, patience, line))?;
        Ok(sent(done))
    }

    pub(super) fn send_all(&self, messages: &mut Vec<Owned>, patience: Patience) -> Result<Sent, Error> {
        let line = &mut self.line(deadline(patience));
        let largest = messages.iter().map(|message| message.payload().len()).max().unwrap_or(0);
        let limit = self.packet_limit_for(largest);
        let done = match self.outbox.send_all(messages, limit, patience, line) {
            Err(why) if is_too_large(&why) => {
                self.outbox.send_all(messages, self.asked_packet_limit(), patience, line)
            }
            other => other,
        };
        done.map(sent).map_err(error)
    }

    /// Puts a message into the queue if it has room, and gives its number to
    /// [look](Outbox::look) for. [`Error::WouldBlock`]: it has none.
    #[cfg(feature = "tokio")]
    pub(super) fn offer(&self, message: Owned) -> Result<u64, SendError> {
        self.within(message, |message, limit| self.outbox.offer(message, limit))
    }

    /// Hands a message to the queue with what the socket takes.
    fn within<T>(
        &self,
        message: Owned,
        mut hand: impl FnMut(Owned, Option<usize>) -> Result<T, Unsent<OwnedFd, Error>>,
    ) -> Result<T, SendError> {
        let limit = self.packet_limit_for(message.payload().len());
        match hand(message, limit) {
            // SO_SNDBUF may have been raised.
            Err(Unsent { why, message: Some(message) }) if is_too_large(&why) => {
                hand(message, self.asked_packet_limit())
            }
            other => other,
        }
        .map_err(unsent)
    }

    /// SO_SNDBUF may have been lowered since it was asked for. A packet would be refused whole;
    /// on a wire of parts the header would be out by then (P6).
    fn packet_limit_for(&self, payload: usize) -> Option<usize> {
        let in_parts = matches!(P::FRAMING, Framing::PartPerDatagram);
        if in_parts && payload > socket::ALWAYS_FITS { self.asked_packet_limit() } else { self.packet_limit }
    }

    fn asked_packet_limit(&self) -> Option<usize> {
        socket::packet_limit::<P>(self.socket.as_fd()).unwrap_or(self.packet_limit)
    }

    /// Why the kernel refused a message of which nothing had left. What `sender` packs from now on
    /// fits the socket as it is.
    fn refusal(&self, errno: Errno, message: &Owned, sender: &mut Sender<P, OwnedFd>) -> Error {
        if errno == Errno::EMSGSIZE {
            sender.set_packet_limit(self.asked_packet_limit());
            if let Err(misuse) = sender.check(message) {
                return misuse.into();
            }
        }
        Error::of_send(errno, message.descriptor_count())
    }
}

const fn is_too_large(why: &Why<Error>) -> bool {
    matches!(why, Why::Fault(Fault::Misuse(Misuse::PayloadTooLarge { .. })))
}

const fn sent(done: Done) -> Sent {
    match done {
        Done::Complete => Sent::Complete,
        Done::Pending => Sent::Pending,
    }
}

pub(super) fn unsent(unsent: Unsent<OwnedFd, Error>) -> SendError {
    SendError::new(error(unsent.why), unsent.message.into_iter().collect())
}

pub(super) fn error(why: Why<Error>) -> Error {
    match why {
        Why::Fault(fault) => fault.into(),
        Why::Full => Error::WouldBlock,
        Why::TimedOut => Error::TimedOut,
        Why::Sink(error) => error,
    }
}

const fn deadline(patience: Patience) -> Deadline {
    match patience {
        Patience::Until(instant) => Deadline::at(instant),
        Patience::None | Patience::Forever => Deadline::NEVER,
    }
}

pub(super) fn patience(deadline: Deadline) -> Patience {
    deadline.instant().map_or(Patience::Forever, Patience::Until)
}

/// One thread's way to the socket.
pub(super) struct Line<'a, P: Profile> {
    lines: &'a Lines<P>,
    scratch: sys::Scratch,
    deadline: Deadline,
}

impl<P: Profile> Sink<P, OwnedFd> for Line<'_, P> {
    type Error = Error;

    fn transmit(&mut self, sender: &mut Sender<P, OwnedFd>) -> Step<OwnedFd, Error> {
        let socket = &self.lines.socket;
        let errno = match socket.send(P::FRAMING, &mut self.scratch, sender.transmits()) {
            Ok(count) => {
                sender.transmitted(count);
                return Step::Took;
            }
            Err(errno) => errno,
        };
        match sender.failed(self.lines.epoch.elapsed(), classify(errno)) {
            Outcome::Again => Step::Took,
            Outcome::Wait | Outcome::BackOff => Step::Full,
            Outcome::Returned(message) => {
                let error = self.lines.refusal(errno, &message, sender);
                Step::Refused(message, error)
            }
            Outcome::Closed(messages) => {
                // The first is the one of which a part had left.
                match Error::of_send(errno, messages.first().map_or(0, Owned::descriptor_count)) {
                    // It was this side that ended it.
                    Error::PeerGone { .. } if socket.was_shut() => Step::Over(messages, Error::Closed),
                    error => Step::Over(messages, error),
                }
            }
        }
    }

    fn wait(&mut self, sender: &Sender<P, OwnedFd>) -> bool {
        if self.deadline.has_passed() {
            return false;
        }
        let again = sender.deadline().and_then(|at| self.lines.epoch.checked_add(at));
        let (events, until) = match again {
            None => (PollFlags::POLLOUT, self.deadline),
            // A socket that lacks memory is "writable" all the while.
            Some(at) => (PollFlags::empty(), Deadline::at(at).min(self.deadline)),
        };
        if self.lines.socket.wait(events, until).is_err() {
            // EINVAL where RLIMIT_NOFILE is below one, ENOMEM (poll(2)): ours, and they pass. Others
            // rely on this thread, so it looks again after a while.
            thread::sleep(until.remaining().map_or(POLL_AGAIN, |left| left.min(POLL_AGAIN)));
        }
        true
    }

    fn wake_receiver(&mut self) {
        self.lines.bell.ring();
    }
}
