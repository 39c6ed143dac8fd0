//! Calls against their reference model, and that the plans reach what they are about.

use std::collections::BTreeMap;

use fdpost_proptests::calls::{check, check_bytes};
use fdpost_proptests::strategy::{called, config};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

proptest! {
    #![proptest_config(config(1024))]

    #[test] // P1, P2, P3, P5, P8; CA-1 to CA-17
    fn calls_over_packet_are_what_the_model_says(plan in called(0)) {
        check(&plan);
    }

    #[test] // P1, P2, P3, P5, P8; CA-1 to CA-17
    fn calls_over_libcamera_are_what_the_model_says(plan in called(1)) {
        check(&plan);
    }

    #[test] // P1, P2, P3, P5, P8; CA-1 to CA-17
    fn calls_over_stream_are_what_the_model_says(plan in called(2)) {
        check(&plan);
    }

    #[test] // P2, P8
    fn any_bytes_are_calls(bytes in vec(any::<u8>(), 0..300)) {
        check_bytes(&bytes);
    }
}

/// Every way in which so many plans end, always the same ones.
fn reach(wire: u8, expected: &[&str]) {
    let (mut runner, strategy) = (TestRunner::deterministic(), called(wire));
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
