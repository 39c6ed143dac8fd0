//! The other side of a broker: services and clients.

mod answers;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::broker::{ANSWER_MOST, Answer, Ask, Audience, Name, Peer, Refusal, Registration, Request, Wire};
use crate::driver::address::Address;
use crate::driver::channel::{Channel, Closer};
use crate::driver::credentials::{Credentials, PeerRule};
use crate::driver::deadline::Deadline;
use crate::driver::error::{Error, SendError};
use crate::error::Exhausted;
use crate::limits::Limits;
use crate::profile::{Packet, Profile};

/// Hand-overs that a [`BrokerClient`] keeps while it waits for something else; what comes beyond is
/// closed and counted, and its client reads the end.
pub const HAND_OVERS_MOST: usize = 32;

/// Requests whose answers may be awaited together, those included that their caller gave up.
pub const UNANSWERED_MOST: usize = 64;

/// Messages that may be read one after the other, none of them the answer, before a deadline counts
/// although there is more to read: a broker that floods us does not stop the clock.
const OVERDUE_READS: u32 = 1024;

/// One end of a channel made for two.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fresh<P: Profile> {
    /// The channel. On it SO_PEERCRED names the broker, which made the pair.
    pub channel: Channel<P>,
    /// The name that was asked for.
    pub name: Name,
    /// Who has the other end, as the broker saw it connect: as true as the broker is.
    pub peer: Credentials,
    /// How many descriptors the other end accepts in one message, as it said itself.
    pub peer_accepts: u8,
}

/// A connection to a [`Broker`](crate::Broker), to serve names, to ask for names, or both.
///
/// For one thread; its calls wait for the broker's answer, and keep what is handed over meanwhile.
/// Dropping it withdraws its names; channels that were handed out live on.
pub struct BrokerClient {
    channel: Channel<Packet>,
    next: u32,
    /// Requests that were sent and are not answered yet, in order.
    pending: VecDeque<Pending>,
    /// What this connection serves.
    names: Vec<Served>,
    handed: VecDeque<Handed>,
    late: u64,
    missed: u64,
    turned_away: Option<Refusal>,
}

struct Pending {
    correlation: u32,
    request: Request,
}

struct Served {
    registration: Registration,
    /// The caller was told. `false`: it had given up when the broker's "yes" was read.
    told: bool,
}

/// An end for a service that nobody took yet.
struct Handed {
    name: Name,
    wire: Wire,
    peer: Peer,
    end: OwnedFd,
}

impl BrokerClient {
    /// Connects to a broker, waiting for ever while its queue of connections is full.
    ///
    /// # Errors
    /// As [`Channel::connect_with`].
    pub fn connect(address: impl Into<Address>) -> Result<Self, Error> {
        Self::connect_with(address, &PeerRule::new(), Deadline::NEVER)
    }

    /// Connects to a broker that `rule` lets pass: it hears every name, and what it says of the
    /// peer of a channel is believed.
    ///
    /// # Errors
    /// As [`Channel::connect_with`].
    pub fn connect_with(
        address: impl Into<Address>,
        rule: &PeerRule,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        Channel::connect_with(address, Self::LIMITS, rule, deadline).map(Self::over)
    }

    /// Over a connection to a broker that somebody else made.
    ///
    /// # Errors
    /// As [`Channel::from_fd`].
    pub fn from_fd(socket: OwnedFd) -> Result<Self, Error> {
        Channel::from_fd(socket, Self::LIMITS).map(Self::over)
    }

    /// What it accepts of a broker.
    const LIMITS: Limits = Limits::new().payload(ANSWER_MOST).descriptors(1);

    const fn over(channel: Channel<Packet>) -> Self {
        Self {
            channel,
            next: 0,
            pending: VecDeque::new(),
            names: Vec::new(),
            handed: VecDeque::new(),
            late: 0,
            missed: 0,
            turned_away: None,
        }
    }

