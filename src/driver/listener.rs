//! Where others connect to.

mod activated;
mod bound;

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::{Backlog, listen};

use super::address::Address;
use super::channel::{Channel, Closer, Origin, Socket};
use super::credentials::PeerRule;
use super::deadline::Deadline;
use super::error::{Error, is_shortage};
use super::reaper::Reaper;
use super::wait::wait;
use super::{socket, sys};
use crate::error::Misuse;
use crate::limits::Limits;
use crate::profile::Profile;
use bound::Bound;

pub use activated::{Activated, activated};

/// Between two tries to accept while this process has no descriptor or the kernel no memory: the
/// listener is "readable" all the while.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// How often who waits to accept looks by itself for what another thread parked. That one tries again
/// as long as it waits; where it gives up, or is cancelled, the kernel's queue tells nobody of what it
/// left. A bell would take a descriptor where they are short.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// How a [`Listener`] listens.
#[derive(Clone, Debug)]
#[must_use]
pub struct Listening {
    mode: u32,
    backlog: u32,
    rule: PeerRule,
}

impl Listening {
    /// Mode 0600, a backlog of 128, and a rule that lets everybody pass.
    pub fn new() -> Self {
        Self { mode: 0o600, backlog: 128, rule: PeerRule::new() }
    }

    /// The permission bits of the socket's file, from 0 to 0o777. Who may write it may connect.
    /// The umask has no say in them. An abstract name has none.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// How many connections may wait to be accepted, from 1 to 4096; the kernel cuts it to
    /// net.core.somaxconn. Who comes when it is full waits in connect(2).
    pub const fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Who may connect: checked at every accept, before a byte is read.
    pub fn rule(mut self, rule: PeerRule) -> Self {
        self.rule = rule;
        self
    }

    fn check(&self) -> Result<(), Misuse> {
        let range = |limit, value: u32, least: u64, most: u64| {
            let value = u64::from(value);
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Misuse::LimitOutOfRange { limit, value, least, most })
        };
        range("mode", self.mode, 0, 0o777)?;
        range("backlog", self.backlog, 1, u64::from(libc::SOMAXCONN.unsigned_abs()))
    }
}

impl Default for Listening {
    fn default() -> Self {
        Self::new()
    }
}

/// A socket to which processes connect, each connection a [`Channel`] of the wire `P`.
///
/// For wires over connected sockets, `packet` and `stream`; not for `libcamera`, which lives on
/// pairs of datagram sockets ([`Misuse::PairsOnly`] says why).
///
/// Any number of threads may accept. Dropping it removes its file, if that is still its own.
///
/// ```
/// use fdpost::{Address, Channel, Limits, Listener, Message, Packet};
///
/// # let name = format!("fdpost-doc-{}", std::process::id());
/// let listener = Listener::<Packet>::bind(Address::abstract_name(&name), Limits::new())?;
/// let mut client = Channel::<Packet>::connect(Address::abstract_name(&name), Limits::new())?;
/// client.send(Message::new(b"hello"))?;
/// let mut served = listener.accept()?;
/// assert_eq!(served.receive()?.payload(), b"hello");
/// # Ok::<(), fdpost::Error>(())
/// ```
pub struct Listener<P: Profile> {
    /// Before the socket: a file that is removed while it is still served is nobody else's.
    bound: Option<Bound>,
    socket: Arc<Socket>,
    limits: Limits,
    rule: PeerRule,
    /// Accepted, and something was short before they could be handed out.
    parked: Mutex<VecDeque<OwnedFd>>,
    refused: AtomicU64,
    wire: PhantomData<fn() -> P>,
}

impl<P: Profile> Listener<P> {
    /// Listens at an address, as [`Listening::new`] says: a file of mode 0600. `limits` are those
    /// of each connection.
    ///
    /// # Errors
    /// As [`bind_with`](Self::bind_with).
    pub fn bind(address: impl Into<Address>, limits: Limits) -> Result<Self, Error> {
        Self::bind_with(address, limits, Listening::new())
    }

