//! A conversation over one socket.

mod ahead;
mod attach;
mod burst;
mod connect;
mod peer;
mod receive;
mod send;
mod shared;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::deadline::Deadline;
use super::error::Error;
use super::lines::Lines;
use super::reaper::Reaper;
use super::receiving::Receiving;
use super::sending::Sending;
use super::spin::Spin;
use super::stats::Stats;
use super::{socket, sys};
use crate::accept::Policy;
use crate::limits::Limits;
use crate::machine::{Held, Hunk, Leftover, Receiver, Sender};
use crate::message::Message;
use crate::outbox::{Bounds, Outbox};
use crate::profile::Profile;

use ahead::Ahead;
pub use attach::Unattached;
#[cfg(feature = "tokio")]
pub(super) use send::Flush;
pub use send::Sent;
pub use shared::Closer;
pub(super) use shared::Socket;

pub(super) type Owned = Message<OwnedFd>;
type Observer = dyn FnMut(Instant, Option<&Hunk<OwnedFd>>) + Send;

/// Whole messages of the wire `P`, with their descriptors, over one connected socket.
///
/// Dropping it closes the socket; a message of which only a part had left is lost with it.
pub struct Channel<P: Profile> {
    socket: Arc<Socket>,
    extras: sys::Extras,
    scratch: sys::Scratch,
    receiver: Receiver<P, OwnedFd>,
    sender: Sender<P, OwnedFd>,
    spin: Spin,
    /// Where the sender went, once the channel was split.
    lines: Option<Arc<Lines<P>>>,
    reaper: Option<Box<dyn Reaper>>,
    policy: Option<Policy>,
    observer: Option<Box<Observer>>,
    epoch: Instant,
    /// poll(2) spoke of a hang-up: on a datagram socket the only sign of a local shutdown.
    hung_up: bool,
    origin: Origin,
    /// What was read before it was asked for.
    ahead: Ahead,
    /// The final fault, once the socket is shut down for it.
    condemned: Option<Error>,
    /// Why the sending direction died, and what it left behind if nobody was told yet.
    dead: Option<Error>,
    stranded: Vec<Owned>,
    /// Behind those, what there was no memory to list.
    unlisted: Leftover<OwnedFd>,
}

/// Where a channel's socket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Accepted or connected, by this process: its credentials are the peer's.
    Met,
    /// A pair, or handed over by somebody: perhaps a pair. Neither name tells the two apart:
    /// whoever holds an end of a pair can bind it, and then its names look like a connection's.
    Given,
}

