//! `make model`: walks the real machines over every state and input under the alphabets of
//! [`fdpost_proptests::walk`], and fails where a promise is broken, or a row of the receiver's table
//! is not taken.
//!
//! `model [--depth N] [NAME...]`: scripts of up to N (4) inputs for the machines whose states have no
//! end, N - 2 messages in a sender's queue; only the machines that are named.

#[path = "../../tests/support/grouped.rs"]
mod grouped;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fdpost::machine::table::{Input, ROWS, State};
use fdpost::{Libcamera, Limits, Packet, Profile, Stream};
use fdpost_proptests::log::Wire;
use fdpost_proptests::walk::receiver::alphabet::{Alphabet, DESCRIPTORS, LARGE, LARGE_PACKET, PAYLOAD};
use fdpost_proptests::walk::receiver::{Scope, Walk};
use fdpost_proptests::walk::{Broken, Walked, keep_panics, policies, scripts, sender, walk};
use fdpost_proptests::wires::VhostUser;
use grouped::grouped;

fn main() -> ExitCode {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let mut depth = 4;
    if let Some(at) = names.iter().position(|name| name == "--depth") {
        let number = names.get(at + 1).and_then(|number| number.parse().ok());
        let Some(number) = number else {
            eprintln!("--depth wants a number of inputs");
            return ExitCode::from(64);
        };
        depth = usize::max(number, 3);
        names.drain(at..at + 2);
    }
    if let Some(name) = names.iter().find(|name| MACHINES.iter().all(|(known, _)| known != name)) {
        eprintln!("no machine {name}; there are {}", MACHINES.map(|(name, _)| name).join(", "));
        return ExitCode::from(64);
    }
    keep_panics();
    let mut failed = false;
    for (name, run) in MACHINES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            let started = Instant::now();
            match run(depth) {
                Ok(evidence) => {
                    println!("{name}: {:.1} s", started.elapsed().as_secs_f64());
                    println!("evidence: model: {name}: {evidence}");
                }
                Err(why) => {
                    println!("model: {name}: {why}");
                    failed = true;
                }
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

type Run = fn(usize) -> Result<String, String>;

const MACHINES: [(&str, Run); 10] = [
    ("libcamera", libcamera),
    ("packet", packet),
    ("stream", stream),
    ("vhost-user", vhost_user),
    ("senders", senders),
    ("policies", |_| {
        Ok(format!(
            "all {} judgements of a demand and what came",
            grouped(broken(policies::policies())?.steps)
        ))
    }),
    ("calls", calls),
    ("broker", registry),
    ("send_fd", |depth| Ok(all("byte strings", &broken(scripts::two_bytes(depth + 5))?))),
    ("control", |depth| {
        Ok(all("lists of control messages, each damaged", &broken(scripts::controls(depth - 2))?))
    }),
];

/// The payload bytes and descriptors that are accepted, hunks of a batch, and whether the user polls
/// into one message again and again.
type Of = (u32, u8, u16, bool);

fn scope(wire: Wire, alphabet: Alphabet, (payload, descriptors, batch, reuse): Of) -> Scope {
    // A microsecond for a byte, so that what is read late moves the deadline by little.
    let limits = Limits::new().payload(payload).descriptors(descriptors).minimum_rate(1_000_000);
    let limits = limits.assembly_timeout(Duration::from_millis(100));
    let (rows, rules) = (RefCell::default(), RefCell::default());
    Scope { wire, limits, batch, reuse, alphabet, rows, rules }
}

fn libcamera(_: usize) -> Result<String, String> {
    let of = |alphabet, of| scope(Wire::Libcamera, alphabet, of);
    receiver::<Libcamera>(
        "datagrams",
        &[
            ("one at a time", of(Alphabet::libcamera(), (PAYLOAD, DESCRIPTORS, 1, false))),
            ("no descriptors accepted", of(Alphabet::libcamera(), (PAYLOAD, 0, 1, true))),
            ("three at a time", of(Alphabet::libcamera_batches(false), (PAYLOAD, 1, 4, true))),
            ("read in place", of(Alphabet::libcamera_large(), (LARGE, 1, 1, true))),
            ("in place, three at a time", of(Alphabet::libcamera_batches(true), (LARGE, 1, 4, false))),
        ],
    )
}

fn packet(_: usize) -> Result<String, String> {
    let of = |alphabet, of| scope(Wire::Packet, alphabet, of);
    receiver::<Packet>(
        "packets",
        &[
            ("one at a time", of(Alphabet::packet(), (PAYLOAD, DESCRIPTORS, 1, false))),
            ("no descriptors accepted", of(Alphabet::packet(), (PAYLOAD, 0, 1, true))),
            ("three at a time", of(Alphabet::packet_batches(), (PAYLOAD, 1, 3, true))),
            ("taken over with their buffer", of(Alphabet::packet_large(), (LARGE_PACKET, 17, 1, true))),
        ],
    )
}

fn stream(_: usize) -> Result<String, String> {
    let of = |alphabet, of| scope(Wire::Stream, alphabet, of);
    receiver::<Stream>(
        "headers",
        &[
            ("cut anywhere", of(Alphabet::stream(Wire::Stream), (PAYLOAD, DESCRIPTORS, 1, false))),
            ("read in place", of(Alphabet::stream_large(Wire::Stream), (LARGE, 1, 1, true))),
        ],
    )
}

fn vhost_user(_: usize) -> Result<String, String> {
    let of = |alphabet, of| scope(Wire::VhostUser, alphabet, of);
    receiver::<VhostUser>(
        "headers",
        &[
            ("cut anywhere", of(Alphabet::stream(Wire::VhostUser), (PAYLOAD, DESCRIPTORS, 1, false))),
            ("read in place", of(Alphabet::stream_large(Wire::VhostUser), (LARGE, 1, 1, true))),
        ],
    )
}

/// Walks a wire's receiver in several ways; all of them are walked to the end.
fn receiver<P: Profile>(of_what: &str, scopes: &[(&str, Scope)]) -> Result<String, String> {
    let (mut states, mut steps, mut alphabet) = (0, 0, 0);
    let (mut rows, mut rules) = (BTreeSet::new(), BTreeSet::new());
    for (name, scope) in scopes {
        let walked = walk(&|| Walk::<P>::new(scope), usize::MAX).map_err(|broken| told(name, &broken))?;
        tell(&format!("{}, {name}", P::NAME), &walked);
        states += walked.states;
        steps += walked.steps;
        alphabet += scope.alphabet.size();
        rows.extend(scope.rows.borrow().iter().copied());
        rules.extend(scope.rules.borrow().iter().copied());
    }
    let broken = rules.iter().filter(|rule| !["more", "end"].contains(rule)).count();
    println!("{}: answers {}", P::NAME, rules.iter().copied().collect::<Vec<_>>().join(", "));
    let mut never: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (row, number) in ROWS.iter().zip(0..) {
        match (rows.contains(&number), impossible(P::NAME, row.state, row.input)) {
            (true, None) => {}
            (false, Some(why)) => {
                never.entry(why).or_default().push(format!("{:?} x {:?}", row.state, row.input))
            }
            (false, None) => return Err(format!("{:?} x {:?} was never taken", row.state, row.input)),
            (true, Some(why)) => {
                return Err(format!("{:?} x {:?} was taken, although {why}", row.state, row.input));
            }
        }
    }
    for (why, rows) in &never {
        println!("{}: never {}: {why}", P::NAME, rows.join(", "));
    }
    Ok(format!(
        "{} states, {} steps, alphabet of {} {of_what}; {} of {} rows taken, {} cannot be; {broken} rules broken",
        grouped(states as u64),
        grouped(steps),
        grouped(alphabet as u64),
        rows.len(),
        ROWS.len(),
        ROWS.len() - rows.len(),
    ))
}

/// Every wire's sender, walked to the end with `depth - 2` messages in the queue.
fn senders(depth: usize) -> Result<String, String> {
    let queue = depth.saturating_sub(2).max(1);
    let scope = |wire| sender::Scope { wire, queue };
    let [a, b, c, d] = [Wire::Libcamera, Wire::Packet, Wire::Stream, Wire::VhostUser].map(scope);
    let (mut states, mut steps) = (0, 0);
    let mut add = |name: &str, walked: Result<Walked, Box<Broken>>| {
        let walked = walked.map_err(|broken| told(name, &broken))?;
        tell(name, &walked);
        (states, steps) = (states + walked.states as u64, steps + walked.steps);
        Ok::<(), String>(())
    };
    add("libcamera, sending", walk(&|| sender::Walk::<Libcamera>::new(&a), usize::MAX))?;
    add("packet, sending", walk(&|| sender::Walk::<Packet>::new(&b), usize::MAX))?;
    add("stream, sending", walk(&|| sender::Walk::<Stream>::new(&c), usize::MAX))?;
    add("vhost-user, sending", walk(&|| sender::Walk::<VhostUser>::new(&d), usize::MAX))?;
    let (states, steps) = (grouped(states), grouped(steps));
    Ok(format!("{states} states, {steps} steps over 4 wires, {queue} messages in the queue"))
}

/// Calls over each wire that has them: to the end, and every script of an alphabet with fewer bounds.
fn calls(depth: usize) -> Result<String, String> {
    let closed = broken(fdpost_proptests::calls::closed())?;
    tell("calls", &closed);
    let mut sum = Walked { depth, ..Walked::default() };
    for wire in 0..3 {
        let walked = broken(scripts::calls(wire, depth))?;
        (sum.states, sum.steps) = (sum.states + walked.states, sum.steps + walked.steps);
    }
    Ok(format!("{} over 3 wires and 2 roles; {}", to_the_end(&closed), all("scripts", &sum)))
}

fn registry(depth: usize) -> Result<String, String> {
    let closed = broken(fdpost_proptests::broker::closed())?;
    tell("broker", &closed);
    Ok(format!("{}; {}", to_the_end(&closed), all("scripts", &broken(scripts::registry(depth))?)))
}

fn to_the_end(walked: &Walked) -> String {
    assert!(walked.closed, "nothing bounds this walk");
    format!("{} states, {} steps", grouped(walked.states as u64), grouped(walked.steps))
}

fn broken(walked: Result<Walked, Box<Broken>>) -> Result<Walked, String> {
    walked.map_err(|broken| told("a script", &broken))
}

fn all(what: &str, walked: &Walked) -> String {
    let Walked { states, steps, depth, .. } = *walked;
    format!("all {} {what} of up to {depth}, {} steps", grouped(states as u64), grouped(steps))
}

/// Why a wire never takes a row of the table.
fn impossible(wire: &str, state: State, input: Input) -> Option<&'static str> {
    match (wire, state, input) {
        ("libcamera" | "packet", State::Header, _) | ("libcamera" | "packet", _, Input::Bytes) => {
            Some("a datagram or packet comes whole, so no part of a message is cut")
        }
        ("libcamera", State::Idle, Input::Message) => Some("a message is two datagrams"),
        ("libcamera" | "packet" | "vhost-user", State::Body, Input::Part) => {
            Some("a header is followed by one part")
        }
        ("packet", State::Body, Input::End | Input::Overdue) => Some("no message goes on in another packet"),
        ("stream", State::Idle | State::Header, Input::Message) => {
            Some("a header is followed by a payload, be it of 0 bytes")
        }
        _ => None,
    }
}

fn tell(name: &str, walked: &Walked) {
    let Walked { states, steps, depth, closed } = *walked;
    let all = if closed { "all of them" } else { "of what longer scripts reach nothing is known" };
    println!("{name}: {states} states, {steps} steps, scripts of up to {depth} inputs: {all}");
}

fn told(name: &str, broken: &Broken) -> String {
    let Broken { walked, script, said } = broken;
    let script = script.join("\n    ");
    format!("{name}: {said}, after {} states by the script\n    {script}", grouped(walked.states as u64))
}
