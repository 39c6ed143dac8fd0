//! What the property tests and the fuzz targets of `fdpost` share: generators, a descriptor type
//! that counts its owners, the reference model, and the oracles that hold the core against it.
//!
//! - [`script`]: a conversation as a list of steps, and [`peer`]: what it puts on the wire
//! - [`kernel`]: what recvmsg(2) makes of that, and [`record`]: what a receiver does with it
//! - [`model`]: what `docs/PROTOCOL.md` says about it, slow and obvious
//! - [`oracle`], [`sender`], [`control`], [`send_fd`], [`broker`], [`calls`], [`conversation`]: what
//!   must hold
//! - [`reach`]: which rules each fuzz target can break
//!
//! An oracle panics where a promise is broken, so that it serves a test and a fuzz target alike.

pub mod broker;
pub mod calls;
pub mod control;
pub mod conversation;
pub mod model;
pub mod oracle;
pub mod reach;
pub mod send_fd;
pub mod sender;
#[cfg(feature = "strategies")]
pub mod strategy;
pub mod transcript;
pub mod walk;
#[path = "../../tests/support/wires.rs"]
pub mod wires;

// They lie in the command's directory: `fdpost replay --artefact` must read a script as this does,
// cannot depend on this package, and cargo would not pack files of this one with it.
#[path = "../../src/bin/fdpost/artefact/kernel.rs"]
pub mod kernel;
#[path = "../../src/bin/fdpost/artefact/log.rs"]
pub mod log;
#[path = "../../src/bin/fdpost/artefact/peer.rs"]
pub mod peer;
#[path = "../../src/bin/fdpost/artefact/record.rs"]
pub mod record;
#[path = "../../src/bin/fdpost/artefact/script.rs"]
pub mod script;
#[path = "../../src/bin/fdpost/artefact/token.rs"]
pub mod token;
