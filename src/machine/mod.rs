//! The states of a conversation, and nothing but the states.
//!
//! No wire is named here: what a peer may send is asked of a [`Profile`](crate::profile::Profile).
//!
//! # Receiving
//! Call in this order, for ever:
//!
//! 1. [`Receiver::poll`] until it says `None`. It parses lazily, so nothing queues up in the core.
//! 2. [`Receiver::windows`]: where the next bytes go. `None` is the end.
//! 3. recvmsg(2) or recvmmsg(2) into the [`Hunk`]s; descriptors are owned there before anything
//!    looks at them (P2).
//! 4. [`Receiver::handle`] with the time and how many hunks were filled; 0 = "would block". It
//!    cannot fail: what the peer did wrong is `poll`'s to say, after the messages before it.
//! 5. On "would block", wait, at most until [`Receiver::deadline`].
//!
//! # Sending
//! [`Sender::push`] checks a message and takes it whole or gives it back; then
//! [`Sender::transmits`] lends what is to be sent, and [`Sender::transmitted`] or
//! [`Sender::failed`] say what became of it.
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

mod assembly;
mod counters;
mod hunk;
mod intake;
mod leftover;
mod outgoing;
mod packing;
mod receiver;
mod sender;
pub mod table;
mod transmit;

pub use counters::{Held, Received};
#[cfg(feature = "broker")]
pub(crate) use hunk::shrink;
pub use hunk::{Hunk, SLACK};
pub use leftover::Leftover;
pub use outgoing::Outgoing;
pub use receiver::Receiver;
pub use sender::{Failure, Outcome, Sender, Sending};
pub use transmit::{Transmit, Transmits};

#[cfg(test)]
mod tests;
