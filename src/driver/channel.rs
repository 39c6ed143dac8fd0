//! A conversation over one socket.

mod receive;
mod send;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use super::deadline::Deadline;
use super::error::Error;
use super::reaper::Reaper;
use super::stats::Stats;
use super::{socket, sys};
use crate::limits::Limits;
use crate::machine::{Held, Receiver, Sender};
use crate::message::Message;
use crate::profile::Profile;

pub use send::Sent;

type Owned = Message<OwnedFd>;

/// The end of input, also where only one direction was shut down. `nix` has no name for it.
const RDHUP: PollFlags = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);

/// Whole messages of the wire `P`, with their descriptors, over one connected socket.
///
/// Dropping it closes the socket; a message of which only a part had left is lost with it.
pub struct Channel<P: Profile> {
    socket: Arc<Socket>,
    extras: sys::Extras,
    scratch: sys::Scratch,
    receiver: Receiver<P, OwnedFd>,
    sender: Sender<P, OwnedFd>,
    reaper: Option<Box<dyn Reaper>>,
    epoch: Instant,
    /// poll(2) spoke of a hang-up: on a datagram socket the only sign of a local shutdown.
    hung_up: bool,
    /// The final fault, once the socket is shut down for it.
    condemned: Option<Error>,
    /// Why the sending direction died, and what it left behind if nobody was told yet.
    dead: Option<Error>,
    stranded: Vec<Owned>,
}

/// Shuts a channel down from any thread. Does not keep its socket open.
#[derive(Clone, Debug)]
pub struct Closer(Weak<Socket>);

impl Closer {
    /// As [`Channel::shutdown`]; nothing, if the channel is gone.
    pub fn shutdown(&self) {
        if let Some(socket) = self.0.upgrade() {
            socket.shutdown();
        }
    }
}

/// The socket, and whether it was this side that shut it down.
#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    shut: AtomicBool,
}

impl Socket {
    fn shutdown(&self) {
        // Before the call: who sees the end must find the reason.
        self.shut.store(true, Ordering::SeqCst);
        // ENOTCONN: the peer was faster.
        let _already_closed = shutdown(self.descriptor.as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
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
    /// [`Misuse`](crate::Misuse) that names what the socket or a limit is and should be; [`Error::Io`]. The
    /// socket is closed then.
    pub fn from_fd(socket: OwnedFd, limits: Limits) -> Result<Self, Error> {
        let receiver = Receiver::new(limits)?;
        socket::check::<P>(&socket)?;
        let mut sender = Sender::new();
        sender.set_packet_limit(socket::packet_limit::<P>(socket.as_fd())?);
        Ok(Self {
            extras: socket::control_extras(socket.as_fd())?,
            socket: Arc::new(Socket { descriptor: socket, shut: AtomicBool::new(false) }),
            scratch: sys::Scratch::default(),
            receiver,
            sender,
            reaper: None,
            epoch: Instant::now(),
            hung_up: false,
            condemned: None,
            dead: None,
            stranded: Vec::new(),
        })
    }

    /// Who gets the descriptors of refused messages; without one they are closed on the spot.
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        self.reaper = Some(Box::new(reaper));
    }

    /// Reads up to `hunks` datagrams or packets in one system call (at most 16), as far as the
    /// limits on what may be held allow. Without it, one: less memory, and no worse for
    /// messages that come alone.
    pub fn set_batch(&mut self, hunks: u16) {
        self.receiver.set_batch(hunks);
    }

    /// Wakes every call that waits on this channel; what is queued is still delivered, then
    /// [`Error::Closed`]. From another thread: [`closer`](Self::closer).
    pub fn shutdown(&self) {
        self.socket.shutdown();
    }

    /// A handle that can [`shutdown`](Self::shutdown) this channel from any thread.
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.socket))
    }

    /// Counters since the channel was made.
    pub fn stats(&self) -> Stats {
        // Scratch only grows, so what it holds now is the most that it held.
        let [held, held_most] = [self.receiver.held(), self.receiver.held_most()]
            .map(|held| Held { bytes: held.bytes.saturating_add(self.scratch.capacity_bytes()), ..held });
        Stats {
            received: self.receiver.received(),
            sent: self.sender.sending(),
            violation: self.condemned.and_then(|error| error.violation()),
            held,
            held_most,
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
                Ok(_) => {
                    // `nix` says `None` where a bit is set that it has no name for: that is RDHUP.
                    return Ok(sockets[0].revents().unwrap_or(RDHUP));
                }
                Err(Errno::EINTR) if !until.has_passed() => {}
                Err(Errno::EINTR) => return Ok(PollFlags::empty()),
                Err(errno) => return Err(Error::io("poll", errno)),
            }
        }
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
