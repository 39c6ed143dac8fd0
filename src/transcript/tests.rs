use super::*;
use crate::error::{Fault, Violation};
use crate::{Libcamera, Packet, Stream};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;

const HEAD: &str = "fdpost-transcript 1\nwire stream\nsides one two\nlimits payload=9 descriptors=2 \
    held-bytes=0 held-descriptors=0 timeout=1.500000000 rate=1000000\n";

fn parse(events: &str) -> Result<Transcript, ParseError> {
    format!("{HEAD}{events}").parse()
}

/// Everything that a read can say.
fn full() -> Read {
    let read = Read {
        bytes: vec![0, 255],
        cut_bytes: 7,
        descriptors: 2,
        control_cut: true,
        malformed: Some(Malformed::NegativeDescriptor { value: -24 }),
        unknown: Some((41, -3)),
        end: true,
        ..Read::default()
    };
    read.with_kinds(["memfd", "a b"])
}

#[test]
fn the_text_is_as_documented_and_comes_back() {
    let limits = Limits::new().payload(9).descriptors(2).held_bytes(0).held_descriptors(0);
    let limits = limits.assembly_timeout(Duration::from_millis(1500)).minimum_rate(1_000_000);
    let mut transcript = Transcript::new("stream", ["one", "two"], limits).unwrap();
    let at = Duration::new(3, 14);
    transcript.events.push(Event { direction: Direction::Forth, at, happened: Happened::Read(full()) });
    transcript.events.push(Event { direction: Direction::Back, at, happened: Happened::Block });
    let text = transcript.to_string();
    let lines = "> 3.000000014 read bytes=00ff cut-bytes=7 descriptors=2 kinds=memfd,a-b control-cut \
        malformed=negative-descriptor/-24/0 unknown=41/-3 end\n< 3.000000014 block\n";
    assert_eq!(text, format!("{HEAD}{lines}"));
    assert_eq!(text.parse(), Ok(transcript.clone()));
    assert_eq!(Transcript::from_bytes(text.as_bytes()), Ok(transcript));
}

#[test]
fn every_way_of_being_malformed_comes_back() {
    for malformed in [
        Malformed::HeaderCut { remaining: 3, header: 16 },
        Malformed::LengthBelowHeader { length: 0, header: 16 },
        Malformed::LengthBeyondBuffer { length: u64::MAX, remaining: 24 },
        Malformed::ArrayLength { length: 5, element: 4 },
        Malformed::NegativeDescriptor { value: i32::MIN },
    ] {
        let read = Read { malformed: Some(malformed), ..Read::default() };
        let event = Event { direction: Direction::Back, at: Duration::MAX, happened: Happened::Read(read) };
        assert_eq!(parse(&event.to_string()).unwrap().events, [event]);
    }
}

#[test]
fn what_breaks_a_rule_is_named_with_its_line() {
    let rule = |events: &str| parse(events).unwrap_err();
    let at = |line, rule| ParseError { line, rule };
    assert_eq!("".parse::<Transcript>(), Err(at(1, Rule::Version)));
    assert_eq!("fdpost-transcript 2".parse::<Transcript>(), Err(at(1, Rule::Version)));
    assert_eq!(Transcript::from_bytes(&[0xff]), Err(at(1, Rule::Version)));
    let bytes = [HEAD.as_bytes(), &[0xff]].concat();
    assert_eq!(Transcript::from_bytes(&bytes), Err(at(5, Rule::Text)));
    assert_eq!("fdpost-transcript 1\n".parse::<Transcript>(), Err(at(2, Rule::Line { expected: "wire" })));
    let swapped = HEAD.replace("descriptors=2 held-bytes=0", "held-bytes=0 descriptors=2");
    assert_eq!(swapped.parse::<Transcript>(), Err(at(4, Rule::Field { expected: "descriptors" })));
    let idle = HEAD.replace("rate=1000000", "rate=0");
    assert!(matches!(idle.parse::<Transcript>(), Err(ParseError { line: 4, rule: Rule::Limit(_) })));
    let long = HEAD.replace("one", &"o".repeat(65));
    assert_eq!(long.parse::<Transcript>(), Err(at(3, Rule::Name)));
    assert_eq!(rule("# fine\n\n= 1.000000000 block"), at(7, Rule::Line { expected: "> or <" }));
    assert_eq!(rule("> 1.5 block"), at(5, Rule::Time { field: "time" }));
    assert_eq!(rule("> 1.+00000000 block"), at(5, Rule::Time { field: "time" }));
    assert_eq!(rule("> 1.000000000 wait"), at(5, Rule::Field { expected: "read or block" }));
    assert_eq!(rule("> 1.000000000 block x"), at(5, Rule::Surplus));
    assert_eq!(rule("> 1.000000000 read end bytes=00"), at(5, Rule::Surplus));
    assert_eq!(rule("> 1.000000000 read bytes=0"), at(5, Rule::Hex));
    assert_eq!(rule("> 1.000000000 read bytes=0g"), at(5, Rule::Hex));
    assert_eq!(rule("> 1.000000000 read descriptors=263"), at(5, Rule::Descriptors));
    assert_eq!(rule("> 1.000000000 read descriptors=+2"), at(5, Rule::Number { field: "descriptors" }));
    assert_eq!(rule("> 1.000000000 read descriptors=1 kinds=a,b"), at(5, Rule::Kinds));
    assert_eq!(rule("> 1.000000000 read descriptors=1 kinds=a_b"), at(5, Rule::Kinds));
    assert_eq!(rule("> 1.000000000 read malformed=odd/1/1"), at(5, Rule::Malformed));
    assert_eq!(rule("> 1.000000000 read unknown=1"), at(5, Rule::Number { field: "unknown" }));
}

