//! Who is connected, who serves which name, and what becomes of a request.
//!
//! Nothing is queued here: what a request needs next is an [`Action`], what came of it is told by
//! [`Registry::paired`] or [`Registry::sent`], which say the next one. Between two of them the
//! descriptors live in the action, so that one that is dropped closes them (P2).

mod act;
mod quota;

use core::marker::PhantomData;
use core::time::Duration;

use super::answer::{Answer, Peer};
use super::sorted::Sorted;
use super::{Ask, Audience, Name, Quotas, Refusal, Registration, Request, Wire};
use crate::error::Misuse;
use crate::message::Head;
use crate::wire::control::Credentials;
use quota::Usage;

use act::Stage;
pub use act::{Action, Order, Outcome, Receipt, Why};

/// A connection; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

/// Who is on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Party {
    /// What the kernel noted when it connected.
    pub credentials: Credentials,
    /// How many names it serves.
    pub names: u32,
    /// Since when it leaves its socket full.
    pub full_since: Option<Duration>,
}

/// A name's service.
#[derive(Clone, Copy, Debug)]
struct Service {
    id: Id,
    wire: Wire,
    accepts: u8,
    audience: Audience,
}

/// The broker's judgement over its [`Quotas`]. `F` owns a descriptor.
#[derive(Debug)]
pub struct Registry<F> {
    quotas: Quotas,
    parties: Sorted<Id, Party>,
    names: Sorted<Name, Service>,
    users: Sorted<u32, Usage>,
    next: u64,
    ends: PhantomData<fn() -> F>,
}

impl<F> Registry<F> {
    /// Nobody is connected.
    ///
    /// # Errors
    /// [`Misuse::LimitOutOfRange`], as [`Quotas::check`] says.
    pub fn new(quotas: Quotas) -> Result<Self, Misuse> {
        quotas.check()?;
        let (parties, names, users) = (Sorted::new(), Sorted::new(), Sorted::new());
        Ok(Self { quotas, parties, names, users, next: 0, ends: PhantomData })
    }

    /// The quotas.
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Who is on this connection.
    pub fn party(&self, id: Id) -> Option<&Party> {
        self.parties.get(&id)
    }

    /// How many are connected, and how many names are served.
    pub fn counts(&self) -> (usize, usize) {
        (self.parties.len(), self.names.len())
    }

    /// Somebody connected.
    ///
    /// # Errors
    /// What it is told before its connection is closed: [`Refusal::Quota`], [`Refusal::Full`],
    /// [`Refusal::Exhausted`].
    pub fn connect(&mut self, credentials: Credentials) -> Result<Id, Refusal> {
        self.count_connection(credentials.uid)?;
        let id = Id(self.next);
        let party = Party { credentials, names: 0, full_since: None };
        if self.parties.insert(id, party).is_err() {
            self.discount_connection(credentials.uid);
            return Err(Refusal::Exhausted);
        }
        self.next = self.next.saturating_add(1);
        Ok(id)
    }

