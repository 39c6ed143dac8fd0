//! A broker over a listener: sockets, waiting, and what a [`Registry`] says to do with them.

mod accept;
mod client;
mod event;
mod line;
mod serve;
mod watch;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::address::Address;
use super::channel::{Channel, Closer};
use super::credentials::{Credentials, PeerRule};
use super::deadline::Deadline;
use super::error::Error;
use super::listener::{Listener, Listening};
use super::reaper::Reaper;
use crate::broker::sorted::Sorted;
use crate::broker::{Id, Quotas, REQUEST_MOST, Registry, Request};
use crate::limits::Limits;
use crate::profile::Packet;
use crate::wire::control;
use line::Line;
use watch::Watch;

pub use client::{BrokerClient, Fresh, HAND_OVERS_MOST, UNANSWERED_MOST};
pub use event::{BrokerEvent, BrokerStats, Departure};

/// What a broker accepts of a party (BR-2, BR-5).
const LIMITS: Limits = Limits::new().payload(REQUEST_MOST).descriptors(0);

type Rule = dyn FnMut(&Credentials, &Request) -> bool + Send;
type Observer = dyn FnMut(&BrokerEvent) + Send;
type Grave = Arc<Mutex<Box<dyn Reaper>>>;

/// Introduces processes to each other: a service registers a name, a client asks for it, and each
/// gets one end of a channel made for the two of them ([`BrokerClient`] is their side of it).
/// Neither talks through the broker afterwards.
///
/// One thread, [`run`](Self::run), serves all; no call on a party's socket waits, and no party can
/// keep it from the others. What it may hold is bounded by [`Quotas`]; a process that allows fewer
/// descriptors (RLIMIT_NOFILE) than connections, names and a few more runs into
/// [`Refusal::Exhausted`](crate::Refusal::Exhausted) before.
///
/// The one thing that can wait for a stranger is close(2), see [`Reaper`]: where Linux has
/// SO_PASSRIGHTS (6.16) nobody can send a broker a descriptor; elsewhere, and for what two
/// strangers put into their channel while it is handed out, [`set_reaper`](Self::set_reaper) takes
/// all closing off this thread.
///
/// ```
/// use fdpost::broker::{Audience, Quotas};
/// use fdpost::{Address, Broker, BrokerClient, Deadline, Limits, Message, Packet};
/// use std::time::Duration;
///
/// # let name = format!("fdpost-doc-broker-{}", std::process::id());
/// # let address = Address::abstract_name(&name);
/// let mut broker = Broker::bind(&address, Quotas::new())?;
/// let closer = broker.closer();
/// std::thread::scope(|scope| {
///     scope.spawn(move || broker.run());
///     let soon = Deadline::after(Duration::from_secs(10));
///     let mut service = BrokerClient::connect(&address)?; // usually another process
///     service.register::<Packet>("clock", Limits::new(), Audience::SameUser, soon)?;
///     let mut client = BrokerClient::connect(&address)?; // and a third
///     let mut theirs = client.ask::<Packet>("clock", Limits::new(), soon)?.channel;
///     let mut ours = service.accept_by::<Packet>(Limits::new(), soon)?.channel;
///     ours.send(Message::new(b"noon"))?;
///     assert_eq!(theirs.receive_by(soon)?.payload(), b"noon");
///     closer.shutdown();
///     Ok::<(), fdpost::Error>(())
/// })?;
/// # Ok::<(), fdpost::Error>(())
/// ```
pub struct Broker {
    listener: Listener<Packet>,
    registry: Registry<OwnedFd>,
    lines: Sorted<Id, Line>,
    /// Of whom something may be there to be read: one message of each in turn (BR-19).
    ready: VecDeque<Id>,
    watch: Watch,
    /// This process had no descriptor for who wants to connect, and tries again then.
    accept_again: Option<Instant>,
    /// Some have left ends unread for too long while descriptors in flight are short.
    has_overdue: bool,
    /// There was no memory to read what these have to say; the first in line first.
    paused: VecDeque<(Instant, Id)>,
    epoch: Instant,
    reaper: Option<Grave>,
    rule: Option<Box<Rule>>,
    observer: Option<Box<Observer>>,
    stats: BrokerStats,
}

impl Broker {
    /// A broker at an address whose file has mode 0600.
    ///
    /// # Errors
    /// As [`bind_with`](Self::bind_with).
    pub fn bind(address: impl Into<Address>, quotas: Quotas) -> Result<Self, Error> {
        Self::bind_with(address, quotas, Listening::new())
    }

    /// A broker at an address; the rule of `listening` says who may connect at all.
    ///
    /// # Errors
    /// [`Misuse::LimitOutOfRange`](crate::Misuse::LimitOutOfRange) of a quota; as
    /// [`Listener::bind_with`]; [`Error::Io`] of epoll_create(2).
    pub fn bind_with(
        address: impl Into<Address>,
        quotas: Quotas,
        listening: Listening,
    ) -> Result<Self, Error> {
        quotas.check()?;
        Self::over(Listener::bind_with(address, LIMITS, listening)?, quotas)
    }

