//! Moving the bytes: channels over `AF_UNIX` sockets (unix(7)).
//!
//! No type of `nix` or `libc` stands in a public signature. Unsafe code lives in `sys` alone.

mod address;
#[cfg(feature = "tokio")]
mod asynchronous;
mod bell;
#[cfg(feature = "broker")]
mod broker;
mod calls;
mod channel;
mod credentials;
mod deadline;
mod error;
mod handshake;
mod lines;
mod listener;
mod memfd;
mod policy;
mod reaper;
mod receiving;
mod send_fd;
mod sending;
mod socket;
mod spin;
mod stats;
mod sys;
mod transport;
mod wait;

pub use address::Address;
#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncChannel, AsyncListener, AsyncReceiving, AsyncSending};
#[cfg(feature = "broker")]
pub use broker::{
    Broker, BrokerClient, BrokerEvent, BrokerStats, Departure, Fresh, HAND_OVERS_MOST, UNANSWERED_MOST,
};
pub use calls::{Calls, Event};
pub use channel::{Channel, Closer, Sent, Unattached};
pub use credentials::{Credentials, PeerRule};
pub use deadline::Deadline;
pub use error::{Error, SendError};
pub use listener::{Activated, Listener, Listening, activated};
pub use memfd::{Mapped, Memfd};
pub use reaper::Reaper;
pub use receiving::Receiving;
pub use send_fd::{
    FdReply, receive_fd, receive_fd_accepting, receive_fd_from, receive_fd_within, send_error, send_fd,
};
pub use sending::Sending;
pub use stats::Stats;
pub use sys::inherited;
pub use transport::Transport;
