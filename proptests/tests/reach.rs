//! That the generators reach what the properties are about: a rule that no script breaks would be
//! a rule that no property tests.

use std::collections::BTreeMap;

use fdpost_proptests::log::Wire;
use fdpost_proptests::strategy::{brokered, scripts};
use fdpost_proptests::{broker, oracle};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// Every verdict of so many scripts, always the same ones.
fn reach(wire: Wire, expected: &[&str]) {
    let mut runner = TestRunner::deterministic();
    let strategy = scripts(wire);
    let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut messages = 0;
    for _ in 0..1200 {
        let outcome = oracle::check(&strategy.new_tree(&mut runner).unwrap().current());
        *verdicts.entry(outcome.verdict).or_default() += 1;
        messages += outcome.heard.len();
    }
    println!("{wire:?}: {messages} messages, {verdicts:?}");
    assert!(messages > 1200, "conversations are mostly honest: {messages} messages");
    let mut expected = expected.to_vec();
    expected.extend(["control-malformed", "control-unknown", "control-truncated", "descriptors-lost"]);
    expected.extend(["descriptor-unexpected", "descriptor-count", "payload-too-large", "end", "more"]);
    expected.sort_unstable();
    assert_eq!(verdicts.keys().copied().collect::<Vec<_>>(), expected);
}

#[test] // CO-3
fn every_rule_of_libcamera_is_broken() {
    let own = ["header-length", "empty-message", "payload-truncated", "payload-length"];
    reach(Wire::Libcamera, &[&own[..], &["too-many-descriptors", "payload-missing"]].concat());
}

#[test] // CO-3
fn every_rule_of_packet_is_broken() {
    let own = ["header-length", "header-version", "header-reserved", "frame-overrun", "empty-packet"];
    let packed = ["too-many-descriptors", "too-many-frames", "packet-too-large"];
    reach(Wire::Packet, &[&own[..], &packed].concat());
}

#[test] // CO-3
fn every_rule_of_stream_is_broken() {
    reach(Wire::Stream, &["too-many-descriptors", "payload-missing", "marker"]);
}

#[test] // CO-3
fn every_rule_of_vhost_user_is_broken() {
    reach(Wire::VhostUser, &["payload-missing"]);
}

#[test] // BR-7: a broker that grants nothing would keep every rule.
fn brokers_grant_channels() {
    let mut runner = TestRunner::deterministic();
    let strategy = brokered();
    let granted: usize =
        (0..500).map(|_| broker::check(&strategy.new_tree(&mut runner).unwrap().current())).sum();
    println!("{granted} granted");
    assert!(granted > 500, "{granted} granted in 500 scripts");
}
