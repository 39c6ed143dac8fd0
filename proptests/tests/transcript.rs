//! Transcripts: text and back, and the same answer from a replay as from the receiver that met it.

use std::fs;
use std::path::Path;

use fdpost_proptests::log::Wire;
use fdpost_proptests::oracle;
use fdpost_proptests::script::Script;
use fdpost_proptests::strategy::{config, scripts};
use fdpost_proptests::transcript::{check_bytes, check_script, of_script};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Words and numbers of which lines are made, so that many are nearly right.
fn lines() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        ">",
        "<",
        "read",
        "block",
        "end",
        "control-cut",
        "bytes=",
        "bytes=00ff",
        "bytes=0",
        "cut-bytes=3",
        "descriptors=2",
        "descriptors=262",
        "descriptors=263",
        "kinds=a,b",
        "kinds=,",
        "0.000000001",
        "18446744073709551615.999999999",
        "18446744073709551616.000000000",
        "malformed=header-cut/1/2",
        "malformed=length-beyond-buffer/18446744073709551615/1",
        "unknown=-1/2",
        "#",
        "\u{e9}",
        "\n",
        "> ",
    ]);
    vec(word, 0..12).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(config(256))]

    #[test] // P1, P3, P5
    fn libcamera_is_replayed_as_it_was_heard(script in scripts(Wire::Libcamera)) {
        check_script(&script);
    }

    #[test] // P1, P3, P5
    fn packet_is_replayed_as_it_was_heard(script in scripts(Wire::Packet)) {
        check_script(&script);
    }

    #[test] // P1, P3, P5
    fn stream_is_replayed_as_it_was_heard(script in scripts(Wire::Stream)) {
        check_script(&script);
    }

    #[test] // P1, P3, P5
    fn vhost_user_is_replayed_as_it_was_heard(script in scripts(Wire::VhostUser)) {
        check_script(&script);
    }

    #[test] // P4, P8
    fn any_text_is_a_transcript_or_an_error(wire in 0..3_usize, lines in vec(lines(), 0..6)) {
        let wire = ["libcamera", "packet", "stream"][wire];
        let head = format!("fdpost-transcript 1\nwire {wire}\nsides a b\nlimits payload=9 descriptors=3 \
            held-bytes=0 held-descriptors=0 timeout=0.000000000 rate=1\n");
        check_bytes((head + &lines.join("\n")).as_bytes());
    }

    #[test] // P4, P8
    fn a_damaged_transcript_is_a_transcript_or_an_error(
        script in scripts(Wire::Stream),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = of_script(&script).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        check_bytes(&bytes);
    }
}

#[test] // P1, P3: the oracle's receiver, and this one, are the same
fn the_recorded_outcome_is_the_oracles() {
    let mut runner = TestRunner::deterministic();
    for wire in [Wire::Libcamera, Wire::Packet, Wire::Stream, Wire::VhostUser] {
        let mut verdicts = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let mut script = scripts(wire).new_tree(&mut runner).unwrap().current();
            script.habits &= 63; // a transcript has no policy that could refuse
            let outcome = check_script(&script);
            let expected = oracle::check(&script);
            assert_eq!((&outcome.heard, outcome.verdict), (&expected.heard, expected.verdict));
            verdicts.insert(outcome.verdict);
        }
        assert!(verdicts.len() > 8, "{wire:?} reached only {verdicts:?}");
    }
}

#[test]
fn what_fuzzing_found_becomes_a_transcript() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/receiver");
    let mut files = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        check_script(&Script::from_bytes(&fs::read(entry.unwrap().path()).unwrap()));
        files += 1;
    }
    assert!(files >= 80, "{files} files");
}
