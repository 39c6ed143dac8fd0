//! What the property tests and the fuzz targets of `fdpost` share: generators, a descriptor type
//! that counts its owners, the reference model, and the oracles that hold the core against it.
//!
//! - [`script`]: a conversation as a list of steps, and [`peer`]: what it puts on the wire
//! - [`kernel`]: what recvmsg(2) makes of that
//! - [`model`]: what `docs/PROTOCOL.md` says about it, slow and obvious
//! - [`oracle`], [`sender`], [`control`], [`send_fd`]: what must hold
//!
//! What the command `fdpost` needs too, to replay what a fuzzer found, lies with it.
//!
//! An oracle panics where a promise is broken, so that it serves a test and a fuzz target alike.

pub mod control;
#[path = "../../src/bin/fdpost/script/kernel.rs"]
pub mod kernel;
#[path = "../../src/bin/fdpost/script/log.rs"]
pub mod log;
pub mod model;
pub mod oracle;
#[path = "../../src/bin/fdpost/script/peer.rs"]
pub mod peer;
#[path = "../../src/bin/fdpost/script/record.rs"]
pub mod record;
#[path = "../../src/bin/fdpost/script/script.rs"]
pub mod script;
pub mod send_fd;
pub mod sender;
pub mod strategy;
#[path = "../../src/bin/fdpost/script/token.rs"]
pub mod token;
pub mod transcript;
#[path = "../../tests/support/wires.rs"]
pub mod wires;
