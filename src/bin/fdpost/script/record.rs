//! What a script's receiver meets, written down. This directory is part of the command `fdpost` and
//! of the package `proptests`: one code gives the bytes that a fuzzer found their meaning.

use fdpost::Limits;
use fdpost::Profile;
use fdpost::error::Malformed;
use fdpost::machine::Receiver;
use fdpost::transcript::{Direction, Event, Happened, Read, Transcript};
use std::time::Duration;

use crate::kernel::Kernel;
use crate::log::{self, Heard, Wire};
use crate::peer::{Act, acts};
use crate::script::Script;
use crate::token::{Ledger, Token};

/// A log as a transcript in which the first side speaks. Descriptors beyond the room that such a
/// receiver offers never left the kernel.
pub fn transcript(wire: Wire, name: &str, limits: Limits, log: &[log::Event]) -> Transcript {
    let mut transcript = Transcript::new(name, ["peer", "receiver"], limits).expect("limits in range");
    let limit = usize::from(limits.descriptors);
    let room = if wire == Wire::Packet && limit > 0 { limit.max(16) } else { limit } + 1;
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

/// Plays a script to a receiver of its wire, which must be `P`: the receiver as it ends, what it
/// heard, and what it met.
pub fn run<P: Profile>(script: &Script) -> (Receiver<P, Token>, Vec<Heard>, Vec<log::Event>) {
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
    (receiver, heard, kernel.log)
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
