//! What is to be done next.

use super::Id;
use crate::broker::answer::{Answer, Peer};
use crate::broker::{Ask, Refusal, Request};
use crate::error::Violation;
use crate::message::Message;

/// What whoever moves the bytes does next.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives for one system call, on the stack")]
pub enum Action<F> {
    /// Nothing: the request has its answer, or nobody is there to hear it.
    Nothing,
    /// Send `message` without waiting, and tell [`sent`](super::Registry::sent).
    Send {
        /// To this party.
        to: Id,
        /// This.
        message: Message<F>,
        /// To be given back.
        receipt: Receipt<F>,
    },
    /// Make two connected sockets of the order's wire, and tell
    /// [`paired`](super::Registry::paired).
    Pair(Order),
    /// Close this connection, and tell [`gone`](super::Registry::gone).
    Close(Id, Why),
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// What it said is no request.
    Violation(Violation),
    /// It does not read its answers.
    Unread,
    /// There is no memory to answer it.
    Exhausted,
}

/// What came of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel has it, with its descriptor.
    Sent,
    /// The socket is full.
    Full,
    /// The peer refuses descriptors.
    Refused,
    /// Nobody is there.
    Gone,
    /// The kernel is short of descriptors or memory.
    Short,
}

/// A channel that was asked for and may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub(super) from: Id,
    pub(super) correlation: u32,
    pub(super) ask: Ask,
    pub(super) service: Id,
    pub(super) accepts: u8,
}

impl Order {
    /// What was asked for: the wire, and what the client accepts on it.
    pub const fn ask(&self) -> &Ask {
        &self.ask
    }

    /// How many descriptors the service accepts in one message.
    pub const fn service_accepts(&self) -> u8 {
        self.accepts
    }

    pub(super) fn refuse<F>(self, refusal: Refusal) -> Action<F> {
        Action::plain(self.from, Request::Ask(self.ask), self.correlation, Answer::Refused(refusal))
    }
}

/// Where a request stands while its message is sent, and what it was.
#[derive(Debug)]
pub struct Receipt<F>(pub(super) Stage<F>);

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives for one system call, on the stack")]
pub(super) enum Stage<F> {
    /// The service's end is on its way.
    HandOver { order: Order, client_end: F },
    /// The client's is.
    Grant { order: Order, peer: Peer },
    /// An answer without a descriptor is.
    Plain { to: Id, request: Request, answer: Answer },
}

impl<F> Receipt<F> {
    /// The request that is answered once this message was sent, and how.
    pub const fn answered(&self) -> Option<(Request, Answer)> {
        match &self.0 {
            Stage::HandOver { .. } => None,
            Stage::Grant { order, peer } => Some((Request::Ask(order.ask), Answer::Granted(*peer))),
            Stage::Plain { request, answer, .. } => Some((*request, *answer)),
        }
    }
}

impl<F> Action<F> {
    pub(super) fn plain(to: Id, request: Request, correlation: u32, answer: Answer) -> Self {
        let message = answer.message(request.kind(), correlation);
        Self::Send { to, message, receipt: Receipt(Stage::Plain { to, request, answer }) }
    }
}