    /// Listens at an address.
    ///
    /// The file has its mode from its first moment. A socket's file that nobody serves is replaced;
    /// of many processes that try to at once exactly one succeeds. To that end a lock file
    /// `.NAME.fdpost-lock` stands beside it for a moment; for another starter's the call waits at
    /// most 10 s. The lock goes with its holder, also a killed one; the file that such a one leaves is
    /// used and removed by the next starter of that user, or of root. To another user it is in the way
    /// (`open` with EACCES), and is not removed on a guess, since its holder may live: remove it by
    /// hand where users of a directory share names.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], when a socket is bound there, of whatever type, and whether it
    /// listens or not yet; [`Error::NotASocket`]; [`Error::TimedOut`], when another starter held
    /// the lock for too long; [`Misuse`] about the address, a limit, or the wire; [`Error::Io`],
    /// among them `bind` with ENOENT where the directory is missing.
    pub fn bind_with(
        address: impl Into<Address>,
        limits: Limits,
        listening: Listening,
    ) -> Result<Self, Error> {
        limits.check()?;
        listening.check()?;
        let socket = socket::unconnected::<P>()?;
        let backlog = Backlog::new(i32::try_from(listening.backlog).unwrap_or(i32::MAX));
        let backlog = backlog.map_err(|errno| Error::io("listen", errno))?;
        // Before listen: a connection is made with the listener's options, and waits with them.
        if limits.descriptors == 0 {
            socket::refuse_descriptors(socket.as_fd());
        }
        set_nonblocking(socket.as_fd())?;
        let bound = bound::bind(&socket, &address.into(), listening.mode)?;
        // A failure from here on removes the file.
        listen(&socket, backlog).map_err(|errno| Error::io("listen", errno))?;
        Ok(Self::over(socket, bound, limits, listening.rule))
    }

    /// A listener over a socket on which somebody else called listen(2), as socket activation hands
    /// it over ([`activated`]). It is made close-on-exec and O_NONBLOCK: the one flag that this
    /// crate sets on a socket that others may hold, because accept4(2) has none for a single call.
    /// Its file is not removed on drop.
    ///
    /// # Errors
    /// [`Misuse`] that says what the socket, a limit or the wire is and should be, such as SO_PASSSEC,
    /// which systemd's `PassSecurity=` sets; [`Error::Io`]. The socket is closed then.
    pub fn from_fd(socket: OwnedFd, limits: Limits, rule: PeerRule) -> Result<Self, Error> {
        limits.check()?;
        socket::check_listening::<P>(socket.as_fd())?;
        let socket = sys::raised(socket).map_err(|errno| Error::io("fcntl", errno))?;
        set_nonblocking(socket.as_fd())?;
        Ok(Self::over(socket, None, limits, rule))
    }

    fn over(socket: OwnedFd, bound: Option<Bound>, limits: Limits, rule: PeerRule) -> Self {
        Self {
            bound,
            socket: Arc::new(Socket::new(socket)),
            limits,
            rule,
            parked: Mutex::new(VecDeque::new()),
            refused: AtomicU64::new(0),
            wire: PhantomData,
        }
    }