    /// Serves a name with channels of the wire `P`, on which this side accepts what `limits` say;
    /// `audience` says who may ask. [`accept_by`](Self::accept_by) yields the channels.
    ///
    /// # Errors
    /// [`Error::BrokerRefused`] with [`Refusal::NameTaken`], [`Refusal::NotPermitted`],
    /// [`Refusal::Quota`], [`Refusal::Full`] or [`Refusal::Exhausted`]; [`Misuse`](crate::Misuse)
    /// about the name; as [`ask`](Self::ask). After [`Error::TimedOut`], or where reading failed, the
    /// name may still become this connection's: the same call once more waits for the answer to the
    /// first, or finds that it has come.
    pub fn register<P: Profile>(
        &mut self,
        name: &str,
        limits: Limits,
        audience: Audience,
        deadline: Deadline,
    ) -> Result<(), Error> {
        limits.check()?;
        let (name, wire, accepts) = (Name::new(name)?, Wire::of::<P>()?, limits.descriptors);
        let registration = Registration { name, wire, accepts, audience };
        let served = |client: &mut Self| {
            let mut names = client.names.iter_mut();
            names.find(|served| served.registration == registration && !served.told).map(|served| {
                served.told = true;
            })
        };
        if served(self).is_none() {
            self.request(Request::Register(registration), deadline)?;
            // Told now.
            let _known = served(self);
        }
        Ok(())
    }

    /// Serves a name no longer. Hand-overs that came before stay to be accepted.
    ///
    /// # Errors
    /// [`Error::BrokerRefused`] with [`Refusal::NameUnknown`], where this connection does not serve
    /// it; as [`ask`](Self::ask). Once more after [`Error::TimedOut`], it waits for the answer to the
    /// first call.
    pub fn withdraw(&mut self, name: &str, deadline: Deadline) -> Result<(), Error> {
        self.request(Request::Withdraw(Name::new(name)?), deadline).map(drop)
    }

    /// Asks for a channel of the wire `P` to whoever serves a name, with these limits of its own.
    ///
    /// # Errors
    /// [`Error::BrokerRefused`] with any [`Refusal`]: the connection goes on, unless the broker
    /// turned it away; [`Misuse`](crate::Misuse) about the name; [`Error::TimedOut`], where what the
    /// broker answers later is closed and counted as [`late`](Self::late);
    /// [`Exhausted::CallsInFlight`], where [`UNANSWERED_MOST`] requests are not answered yet, those
    /// that were given up included;
    /// [`Error::Violation`], when the broker breaks a rule; [`Error::Closed`] and
    /// [`Error::PeerGone`], when it is gone; [`Error::Io`].
    pub fn ask<P: Profile>(
        &mut self,
        name: &str,
        limits: Limits,
        deadline: Deadline,
    ) -> Result<Fresh<P>, Error> {
        limits.check()?;
        let (name, wire, accepts) = (Name::new(name)?, Wire::of::<P>()?, limits.descriptors);
        match self.request(Request::Ask(Ask { name, wire, accepts }), deadline)? {
            (Answer::Granted(peer), Some(end)) => fresh(name, peer, end, limits),
            // An answer is of its request's kind, or was refused as a violation.
            _ => Err(Error::Closed),
        }
    }

    /// Waits for the next client of a name that was registered with the wire `P`.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::BrokerRefused`], where the broker turned this connection away;
    /// [`Error::Violation`], [`Error::Closed`]; as [`Channel::from_fd`].
    pub fn accept_by<P: Profile>(&mut self, limits: Limits, deadline: Deadline) -> Result<Fresh<P>, Error> {
        limits.check()?;
        let wire = Wire::of::<P>()?;
        let mut reads = 0;
        loop {
            if let Some(handed) = self.take_handed(&wire) {
                return fresh(handed.name, handed.peer, handed.end, limits);
            }
            self.hear_in_time(&mut reads, deadline)?;
        }
    }

