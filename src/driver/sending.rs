//! The sending half of a channel that was split: any number of threads, one socket.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::channel::{Closer, Sent, Socket};
use super::deadline::Deadline;
use super::error::{Error, SendError, classify};
use super::wait::wait;
use super::{socket, sys};
use crate::error::{Fault, Misuse};
use crate::machine::{self, Outcome, Sender};
use crate::message::Message;
use crate::outbox::{Done, Outbox, Patience, Sink, Step, Unsent, Why};
use crate::profile::{Framing, Profile};

type Owned = Message<OwnedFd>;

/// What all handles of a channel share, and its receiving half.
pub(super) struct Lines<P: Profile> {
    pub(super) socket: Arc<Socket>,
    pub(super) outbox: Outbox<P, OwnedFd, Error>,
    pub(super) epoch: Instant,
    packet_limit: Option<usize>,
}

/// Sends on a channel from any thread; see [`Channel::split`](crate::Channel::split).
///
/// Messages do not mix, and each thread's own keep their order (P7). What `send` accepted leaves
/// in its turn, usually by another thread's hand: **accepted is not handed to the kernel, and that
/// is not delivered**. [`flush_by`](Self::flush_by) waits for the kernel; only an answer of the
/// peer's tells that it read.
///
/// Dropping the last handle waits for what is queued as long as [`set_linger`](Self::set_linger)
/// says, then closes this direction: the peer reads the end.
pub struct Sending<P: Profile> {
    handle: Arc<Handle<P>>,
}

struct Handle<P: Profile> {
    lines: Arc<Lines<P>>,
    linger_millis: AtomicU64,
}

impl<P: Profile> Lines<P> {
    pub(super) fn new(
        socket: Arc<Socket>,
        outbox: Outbox<P, OwnedFd, Error>,
        epoch: Instant,
        packet_limit: Option<usize>,
    ) -> Self {
        Self { socket, outbox, epoch, packet_limit }
    }

    pub(super) fn line(&self, deadline: Deadline) -> Line<'_, P> {
        Line { lines: self, scratch: sys::Scratch::default(), deadline }
    }

    /// Sends what is pending, as far as that goes now. `true`: the socket is full.
    pub(super) fn help(&self) -> bool {
        self.outbox.help(&mut self.line(Deadline::NEVER))
    }

    /// When the kernel, which was short of something, may have room again.
    #[cfg(feature = "tokio")]
    pub(super) fn retry(&self) -> Option<Instant> {
        self.epoch.checked_add(self.outbox.deadline()?)
    }

    fn send(&self, message: Owned, patience: Patience) -> Result<Sent, SendError> {
        let line = &mut self.line(deadline(patience));
        let done = self.within(message, |message, limit| self.outbox.send(message, limit, patience, line))?;
        Ok(match done {
            Done::Complete => Sent::Complete,
            Done::Pending => Sent::Pending,
        })
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
        // SO_SNDBUF may have been lowered: here the header would be out by then (P6).
        let in_parts = matches!(P::FRAMING, Framing::PartPerDatagram);
        let limit = if in_parts && message.payload().len() > socket::ALWAYS_FITS {
            socket::packet_limit::<P>(self.socket.as_fd()).unwrap_or(self.packet_limit)
        } else {
            self.packet_limit
        };
        match hand(message, limit) {
            // Or raised.
            Err(Unsent {
                why: Why::Fault(Fault::Misuse(Misuse::PayloadTooLarge { .. })),
                message: Some(message),
            }) => {
                let limit = socket::packet_limit::<P>(self.socket.as_fd()).unwrap_or(limit);
                hand(message, limit)
            }
            other => other,
        }
        .map_err(unsent)
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

fn patience(deadline: Deadline) -> Patience {
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
        let errno = match sys::send(socket.as_fd(), P::FRAMING, &mut self.scratch, sender.transmits()) {
            Ok(count) => {
                sender.transmitted(count);
                return Step::Took;
            }
            Err(errno) => errno,
        };
        match sender.failed(self.lines.epoch.elapsed(), classify(errno)) {
            Outcome::Again => Step::Took,
            Outcome::Wait | Outcome::BackOff => Step::Full,
            Outcome::Returned(message) => Step::Refused(message, Error::io("sendmsg", errno)),
            Outcome::Closed(messages) => match Error::of_send(errno) {
                // It was this side that ended it.
                Error::PeerGone { .. } if socket.was_shut() => Step::Over(messages, Error::Closed),
                error => Step::Over(messages, error),
            },
        }
    }

    fn wait(&mut self, sender: &Sender<P, OwnedFd>) -> Result<bool, Error> {
        if self.deadline.has_passed() {
            return Ok(false);
        }
        let again = sender.deadline().and_then(|at| self.lines.epoch.checked_add(at));
        let (events, until) = match again {
            None => (PollFlags::POLLOUT, self.deadline),
            // A socket that lacks memory is "writable" all the while.
            Some(at) => (PollFlags::empty(), Deadline::at(at).min(self.deadline)),
        };
        wait(self.lines.socket.as_fd(), events, until)?;
        Ok(true)
    }
}

