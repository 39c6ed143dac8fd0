//! A conversation over one socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use super::deadline::Deadline;
use super::error::{Error, SendError};
use super::reaper::Reaper;
use super::stats::Stats;
use super::{socket, sys};
use crate::error::{Exhausted, Fault, Misuse};
use crate::limits::Limits;
use crate::machine::{Failure, Outcome, Receiver, Sender};
use crate::message::Message;
use crate::profile::{Framing, Profile};

type Owned = Message<OwnedFd>;

/// The end of input, also where only one direction was shut down. `nix` has no name for it.
const RDHUP: PollFlags = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);

/// How a send ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a pending message needs flush_by, or a receive, to leave"]
pub enum Sent {
    /// The kernel has all of it. That is not "delivered": the peer may never read it.
    Complete,
    /// Its first part left, the rest did not fit and goes first from now on (P6).
    Pending,
}

/// Whole messages of the wire `P`, with their descriptors, over one connected socket.
///
/// Dropping it closes the socket; a message of which only a part had left is lost with it.
pub struct Channel<P: Profile> {
    socket: Arc<OwnedFd>,
    extras: sys::Extras,
    scratch: sys::Scratch,
    receiver: Receiver<P, OwnedFd>,
    sender: Sender<P, OwnedFd>,
    reaper: Option<Box<dyn Reaper>>,
    epoch: Instant,
    /// poll(2) spoke of a hang-up: on a datagram socket the only sign of a local shutdown.
    hung_up: bool,
    /// Set with the final fault, once the socket is shut down.
    condemned: bool,
    /// Why the sending direction died, and what it left behind if nobody was told yet.
    dead: Option<Error>,
    stranded: Vec<Owned>,
}

/// Shuts a channel down from any thread. Does not keep its socket open.
#[derive(Clone, Debug)]
pub struct Closer(Weak<OwnedFd>);

impl Closer {
    /// As [`Channel::shutdown`]; nothing, if the channel is gone.
    pub fn shutdown(&self) {
        if let Some(socket) = self.0.upgrade() {
            shut(&socket);
        }
    }
}

