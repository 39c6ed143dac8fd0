//! Calls: a message, and the one that answers it.
//!
//! [`PendingCalls`] knows which answers are awaited and until when, and nothing of sockets or of
//! clocks: time is a `Duration` since any epoch, as everywhere in the core (P8). Rules CA-1.. of
//! `docs/PROTOCOL.md`.
//!
//! The id of a call is *out* from the moment at which its message leaves until its answer came,
//! also when its caller has given it up meanwhile: the answer may be on its way. An id that is out
//! is not used again, so no late answer is ever taken for another call's. [`Bounds::in_flight`]
//! bounds how many are out together, given up or not (P4).
//!
//! # Calling
//! 1. [`PendingCalls::prepare`] marks a message as a call.
//! 2. If it left, [`PendingCalls::begin`]; if it did not, [`Prepared::restore`] makes it what it was.
//! 3. Each message that comes goes to [`PendingCalls::handle`].
//! 4. On "would block" seen at or after [`PendingCalls::deadline`], [`PendingCalls::expired`] until it
//!    says `None`: so a late *reader* gets the answer that was there in time (P5).
//! 5. When the conversation ended, [`PendingCalls::abandon`] until it says `None`.
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

mod correlate;
mod pending;
mod request;
mod values;

pub use correlate::{Correlate, Kind, Role};
pub use pending::{PendingCalls, Prepared};
pub use request::Request;
pub use values::{Answer, Bounds, CallId, Counters, Incoming, Refused};
