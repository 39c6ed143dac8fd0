//! `examples/vhost_user.rs`: the wire of one's own that the documentation points to, against its
//! Python peer and against hostile ones.

#[path = "../examples/vhost_user.rs"]
mod example;
mod support;

use example::VhostUser;
use fdpost::{Channel, Error, Limits, Message, Misuse, Violation};
use support::{Ledger, assert_refused, files};

const LIMITS: Limits = Limits::new().descriptors(8);

fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size].map(u32::to_ne_bytes).concat()
}

#[test] // P1, P2
fn the_example_converses_with_python() {
    let ledger = Ledger::open();
    let mut told = Vec::new();
    if example::converse(|line| told.push(line)).unwrap() {
        let expected = [
            "features: 0x140000000",
            "the peer mapped both and sees: region one + and two",
            "its own memory, sealed: inflight area",
        ];
        assert_eq!(told, expected);
    } else {
        println!("{told:?}");
    }
    ledger.close();
}

#[test]
fn the_trait_takes_less_than_80_lines() {
    let source = include_str!("../examples/vhost_user.rs");
    let implementation: Vec<&str> = source
        .lines()
        .skip_while(|line| !line.starts_with("/// A message's request"))
        .take_while(|line| !line.starts_with("const GET_FEATURES"))
        .collect();
    assert!((20..80).contains(&implementation.len()), "{} lines", implementation.len());
}

#[test] // P2, P3
fn its_rules_are_kept() {
    let unexpected = Violation::DescriptorUnexpected { received: 1 };
    assert_refused::<VhostUser>(LIMITS, &[(&header(1, 1, 3), 2), (b"abc", 1)], 0, unexpected);
    let many = Violation::DescriptorCount { declared: 8, received: 9 };
    assert_refused::<VhostUser>(LIMITS, &[(&header(1, 1, 0), 9)], 0, many);
    let version = Violation::WireRule { rule: "version", expected: 1, received: 2 };
    assert_refused::<VhostUser>(LIMITS, &[(&header(1, 1, 0), 8), (&header(1, 2, 0), 0)], 1, version);
    let large = Violation::PayloadTooLarge { declared: u32::MAX.into(), limit: 64 * 1024 };
    assert_refused::<VhostUser>(LIMITS, &[(&header(1, 1, u32::MAX), 0)], 0, large);

    let ledger = Ledger::open();
    let (mut ours, _theirs) = Channel::<VhostUser>::pair(LIMITS).unwrap();
    let nine = files(9).into_iter().fold(Message::new([]), Message::with);
    let refused = ours.send(nine).unwrap_err();
    assert_eq!(refused.error, Error::Misuse(Misuse::TooManyDescriptors { descriptors: 9, limit: 8 }));
    drop((ours, _theirs, refused));
    ledger.close();
}