    /// The next client if one was handed over. For event loops: the broker's socket is readable
    /// then; call until there is none. So also behind a call that waited for an answer: it has taken
    /// in what was handed over meanwhile, and the socket is silent about that.
    ///
    /// # Errors
    /// As [`accept_by`](Self::accept_by), without [`Error::TimedOut`].
    pub fn try_accept<P: Profile>(&mut self, limits: Limits) -> Result<Option<Fresh<P>>, Error> {
        match self.accept_by(limits, Deadline::at(std::time::Instant::now())) {
            Ok(fresh) => Ok(Some(fresh)),
            Err(Error::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Answers that came after their asker had given up; the ends among them were closed.
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// Hand-overs that were closed because [`HAND_OVERS_MOST`] waited to be accepted.
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// A handle that can shut the connection down from any thread: every call that waits says
    /// [`Error::Closed`], and its names are free. Channels that were handed out live on.
    pub fn closer(&self) -> Closer {
        self.channel.closer()
    }

    fn take_handed(&mut self, wire: &Wire) -> Option<Handed> {
        let index = self.handed.iter().position(|handed| handed.wire == *wire)?;
        self.handed.remove(index)
    }

    /// Sends a request and waits for its answer.
    fn request(&mut self, request: Request, deadline: Deadline) -> Result<(Answer, Option<OwnedFd>), Error> {
        let correlation = match self.sent_before(&request) {
            Some(correlation) => correlation,
            None => self.send(request, deadline)?,
        };
        let mut reads = 0;
        loop {
            if let Some((of, answer, end)) = self.hear_in_time(&mut reads, deadline)? {
                match answer {
                    _ if of != correlation => self.late = self.late.saturating_add(1),
                    Answer::Refused(refusal) => return Err(Error::BrokerRefused(refusal)),
                    answer => return Ok((answer, end)),
                }
            }
        }
    }

    fn send(&mut self, request: Request, deadline: Deadline) -> Result<u32, Error> {
        self.make_room()?;
        let correlation = self.next.wrapping_add(1).max(1);
        self.next = correlation;
        match self.channel.send_by(request.message(correlation, true), deadline) {
            Ok(_) => self.pending.push_back(Pending { correlation, request }),
            Err(SendError { error, .. }) => return Err(self.why_gone(error, deadline)),
        }
        Ok(correlation)
    }

    /// The same request about a name, sent by an earlier call that did not hear the answer, and the
    /// last that was said about the name: asked twice, the broker would say that the name is taken,
    /// or is nobody's. A question is made anew, since its channel is.
    fn sent_before(&self, request: &Request) -> Option<u32> {
        let of = |request: &Request| match request {
            Request::Register(registration) => Some(registration.name),
            Request::Withdraw(name) => Some(*name),
            Request::Ask(_) => None,
        };
        let name = of(request)?;
        let last = self.pending.iter().rev().find(|pending| of(&pending.request) == Some(name))?;
        (last.request == *request).then_some(last.correlation)
    }

    /// Memory for one request more, and for what its answer makes of it.
    fn make_room(&mut self) -> Result<(), Exhausted> {
        if self.pending.len() >= UNANSWERED_MOST {
            let [given_up, limit] =
                [self.pending.len(), UNANSWERED_MOST].map(|many| u32::try_from(many).unwrap_or(u32::MAX));
            return Err(Exhausted::CallsInFlight { pending: 0, given_up, limit });
        }
        let short = |bytes: usize| Exhausted::OutOfMemory { bytes: bytes as u64 };
        self.pending.try_reserve(1).map_err(|_| short(size_of::<Pending>()))?;
        let names = self.pending.len().saturating_add(1);
        self.names.try_reserve(names).map_err(|_| short(size_of::<Served>()))
    }

    /// A broker that closed may have said why before.
    fn why_gone(&mut self, error: Error, deadline: Deadline) -> Error {
        if !matches!(error, Error::PeerGone { .. }) {
            return error;
        }
        let mut reads = 0;
        loop {
            match self.hear_in_time(&mut reads, deadline) {
                Ok(_) => {}
                Err(said @ Error::BrokerRefused(_)) => return said,
                Err(_) => return error,
            }
        }
    }
}

fn fresh<P: Profile>(name: Name, peer: Peer, end: OwnedFd, limits: Limits) -> Result<Fresh<P>, Error> {
    let channel = Channel::from_fd(end, limits)?;
    Ok(Fresh { channel, name, peer: peer.credentials.into(), peer_accepts: peer.accepts })
}

impl AsFd for BrokerClient {
    /// For poll(2) and the like. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl fmt::Debug for BrokerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerClient")
            .field("channel", &self.channel)
            .field("names", &self.names.iter().map(|served| served.registration.name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