    /// A broker over a socket on which somebody else called listen(2), as
    /// [`activated`](crate::activated) hands it over.
    ///
    /// # Errors
    /// [`Misuse::LimitOutOfRange`](crate::Misuse::LimitOutOfRange) of a quota; as
    /// [`Listener::from_fd`].
    pub fn from_fd(socket: OwnedFd, quotas: Quotas, rule: PeerRule) -> Result<Self, Error> {
        quotas.check()?;
        Self::over(Listener::from_fd(socket, LIMITS, rule)?, quotas)
    }

    fn over(listener: Listener<Packet>, quotas: Quotas) -> Result<Self, Error> {
        let watch = Watch::new(&listener)?;
        Ok(Self {
            listener,
            registry: Registry::new(quotas)?,
            lines: Sorted::new(),
            ready: VecDeque::new(),
            watch,
            accept_again: None,
            has_overdue: false,
            paused: VecDeque::new(),
            epoch: Instant::now(),
            reaper: None,
            rule: None,
            observer: None,
            stats: BrokerStats::default(),
        })
    }

    /// Who closes: the sockets of parties that left or were refused, the broker's own copies of what it handed out,
    /// and descriptors that it refused. Each may carry a stranger's descriptors whose close(2)
    /// blocks. To be set before anybody connects.
    ///
    /// ```
    /// # use fdpost::{Address, Broker, broker::Quotas};
    /// # use std::os::fd::OwnedFd;
    /// # let name = format!("fdpost-doc-grave-{}", std::process::id());
    /// let mut broker = Broker::bind(Address::abstract_name(&name), Quotas::new())?;
    /// let (grave, closing) = std::sync::mpsc::channel::<OwnedFd>();
    /// std::thread::spawn(move || closing.into_iter().for_each(drop));
    /// broker.set_reaper(move |descriptor| drop(grave.send(descriptor)));
    /// # Ok::<(), fdpost::Error>(())
    /// ```
    pub fn set_reaper(&mut self, reaper: impl Reaper + 'static) {
        let grave: Grave = Arc::new(Mutex::new(Box::new(reaper)));
        let refused = Arc::clone(&grave);
        self.listener.set_reaper(move |socket| {
            refused.lock().unwrap_or_else(PoisonError::into_inner).reap(socket);
        });
        self.reaper = Some(grave);
    }

    /// Who may make which request, beyond what a service's audience says: above all who may
    /// register which name. Without it anybody may serve any name that is free.
    pub fn set_rule(&mut self, rule: impl FnMut(&Credentials, &Request) -> bool + Send + 'static) {
        self.rule = Some(Box::new(rule));
    }

    /// Who is told what happens. It runs in the broker's thread and should not wait.
    pub fn set_observer(&mut self, observer: impl FnMut(&BrokerEvent) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// Serves until [`closer`](Self::closer) shuts it down.
    ///
    /// # Errors
    /// [`Error::Io`] of epoll_wait(2) or accept4(2): never for what a party did, nor for a lack of
    /// descriptors or memory.
    pub fn run(&mut self) -> Result<(), Error> {
        loop {
            match self.turn(Deadline::NEVER) {
                Ok(()) => {}
                Err(Error::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// For event loops: when [`turn`](Self::turn) is to be called although the broker is not
    /// readable. `None`: for ever.
    pub fn timeout(&self) -> Option<Duration> {
        let until = self.own_deadline().instant()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Stops [`run`](Self::run) from any thread. Channels that were handed out live on.
    pub fn closer(&self) -> Closer {
        self.listener.closer()
    }

    /// What happened since it was made.
    pub fn stats(&self) -> BrokerStats {
        let (connections, names) = self.registry.counts();
        BrokerStats { connections, names, ..self.stats }
    }

    fn own_deadline(&self) -> Deadline {
        if !self.ready.is_empty() {
            return Deadline::at(self.epoch);
        }
        let unread = self.registry.deadline().and_then(|at| self.epoch.checked_add(at));
        let paused = self.paused.front().map(|(at, _)| *at);
        let [unread, accept, paused] =
            [unread, self.accept_again, paused].map(|at| at.map_or(Deadline::NEVER, Deadline::at));
        unread.min(accept).min(paused)
    }

    fn tell(&mut self, event: &BrokerEvent) {
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }

    /// Closes where that cannot keep this thread waiting, if anybody said where.
    fn bury(&self, descriptor: OwnedFd) {
        match &self.reaper {
            Some(reaper) => reaper.lock().unwrap_or_else(PoisonError::into_inner).reap(descriptor),
            None => drop(descriptor),
        }
    }

    /// Ends a conversation: the other side sees it at once, whoever closes the socket.
    fn hang_up(&self, channel: Channel<Packet>) {
        channel.shutdown();
        if let Some(socket) = channel.into_closing() {
            self.bury(socket);
        }
    }
}

impl AsFd for Broker {
    /// For poll(2) and the like: readable, when [`turn`](Self::turn) has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for line in std::mem::replace(&mut self.lines, Sorted::new()).into_values() {
            self.hang_up(line.channel);
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("listener", &self.listener)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl From<control::Credentials> for Credentials {
    fn from(who: control::Credentials) -> Self {
        let control::Credentials { pid, uid, gid } = who;
        Self { pid, uid, gid }
    }
}

impl From<Credentials> for control::Credentials {
    fn from(who: Credentials) -> Self {
        let Credentials { pid, uid, gid } = who;
        Self { pid, uid, gid }
    }
}
