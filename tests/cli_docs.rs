//! `docs/COMMAND.md`: its examples print what stands there.

#[path = "support/cli.rs"]
mod cli;
mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use cli::start_with;
use support::Ledger;

/// The commands of all `console` blocks, each with what is printed below it.
fn examples(page: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for block in page.split("```console\n").skip(1) {
        let mut continued = false;
        for line in block.split("```").next().unwrap().lines() {
            match (line.strip_prefix("$ "), found.last_mut()) {
                (Some(command), _) => found.push((command.to_owned(), String::new())),
                (None, Some((command, _))) if continued => *command += &format!("\n{line}"),
                (None, Some((_, output))) => *output += &format!("{line}\n"),
                (None, None) => panic!("output without a command: {line}"),
            }
            continued = line.ends_with('\\');
        }
    }
    found
}

/// A line without what no page can know: when `inspect` saw something, and its socket's number.
fn knowable(line: &str) -> String {
    if !line.contains("\"fd-") {
        return format!("{line}\n");
    }
    let mut known = String::new();
    for piece in line.split_inclusive("\"fd-").flat_map(|piece| piece.split_inclusive("\"micros\":")) {
        known += piece.trim_start_matches(|character: char| character.is_ascii_digit());
    }
    known + "\n"
}

#[test]
fn the_pages_examples_print_what_stands_below_them() {
    let ledger = Ledger::open();
    let page = include_str!("../docs/COMMAND.md");
    let examples = examples(page);
    assert!(examples.len() >= 9, "{}", examples.len());
    let directory = Path::new(env!("CARGO_BIN_EXE_fdpost")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    for (command, output) in examples {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).env("PATH", &path).stdin(Stdio::null());
        let ended = start_with(shell, None).finish();
        let printed: String = ended.out.iter().map(|line| knowable(line)).collect();
        assert_eq!(printed, output.lines().map(knowable).collect::<String>(), "{command}");
    }
    ledger.close();
}
