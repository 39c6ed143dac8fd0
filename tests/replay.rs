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
        Command::new(env!("CARGO_BIN_EXE_fdpost"))
            .arg("replay")
            .arg(&self.0)
            .args(arguments)
            .output()
            .unwrap()
    }
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

#[test] // P1, P3
fn what_the_fuzz_target_receiver_found_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/receiver");
    if !corpus.is_dir() {
        eprintln!("skipped: the corpus is not part of the package");
        return;
    }
    let replay = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fdpost"));
        let output = command.args(["replay", "--artefact"]).arg(corpus.join(name)).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, out, err) = replay("libcamera-conversation");
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.ends_with("what peer sent: end\nwhat receiver sent: more\n"), "{out}");
    // One field of a script says what is wrong: PROTOCOL.md what that is called.
    for (name, rule) in [
        ("libcamera-corruption-00", "payload-length"),
        ("packet-corruption-02", "descriptor-count"),
        ("stream-corruption-15", "descriptor-unexpected"),
    ] {
        let (status, out, _) = replay(name);
        assert_eq!(status, Some(65), "{name}: {out}");
        assert!(out.contains(&format!("what peer sent: {rule}\n")), "{name}: {out}");
    }
    let (status, _, err) = replay("vhost-user-corruption-00");
    assert_eq!(status, Some(64));
    assert!(err.contains("--example transcript -- --steps "), "{err}");
}

#[test]
fn what_is_no_transcript_is_refused_in_one_sentence() {
    let refused = |file: &Text, part: &str| {
        let output = file.replay(&[]);
        let err = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(64), ""));
        assert!(err.starts_with("fdpost: ") && err.contains(part) && err.lines().count() == 1, "{err}");
    };
    // A fuzz artefact: the sentence says how it is read.
    refused(&Text::new("artefact", &[2, 0, 0xff, 0xfe, 0]), "add --artefact");
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