fn shut(socket: &OwnedFd) {
    use std::os::fd::AsRawFd;
    // ENOTCONN: the peer was faster.
    let _already_closed = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

/// What a flush came to.
enum Flush {
    Done,
    /// Wait for "writable".
    Full,
    /// Wait by time.
    Pressure(Errno),
}

impl<P: Profile> Channel<P> {
    /// A channel and the end to hand to the other process, which makes a channel of it with
    /// [`from_fd`](Self::from_fd) or speaks the wire by its own means. The end is close-on-exec.
    ///
    /// # Errors
    /// [`Error::Io`] of socketpair(2), and as [`from_fd`](Self::from_fd).
    pub fn pair(limits: Limits) -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) = socket::pair::<P>()?;
        Ok((Self::from_fd(ours, limits)?, theirs))
    }

    /// A channel over a connected socket that somebody else made. It is made close-on-exec.
    ///
    /// Its O_NONBLOCK flag is neither needed nor changed: it is shared with whoever else holds
    /// the socket.
    ///
    /// # Errors
    /// [`Misuse`] that names what the socket or a limit is and should be; [`Error::Io`]. The
    /// socket is closed then.
    pub fn from_fd(socket: OwnedFd, limits: Limits) -> Result<Self, Error> {
        let receiver = Receiver::new(limits)?;
        socket::check::<P>(&socket)?;
        let mut sender = Sender::new();
        sender.set_packet_limit(socket::packet_limit::<P>(socket.as_fd())?);
        Ok(Self {
            extras: socket::control_extras(socket.as_fd())?,
            socket: Arc::new(socket),
            scratch: sys::Scratch::default(),
            receiver,
            sender,
            reaper: None,
            epoch: Instant::now(),
            hung_up: false,
            condemned: false,
            dead: None,
            stranded: Vec::new(),
        })
    }

    /// Who gets the descriptors of refused messages; without one they are closed on the spot.
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        self.reaper = Some(Box::new(reaper));
    }

    /// Wakes every call that waits on this channel; what is queued is still delivered, then
    /// [`Error::Closed`]. From another thread: [`closer`](Self::closer).
    pub fn shutdown(&self) {
        shut(&self.socket);
    }

    /// A handle that can [`shutdown`](Self::shutdown) this channel from any thread.
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.socket))
    }

    /// Counters since the channel was made.
    pub fn stats(&self) -> Stats {
        let mut held = self.receiver.held();
        held.bytes = held.bytes.saturating_add(self.scratch.capacity_bytes());
        Stats {
            received: self.receiver.received(),
            sent: self.sender.sending(),
            violation: self.receiver.fault().and_then(|fault| Error::from(fault).violation()),
            held,
            held_most: self.receiver.held_most(),
        }
    }

    /// For event loops: how long from now until a call should be made although the socket is
    /// silent, because a message that has begun is overdue then or the kernel may have room
    /// again. `None`: for ever.
    pub fn timeout(&self) -> Option<Duration> {
        let (one, two) = (self.receiver.deadline(), self.sender.deadline());
        let at = one.into_iter().chain(two).min()?;
        Some(at.saturating_sub(self.epoch.elapsed()))
    }

    // ---- receiving ----

    /// Waits for the next message, for ever if need be. See [`receive_by`](Self::receive_by).
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by), without [`Error::TimedOut`].
    pub fn receive(&mut self) -> Result<Owned, Error> {
        self.receive_by(Deadline::NEVER)
    }

    /// Waits for the next message. Meanwhile what is pending to be sent is sent.
    ///
    /// # Errors
    /// [`Error::Violation`] and [`Exhausted::DescriptorsLost`], for ever, after the messages that
    /// came before; [`Error::Closed`]; [`Error::TimedOut`], when nothing is lost;
    /// [`Exhausted::OutOfMemory`], when nothing is lost either; [`Error::Io`].
    pub fn receive_by(&mut self, deadline: Deadline) -> Result<Owned, Error> {
        let mut message = Owned::default();
        self.receive_into(&mut message, deadline)?;
        Ok(message)
    }

    /// The next message if it is there.
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by), without [`Error::TimedOut`].
    pub fn try_receive(&mut self) -> Result<Option<Owned>, Error> {
        let mut message = Owned::default();
        match self.receive_until(&mut message, None) {
            Ok(()) => Ok(Some(message)),
            Err(Error::WouldBlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As [`receive_by`](Self::receive_by), into a message whose memory is used again; what it
    /// held is dropped first.
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by); the message is empty then.
    pub fn receive_into(&mut self, message: &mut Owned, deadline: Deadline) -> Result<(), Error> {
        self.receive_until(message, Some(deadline))
    }

    /// `None`: do not wait.
    fn receive_until(&mut self, message: &mut Owned, deadline: Option<Deadline>) -> Result<(), Error> {
        loop {
            match self.receiver.poll_into(message) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(fault) => return Err(self.condemn(fault)),
            }
            // Try first, then wait: a poll(2) before each receive costs a third of it.
            if self.read()? {
                continue;
            }
            match deadline {
                None if self.hung_up || !self.has_hung_up()? => return Err(Error::WouldBlock),
                None => self.hung_up = true,
                Some(deadline) if deadline.has_passed() => return Err(Error::TimedOut),
                Some(deadline) => self.wait_to_receive(deadline)?,
            }
        }
    }

    /// One read. `false`: it would have to wait.
    fn read(&mut self) -> Result<bool, Error> {
        let Some(hunks) = self.receiver.windows()? else { return Err(Error::Closed) };
        match sys::receive(self.socket.as_fd(), P::FRAMING, self.extras, &mut self.scratch, hunks) {
            Ok(filled) => self.receiver.handle(self.epoch.elapsed(), filled),
            Err(Errno::EAGAIN) if self.hung_up => {
                // On a datagram socket a shutdown shows in poll(2) alone: recvmsg keeps saying
                // "would block" (net/unix/af_unix.c turns it into 0 for SOCK_SEQPACKET only).
                hunks.iter_mut().take(1).for_each(|hunk| hunk.set_end());
                self.receiver.handle(self.epoch.elapsed(), 1);
            }
            Err(Errno::EAGAIN) => {
                self.receiver.handle(self.epoch.elapsed(), 0);
                // "Would block" may just have made a message overdue: that is news for poll.
                return Ok(self.receiver.fault().is_some());
            }
            // The peer closed without having read all that we sent. The kernel reports it once,
            // on SEQPACKET even before what the peer had sent: which is still there to be read.
            Err(Errno::ECONNRESET) => {}
            Err(Errno::ENOMEM | Errno::ENOBUFS) => return Err(Exhausted::OutOfMemory { bytes: 0 }.into()),
            Err(errno) => return Err(Error::io("recvmsg", errno)),
        }
        Ok(true)
    }

    /// Waits for something to read, sending meanwhile what is pending.
    fn wait_to_receive(&mut self, deadline: Deadline) -> Result<(), Error> {
        let mut events = PollFlags::POLLIN | RDHUP;
        let wants_write = self.wants_write();
        if wants_write && self.sender.deadline().is_none() {
            events |= PollFlags::POLLOUT;
        }
        let until = self.timeout().map_or(Deadline::NEVER, Deadline::after).min(deadline);
        let seen = self.wait(events, until)?;
        self.hung_up |= seen.intersects(PollFlags::POLLHUP | RDHUP);
        if wants_write && !seen.intersects(PollFlags::POLLIN) {
            // What went wrong here is the next sender's to hear.
            if let Err(error) = self.flush() {
                self.stranded = error.messages;
            }
        }
        Ok(())
    }

    /// Whether a datagram socket was shut down, which its reads do not show.
    fn has_hung_up(&self) -> Result<bool, Error> {
        if !matches!(P::FRAMING, Framing::PartPerDatagram) {
            return Ok(false);
        }
        let now = Deadline::at(self.epoch);
        Ok(self.wait(RDHUP, now)?.intersects(PollFlags::POLLHUP | RDHUP))
    }

    /// The final fault: nothing more passes, and what was refused goes to the reaper (P3).
    fn condemn(&mut self, fault: Fault) -> Error {
        let lasting =
            matches!(fault, Fault::Violation(_) | Fault::Exhausted(Exhausted::DescriptorsLost { .. }));
        if lasting && !self.condemned {
            self.condemned = true;
            self.shutdown();
            let reaper = &mut self.reaper;
            self.receiver.refused().for_each(|descriptor| match reaper {
                Some(reaper) => reaper.reap(descriptor),
                None => drop(descriptor),
            });
        }
        fault.into()
    }

    // ---- sending ----

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
    /// is never sent; [`Error::TimedOut`]; [`Error::Io`], when the kernel refuses it (EPERM: the
    /// peer accepts no descriptors). [`Error::PeerGone`], and any error once a part of a message
    /// left, close this direction: every later call says the same, and all that did not leave
    /// comes back.
    pub fn send_by(&mut self, message: Owned, deadline: Deadline) -> Result<Sent, SendError> {
        self.push(message)?;
        match self.flush_until(deadline) {
            Err(error) if error.messages.is_empty() => match self.sender.recall() {
                Some(message) => Err(SendError::new(error.error, vec![message])),
                None => Ok(Sent::Pending),
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
        self.push(message)?;
        let error = match self.flush()? {
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
    /// when the socket is writable.
    pub fn wants_write(&self) -> bool {
        !self.sender.is_empty()
    }

    /// Waits until nothing is pending any more.
    ///
    /// # Errors
    /// [`Error::TimedOut`] keeps what is pending; others close this direction and hand it back,
    /// as [`send_by`](Self::send_by) says.
    pub fn flush_by(&mut self, deadline: Deadline) -> Result<(), SendError> {
        self.check_alive(Vec::new())?;
        self.flush_until(deadline)
    }

    fn push(&mut self, message: Owned) -> Result<(), SendError> {
        let message = self.check_alive(vec![message])?;
        for message in message {
            let (fault, message) = match self.sender.push(message) {
                Ok(()) => continue,
                Err(refused) => refused,
            };
            // SO_SNDBUF may have been raised since it was asked for.
            let too_large = matches!(fault, Fault::Misuse(Misuse::PayloadTooLarge { .. }));
            let again = match socket::packet_limit::<P>(self.socket.as_fd()) {
                Ok(limit) if too_large => {
                    self.sender.set_packet_limit(limit);
                    self.sender.push(message)
                }
                _ => Err((fault, message)),
            };
            again.map_err(|(fault, message)| SendError::new(fault, vec![message]))?;
        }
        Ok(())
    }

    /// Hands `messages` on, or back together with what was stranded if this direction is dead.
    fn check_alive(&mut self, messages: Vec<Owned>) -> Result<Vec<Owned>, SendError> {
        let error = match (self.receiver.fault(), self.dead) {
            (Some(fault), _) => fault.into(),
            (None, Some(error)) => error,
            (None, None) => return Ok(messages),
        };
        let mut back = std::mem::take(&mut self.stranded);
        back.extend(self.sender.close());
        back.extend(messages);
        Err(SendError::new(error, back))
    }

    /// As far as it goes without waiting.
    fn flush(&mut self) -> Result<Flush, SendError> {
        while !self.sender.is_empty() {
            let transmits = self.sender.transmits();
            let errno = match sys::send(self.socket.as_fd(), P::FRAMING, &mut self.scratch, transmits) {
                Ok(count) => {
                    self.sender.transmitted(count);
                    continue;
                }
                Err(errno) => errno,
            };
            let failure = classify(errno);
            match self.sender.failed(self.epoch.elapsed(), failure) {
                Outcome::Wait => return Ok(Flush::Full),
                Outcome::BackOff => return Ok(Flush::Pressure(errno)),
                Outcome::Returned(message) => {
                    return Err(SendError::new(Error::io("sendmsg", errno), vec![message]));
                }
                Outcome::Closed(messages) => {
                    let error = match failure {
                        Failure::Gone => Error::PeerGone { errno: errno as i32 },
                        _ => Error::io("sendmsg", errno),
                    };
                    self.dead = Some(error);
                    return Err(SendError::new(error, messages));
                }
            }
        }
        Ok(Flush::Done)
    }

    /// Keeps everything if the deadline passes.
    fn flush_until(&mut self, deadline: Deadline) -> Result<(), SendError> {
        loop {
            let (events, until) = match self.flush()? {
                Flush::Done => return Ok(()),
                Flush::Full => (PollFlags::POLLOUT, deadline),
                // No event to wait for but a hang-up: a socket that lacks memory is "writable".
                Flush::Pressure(_) => (
                    PollFlags::empty(),
                    self.timeout().map_or(deadline, |timeout| Deadline::after(timeout).min(deadline)),
                ),
            };
            if deadline.has_passed() {
                return Err(SendError::new(Error::TimedOut, Vec::new()));
            }
            self.wait(events, until).map_err(|error| SendError::new(error, Vec::new()))?;
        }
    }

    /// poll(2), until the deadline whatever signals arrive (P5).
    fn wait(&self, events: PollFlags, until: Deadline) -> Result<PollFlags, Error> {
        let mut sockets = [PollFd::new(self.socket.as_fd(), events)];
        loop {
            let timeout = match until.instant() {
                None => PollTimeout::NONE,
                Some(instant) => {
                    let left = instant.saturating_duration_since(Instant::now());
                    // Rounded up: waking a little late is better than spinning a little early.
                    let millis = left.as_nanos().div_ceil(1_000_000);
                    PollTimeout::try_from(millis.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
                }
            };
            match poll(&mut sockets, timeout) {
                Ok(_) => return Ok(sockets[0].revents().unwrap_or(PollFlags::empty())),
                Err(Errno::EINTR) if !until.has_passed() => {}
                Err(Errno::EINTR) => return Ok(PollFlags::empty()),
                Err(errno) => return Err(Error::io("poll", errno)),
            }
        }
    }
}

/// What an errno of sendmsg(2) means for the message (unix(7), send(2)).
const fn classify(errno: Errno) -> Failure {
    match errno {
        Errno::EAGAIN => Failure::WouldBlock,
        // ETOOMANYREFS: this *user's* descriptors in flight, which another process may have
        // caused. Not a dead peer.
        Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS => Failure::Pressure,
        Errno::EPIPE | Errno::ECONNREFUSED | Errno::ENOTCONN | Errno::ECONNRESET => Failure::Gone,
        _ => Failure::Refused,
    }
}

impl<P: Profile> AsFd for Channel<P> {
    /// For poll(2) and the like. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<P: Profile> std::fmt::Debug for Channel<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("wire", &P::NAME)
            .field("socket", &self.socket)
            .field("state", &self.receiver.state())
            .finish_non_exhaustive()
    }
}
