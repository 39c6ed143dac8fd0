//! `fdpost replay`: what it says of a transcript, and of what is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const HEAD: &str = "fdpost-transcript 1\nwire WIRE\nsides cam<1> worker\nlimits payload=64 descriptors=2 \
    held-bytes=0 held-descriptors=0 timeout=1.000000000 rate=1048576\n";

/// A file of this test's own, removed when dropped.
struct Text(PathBuf);

impl Text {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("fdpost-replay-{name}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn of(name: &str, wire: &str, events: &str) -> Self {
        Self::new(name, (HEAD.replace("WIRE", wire) + events).as_bytes())
    }

    fn replay(&self, arguments: &[&str]) -> Output {
        replay(&self.0, arguments)
    }
}

fn replay(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fdpost"));
    command.arg("replay").arg(file).args(arguments).output().unwrap()
}

impl Drop for Text {
    fn drop(&mut self) {
        let _nobody_needs_it = fs::remove_file(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const TALK: &str = "\
> 0.000100000 read bytes=0200000001000000\n\
> 0.000200000 read bytes=6869 descriptors=1 kinds=memfd\n\
< 0.000300000 read bytes=0300000000000000\n\
< 1.000200000 block\n\
< 1.000300000 block\n";

#[test] // P1, P3, P5
fn every_step_is_told_with_its_reason() {
    let output = Text::of("steps", "libcamera", TALK).replay(&[]);
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout).lines().collect::<Vec<_>>(),
        [
            "   1 > 0.000100000 read of 8 bytes, 0 descriptors; idle -> body: the header is whole, the rest of its message must come before 1.000100000",
            "   2 > 0.000200000 read of 2 bytes, 1 descriptors; body -> idle: a message is whole and delivered: 2 bytes, 1 descriptors",
            "   3 < 0.000300000 read of 8 bytes, 0 descriptors; idle -> body: the header is whole, the rest of its message must come before 1.000300000",
            "   4 < 1.000200000 would block; body -> body: the header is whole, the rest of its message must come; not overdue before 1.000300000",
            "   5 < 1.000300000 would block; body -> failed: payload-missing: a message was begun and 0 of 3 bytes came of the part awaited; its time is over and nothing more is there to be read",
            "what cam<1> sent: more",
            "what worker sent: payload-missing",
        ]
    );
}

#[test]
fn programs_read_objects() {
    let output = Text::of("json", "libcamera", TALK).replay(&["--json"]);
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let decisions: Vec<_> = lines.iter().filter_map(|line| line["decision"].as_str()).collect();
    assert_eq!(decisions, ["more", "message", "more", "more", "fault"]);
    let whole = &lines[1];
    assert_eq!((&whole["message_bytes"], &whole["message_descriptors"]), (&2.into(), &1.into()));
    assert_eq!(
        (&whole["micros"], &whole["before"], &whole["after"]),
        (&200.into(), &"body".into(), &"idle".into())
    );
    let fault = &lines[4];
    assert_eq!(
        (&fault["rule"], &fault["expected"], &fault["received"]),
        (&"payload-missing".into(), &3.into(), &0.into())
    );
    assert_eq!(lines[3]["deadline"], 1_000_300);
    let verdicts: Vec<_> = lines.iter().filter_map(|line| line["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["more", "payload-missing"]);
}

#[test]
fn the_exit_status_is_the_verdict() {
    let status = |wire: &str, events: &str| Text::of("status", wire, events).replay(&[]).status.code();
    assert_eq!(status("packet", ""), Some(0));
    assert_eq!(status("stream", "> 0.000000000 read\n< 0.000000000 read bytes=01\n"), Some(0));
    assert_eq!(status("packet", "> 0.000000000 read bytes=01\n"), Some(65));
    let lost = "< 0.000000000 read bytes=0100000000000000\n\
        < 0.000000000 read bytes=00 control-cut\n"
        .replace("0100000000000000", "0100000001000000");
    assert_eq!(status("libcamera", &lost), Some(74));
    // What a peer did is told before what befell us.
    let both = lost + "> 0.000000000 read bytes=01\n";
    assert_eq!(status("libcamera", &both), Some(65));
}

#[test]
fn what_is_no_transcript_is_refused_in_one_sentence() {
    let refused = |file: &Text, part: &str| {
        let output = file.replay(&[]);
        let err = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(64), ""));
        assert!(err.starts_with("fdpost: ") && err.contains(part) && err.lines().count() == 1, "{err}");
    };
    // A fuzz artefact: the sentence says what is missing.
    let artefact = Text::new("artefact", &[2, 0, 0xff, 0xfe, 0]);
    refused(&artefact, "if the fuzz target `receiver` found it, add --artefact");
    assert!(text(&artefact.replay(&[]).stderr).contains(artefact.0.to_str().unwrap()));
    assert_eq!(artefact.replay(&["--artefact"]).status.code(), Some(0));
    refused(&Text::new("later", b"fdpost-transcript 2\n"), "no transcript of version 1");
    refused(&Text::of("wire", "vhost-user", ""), "of the wire vhost-user");
    refused(&Text::of("line", "packet", "> 0.5 block\n"), "line 5: \"time\" is no time");
    let missing = Text::new("missing", b"");
    fs::remove_file(&missing.0).unwrap();
    assert_eq!(missing.replay(&[]).status.code(), Some(74));
}

#[test]
fn the_picture_shows_each_message_and_the_violation() {
    let svg = Text::new("picture", b"");
    let output = Text::of("drawn", "libcamera", TALK).replay(&["--svg", svg.0.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65));
    let drawn = fs::read_to_string(&svg.0).unwrap();
    assert_eq!(drawn.matches("<path class=\"message\"").count(), 1, "{drawn}");
    assert!(drawn.contains(">2 bytes, 1 fd (memfd)</text>"), "{drawn}");
    assert!(drawn.contains(">payload-missing</text>"), "{drawn}");
    // Names come from the file: they stay text.
    assert!(drawn.contains(">cam&lt;1&gt;</text>") && !drawn.contains("cam<1>"), "{drawn}");
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"));
    assert_eq!(drawn.matches('<').count(), drawn.matches('>').count(), "{drawn}");
}

/// The seeds of the fuzz target `receiver`, of this wire, and the texts that `proptests` made of
/// them (its example `seeds`; the longest have none); `None`, said in words, outside the repository.
fn seeds(wire: &str) -> Option<Vec<[PathBuf; 2]>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let Ok(entries) = fs::read_dir(corpus.join("receiver")) else {
        println!("skipped: fuzz/corpus is in the repository, and not in the package");
        return None;
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| name.starts_with(wire));
    let mut seeds: Vec<_> =
        names.map(|name| ["receiver", "transcript"].map(|target| corpus.join(target).join(&name))).collect();
    seeds.sort();
    Some(seeds)
}

