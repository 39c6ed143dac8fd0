//! The log of a conversation as a transcript and back, and what must hold of both.

use fdpost::transcript::{Decision, Direction, Event, Happened, Transcript, Verdict, replay};
use fdpost::{Libcamera, Packet, Profile, Stream};

use crate::log::{self, Heard, Wire};
use crate::oracle::{Outcome, rule};
use crate::reach::note;
use crate::record::{self, Recorded, of_log};
use crate::script::Script;
use crate::wires::VhostUser;

/// The most payload that a stranger's transcript may make a replay hold.
const PAYLOAD_MOST: u32 = 1 << 20;

/// A transcript as the log of its first side, descriptors numbered as they came.
pub fn to_log(transcript: &Transcript) -> Vec<log::Event> {
    let mut next = 0;
    let mut log = Vec::new();
    for event in transcript.events.iter().filter(|event| event.direction == Direction::Forth) {
        let Happened::Read(read) = &event.happened else {
            log.push(log::Event::Block(event.at));
            continue;
        };
        let end = next + u64::from(read.descriptors);
        log.push(log::Event::Read(log::Read {
            at: event.at,
            bytes: read.bytes.clone(),
            descriptors: (next..end).collect(),
            cut: read.control_cut,
            malformed: read.malformed.is_some(),
            unknown: read.unknown.is_some(),
            end: read.end,
        }));
        next = end;
    }
    log
}

/// The wire's name in a transcript.
pub fn name(wire: Wire) -> &'static str {
    match wire {
        Wire::Libcamera => Libcamera::NAME,
        Wire::Packet => Packet::NAME,
        Wire::Stream => Stream::NAME,
        Wire::VhostUser => VhostUser::NAME,
    }
}

/// What a replay of the first side comes to; descriptors by their number in the transcript.
pub fn replayed(wire: Wire, transcript: &Transcript) -> (Vec<Heard>, Verdict) {
    match wire {
        Wire::Libcamera => replayed_as::<Libcamera>(transcript),
        Wire::Packet => replayed_as::<Packet>(transcript),
        Wire::Stream => replayed_as::<Stream>(transcript),
        Wire::VhostUser => replayed_as::<VhostUser>(transcript),
    }
}

fn replayed_as<P: Profile>(transcript: &Transcript) -> (Vec<Heard>, Verdict) {
    let mut heard = Vec::new();
    let mut number = 0;
    let verdicts = replay::<P>(transcript, &mut |step| {
        assert!(step.number == number || step.number == number + 1, "every event is told, in order");
        number = step.number;
        assert!(!step.to_string().contains('\n'));
        if let Decision::Message(message) = step.decision {
            let descriptors = (0..message.descriptor_count()).filter_map(|at| message.descriptor(at));
            let (head, payload) = (*message.head(), message.payload().to_vec());
            heard.push(Heard { head, payload, descriptors: descriptors.copied().collect() });
        }
    });
    let verdicts = verdicts.expect("a transcript of this wire");
    for verdict in &verdicts {
        if let Verdict::Fault(fault) = verdict {
            note(rule(fault));
        }
    }
    let [forth, _] = verdicts;
    (heard, forth)
}

/// What a receiver met, replayed from its transcript's text, gives the same messages and the same
/// verdict with the same numbers.
pub fn check_script(script: &Script) -> Outcome {
    let wire = script.wire();
    let (outcome, log) = record(script);
    let transcript = of_log(name(wire), script.limits(), &log);
    let text = transcript.to_string();
    let parsed: Transcript = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(parsed, transcript, "parse(display(x)) == x");
    let again = of_log(name(wire), script.limits(), &to_log(&transcript));
    assert_eq!(again, transcript, "the log comes back");

    // Numbers of the kernel: those lost on the way have one too.
    let ids: Vec<u64> = transcript
        .events
        .iter()
        .zip(&log)
        .flat_map(|(event, logged)| match (&event.happened, logged) {
            (Happened::Read(read), log::Event::Read(logged)) => {
                logged.descriptors[..read.descriptors.into()].to_vec()
            }
            _ => Vec::new(),
        })
        .collect();
    let (mut heard, verdict) = replayed(wire, &parsed);
    for descriptor in heard.iter_mut().flat_map(|heard| &mut heard.descriptors) {
        *descriptor = ids[usize::try_from(*descriptor).expect("a number")];
    }
    assert_eq!((heard, verdict.name()), (outcome.heard.clone(), outcome.verdict), "{text}");
    if let Verdict::Fault(fault) = verdict {
        assert_eq!(Some(fault), outcome.fault);
    }
    outcome
}

/// Any bytes as a transcript: what a fuzz target calls. A text that is one comes back from its own
/// display, takes memory in proportion, and can be replayed on whatever wire it names.
pub fn check_bytes(bytes: &[u8]) {
    let Ok(transcript) = Transcript::from_bytes(bytes) else { return };
    assert_eq!(transcript.to_string().parse(), Ok(transcript.clone()), "parse(display(x)) == x");
    let held: usize = transcript.events.iter().map(held).sum();
    assert!(held <= 16 * bytes.len(), "{held} bytes held of {}", bytes.len());
    let limits = transcript.limits();
    let mut small = Transcript::new(
        transcript.wire(),
        transcript.sides(),
        limits.payload(limits.payload.min(PAYLOAD_MOST)),
    )
    .expect("the limits were parsed");
    small.events = transcript.events;
    for wire in [Wire::Libcamera, Wire::Packet, Wire::Stream, Wire::VhostUser] {
        if name(wire) == small.wire() {
            drop(replayed(wire, &small));
        }
    }
}

fn held(event: &Event) -> usize {
    let read = match &event.happened {
        Happened::Block => 0,
        Happened::Read(read) => read.bytes.capacity() + read.kinds().map(str::len).sum::<usize>(),
    };
    size_of::<Event>() + read
}

/// What a script's receiver meets, and what comes of it.
pub fn record(script: &Script) -> (Outcome, Vec<log::Event>) {
    let recorded = match script.wire() {
        Wire::Libcamera => record::record::<Libcamera>(script),
        Wire::Packet => record::record::<Packet>(script),
        Wire::Stream => record::record::<Stream>(script),
        Wire::VhostUser => record::record::<VhostUser>(script),
    };
    let Recorded { log, heard, verdict } = recorded;
    let fault = if let Verdict::Fault(fault) = verdict { Some(fault) } else { None };
    let verdict = fault.as_ref().map_or(verdict.name(), rule);
    (Outcome { heard, verdict, fault }, log)
}

/// A script's conversation as a transcript.
pub fn of_script(script: &Script) -> Transcript {
    match script.wire() {
        Wire::Libcamera => record::of_script::<Libcamera>(script),
        Wire::Packet => record::of_script::<Packet>(script),
        Wire::Stream => record::of_script::<Stream>(script),
        Wire::VhostUser => record::of_script::<VhostUser>(script),
    }
}
