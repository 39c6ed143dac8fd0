//! The scripts of the property tests and the corpus of the fuzz target `receiver`, really played.
//! `CASES` says how many scripts of each wire (default 256; `make agree CASES=n`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fdpost_agree::check;
use fdpost_agree::plan::Refusal;
use fdpost_agree::tally::Tally;
use fdpost_proptests::log::Wire;
use fdpost_proptests::script::Script;
use fdpost_proptests::strategy::scripts;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Among the first so many scripts of each wire, which are the same at every run, is every answer
/// that a kernel can be made to give.
const ENOUGH: u32 = 1500;

/// Descriptors are counted, and they are a process's: whatever opens a file runs alone.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many scripts of `wire`, the same at every run, and shrunk where they disagree. `own` are the
/// answers that they have to reach, where they are enough, beside those of every wire.
fn agree(wire: Wire, own: &[&str]) {
    let _alone = alone();
    let cases = std::env::var("CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let tally = RefCell::new(Tally::default());
    let result = runner.run(&scripts(wire), |script| {
        let outcome = check(&script);
        tally.borrow_mut().note(outcome);
        Ok(())
    });
    let tally = tally.into_inner();
    if let Err(failure) = result {
        panic!("{failure}");
    }
    println!("{wire:?}: {:?}", tally.verdicts);
    println!("agree: {wire:?}: {tally}");

    assert_eq!(tally.scripts(), cases.into(), "played or refused for a reason");
    assert!(tally.played * 10 >= tally.scripts() * 9, "too many are refused: {tally}");
    let streams = matches!(wire, Wire::Stream | Wire::VhostUser);
    let mut reasons = BTreeSet::from([Refusal::Malformed, Refusal::CutWithoutLoss]);
    reasons.extend(streams.then_some(Refusal::UnknownOnStream));
    // A reader of packets may be met by one that is larger than any socket's buffer.
    reasons.extend((!streams && tally.refused.contains_key(&Refusal::TooLarge)).then_some(Refusal::TooLarge));
    let every =
        ["descriptor-count", "descriptor-unexpected", "descriptors-lost", "payload-too-large", "end", "more"];
    let answers = BTreeSet::from_iter(every.iter().chain(own).copied());
    let reached: BTreeSet<_> = tally.verdicts.keys().copied().collect();
    let feats = tally.feats;
    assert!(feats.full > 0 && feats.lost > 0 && feats.descriptors > 0, "{feats:?}");
    if cases >= ENOUGH {
        assert_eq!(tally.refused.keys().copied().collect::<BTreeSet<_>>(), reasons);
        let missing: Vec<_> = answers.difference(&reached).collect();
        assert!(missing.is_empty(), "no script ended so: {missing:?}");
        assert!(feats.unknown > 0 || streams, "{feats:?}");
        assert!(feats.overdue > 0 || wire == Wire::Packet, "{feats:?}");
    } else {
        assert!(reached.len() * 2 > answers.len(), "only {reached:?}");
    }
}

#[test] // P1, P2, P3, P5, P8
fn libcamera_agrees() {
    let own = ["header-length", "empty-message", "payload-truncated", "payload-length", "payload-missing"];
    let common = ["control-unknown", "control-truncated", "too-many-descriptors"];
    agree(Wire::Libcamera, &[&own[..], &common].concat());
}

#[test] // P1, P2, P3, P8
fn packet_agrees() {
    let own = ["header-length", "header-version", "header-reserved", "frame-overrun", "empty-packet"];
    let packed = ["control-unknown", "too-many-descriptors", "too-many-frames", "packet-too-large"];
    agree(Wire::Packet, &[&own[..], &packed].concat());
}

#[test] // P1, P2, P3, P5, P8
fn stream_agrees() {
    agree(Wire::Stream, &["control-truncated", "marker", "payload-missing", "too-many-descriptors"]);
}

#[test] // P1, P2, P3, P5, P8
fn vhost_user_agrees() {
    agree(Wire::VhostUser, &["control-truncated", "payload-missing"]);
}

#[test] // P1, P2, P3, P5, P8
fn the_corpus_agrees() {
    let _alone = alone();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/receiver");
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut tally = Tally::default();
    for file in &files {
        println!("{}", file.display());
        tally.note(check(&Script::from_bytes(&fs::read(file).unwrap())));
    }
    println!("agree: corpus: {tally}");
    assert_eq!(tally.scripts(), files.len() as u64);
    assert!(tally.scripts() >= 80 && tally.played * 5 >= tally.scripts() * 4, "{tally}");
}
