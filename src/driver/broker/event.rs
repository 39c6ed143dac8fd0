//! What a broker tells about itself.

use crate::broker::{Answer, Id, Refusal, Request};
use crate::driver::credentials::Credentials;
use crate::driver::error::Error;

/// Something happened; see [`Broker::set_observer`](crate::Broker::set_observer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "lent for one call")]
pub enum BrokerEvent {
    /// Somebody connected.
    Connected {
        /// The connection.
        id: Id,
        /// Who it is.
        party: Credentials,
    },
    /// Somebody got no connection: the listener's rule refused it (no refusal was sent then), or
    /// a quota did.
    TurnedAway {
        /// Who it is.
        party: Credentials,
        /// What it was told.
        refusal: Option<Refusal>,
    },
    /// A request was answered: the answer is in the kernel's queue.
    Answered {
        /// The connection.
        id: Id,
        /// Who asked.
        party: Credentials,
        /// What was asked.
        request: Request,
        /// The answer.
        answer: Answer,
    },
    /// A connection is over, and its names are free.
    Left {
        /// The connection.
        id: Id,
        /// Who it was.
        party: Credentials,
        /// How many names it served.
        names: u32,
        /// Why.
        why: Departure,
    },
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// It closed its end.
    Closed,
    /// The process that had connected died, although its connection is still open somewhere.
    Died,
    /// It left its socket full for too long; or an end unread, while descriptors in flight were short.
    Unread,
    /// There was no memory to answer it.
    Exhausted,
    /// It broke a rule, or something failed that concerns it alone.
    Failed(Error),
}

/// Counters of a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStats {
    /// Connections now.
    pub connections: usize,
    /// Names now.
    pub names: usize,
    /// Connections ever.
    pub connected: u64,
    /// Who was turned away.
    pub turned_away: u64,
    /// Channels handed out.
    pub granted: u64,
    /// Requests that were answered with a [`Refusal`].
    pub refused: u64,
    /// Parties that broke a rule.
    pub violations: u64,
    /// Parties that left their socket full, or an end unread while those were short, for too long.
    pub unread: u64,
}
