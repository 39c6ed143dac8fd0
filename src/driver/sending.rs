//! The sending half of a channel that was split: any number of threads, one socket.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::channel::{Closer, Owned, Sent};
use super::deadline::Deadline;
use super::error::{Error, SendError};
use super::lines::{Lines, error, patience};
use super::socket;
use crate::machine;
use crate::outbox::Patience;
use crate::profile::Profile;

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
    /// [`Error::DescriptorsRefused`] and [`Error::Io`], when the kernel refuses it while this call is
    /// there. What the kernel refuses later is closed, counted as
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

    /// Sends several in their order, waiting for room for ever if need be: with one look at the
    /// queue instead of one for each. Other threads' messages may come between them where they do
    /// not all find room at once. On return all have left, or somebody who stays is sending; each
    /// that was accepted is taken out of `messages`.
    ///
    /// # Errors
    /// As [`send_all_by`](Self::send_all_by), without [`Error::TimedOut`].
    pub fn send_all(&self, messages: &mut Vec<Owned>) -> Result<(), Error> {
        match self.handle.lines.send_all(messages, Patience::Forever)? {
            Sent::Complete | Sent::Pending => Ok(()),
        }
    }

    /// As [`send_all`](Self::send_all), waiting for room until the deadline. [`Sent::Pending`]:
    /// all were accepted, and leave in their turn.
    ///
    /// # Errors
    /// `messages` then holds, in order and with their descriptors, those that did not leave while
    /// this call was there and those that were not accepted; what it does not hold left or leaves
    /// in its turn. [`Error::Misuse`]: the first of them is of a kind that is never sent; where that
    /// is because SO_SNDBUF was lowered meanwhile, those behind it may have left.
    /// [`Error::TimedOut`], when there was not room for all. [`Error::Io`] or
    /// [`Error::DescriptorsRefused`], when the kernel refuses one: those accepted before that was
    /// known are sent all the same. Others as [`send_by`](Self::send_by).
    pub fn send_all_by(&self, messages: &mut Vec<Owned>, deadline: Deadline) -> Result<Sent, Error> {
        self.handle.lines.send_all(messages, patience(deadline))
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

    /// For event loops: how long from now until a [`flush_by`](Self::flush_by), or any send, should be
    /// made although the socket is silent, because the kernel, which lacked memory or descriptors in
    /// flight, may have room again. `None`: for ever. A receive that waits does so by itself, and
    /// [`Receiving::timeout`](crate::Receiving::timeout) counts to this moment too.
    pub fn timeout(&self) -> Option<Duration> {
        Some(self.handle.lines.retry()?.saturating_duration_since(Instant::now()))
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