/// The texts are the answer that was written down before: `make fuzz-seeds` writes them anew
/// when a script is to mean something else.
fn agree_on(wire: &str) {
    let mut compared = 0;
    for [artefact, transcript] in seeds(wire).into_iter().flatten() {
        if transcript.exists() {
            let (one, two) = (replay(&artefact, &["--artefact", "--json"]), replay(&transcript, &["--json"]));
            assert_eq!(text(&one.stdout), text(&two.stdout), "{}", artefact.display());
            assert_eq!((one.status, one.stderr), (two.status, two.stderr), "{}", artefact.display());
            assert!(text(&one.stdout).contains("\"verdict\""), "{}", artefact.display());
            compared += 1;
        }
    }
    assert!(compared >= 17 || seeds(wire).is_none(), "{compared} seeds were compared");
}

#[test] // P1, P3, P5
fn a_fuzz_artefact_of_libcamera_is_replayed_as_its_transcript_is() {
    agree_on("libcamera");
}

#[test] // P1, P3, P5
fn a_fuzz_artefact_of_packet_is_replayed_as_its_transcript_is() {
    agree_on("packet");
}

#[test] // P1, P3, P5
fn a_fuzz_artefact_of_stream_is_replayed_as_its_transcript_is() {
    agree_on("stream");
}

#[test] // P1, P3
fn a_script_in_bytes_means_what_the_fuzzer_takes_it_for() {
    // Wire packet, no descriptors, 300 bytes of payload at most, a second's time, no cuts; then a
    // raw packet of three bytes.
    let head = [1, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0, 232, 3, 0, 0, 0, 0];
    let artefact = Text::new("script", &[&head[..], &[160, 3, 0, 0], b"abc"].concat());
    let output = artefact.replay(&["--artefact"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(65), ""));
    assert_eq!(
        text(&output.stdout).lines().collect::<Vec<_>>(),
        [
            "   1 > 1.000000000 read of 3 bytes, 0 descriptors; idle -> failed: header-length: a header of 3 bytes where the wire has 16",
            "what peer sent: header-length",
            "what receiver sent: more",
        ]
    );
}

#[test]
fn a_fuzz_artefact_that_breaks_a_rule_ends_with_its_name() {
    let Some(seeds) = seeds("stream-corruption-12") else { return };
    let output = replay(&seeds[0][0], &["--artefact"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(65), ""));
    let out = text(&output.stdout);
    assert!(out.contains("what peer sent: descriptor-count\n"), "{out}");
    let svg = Text::new("found", b"");
    replay(&seeds[0][0], &["--artefact", "--svg", svg.0.to_str().unwrap()]);
    assert!(fs::read_to_string(&svg.0).unwrap().contains(">descriptor-count</text>"));
}

#[test]
fn a_fuzz_artefact_that_cannot_be_replayed_is_refused_in_one_sentence() {
    let refused = |file: &Path, part: &str| {
        let output = replay(file, &["--artefact"]);
        let err = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(64), ""));
        assert!(err.starts_with("fdpost: ") && err.contains(part) && err.lines().count() == 1, "{err}");
        assert!(err.contains(file.to_str().unwrap()), "{err}");
    };
    // The first byte is the wire, of four.
    let vhost_user = Text::new("vhost", &[3]);
    refused(&vhost_user.0, "of the wire vhost-user");
    refused(&vhost_user.0, "--manifest-path proptests/Cargo.toml --example transcript -- --steps ");
    for [artefact, _] in seeds("vhost-user").into_iter().flatten() {
        refused(&artefact, "of the wire vhost-user");
    }
    refused(&Text::of("no-artefact", "libcamera", TALK).0, "is a transcript; leave --artefact out");
    let missing = replay(&vhost_user.0.with_extension("gone"), &["--artefact"]);
    assert_eq!(missing.status.code(), Some(74));
}
