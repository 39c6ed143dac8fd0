//! Handing out fresh channels by name: what a broker and its parties say to each other, and the
//! broker's judgement. Rules BR-1.. of `docs/PROTOCOL.md`.
//!
//! A service registers a name; a client asks for it; each receives one end of a channel made for
//! the two of them, and neither talks through the broker afterwards. The messages travel over the
//! wire `packet`.
//!
//! Pure, like all of the core: no socket, no clock, and `F` owns a descriptor. The driver's
//! `Broker` runs a [`Registry`] over real sockets, `BrokerClient` is the other side.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod answer;
mod quotas;
mod refusal;
mod registry;
mod request;
pub(crate) mod sorted;
mod wire;
mod word;

pub use answer::{ANSWER_MOST, Answer, Peer};
pub use quotas::Quotas;
pub use refusal::Refusal;
pub use registry::{Action, Id, Order, Outcome, Party, Receipt, Registry, Why};
pub use request::{Ask, Audience, REQUEST_MOST, Registration, Request};
pub use wire::{SocketKind, Wire};
pub use word::{NAME_MOST, Name, WIRE_MOST, WireName, Word};

/// `kind` of a request: this connection serves a name.
pub const REGISTER: u32 = 1;
/// `kind` of a request: it serves a name no longer.
pub const WITHDRAW: u32 = 2;
/// `kind` of a request: a channel to whoever serves a name.
pub const ASK: u32 = 3;
/// `kind` of what a service receives: the end of a channel that a client asked for.
pub const HAND_OVER: u32 = 4;
/// `kind` of what a party receives that gets no connection.
pub const TURNED_AWAY: u32 = 5;

use crate::error::Violation;

const fn broken(field: &'static str, value: u32) -> Violation {
    Violation::BrokerMessage { field, value }
}
