//! Calls against their reference model, and that the plans reach what they are about.

use std::collections::BTreeMap;

use fdpost_proptests::calls::{Content, Op, Plan, check, check_bytes};
use fdpost_proptests::strategy::config;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Mostly honest, so that conversations are long.
fn contents() -> impl Strategy<Value = Content> {
    let which = prop_oneof![12 => 0..200_u8, 1 => 200..=255_u8];
    let command = prop_oneof![20 => Just(0_u8), 1 => 1..4_u8];
    let grant = prop_oneof![4 => Just(4_u8), 2 => 0..4_u8, 1 => Just(5)];
    let descriptors = prop_oneof![8 => 0..2_u8, 1 => 0..8_u8];
    let deadline = prop_oneof![1 => Just(0_u8), 3 => 1..40_u8];
    let bit = |often: u32, bit: u8| prop_oneof![often => Just(0), 1 => Just(bit)];
    let bits = (
        prop_oneof![1 => Just(0_u8), 2 => Just(1), 8 => Just(33)],
        bit(4, 2),
        bit(15, 4),
        bit(15, 8),
        bit(6, 16),
    );
    (which, command, grant, descriptors, deadline, bits).prop_map(
        |(which, command, grant, descriptors, deadline, (a, b, c, d, e))| Content {
            which,
            command,
            grant,
            descriptors,
            deadline,
            bits: a | b | c | d | e,
        },
    )
}

fn plans(wire: u8) -> impl Strategy<Value = Plan> {
    let op = prop_oneof![
        6 => contents().prop_map(Op::Start),
        5 => contents().prop_map(Op::Come),
        3 => contents().prop_map(Op::Answer),
        2 => (0..30_u8).prop_map(Op::Wait),
        1 => any::<u8>().prop_map(Op::GiveUp),
    ];
    let answers = prop_oneof![3 => Just(false), 1 => Just(true)];
    (answers, 0..9_u8, vec(op, 0..40)).prop_map(move |(answers, most, ops)| Plan { wire, answers, most, ops })
}

proptest! {
    #![proptest_config(config(1024))]

    #[test] // P1, P2, P3, P5, P8; CA-1 to CA-17
    fn calls_over_packet_are_what_the_model_says(plan in plans(0)) {
        check(&plan);
    }

    #[test] // P1, P2, P3, P5, P8; CA-1 to CA-17
    fn calls_over_libcamera_are_what_the_model_says(plan in plans(1)) {
        check(&plan);
    }

    #[test] // P1, P2, P3, P5, P8; CA-1 to CA-17
    fn calls_over_stream_are_what_the_model_says(plan in plans(2)) {
        check(&plan);
    }

    #[test] // P2, P8
    fn any_bytes_are_calls(bytes in vec(any::<u8>(), 0..300)) {
        check_bytes(&bytes);
    }
}

/// Every way in which so many plans end, always the same ones.
fn reach(wire: u8, expected: &[&str]) {
    let (mut runner, strategy) = (TestRunner::deterministic(), plans(wire));
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..1500 {
        *ends.entry(check(&strategy.new_tree(&mut runner).unwrap().current())).or_default() += 1;
    }
    println!("{wire}: {ends:?}");
    assert!(ends["more"] > 100, "{ends:?}");
    assert_eq!(ends.into_keys().collect::<Vec<_>>(), expected);
}

#[test] // CA-2, CA-3
fn every_rule_of_calls_over_packet_is_broken() {
    reach(0, &["more", "reply-descriptors", "reply-unknown"]);
}

#[test] // CA-2 to CA-5
fn every_rule_of_calls_over_libcamera_is_broken() {
    reach(1, &["header-length", "more", "reply-command", "reply-descriptors", "reply-unknown"]);
}

#[test] // CA-3, CA-10, CA-12
fn every_rule_of_calls_over_stream_is_broken() {
    reach(2, &["call-overlap", "more", "reply-descriptors", "reply-unknown"]);
}
