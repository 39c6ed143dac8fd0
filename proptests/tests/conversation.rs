//! Whole conversations of two, and that the plans reach what they are about.

use std::collections::BTreeMap;

use fdpost_proptests::conversation::{check, check_bytes};
use fdpost_proptests::log::Wire;
use fdpost_proptests::strategy::{config, conversations};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

proptest! {
    #![proptest_config(config(256))]

    #[test] // P1, P2, P3, P5, P6
    fn what_leaves_over_libcamera_arrives(plan in conversations(Wire::Libcamera)) {
        check(&plan);
    }

    #[test] // P1, P2, P3, P6
    fn what_leaves_over_packet_arrives(plan in conversations(Wire::Packet)) {
        check(&plan);
    }

    #[test] // P1, P2, P3, P5, P6
    fn what_leaves_over_stream_arrives(plan in conversations(Wire::Stream)) {
        check(&plan);
    }

    #[test] // P1, P2, P3, P5, P6
    fn what_leaves_over_vhost_user_arrives(plan in conversations(Wire::VhostUser)) {
        check(&plan);
    }

    #[test] // P1, P2, P8
    fn any_bytes_are_a_conversation_of_two(bytes in vec(any::<u8>(), 0..400)) {
        check_bytes(&bytes);
    }
}

/// Every verdict of so many plans, always the same ones.
fn reach(wire: Wire, expected: &[&str]) {
    let mut runner = TestRunner::deterministic();
    let strategy = conversations(wire);
    let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut messages = 0;
    for _ in 0..300 {
        let outcome = check(&strategy.new_tree(&mut runner).unwrap().current());
        outcome.verdicts.iter().for_each(|verdict| *verdicts.entry(verdict).or_default() += 1);
        messages += outcome.heard.iter().sum::<usize>();
    }
    println!("{wire:?}: {messages} messages, {verdicts:?}");
    assert!(messages > 1500, "conversations are mostly honest: {messages} messages");
    for rule in expected.iter().chain(&["more", "end", "closed", "descriptors-lost", "payload-too-large"]) {
        assert!(verdicts.contains_key(rule), "no conversation ended with {rule}");
    }
}

#[test] // CO-3
fn conversations_over_libcamera_end_in_every_way() {
    reach(Wire::Libcamera, &["too-many-descriptors", "payload-missing"]);
}

#[test] // CO-3
fn conversations_over_packet_end_in_every_way() {
    reach(Wire::Packet, &["too-many-descriptors"]);
}

#[test] // CO-3
fn conversations_over_stream_end_in_every_way() {
    reach(Wire::Stream, &["too-many-descriptors", "payload-missing"]);
}

#[test] // CO-3
fn conversations_over_vhost_user_end_in_every_way() {
    reach(Wire::VhostUser, &["descriptor-count", "payload-missing"]);
}
