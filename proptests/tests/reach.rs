//! That the generators reach what the properties are about: a rule that no script breaks would be
//! a rule that no property tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fdpost_proptests::log::Wire;
use fdpost_proptests::reach::{TARGETS, rules, take};
use fdpost_proptests::strategy::{brokered, called, controls, conversations, plans, scripts};
use fdpost_proptests::transcript::of_script;
use fdpost_proptests::wires::FLAGS;
use fdpost_proptests::{broker, calls, control, conversation, oracle, sender};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const WIRES: [Wire; 4] = [Wire::Libcamera, Wire::Packet, Wire::Stream, Wire::VhostUser];

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
    expected.push("descriptor-kind");
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
    reach(Wire::VhostUser, &["payload-missing", FLAGS]);
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

#[test] // CO-3: the names are those of the code, so that a new rule has to find its targets.
fn the_table_has_every_rule() {
    let source = include_str!("../../src/error.rs");
    let names = source.split("pub const fn rule").nth(1).and_then(|from| from.split("\n    }\n").next());
    let names = names.expect("the rules' names").split("=> \"").skip(1).filter_map(|it| it.split('"').next());
    let mut expected: Vec<&str> = names.chain([FLAGS, "descriptors-lost"]).collect();
    expected.sort_unstable();
    let mut known: Vec<&str> = rules().collect();
    known.sort_unstable();
    assert_eq!(known, expected);
}

#[test] // CO-3
fn each_rule_is_reached_by_a_target_or_said_not_to_be() {
    for target in &TARGETS {
        let (reached, known) = (target.reachable(), rules().collect::<BTreeSet<_>>());
        let not = target.not.iter().flat_map(|(rules, _)| rules.iter().copied());
        for rule in not {
            assert!(known.contains(rule) && !reached.contains(&rule), "{}: {rule}", target.name);
        }
        assert!(reached.iter().all(|rule| known.contains(rule)), "{}", target.name);
    }
    let reached: BTreeSet<_> = TARGETS.iter().flat_map(|target| target.reachable()).collect();
    let missing: Vec<_> = rules().filter(|rule| !reached.contains(rule)).collect();
    assert_eq!(missing, ["handshake"], "reached by no target");
}

/// Generated inputs of a target, always the same ones.
fn generated(target: &str) {
    let mut runner = TestRunner::deterministic();
    let runner = &mut runner;
    let mut each = |check: &mut dyn FnMut(&mut TestRunner)| (0..400).for_each(|_| check(runner));
    match target {
        "broker" => each(&mut |it| _ = broker::check(&brokered().new_tree(it).unwrap().current())),
        "calls" => {
            (0..3).for_each(|wire| {
                each(&mut |it| _ = calls::check(&called(wire).new_tree(it).unwrap().current()))
            });
        }
        "control" => each(&mut |it| control::check_plan(&controls().new_tree(it).unwrap().current())),
        "conversation" => WIRES.iter().for_each(|wire| {
            each(&mut |it| _ = conversation::check(&conversations(*wire).new_tree(it).unwrap().current()));
        }),
        "receiver" => WIRES.iter().for_each(|wire| {
            each(&mut |it| oracle::check_bytes(&scripts(*wire).new_tree(it).unwrap().current().to_bytes()));
        }),
        "sender" => WIRES.iter().for_each(|wire| {
            each(&mut |it| sender::check(&plans(*wire).new_tree(it).unwrap().current()));
        }),
        "transcript" => WIRES.iter().for_each(|wire| {
            each(&mut |it| {
                let text = of_script(&scripts(*wire).new_tree(it).unwrap().current()).to_string();
                fdpost_proptests::transcript::check_bytes(text.as_bytes());
            });
        }),
        // Two bytes have no generator; the corpus is enough.
        "send_fd" => {}
        other => panic!("{other}"),
    }
}

#[test] // CO-3: each target, its corpus and generated inputs: the rules of its row, and no other.
fn targets_reach_what_the_table_says() {
    let mut others = Vec::new();
    for target in &TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name);
        for entry in fs::read_dir(corpus).unwrap() {
            (target.check)(&fs::read(entry.unwrap().path()).unwrap());
        }
        generated(target.name);
        let broken = take();
        println!("{}: {broken:?}", target.name);
        let broken: Vec<&str> = broken.into_keys().collect();
        if broken != target.reachable() {
            others.push((target.name, broken, target.reachable()));
        }
    }
    assert!(others.is_empty(), "broken, and what the table says: {others:#?}");
}
