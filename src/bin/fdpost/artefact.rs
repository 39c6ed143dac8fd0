//! What the fuzz target `receiver` found: bytes that stand for a script of a conversation.
//!
//! The modules below are the fuzzer's own: `proptests` includes the same files. One code gives an
//! artefact its meaning; a dependency would go in a circle, since `proptests` depends on this
//! package, and cargo packs no file of a package within a package, so they lie on this side.
#![allow(dead_code, unreachable_pub, reason = "proptests uses what the command does not")]

mod kernel;
mod log;
mod peer;
mod record;
mod script;
mod token;

use fdpost::transcript::{FIRST_LINE, Transcript};
use fdpost::{Libcamera, Packet, Stream};

use crate::exit::{Failure, Outcome};
use log::Wire;
use record::of_script;
use script::Script;

/// The conversation that the bytes of the file `name` stand for.
pub(crate) fn transcript(name: &str, bytes: &[u8]) -> Outcome<Transcript> {
    // As a script it would mean something, like any bytes, but nobody means that.
    if bytes.starts_with(FIRST_LINE.as_bytes()) {
        return Err(Failure::usage(format_args!("{name} is a transcript; leave --artefact out")));
    }
    let script = Script::from_bytes(bytes);
    match script.wire() {
        Wire::Libcamera => Ok(of_script::<Libcamera>(&script)),
        Wire::Packet => Ok(of_script::<Packet>(&script)),
        Wire::Stream => Ok(of_script::<Stream>(&script)),
        Wire::VhostUser => Err(Failure::usage(format_args!(
            "{name} is of the wire vhost-user, an example that this command does not know; replay it with \
             `cargo run --manifest-path proptests/Cargo.toml --example transcript -- --steps {name}`"
        ))),
    }
}