    /// A message came from a party. `permit` is the broker's own rule: whether this party may
    /// make this request at all, or what it is told instead.
    pub fn request(
        &mut self,
        from: Id,
        head: &Head,
        payload: &[u8],
        permit: impl FnOnce(&Party, &Request) -> Result<(), Refusal>,
    ) -> Action<F> {
        let Some(&party) = self.parties.get(&from) else { return Action::Nothing };
        let request = match Request::decode(head, payload) {
            Ok(request) => request,
            Err(violation) => return Action::Close(from, Why::Violation(violation)),
        };
        let accepts_ends = head.reply_descriptors > 0;
        let correlation = head.correlation;
        let answer = match (permit(&party, &request), request) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), Request::Register(registration)) => self.register(from, &registration, accepts_ends),
            (Ok(()), Request::Withdraw(name)) => self.withdraw(from, &name),
            (Ok(()), Request::Ask(ask)) => match self.find(&party.credentials, &ask, accepts_ends) {
                Ok(&Service { id: service, accepts, .. }) => {
                    return Action::Pair(Order { from, correlation, ask, service, accepts });
                }
                Err(refusal) => Err(refusal),
            },
        };
        let answer = answer.map_or_else(Answer::Refused, |()| Answer::Done);
        Action::plain(from, request, correlation, answer)
    }

    fn register(&mut self, from: Id, new: &Registration, accepts_ends: bool) -> Result<(), Refusal> {
        if !accepts_ends {
            return Err(Refusal::AcceptsNone);
        }
        if self.names.get(&new.name).is_some() {
            return Err(Refusal::NameTaken);
        }
        let Registration { name, wire, accepts, audience } = *new;
        let Some(&Party { credentials: Credentials { uid, .. }, .. }) = self.parties.get(&from) else {
            return Err(Refusal::ServiceGone);
        };
        self.count_name(uid)?;
        if self.names.insert(name, Service { id: from, wire, accepts, audience }).is_err() {
            self.discount_names(uid, 1);
            return Err(Refusal::Exhausted);
        }
        if let Some(party) = self.parties.get_mut(&from) {
            party.names = party.names.saturating_add(1);
        }
        Ok(())
    }

    fn withdraw(&mut self, from: Id, name: &Name) -> Result<(), Refusal> {
        // Whose it is otherwise is nobody's business.
        if self.names.get(name).is_none_or(|service| service.id != from) {
            return Err(Refusal::NameUnknown);
        }
        self.names.remove(name);
        if let Some(party) = self.parties.get_mut(&from) {
            party.names = party.names.saturating_sub(1);
            let user = party.credentials.uid;
            self.discount_names(user, 1);
        }
        Ok(())
    }

    fn find(&self, asker: &Credentials, ask: &Ask, accepts_ends: bool) -> Result<&Service, Refusal> {
        let service = self.names.get(&ask.name).ok_or(Refusal::NameUnknown)?;
        let owner = self.parties.get(&service.id).ok_or(Refusal::ServiceGone)?;
        let permitted = match service.audience {
            Audience::SameUser => asker.uid == owner.credentials.uid,
            Audience::User(user) => asker.uid == user,
            Audience::Group(group) => asker.gid == group,
            Audience::Anyone => true,
        };
        match () {
            () if !permitted => Err(Refusal::NotPermitted),
            () if service.wire != ask.wire => Err(Refusal::WireMismatch(service.wire)),
            () if !accepts_ends => Err(Refusal::AcceptsNone),
            () => Ok(service),
        }
    }

    /// The pair that an [`Action::Pair`] asked for: the service's end and the client's, or none,
    /// because the process is short of something.
    pub fn paired(&mut self, order: Order, ends: Option<(F, F)>) -> Action<F> {
        let Some((service_end, client_end)) = ends else { return order.refuse(Refusal::Exhausted) };
        let asker = self.parties.get(&order.from);
        let (Some(asker), true) = (asker, self.parties.get(&order.service).is_some()) else {
            return order.refuse(Refusal::ServiceGone);
        };
        let peer = Peer { credentials: asker.credentials, accepts: order.ask.accepts };
        let answer = Answer::HandOver(order.ask.name, peer);
        let message = answer.message(0, 0).with(service_end);
        // The service first: a client that is told "yes" has somebody to talk to.
        let receipt = Receipt(Stage::HandOver { order, client_end });
        Action::Send { to: order.service, message, receipt }
    }

    /// What came of an [`Action::Send`].
    pub fn sent(&mut self, receipt: Receipt<F>, outcome: Outcome) -> Action<F> {
        match receipt.0 {
            Stage::HandOver { order, client_end } => match outcome {
                Outcome::Sent => self.grant(order, client_end),
                Outcome::Full => order.refuse(Refusal::ServiceBusy),
                Outcome::Refused => order.refuse(Refusal::ServiceAcceptsNone),
                Outcome::Gone => order.refuse(Refusal::ServiceGone),
                Outcome::Short => order.refuse(Refusal::Exhausted),
            },
            Stage::Grant { order, .. } => match outcome {
                // Who went away with an end on its way to it has closed it.
                Outcome::Sent | Outcome::Gone => Action::Nothing,
                Outcome::Full => Action::Close(order.from, Why::Unread),
                Outcome::Refused => order.refuse(Refusal::AcceptsNone),
                Outcome::Short => order.refuse(Refusal::Exhausted),
            },
            Stage::Plain { to, .. } => match outcome {
                Outcome::Sent | Outcome::Gone => Action::Nothing,
                Outcome::Full => Action::Close(to, Why::Unread),
                // A request without an answer would be worse than an end.
                Outcome::Refused | Outcome::Short => Action::Close(to, Why::Exhausted),
            },
        }
    }

    fn grant(&self, order: Order, client_end: F) -> Action<F> {
        let Some(service) = self.parties.get(&order.service) else {
            return order.refuse(Refusal::ServiceGone);
        };
        let peer = Peer { credentials: service.credentials, accepts: order.accepts };
        let message = Answer::Granted(peer).message(super::ASK, order.correlation).with(client_end);
        Action::Send { to: order.from, message, receipt: Receipt(Stage::Grant { order, peer }) }
    }

    /// This connection is over: its names are free.
    pub fn gone(&mut self, id: Id) {
        let Some(party) = self.parties.remove(&id) else { return };
        if party.names > 0 {
            self.names.retain(|_, service| service.id != id);
        }
        self.discount_names(party.credentials.uid, party.names);
        self.discount_connection(party.credentials.uid);
    }

    /// A party's socket was found full at `now`: nothing is read from it until it reads.
    pub fn full(&mut self, id: Id, now: Duration) {
        if let Some(party) = self.parties.get_mut(&id) {
            party.full_since.get_or_insert(now);
        }
    }

    /// It has room again.
    pub fn has_room(&mut self, id: Id) {
        if let Some(party) = self.parties.get_mut(&id) {
            party.full_since = None;
        }
    }

    /// When the first party that leaves its socket full is overdue; `None`: no one does.
    pub fn deadline(&self) -> Option<Duration> {
        let since = self.parties.iter().filter_map(|(_, party)| party.full_since);
        since.min().map(|since| since.saturating_add(self.quotas.patience))
    }

    /// A party that is to be closed because it left its socket full for too long.
    pub fn overdue(&self, now: Duration) -> Option<Id> {
        let late = |party: &Party| {
            party.full_since.is_some_and(|since| now >= since.saturating_add(self.quotas.patience))
        };
        self.parties.iter().find(|(_, party)| late(party)).map(|(id, _)| *id)
    }
}
