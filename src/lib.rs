//! Whole messages with file descriptors between processes that do not trust each other, or a
//! typed error.
//!
//! A sans-IO core ([`machine`]) turns what the kernel handed over into validated messages and
//! refuses everything else; a thin driver (`Channel`, feature `driver`) moves the bytes over
//! `AF_UNIX` sockets. What a peer may send is the business of a [`profile`].
//!
//! Imports go one way: [`accept`], [`error`], [`limits`] <- [`message`] <- [`wire`] <- [`profile`] <-
//! [`machine`] <- `outbox` <- [`calls`] <- `driver` <- the command. The core has no clock, no system
//! call, no `OwnedFd` and no `unsafe`; without the feature `driver` the crate is `no_std` with
//! `alloc`.
#![cfg_attr(
    feature = "driver",
    doc = r#"
```
use fdpost::{Channel, Deadline, Limits, Message, Packet};
use std::time::Duration;

let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(4))?;
let mut other = Channel::<Packet>::from_fd(theirs, Limits::new())?; // usually another process
ours.send(Message::new(b"frame 7"))?;
let message = other.receive_by(Deadline::after(Duration::from_secs(1)))?;
assert_eq!(message.payload(), b"frame 7");
# Ok::<(), Box<dyn std::error::Error>>(())
```
"#
)]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod accept;
#[cfg(feature = "broker")]
pub mod broker;
pub mod calls;
pub mod error;
pub mod limits;
pub mod machine;
pub mod message;
pub mod profile;
pub mod send_fd;
pub mod wire;

#[cfg(feature = "std")]
pub mod outbox;
#[cfg(feature = "std")]
mod sync;
#[cfg(feature = "transcript")]
pub mod transcript;

#[cfg(feature = "driver")]
pub mod driver;

pub use accept::{Accept, Policy, Seals};
#[cfg(feature = "broker")]
pub use broker::Refusal;
pub use error::{Exhausted, Fault, Misuse, Violation};
pub use limits::Limits;
pub use message::Head;
pub use profile::{Libcamera, Packet, Profile, Stream};

#[cfg(feature = "driver")]
pub use driver::{
    Activated, Address, Calls, Channel, Closer, Credentials, Deadline, Error, Listener, Listening, Memfd,
    PeerRule, Reaper, Receiving, SendError, Sending, Sent, Stats, Transport, activated, inherited,
};
#[cfg(all(feature = "broker", feature = "driver"))]
pub use driver::{Broker, BrokerClient, BrokerEvent};

#[cfg(feature = "tokio")]
pub use driver::{AsyncChannel, AsyncListener, AsyncReceiving, AsyncSending};

/// A message as a [`Channel`] carries it: its descriptors are `OwnedFd`.
#[cfg(feature = "driver")]
pub type Message = message::Message<std::os::fd::OwnedFd>;

/// The README's code is compiled and run like any other documentation.
#[cfg(all(doctest, feature = "driver"))]
#[doc = include_str!("../README.md")]
struct Readme;