    /// Who closes the connections that the rule refuses, in place of the rule's own
    /// [reaper](PeerRule::reaper). Where `limits` accept descriptors, a stranger
    /// can have sent some whose close(2) blocks before anybody asked who it is: they are closed with
    /// the connection, and without a reaper by the thread that accepts.
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        self.rule = std::mem::take(&mut self.rule).reaper(reaper);
    }

    /// Waits for the next connection, for ever if need be.
    ///
    /// # Errors
    /// As [`accept_by`](Self::accept_by), without [`Error::TimedOut`].
    pub fn accept(&self) -> Result<Channel<P>, Error> {
        self.accept_by(Deadline::NEVER)
    }

    /// Waits for the next connection. Where this process has no descriptor left, or the kernel no
    /// memory, it tries again by time until the deadline. The connection is not lost meanwhile: it stays
    /// in the queue, or is kept for whichever thread accepts next, which one that waits already may
    /// notice a second late.
    ///
    /// # Errors
    /// [`Error::PeerRefused`]: one came that the rule refused, and is closed; call again.
    /// [`Error::TimedOut`]; [`Error::Pressure`], where at the deadline, or after a shutdown, something
    /// is lacking for one that waits; [`Error::Closed`] after [`shutdown`](Self::shutdown), once none
    /// waits; [`Error::Io`].
    pub fn accept_by(&self, deadline: Deadline) -> Result<Channel<P>, Error> {
        let mut hung_up = false;
        loop {
            let (events, until) = match self.try_accept() {
                Ok(Some(channel)) => return Ok(channel),
                // Shut down, by who else holds it perhaps: poll(2) will never wait again.
                Ok(None) if hung_up => return Err(Error::Closed),
                Ok(None) if deadline.has_passed() => return Err(Error::TimedOut),
                Ok(None) => (PollFlags::POLLIN, Deadline::after(LOOK).min(deadline)),
                Err(Error::Pressure { .. }) if !hung_up && !deadline.has_passed() => {
                    (PollFlags::empty(), Deadline::after(PAUSE).min(deadline))
                }
                Err(error) => return Err(error),
            };
            hung_up = wait(self.socket.as_fd(), events, until)?.contains(PollFlags::POLLHUP);
        }
    }

    /// The next connection if one waits. For event loops: the listener is readable then, and under
    /// [`Error::Pressure`] all the while, so pause by time.
    ///
    /// # Errors
    /// As [`accept_by`](Self::accept_by), without [`Error::TimedOut`].
    pub fn try_accept(&self) -> Result<Option<Channel<P>>, Error> {
        let accepted = match self.take_parked() {
            Ok(Some(socket)) => Ok(socket),
            Ok(None) => sys::accept(self.socket.as_fd()),
            Err(errno) => Err(errno),
        };
        match accepted {
            Ok(socket) => self.admit(socket).map(Some),
            // A listener that was shut down says so too, once nothing waits any more
            // (net/core/datagram.c).
            Err(Errno::EAGAIN) if self.socket.was_shut() => Err(Error::Closed),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) if is_shortage(errno) => Err(Error::Pressure { errno: errno as i32 }),
            Err(errno) => Err(Error::io("accept4", errno)),
        }
    }

    fn admit(&self, socket: OwnedFd) -> Result<Channel<P>, Error> {
        let socket = match sys::raise(socket) {
            Ok(socket) => socket,
            Err((errno, socket)) => return Err(self.park(socket, errno)),
        };
        if self.bound.is_none() && self.limits.descriptors == 0 {
            // Not on the listener, which is others' too. This one is ours.
            socket::refuse_descriptors(socket.as_fd());
        }
        if !self.rule.is_empty() {
            match self.rule.check(socket.as_fd()) {
                Ok(_) => {}
                // A pidfd takes a descriptor too.
                Err(Error::Io { errno, .. }) if is_shortage(Errno::from_raw(errno)) => {
                    return Err(self.park(socket, Errno::from_raw(errno)));
                }
                Err(error) => {
                    if matches!(error, Error::PeerRefused { .. }) {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    self.rule.turn_away(socket);
                    return Err(error);
                }
            }
        }
        Channel::over(socket, self.limits, Origin::Met)
    }

    /// Keeps a connection for the next accept: closing it would lose it in silence.
    fn park(&self, socket: OwnedFd, errno: Errno) -> Error {
        let mut parked = self.parked();
        // There is room, unless other threads took it meanwhile.
        if parked.try_reserve(1).is_ok() {
            parked.push_front(socket);
        } else {
            drop(parked);
            self.rule.turn_away(socket);
        }
        Error::Pressure { errno: errno as i32 }
    }

    /// What was parked; with room to park again, before anything is taken out of the kernel's queue.
    fn take_parked(&self) -> Result<Option<OwnedFd>, Errno> {
        let mut parked = self.parked();
        match parked.pop_front() {
            Some(socket) => Ok(Some(socket)),
            None => parked.try_reserve(1).map(|()| None).map_err(|_| Errno::ENOMEM),
        }
    }

    fn parked(&self) -> MutexGuard<'_, VecDeque<OwnedFd>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "tokio")]
    pub(super) const fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// How many connections the rule refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Stops listening, and wakes every call that waits to accept: [`Error::Closed`]. For a socket
    /// that somebody else made too: whoever holds it can accept nothing from it any more.
    pub fn shutdown(&self) {
        self.socket.shutdown();
    }

    /// A handle that can [`shutdown`](Self::shutdown) this listener from any thread.
    pub fn closer(&self) -> Closer {
        Closer::of(&self.socket)
    }
}

fn set_nonblocking(socket: BorrowedFd<'_>) -> Result<(), Error> {
    let flags = fcntl(socket, FcntlArg::F_GETFL).map_err(|errno| Error::io("fcntl", errno))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(socket, FcntlArg::F_SETFL(flags)).map(drop).map_err(|errno| Error::io("fcntl", errno))
}

impl<P: Profile> AsFd for Listener<P> {
    /// For poll(2) and the like: readable, when a connection waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<P: Profile> fmt::Debug for Listener<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("wire", &P::NAME)
            .field("socket", &self.socket)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}
