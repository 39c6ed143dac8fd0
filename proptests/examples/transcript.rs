//! Turns what the fuzz target `receiver` found into a transcript, to keep or to edit:
//! `cargo run --example transcript -- ARTEFACT > FILE`. With `--steps` it is replayed here, on any
//! wire; `fdpost replay --artefact` knows all but `vhost-user`.

use std::process::ExitCode;
use std::{env, fs};

use fdpost::transcript::{Step, replay};
use fdpost::{Libcamera, Packet, Stream};
use fdpost_proptests::log::Wire;
use fdpost_proptests::script::Script;
use fdpost_proptests::transcript::of_script;
use fdpost_proptests::wires::VhostUser;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = env::args_os().skip(1).collect();
    let before = arguments.len();
    arguments.retain(|argument| argument != "--steps");
    let steps = arguments.len() < before;
    let [file] = &arguments[..] else {
        eprintln!("usage: transcript [--steps] ARTEFACT");
        return ExitCode::from(64);
    };
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("reading {}: {error}", file.display());
            return ExitCode::from(74);
        }
    };
    let script = Script::from_bytes(&bytes);
    let transcript = of_script(&script);
    if !steps {
        print!("{transcript}");
        return ExitCode::SUCCESS;
    }
    let tell = &mut |step: Step<'_>| println!("{step}");
    let verdicts = match script.wire() {
        Wire::Libcamera => replay::<Libcamera>(&transcript, tell),
        Wire::Packet => replay::<Packet>(&transcript, tell),
        Wire::Stream => replay::<Stream>(&transcript, tell),
        Wire::VhostUser => replay::<VhostUser>(&transcript, tell),
    };
    println!("{}", verdicts.map_or_else(|error| error.to_string(), |[forth, _]| forth.name().to_owned()));
    ExitCode::SUCCESS
}
