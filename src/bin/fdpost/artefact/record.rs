//! What a script's receiver meets and what comes of it, and the same as a transcript. Generic over
//! the wire: whoever includes this knows which there are.

use fdpost::error::Malformed;
use fdpost::machine::{Receiver, table::State};
use fdpost::transcript::{Direction, Event, Happened, Read, Transcript, Verdict};
use fdpost::{Limits, Packet, Profile};

use std::time::Duration;

use super::kernel::Kernel;
use super::log::{self, Heard};
use super::peer::{Act, acts};
use super::script::Script;
use super::token::{Ledger, Token};

/// What a receiver met, and what came of it.
pub struct Recorded {
    pub log: Vec<log::Event>,
    pub heard: Vec<Heard>,
    pub verdict: Verdict,
}

/// Plays a script to a receiver of its wire, which is `P`.
pub fn record<P: Profile>(script: &Script) -> Recorded {
    let cuts: Vec<usize> = script.cuts.iter().map(|cut| usize::from(*cut)).collect();
    let mut kernel = Kernel::new(script.wire(), Ledger::default(), &cuts);
    let batch = u16::from(script.batch % 20);
    let receiver = Receiver::<P, Token>::new(script.limits()).expect("a script's limits are within range");
    let (mut receiver, mut heard) = (receiver.batch(batch), Vec::new());
    let mut now = Duration::from_secs(1);
    for act in acts(script) {
        match act {
            Act::Send(sent) => kernel.send(sent),
            Act::Close => kernel.close(),
            Act::Wait(milliseconds) => now += Duration::from_millis(milliseconds.into()),
            Act::Drain => while poll(&mut receiver, &mut heard) && read(&mut receiver, &mut kernel, now) {},
        }
    }
    let verdict = match (receiver.fault(), receiver.state()) {
        (Some(fault), _) => Verdict::Fault(fault),
        (None, State::Ended) => Verdict::End,
        (None, _) => Verdict::More,
    };
    Recorded { log: kernel.log, heard, verdict }
}

/// Takes every message that is whole. `false` after a fault.
fn poll<P: Profile>(receiver: &mut Receiver<P, Token>, heard: &mut Vec<Heard>) -> bool {
    loop {
        let mut message = match receiver.poll() {
            Ok(Some(message)) => message,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let descriptors = message.take_all().map(|token| token.id()).collect();
        heard.push(Heard { head: *message.head(), payload: message.into_payload(), descriptors });
    }
}

/// One read. `false` if nothing more can be read now.
fn read<P: Profile>(receiver: &mut Receiver<P, Token>, kernel: &mut Kernel, now: Duration) -> bool {
    let Ok(Some(hunks)) = receiver.windows() else { return false };
    let filled = kernel.receive(now, hunks);
    receiver.handle(now, filled);
    if filled == 0 {
        kernel.log.push(log::Event::Block(now));
    }
    filled > 0
}

/// A script's conversation as a transcript; its wire is `P`.
pub fn of_script<P: Profile>(script: &Script) -> Transcript {
    of_log(P::NAME, script.limits(), &record::<P>(script).log)
}

/// A log as a transcript in which the first side speaks. Descriptors beyond the room that such a
/// receiver offers never left the kernel.
pub fn of_log(wire: &str, limits: Limits, log: &[log::Event]) -> Transcript {
    let mut transcript = Transcript::new(wire, ["peer", "receiver"], limits).expect("limits in range");
    let limit = usize::from(limits.descriptors);
    let room = if wire == Packet::NAME && limit > 0 { limit.max(16) } else { limit } + 1;
    transcript.events = log.iter().map(|event| of_event(event, room)).collect();
    transcript
}

fn of_event(event: &log::Event, room: usize) -> Event {
    let direction = Direction::Forth;
    let read = match event {
        log::Event::Block(at) => return Event { direction, at: *at, happened: Happened::Block },
        log::Event::Read(read) => read,
    };
    let mut met = Read::default();
    met.bytes.clone_from(&read.bytes);
    met.descriptors = u16::try_from(read.descriptors.len().min(room)).expect("few descriptors");
    met.control_cut = read.cut || read.descriptors.len() > room;
    met.malformed = read.malformed.then_some(Malformed::NegativeDescriptor { value: -24 });
    met.unknown = read.unknown.then_some((41, 3));
    met.end = read.end;
    Event { direction, at: read.at, happened: Happened::Read(met) }
}
