//! Channels in Tokio's reactor.
//!
//! The machine, the queue and the system calls are those of [`Channel`](super::Channel); here is only
//! what takes the place of poll(2). The socket's O_NONBLOCK is not touched: each call says
//! MSG_DONTWAIT.
//!
//! - The reactor is edge-triggered: a readiness may be given up only behind a call that said "would
//!   block" after the readiness was seen ([`Ready`](reactor::Ready)).
//! - Time counts where no event will come: a message that is overdue, a kernel that is short of
//!   something (its socket stays writable).
//! - No role, lock or turn is held while a future sleeps: one that is kept and not polled holds up
//!   nobody.
#![forbid(unsafe_code)]

mod channel;
mod listener;
mod reactor;
mod receiving;
mod sending;

pub use channel::AsyncChannel;
pub use listener::AsyncListener;
pub use receiving::AsyncReceiving;
pub use sending::AsyncSending;