impl<P: Profile> Channel<P> {
    /// A channel and the end to hand to the other process, which makes a channel of it with
    /// [`from_fd`](Self::from_fd) or speaks the wire by its own means. The end is close-on-exec.
    ///
    /// # Errors
    /// [`Error::Io`] of socketpair(2), and as [`from_fd`](Self::from_fd).
    pub fn pair(limits: Limits) -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) = socket::pair::<P>()?;
        if limits.descriptors == 0 {
            socket::refuse_descriptors(ours.as_fd());
        }
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
        Self::over(socket, limits, Origin::Given)
    }

    pub(super) fn over(socket: OwnedFd, limits: Limits, origin: Origin) -> Result<Self, Error> {
        let receiver = Receiver::new(limits)?;
        socket::check::<P>(&socket)?;
        let mut sender = Sender::new();
        sender.set_packet_limit(socket::packet_limit::<P>(socket.as_fd())?);
        Ok(Self {
            extras: socket::control_extras(socket.as_fd())?,
            socket: Arc::new(Socket::new(socket)),
            scratch: sys::Scratch::default(),
            receiver,
            sender,
            spin: Spin::default(),
            lines: None,
            reaper: None,
            policy: None,
            observer: None,
            epoch: Instant::now(),
            hung_up: false,
            origin,
            ahead: Ahead::default(),
            condemned: None,
            dead: None,
            stranded: Vec::new(),
            unlisted: Leftover::default(),
        })
    }

    /// Who gets the descriptors of refused messages; without one they are closed on the spot.
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        self.set_boxed_reaper(Box::new(reaper));
    }

    pub(super) fn set_boxed_reaper(&mut self, reaper: Box<dyn Reaper>) {
        self.reaper = Some(reaper);
    }

    /// Which kinds of descriptors are accepted, from the next message on; without it, any, as many as
    /// `Limits` say. A message with another is the peer's violation `descriptor-kind`, final like
    /// any, after the messages before it. Where this process cannot find out what a descriptor is
    /// (a security module or a seccomp filter forbids the question), the answer is [`Error::Io`] for
    /// ever, since the message is lost: nobody's fault, and nothing unchecked is handed out. Where the
    /// kernel was short of memory for the question ([`Error::Io`] with ENOMEM, ENOBUFS, EMFILE or
    /// ENFILE), nothing is lost: the message waits, before all others, and the next receive asks again.
    ///
    /// ```
    /// use fdpost::{Accept, Channel, Error, Limits, Message, Packet, Policy, Seals};
    ///
    /// let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(1))?;
    /// ours.set_policy(Policy::new().every(Accept::memfd(Seals::STEADY)));
    /// let mut theirs = Channel::<Packet>::from_fd(theirs, Limits::new())?;
    /// let null = std::fs::File::open("/dev/null")?;
    /// theirs.send(Message::new(b"not what was agreed").with(null.into()))?;
    /// let error = ours.receive().unwrap_err();
    /// assert_eq!(error.violation().map(|violation| violation.rule()), Some("descriptor-kind"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = Some(policy);
    }

    /// Who is shown what each recvmsg(2) brought, before anything judges it, and when; `None`:
    /// nothing was there. For tools that record a conversation.
    pub fn set_observer(&mut self, observer: impl FnMut(Instant, Option<&Hunk<OwnedFd>>) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// Reads up to `hunks` datagrams or packets in one system call (at most 16), as far as the
    /// limits on what may be held allow. Without it, one: less memory, and no worse for
    /// messages that come alone.
    pub fn set_batch(&mut self, hunks: u16) {
        self.receiver.set_batch(hunks);
    }

    /// Tries again for this long before a receive sleeps: at most 20 us, zero for not at all, as
    /// it is without this call. It saves the wake-up, some 15 us, where the peer answers at once on
    /// another core, and burns that core meanwhile. Where it does not pay, because answers take
    /// longer or both ends share a core, it is tried ever more rarely.
    pub fn set_spin(&mut self, moment: Duration) {
        self.spin = Spin::of(moment);
    }

    /// Wakes every call that waits on this channel; what is queued is still delivered, then
    /// [`Error::Closed`]. From another thread: [`closer`](Self::closer).
    pub fn shutdown(&self) {
        self.socket.shutdown();
    }

    /// A handle that can [`shutdown`](Self::shutdown) this channel from any thread.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.socket)
    }

    /// A sending half for any number of threads, and a receiving half. At most 1024 messages,
    /// 1 MiB and 256 descriptors are queued; [`split_within`](Self::split_within) says otherwise.
    /// A receive that has to wait keeps one descriptor more open from then on (eventfd(2)): it is
    /// woken with it for what a [`try_send`](crate::Sending::try_send) left to be sent.
    ///
    /// Messages that a dead sending direction left behind, and no error has handed back yet, are closed
    /// with the [`Receiving`]: [`flush_by`](Self::flush_by) before the split hands them back.
    ///
    /// ```
    /// use fdpost::{Channel, Limits, Message, Packet};
    ///
    /// let (ours, theirs) = Channel::<Packet>::pair(Limits::new())?;
    /// let mut theirs = Channel::<Packet>::from_fd(theirs, Limits::new())?;
    /// let (sending, _receiving) = ours.split();
    /// std::thread::scope(|scope| {
    ///     for number in 0..4 {
    ///         let sending = sending.clone();
    ///         scope.spawn(move || sending.send(Message::new([number])));
    ///     }
    ///     (0..4).try_for_each(|_| theirs.receive().map(drop))
    /// })?;
    /// # Ok::<(), fdpost::Error>(())
    /// ```
    pub fn split(self) -> (Sending<P>, Receiving<P>) {
        self.split_within(Bounds::new())
    }

    /// As [`split`](Self::split), with bounds of one's own on what may be queued.
    pub fn split_within(mut self, bounds: Bounds) -> (Sending<P>, Receiving<P>) {
        let limit = self.sender.packet_limit();
        let dead = self.condemned.or(self.dead);
        let outbox = Outbox::new(std::mem::take(&mut self.sender), bounds);
        if let Some(error) = dead {
            outbox.close(error);
        }
        let lines = Arc::new(Lines::new(Arc::clone(&self.socket), outbox, self.epoch, limit));
        self.lines = Some(Arc::clone(&lines));
        (Sending::new(lines), Receiving::new(self))
    }

    /// What this side accepts.
    pub(super) const fn limits(&self) -> &Limits {
        self.receiver.limits()
    }

    /// Counters since the channel was made.
    pub fn stats(&self) -> Stats {
        let (scratch, scratch_most) = self.scratch.held();
        let [held, held_most] = [
            (self.receiver.held(), self.ahead.held(), scratch),
            (self.receiver.held_most(), self.ahead.held_most(), scratch_most),
        ]
        .map(|(held, ahead, scratch)| Held {
            bytes: held.bytes.saturating_add(ahead.bytes).saturating_add(scratch),
            descriptors: held.descriptors.saturating_add(ahead.descriptors),
        });
        Stats {
            received: self.receiver.received(),
            sent: self.lines.as_ref().map_or_else(|| self.sender.sending(), |lines| lines.outbox.sent()),
            violation: self.condemned.and_then(|error| error.violation()),
            held,
            held_most,
        }
    }

    /// For event loops: how long from now until a call should be made although the socket is
    /// silent, because a message that has begun is overdue then, the kernel may have room again, or
    /// more was read already than was received: the rest of a packet of many, or messages of a
    /// [watched](Self::watch_peer) peer. `None`: for ever.
    pub fn timeout(&self) -> Option<Duration> {
        Some(self.due()?.saturating_duration_since(Instant::now()))
    }

    /// The moment that [`timeout`](Self::timeout) counts to.
    pub(super) fn due(&self) -> Option<Instant> {
        if !self.ahead.is_empty() || self.receiver.has_input() {
            // It left the socket, which is silent now.
            return Some(self.epoch);
        }
        let (one, two) = (self.receiver.deadline(), self.retry());
        self.epoch.checked_add(one.into_iter().chain(two).min()?)
    }

    /// When the kernel may have room again for what is to be sent.
    fn retry(&self) -> Option<Duration> {
        match &self.lines {
            Some(lines) => lines.outbox.deadline(),
            None => self.sender.deadline(),
        }
    }

    #[cfg(feature = "tokio")]
    pub(super) const fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// The socket, to be closed elsewhere. All else that the channel holds is dropped here.
    pub(super) fn into_closing(self) -> Option<OwnedFd> {
        Arc::into_inner(self.socket).map(Socket::into_descriptor)
    }

    fn wait(&self, events: PollFlags, until: Deadline) -> Result<PollFlags, Error> {
        self.socket.wait(events, until)
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
