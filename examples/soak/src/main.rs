//! `make soak MINUTES=10`: processes that talk over channels, by calls and through a broker, half of
//! them hostile, all of them killed and halted now and then, for as long as one likes. What they hold
//! must stay flat, nobody honest may be blamed, and nothing honest may be lost, mixed or changed.
//!
//! `soak MINUTES [--svg FILE] [--seed NUMBER] [--plant DEFECT]`: exit code 1, if anything was not so.
//! `soak planted`: each planted defect makes it fail. The other roles are for itself.
//!
//! **Flat** means: between sessions a server has exactly the descriptors open that it began with, and a
//! broker one for each connection and one more for each that serves a name; and the median of what is
//! resident in the last fifth of the time is not above that of the second fifth by more than an eighth
//! and 1 MiB (`flat.rs`). The first fifth is the warm-up.

mod attacks;
mod brokered;
mod cast;
mod conductor;
mod content;
mod flat;
#[path = "../../../tests/support/grouped.rs"]
mod grouped;
mod part;
mod peer;
mod picture;
mod planted;
mod report;
mod server;
mod stage;
#[path = "../../../tests/support/mod.rs"]
mod support;
mod talk;

use std::process::ExitCode;
use std::time::Duration;

use fdpost::Address;

use part::{Part, WireName};

/// Longer than anything may take between two who are not halted for long. Who waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after =
        |option: &str| words.iter().position(|word| word == option).and_then(|at| words.get(at + 1)).cloned();
    let look = Duration::from_millis(after("--look").and_then(|look| look.parse().ok()).unwrap_or(1000));
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let wire = |at: usize| WireName::ALL.into_iter().nth(number(at)? as usize);
    let said = |what: Result<(), talk::Stop>| match what {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            report::say_failure(&format!("{}: {stop}", words.join(" ")));
            // Clients' standard output is nobody's. They are killed services' too, so this need not be a failure.
            if words.first().is_some_and(|role| role == "client")
                && words.get(2).is_some_and(|wire| wire == "0")
                && words.get(4).is_none()
            {
                eprintln!("soak: {}: {stop}", words.join(" "));
            }
            ExitCode::from(peer::FAILED)
        }
    };
    match words.first().map(String::as_str) {
        Some("peer") => match Part::parse(words.get(1..7).unwrap_or_default()) {
            Some(part) => ExitCode::from(peer::play(&part, words.get(7).map(String::as_str))),
            None => usage(),
        },
        Some("server") => match number(1) {
            Some(seed) => {
                stage::play(seed, look, after("--plant"));
                ExitCode::SUCCESS
            }
            None => usage(),
        },
        Some("broker") => match words.get(1) {
            Some(address) => said(
                brokered::broker(&Address::parse(address), look, after("--plant").as_deref())
                    .map_err(Into::into),
            ),
            None => usage(),
        },
        Some("service") => match (words.get(1), wire(2)) {
            (Some(address), Some(wire)) => said(brokered::service(&Address::parse(address), wire, look)),
            _ => usage(),
        },
        Some("client") => match (words.get(1), wire(2), number(3)) {
            (Some(address), Some(wire), Some(seed)) => {
                let attack = number(4).map(|number| number as usize);
                said(brokered::client(&Address::parse(address), wire, seed, attack))
            }
            _ => usage(),
        },
        Some("planted") => planted::all(),
        Some(minutes) => match minutes.parse::<f64>() {
            Ok(minutes) if minutes > 0.0 && minutes < 1e6 => {
                conductor::conduct(&conductor::Score::new(minutes, &words))
            }
            _ => usage(),
        },
        None => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: soak MINUTES [--svg FILE] [--seed NUMBER] [--plant memory|descriptor|broker|order|blame]"
    );
    ExitCode::from(64)
}
