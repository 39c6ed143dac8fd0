//! `fdpost demo` as a newcomer runs it, and what is left of it afterwards.

use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{WaitPidFlag, waitpid};

/// Children are a whole process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs `sh -c script` with the command as `$0`, and checks that no process outlives it: this one
/// adopts what the command leaves behind (PR_SET_CHILD_SUBREAPER).
fn shell(script: &str) -> Output {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    set_child_subreaper(true).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_fdpost")]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let left = waitpid(None, Some(WaitPidFlag::WNOHANG));
    assert_eq!(left, Err(Errno::ECHILD), "a process was left behind");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status 1 and one sentence on standard error.
#[track_caller]
fn assert_fails(output: &Output, sentence: &str) {
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), sentence));
}

/// The output with every run of digits as one `0`.
fn without_numbers(output: &str) -> Vec<String> {
    let squeeze = |line: &str| {
        let mut squeezed = String::new();
        for character in line.chars() {
            let character = if character.is_ascii_digit() { '0' } else { character };
            if character != '0' || !squeezed.ends_with('0') {
                squeezed.push(character);
            }
        }
        squeezed
    };
    output.lines().map(squeeze).collect()
}

#[test] // P1, P2, P3, P4, P5
fn the_demo_shows_what_it_says_and_leaves_nothing() {
    let output = shell("exec \"$0\" demo");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");
    let lines: Vec<&str> = stdout.lines().collect();
    for refusal in [
        "  refused as payload-missing: a message was begun and 0 of 64 bytes came of the part awaited",
        "  refused as payload-too-large: a payload of 4294967295 bytes is declared, at most 65536 are accepted",
        "  checked: all 192 pixels are inverted",
        "All held",
    ] {
        assert_eq!(lines.iter().filter(|line| **line == refusal).count(), 1, "{refusal}\n{stdout}");
    }
    let count = lines.iter().filter(|line| line.starts_with("  refused as descriptor-count: ")).count();
    assert_eq!(count, 1, "{stdout}");
    assert!(!stdout.contains('\x1b'), "no colours where nobody looks: {stdout:?}");
}

#[test] // P2, P3, P4, P5: each fact is said of each attack
fn every_attack_is_measured() {
    let output = shell("exec \"$0\" demo <&-");
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let lines = without_numbers(&stdout);
    for fact in [
        "  process 0 says hello first, as it should: accepted",
        "  it took 0.0 ms, a message begun has 0 ms to be finished",
        "  memory of this process: 0 KiB before, 0 after; address space at most 0 and 0",
        "  memory of the channel: 0 bytes before, 0 after, 0 at most",
        "  open descriptors: 0 before, 0 after, the same ones",
    ] {
        assert_eq!(lines.iter().filter(|line| **line == fact).count(), 3, "{fact}\n{stdout}");
    }
}

#[test] // P2: on errors too
fn a_failure_is_one_sentence_and_leaves_nothing() {
    // The act has begun, the second process runs, and the terminal is gone.
    let full = "fdpost: No space left on device (os error 28)\n";
    assert_fails(&shell("exec \"$0\" demo >/dev/full"), full);
    // Four descriptors: not even the socket pair.
    let short = "fdpost: socketpair: Too many open files (os error 24)\n";
    assert_fails(&shell("ulimit -n 4; exec \"$0\" demo 4>&- 5>&- 6>&-"), short);
}

#[test]
fn the_children_are_hidden_and_want_a_socket() {
    let sentence = "fdpost: getsockopt: Socket operation on non-socket (os error 88)\n";
    assert_fails(&shell("exec \"$0\" demo-inverter </dev/null"), sentence);
    let help = text(&shell("exec \"$0\" --help").stdout);
    assert!(help.contains("  demo  ") && !help.contains("demo-"), "{help}");
}
