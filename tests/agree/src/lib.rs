//! Simulated and real agree: every script of the property tests that a kernel can be made to play
//! is played over a real socketpair too, and what driver and kernel make of it must be what the pure
//! machine makes of the simulated kernel, and what the reference model says.
//!
//! - [`plan`]: what a script means to a real kernel, and why some mean nothing to it
//! - [`stage`]: the peer and the channel, with real descriptors, limits and full sockets
//! - [`rehearsal`]: the same with the machine, tokens and the simulated kernel
//! - [`check`]: both, held against each other and against the model
//!
//! A package of its own: `proptests` does without the driver on purpose, and the library's own
//! tests without proptest.

pub mod plan;
pub mod rehearsal;
pub mod stage;
pub mod tally;

#[path = "../../support/room.rs"]
mod room;
#[path = "../../support/mod.rs"]
mod support;

use fdpost::{Error, Libcamera, Packet, Profile, Stream, Violation};
use fdpost_proptests::log::{Heard, Wire};
use fdpost_proptests::model::judge;
use fdpost_proptests::script::Script;
use fdpost_proptests::wires::VhostUser;
use std::ops::AddAssign;
use std::time::Duration;

use plan::{Beat, Patience, Plan, Refusal};
use rehearsal::Rehearsed;
use stage::Played;

/// What the receiver met at one moment, as its machine saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Met {
    /// One datagram, packet or read of a stream.
    Read {
        /// As far as there was room.
        bytes: Vec<u8>,
        /// What the kernel had.
        length: usize,
        /// Their numbers, as far as there was room.
        descriptors: Vec<u64>,
        /// MSG_CTRUNC.
        cut: bool,
        /// A control message that no wire has.
        unknown: bool,
        /// The driver knew that nothing more comes.
        end: bool,
    },
    /// Nothing was there.
    Block,
}

impl Met {
    /// An unknown control message takes the room of descriptors: how much, only its kernel knows.
    fn settled(self) -> Self {
        match self {
            Self::Read { bytes, length, unknown: true, end, .. } => {
                Self::Read { bytes, length, descriptors: Vec::new(), cut: false, unknown: true, end }
            }
            met => met,
        }
    }
}

/// What came of a script that was played.
#[derive(Debug)]
pub struct Outcome {
    pub heard: Vec<Heard>,
    /// A rule's name, "end" or "more".
    pub verdict: &'static str,
    /// What the real kernel was made to do, in both plays.
    pub feats: Feats,
}

/// How often a kernel did what a simulated one only claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feats {
    /// Sends that found the socket full.
    pub full: u64,
    /// Sends of which the process could not take all descriptors.
    pub lost: u64,
    /// Control messages that no wire has, made to come.
    pub unknown: u64,
    /// Descriptors sent.
    pub descriptors: u64,
    /// Messages that were begun and whose time was over.
    pub overdue: u64,
    /// Reads, "would block" among them, that were compared one by one.
    pub met: u64,
}

impl AddAssign for Feats {
    fn add_assign(&mut self, other: Self) {
        self.full += other.full;
        self.lost += other.lost;
        self.unknown += other.unknown;
        self.descriptors += other.descriptors;
        self.overdue += other.overdue;
        self.met += other.met;
    }
}

/// Plays a script on both stages: once as fast as it goes, and once with its pauses and every read
/// looked at.
///
/// # Errors
/// Why a kernel cannot be made to play it.
///
/// # Panics
/// Where the two do not agree.
pub fn check(script: &Script) -> Result<Outcome, Refusal> {
    match script.wire() {
        Wire::Libcamera => check_wire::<Libcamera>(script),
        Wire::Packet => check_wire::<Packet>(script),
        Wire::Stream => check_wire::<Stream>(script),
        Wire::VhostUser => check_wire::<VhostUser>(script),
    }
}

fn check_wire<P: Profile + 'static>(script: &Script) -> Result<Outcome, Refusal> {
    let hasty = play::<P>(script, Patience::Endless)?;
    let mut outcome = play::<P>(script, Patience::Watched)?;
    outcome.feats += hasty.feats;
    Ok(outcome)
}

fn play<P: Profile + 'static>(script: &Script, patience: Patience) -> Result<Outcome, Refusal> {
    let plan = Plan::of(script, patience)?;
    let Played { beats, heard, answer, received, met, mut feats } = stage::play::<P>(&plan)?;
    let (times, met): (Vec<Duration>, Vec<Met>) =
        met.into_iter().map(|(at, met)| (at, met.settled())).unzip();
    let simulated = rehearsal::rehearse::<P>(&plan, &beats, &times);
    let Rehearsed { log, heard: as_heard, answer: as_answer, received: as_received, met: as_met } = simulated;
    if matches!(patience, Patience::Watched) {
        let as_met: Vec<Met> = as_met.into_iter().map(Met::settled).collect();
        assert_eq!(met, as_met, "what was met, really and in the simulation");
    }
    assert_eq!((settled(answer), &heard), (as_answer, &as_heard), "the answer, really and in the simulation");
    assert_eq!(received, as_received, "the counters, really and in the simulation");
    let judged = judge(plan.wire, &plan.limits, &log);
    let verdict = name(answer);
    assert_eq!((verdict, &heard), (judged.verdict, &judged.messages), "the answer, really and the model's");
    let closed = beats.iter().any(|beat| matches!(beat, Beat::Close));
    feats.overdue = u64::from(verdict == "payload-missing" && !closed);
    feats.met = met.len() as u64;
    Ok(Outcome { heard, verdict, feats })
}

/// The simulation's control message that no wire has stands for any.
fn settled(answer: Error) -> Error {
    match answer {
        Error::Violation(Violation::ControlUnknown { .. }) => {
            Violation::ControlUnknown { level: 41, kind: 3 }.into()
        }
        answer => answer,
    }
}

/// A rule's name, "end" or "more".
fn name(answer: Error) -> &'static str {
    match answer {
        Error::Violation(violation) => violation.rule(),
        Error::Exhausted(exhausted) => exhausted.rule(),
        Error::Closed => "end",
        Error::WouldBlock => "more",
        error => panic!("{error:?} is no answer to a script"),
    }
}
