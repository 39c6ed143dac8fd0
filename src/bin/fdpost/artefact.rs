//! What the fuzz target `receiver` found: bytes that are a script of the package `proptests`.

use fdpost::transcript::Transcript;
use fdpost::{Libcamera, Packet, Profile, Stream};

use crate::exit::{self, Failure};
use crate::log::Wire;
use crate::record;
use crate::script::Script;

/// The conversation that these bytes stand for. `name` is the file's.
pub(crate) fn transcript(bytes: &[u8], name: &str) -> exit::Outcome<Transcript> {
    let script = Script::from_bytes(bytes);
    match script.wire() {
        Wire::Libcamera => Ok(of::<Libcamera>(&script)),
        Wire::Packet => Ok(of::<Packet>(&script)),
        Wire::Stream => Ok(of::<Stream>(&script)),
        Wire::VhostUser => Err(Failure::usage(format_args!(
            "{name} is of the wire vhost-user, an example's; `cargo run --manifest-path proptests/Cargo.toml \
             --example transcript -- --steps {name}` replays it"
        ))),
    }
}

fn of<P: Profile>(script: &Script) -> Transcript {
    let (_, _, log) = record::run::<P>(script);
    record::transcript(script.wire(), P::NAME, script.limits(), &log)
}