/// A field of a header as its bytes stand in a transcript: in the machine's order.
fn field(value: u32) -> String {
    value.to_ne_bytes().map(|byte| format!("{byte:02x}")).concat()
}

fn decisions<P: crate::Profile>(transcript: &Transcript) -> (Vec<String>, [&'static str; 2]) {
    let mut lines = Vec::new();
    let verdicts = replay::<P>(transcript, &mut |step| lines.push(step.to_string())).unwrap();
    (lines, verdicts.map(|verdict| verdict.name()))
}

#[test] // P1, P3, P5
fn a_replay_says_step_by_step_what_was_decided_and_why() {
    let (kind, size) = (field(7), field(3));
    let transcript = parse(&format!(
        "> 1.000000000 read bytes={kind}\n\
         < 1.000000000 read\n\
         > 1.100000000 read bytes={size}01000000aabbcc\n\
         > 2.000000000 block\n\
         > 2.500020000 read bytes=77 descriptors=1 kinds=memfd\n\
         > 2.600000000 read bytes=08\n\
         > 4.200000000 block\n\
         > 4.300000000 block\n",
    ));
    let (lines, verdicts) = decisions::<Stream>(&transcript.unwrap());
    assert_eq!(
        lines,
        [
            "   1 > 1.000000000 read of 4 bytes, 0 descriptors; idle -> header: part of a header is here, more of it must come before 2.500012000",
            "   2 < 1.000000000 read of 0 bytes, 0 descriptors; idle -> ended: the peer closed between two messages: a clean end",
            "   3 > 1.100000000 read of 11 bytes, 0 descriptors; header -> body: the header is whole, the rest of its message must come before 2.500016000",
            "   4 > 2.000000000 would block; body -> body: the header is whole, the rest of its message must come; not overdue before 2.500016000",
            "   5 > 2.500020000 read of 1 bytes, 1 descriptors; body -> idle: a message is whole and delivered: 3 bytes, 1 descriptors",
            "   6 > 2.600000000 read of 1 bytes, 0 descriptors; idle -> header: part of a header is here, more of it must come before 4.100012000",
            "   7 > 4.200000000 would block; header -> failed: payload-missing: a message was begun and 1 of 12 bytes came of the part awaited; its time is over and nothing more is there to be read",
            "   8 > 4.300000000 would block; failed -> failed: not looked at: this direction is over",
        ]
    );
    assert_eq!(verdicts, ["payload-missing", "end"]);
}

#[test] // P1, P2
fn a_long_read_of_a_stream_is_fed_in_pieces_and_its_descriptors_come_last() {
    let message = |count: usize| {
        let header = field(0) + &field(1) + &format!("{count:02x}000000ee");
        if count > 0 { header + "77" } else { header }
    };
    // Longer than one read of a stream; Miri takes minutes for a thousand.
    let many = if cfg!(miri) { 400 } else { 1000 };
    let digits = message(0).repeat(many) + &message(1);
    let transcript = parse(&format!("> 1.000000000 read bytes={digits} descriptors=1")).unwrap();
    let (mut whole, mut descriptors) = (0, Vec::new());
    let verdicts = replay::<Stream>(&transcript, &mut |step| match step.decision {
        Decision::Message(message) => {
            whole += 1;
            descriptors.extend(message.descriptor(0).copied());
        }
        ref other => panic!("{other:?}"),
    });
    assert_eq!((whole, descriptors), (many + 1, vec![0]));
    assert_eq!(verdicts, Ok([Verdict::More; 2]));
}

#[test] // P3
fn what_the_kernel_said_reaches_the_machine() {
    let verdict = |wire: &str, read: &str| {
        let text = format!("{}< 1.000000000 read {read}", HEAD.replace("stream", wire));
        let transcript = text.parse().unwrap();
        let verdicts = match wire {
            "packet" => replay::<Packet>(&transcript, &mut |_| ()),
            _ => replay::<Libcamera>(&transcript, &mut |_| ()),
        };
        verdicts.unwrap()[1]
    };
    let header = "bytes=0100000000000000";
    assert_eq!(verdict("libcamera", &format!("{header} control-cut")).name(), "control-truncated");
    assert_eq!(verdict("libcamera", &format!("{header} unknown=1/9")).name(), "control-unknown");
    assert_eq!(verdict("libcamera", &format!("{header} descriptors=1")).name(), "descriptor-unexpected");
    assert_eq!(verdict("libcamera", "end").name(), "end");
    assert_eq!(verdict("libcamera", "").name(), "header-length");
    assert_eq!(verdict("packet", "").name(), "end");
    let malformed = Violation::ControlMalformed(Malformed::HeaderCut { remaining: 3, header: 16 });
    let read = format!("{header} malformed=header-cut/3/16 unknown=1/9");
    assert_eq!(verdict("libcamera", &read), Verdict::Fault(Fault::Violation(malformed)));
    let length = Violation::HeaderLength { expected: 8, received: 20 };
    assert_eq!(verdict("libcamera", &format!("{header} cut-bytes=12")), Verdict::Fault(length.into()));
}

#[test]
fn another_wire_is_refused_before_the_first_step() {
    let error = replay::<Packet>(&parse("").unwrap(), &mut |_| panic!("a step")).unwrap_err();
    assert_eq!(error.to_string(), "a transcript of the wire stream, not of packet");
}