impl<P: Profile> Sending<P> {
    pub(super) fn new(lines: Arc<Lines<P>>) -> Self {
        Self { handle: Arc::new(Handle { lines, linger_millis: AtomicU64::new(0) }) }
    }

    #[cfg(feature = "tokio")]
    pub(super) fn lines(&self) -> &Lines<P> {
        &self.handle.lines
    }

    /// Puts a message into the queue, waiting for room for ever if need be, and sends it if
    /// nobody else is sending: then this thread sends others' messages too, until the queue is
    /// empty or somebody takes over. On return it has left, or somebody who stays is sending.
    ///
    /// # Errors
    /// As [`send_by`](Self::send_by), without [`Error::TimedOut`].
    pub fn send(&self, message: Owned) -> Result<(), SendError> {
        match self.handle.lines.send(message, Patience::Forever)? {
            Sent::Complete | Sent::Pending => Ok(()),
        }
    }

    /// Puts a message into the queue, waiting for room until the deadline. [`Sent::Pending`]: it
    /// was accepted, and leaves in its turn.
    ///
    /// # Errors
    /// The message comes back: [`Error::Misuse`]; [`Error::TimedOut`], when there never was room;
    /// [`Error::Io`], when the kernel refuses it (EPERM: the peer accepts no descriptors) while
    /// this call is there. What the kernel refuses later is closed, counted as
    /// [`lost`](Self::lost), and said by the next flush. [`Error::PeerGone`], [`Error::Closed`],
    /// a violation of the peer's, and any error once a part of a message left, are every
    /// sender's answer from then on.
    pub fn send_by(&self, message: Owned, deadline: Deadline) -> Result<Sent, SendError> {
        self.handle.lines.send(message, patience(deadline))
    }

    /// Puts a message into the queue if it has room, and sends what the socket takes now.
    /// [`Sent::Pending`]: another thread is sending, or the socket is full
    /// ([`wants_write`](Self::wants_write)).
    ///
    /// # Errors
    /// As [`send_by`](Self::send_by); instead of [`Error::TimedOut`] there is
    /// [`Error::WouldBlock`].
    pub fn try_send(&self, message: Owned) -> Result<Sent, SendError> {
        self.handle.lines.send(message, Patience::None)
    }

    /// Waits until all that was accepted before has reached the kernel.
    ///
    /// # Errors
    /// [`Error::TimedOut`] keeps what is queued; any other says that something did not reach the
    /// kernel.
    pub fn flush_by(&self, deadline: Deadline) -> Result<(), Error> {
        let lines = &self.handle.lines;
        lines.outbox.flush(patience(deadline), &mut lines.line(deadline)).map_err(error)
    }

    /// Something waits for room in the socket, and no thread waits with it: flush or send anything
    /// when the socket is writable. A receive that waits does so by itself.
    pub fn wants_write(&self) -> bool {
        self.handle.lines.outbox.wants_write()
    }

    /// Something was accepted and has not left.
    pub fn has_pending(&self) -> bool {
        self.handle.lines.outbox.has_pending()
    }

    /// For how long dropping the last handle waits until what is queued has left. Without it, not
    /// at all: what is queued is closed.
    pub fn set_linger(&self, linger: Duration) {
        let millis = u64::try_from(linger.as_millis()).unwrap_or(u64::MAX);
        self.handle.linger_millis.store(millis, Ordering::Relaxed);
    }

    /// What was handed to the kernel, whole.
    pub fn sent(&self) -> machine::Sending {
        self.handle.lines.outbox.sent()
    }

    /// What was accepted and did not leave: given back to a call that was still there, or closed.
    pub fn lost(&self) -> machine::Sending {
        self.handle.lines.outbox.lost()
    }

    /// As [`Channel::shutdown`](crate::Channel::shutdown).
    pub fn shutdown(&self) {
        self.handle.lines.socket.shutdown();
    }

    /// As [`Channel::closer`](crate::Channel::closer).
    pub fn closer(&self) -> Closer {
        Closer::of(&self.handle.lines.socket)
    }
}

impl<P: Profile> Clone for Sending<P> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<P: Profile> AsFd for Sending<P> {
    /// For poll(2) and the like. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.lines.socket.as_fd()
    }
}

impl<P: Profile> fmt::Debug for Sending<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = &self.handle.lines.socket;
        f.debug_struct("Sending").field("wire", &P::NAME).field("socket", socket).finish_non_exhaustive()
    }
}

impl<P: Profile> Drop for Handle<P> {
    fn drop(&mut self) {
        let lines = &self.lines;
        let linger = Duration::from_millis(self.linger_millis.load(Ordering::Relaxed));
        if !linger.is_zero() && lines.outbox.has_pending() {
            let deadline = Deadline::after(linger);
            // What does not leave is counted as lost below.
            let _late = lines.outbox.flush(patience(deadline), &mut lines.line(deadline));
        }
        lines.outbox.close(Error::Closed);
        socket::shut_writing(lines.socket.as_fd());
    }
}
