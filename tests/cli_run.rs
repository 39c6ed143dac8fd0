//! `fdpost run`: a command on the other end, what it says, how it ends, and that nothing is left.

#[path = "support/cli.rs"]
mod cli;
mod support;
#[path = "support/vimc.rs"]
mod vimc;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cli::{Ended, fdpost, start_with};
use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use support::Ledger;

const READY: &str = r#"{"event":"ready"}"#;
const CLOSED: &str = r#"{"event":"closed"}"#;
const IDLE: &str = r#"{"event":"idle"}"#;

/// Runs `fdpost run --json` with these options and this command to its end, after which no process
/// is left: this one adopts what the command leaves behind (PR_SET_CHILD_SUBREAPER).
fn run(options: &str, command: &[&str]) -> Ended {
    set_child_subreaper(true).unwrap();
    let mut fdpost = fdpost(&format!("run --json {options} --"));
    fdpost.args(command);
    let ended = start_with(fdpost, None).finish();
    let left = waitpid(None, Some(WaitPidFlag::WNOHANG));
    assert_eq!(left, Err(Errno::ECHILD), "a process was left behind");
    ended
}

fn send(words: &str) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_fdpost").to_owned();
    let words = format!("send --fd {{}} --json --expect-reply --timeout 20000 {words}");
    [program].into_iter().chain(words.split_whitespace().map(str::to_owned)).collect()
}

/// `send` asks and `run` answers reversed: what each prints.
#[track_caller]
fn talk(options: &str, words: &str, ours: &[&str], theirs: &[&str]) {
    let command = send(words);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let ended = run(&format!("--reply reverse {options}"), &command);
    let ours: Vec<&str> = [READY].into_iter().chain(ours.iter().copied()).chain([CLOSED]).collect();
    ended.expect(0, &ours);
    assert_eq!(ended.err.lines().collect::<Vec<_>>(), theirs);
}

#[test] // P1, P2
fn send_and_run_speak_every_wire_with_descriptors() {
    let ledger = Ledger::open();
    let said = |data: &str, rest: &str| {
        let kinds = r#""descriptors":2,"kinds":["directory","device"]"#;
        format!(r#"{{"event":"message","bytes":3,{kinds},"data":"{data}"{rest}}}"#)
    };
    let attached = "--data abc --attach /usr --attach /dev/null";
    for (profile, rest, options) in [
        ("libcamera", "", ""),
        ("packet", r#","kind":7,"correlation":1"#, "--kind 7"),
        ("stream", r#","kind":7"#, "--kind 7"),
    ] {
        talk(
            &format!("--profile {profile} --max-descriptors 2"),
            &format!("--profile {profile} {attached} {options}"),
            &[&said("616263", rest)],
            &[&said("636261", rest)],
        );
    }
    let handshake = r#"{"event":"handshake"}"#;
    let rest = r#","kind":0"#;
    talk(
        "--profile stream --handshake --max-descriptors 2",
        &format!("--profile stream --handshake {attached}"),
        &[handshake, &said("616263", rest)],
        &[handshake, &said("636261", rest)],
    );
    let descriptor = r#"{"event":"message","bytes":0,"descriptors":1,"kinds":["device"],"data":""}"#;
    talk("--profile send-fd", "--profile send-fd --attach /dev/null", &[descriptor], &[descriptor]);
    let error = |data: &str| format!(r#"{{"event":"peer-error","status":5,"data":"{data}"}}"#);
    let words = "--profile send-fd --error 5 --data abc";
    talk("--profile send-fd", words, &[&error("616263")], &[&error("636261")]);
    ledger.close();
}

#[test]
fn the_command_finds_its_number_and_its_output_stays_out_of_the_events() {
    let ledger = Ledger::open();
    let script =
        "test \"$1\" = \"fd=$FDPOST_FD,$FDPOST_FD\" && test -S /proc/self/fd/$FDPOST_FD && echo seen";
    let ended = run("--profile packet", &["sh", "-c", script, "sh", "fd={},{}"]);
    ended.expect(0, &[READY, CLOSED]);
    assert_eq!(ended.err, "seen\n");
    ledger.close();
}

/// Runs `script` on the wire libcamera; `run` is stopped from its start until it has ended.
fn run_late(options: &str, script: &str) -> Ended {
    let mut command = fdpost(&format!("run --json --profile libcamera {options} -- sh -c"));
    command.arg(format!("kill -STOP $PPID; {script}"));
    let running = start_with(command, None);
    let state = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next())
    };
    let pid = running.pid().to_string();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        if state(&pid) == Some('T') && state(children.trim()) == Some('Z') {
            break;
        }
        assert!(Instant::now() < deadline, "{pid} is not stopped, or {children} does not end");
        sleep(Duration::from_millis(2));
    }
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGCONT).unwrap();
    running.finish()
}

/// A header that declares one byte, in the shell's words.
const HEADER: &str = "printf '\\1\\0\\0\\0\\0\\0\\0\\0' >&$FDPOST_FD;";

#[test] // P1: the end of the process is not the end of what it said
#[cfg(target_endian = "little")]
fn what_an_ended_command_had_sent_is_still_read() {
    let ledger = Ledger::open();
    let message = format!("{HEADER} printf x >&$FDPOST_FD;");
    let line = r#"{"event":"message","bytes":1,"descriptors":0,"kinds":[],"data":"78"}"#;
    let lines: Vec<&str> = [READY].into_iter().chain([line; 20]).chain([CLOSED]).collect();
    run_late("", &message.repeat(20)).expect(0, &lines);
    ledger.close();
}

#[test] // P1, P5: nor a message that it left unfinished, which a datagram pair does not show
#[cfg(target_endian = "little")]
fn a_command_that_ends_in_the_middle_of_a_message_broke_a_rule() {
    let ledger = Ledger::open();
    let line = r#"{"event":"violation","rule":"payload-missing","expected":1,"received":0,"text":"a message was begun and 0 of 1 bytes came of the part awaited"}"#;
    run_late("--assembly-timeout 100", HEADER).expect(65, &[READY, line]);
    ledger.close();
}

#[test] // P3
fn a_command_that_breaks_a_rule_ends_it_with_65() {
    let ledger = Ledger::open();
    let ended = run("--profile packet", &["sh", "-c", "printf x >&$FDPOST_FD; exec sleep 1000"]);
    let line = r#"{"event":"violation","rule":"header-length","expected":16,"received":1,"text":"a header of 1 bytes where the wire has 16"}"#;
    ended.expect(65, &[READY, line]);
    ended.says("header-length");
    ledger.close();
}

#[test]
fn a_command_that_fails_or_cannot_be_started_ends_it_with_74() {
    let ledger = Ledger::open();
    let ended = run("--profile stream", &["sh", "-c", "exit 3"]);
    ended.expect(74, &[READY, CLOSED]);
    ended.says("the command ended with exit status: 3");
    let ended = run("--profile libcamera", &["sh", "-c", "kill -9 $$"]);
    ended.expect(74, &[READY, CLOSED]);
    ended.says("signal: 9");
    for program in ["/nonexistent", "/usr"] {
        let ended = run("--profile stream", &[program]);
        ended.expect(74, &[]);
        ended.says(&format!("starting {program}: "));
    }
    ledger.close();
}

#[test]
fn a_command_may_be_slow_to_begin_its_handshake() {
    let ledger = Ledger::open();
    let script = "sleep 0.7; exec \"$0\" send --fd {} --profile stream --handshake --data x";
    let ended = run("--profile stream --handshake", &["sh", "-c", script, env!("CARGO_BIN_EXE_fdpost")]);
    let line = r#"{"event":"message","bytes":1,"descriptors":0,"kinds":[],"data":"78","kind":0}"#;
    ended.expect(0, &[READY, r#"{"event":"handshake"}"#, line, CLOSED]);
    // One that never begins has not shaken hands.
    let ended = run("--profile stream --handshake", &["true"]);
    assert_eq!(ended.status, Some(65));
    ended.says("handshake");
    ledger.close();
}

#[test] // the conversation may end before its command does
fn a_command_that_closes_its_end_may_finish_its_work() {
    let ledger = Ledger::open();
    let script = "eval \"exec $FDPOST_FD>&-\"; sleep 0.2; exit 7";
    let ended = run("--profile stream", &["sh", "-c", script]);
    ended.expect(74, &[READY, CLOSED]);
    ended.says("exit status: 7");
    ledger.close();
}

#[test] // P5: nor is a process left behind
fn a_silent_command_is_killed_when_the_idle_time_is_over() {
    let ledger = Ledger::open();
    for profile in ["libcamera", "packet", "stream", "send-fd"] {
        let ended = run(&format!("--profile {profile} --idle-timeout 50"), &["sleep", "1000"]);
        ended.expect(0, &[READY, IDLE]);
        assert_eq!(ended.err, "");
    }
    ledger.close();
}

#[test] // nor when the command is ended by what it cannot catch
fn the_command_dies_with_the_one_that_started_it() {
    let ledger = Ledger::open();
    set_child_subreaper(true).unwrap();
    let mut command = fdpost("run --profile packet -- sh -c");
    command.arg("echo $$ >&2; exec sleep 1000");
    let mut running = start_with(command, None);
    let mut line = String::new();
    BufReader::new(running.child().stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(Path::new(&format!("/proc/{}", line.trim())).exists());
    running.child().kill().unwrap();
    running.child().wait().unwrap();
    // The kernel kills it, and this process has adopted it.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => break,
            _ => assert!(Instant::now() < deadline, "process {line} lives on"),
        }
        sleep(Duration::from_millis(2));
    }
    drop(running);
    ledger.close();
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    let ledger = Ledger::open();
    for (words, said) in [
        ("run --profile packet", "COMMAND"),
        ("run -- true", "--profile"),
        ("run --profile packet --handshake -- true", "only the wire stream"),
        ("run --profile libcamera --kind 1 --data x -- true", "no kind"),
    ] {
        let ended = cli::run(words);
        ended.expect(64, &[]);
        ended.says(said);
    }
    ledger.close();
}

#[test] // P9: no more is granted than is accepted
fn run_speaks_first_if_asked_to() {
    let ledger = Ledger::open();
    let script =
        "import os, socket, sys\nours = socket.socket(fileno=int(sys.argv[1]))\nprint(ours.recv(99).hex())";
    if cli::python("").is_some() {
        let options = "--profile packet --max-descriptors 3 --kind 7 --data abc";
        let ended = run(options, &["python3", "-c", script, "{}"]);
        ended.expect(0, &[READY, CLOSED]);
        assert_eq!(ended.err, "01000003030000000700000001000000616263\n");
    }
    ledger.close();
}

/// A child in Python: asks once with a descriptor, and checks the answer.
const PYTHON: &str = r#"
import os, socket, struct, sys
ours = socket.socket(fileno=int(os.environ["FDPOST_FD"]))
ours.settimeout(30)
socket.send_fds(ours, [struct.pack("<BBBBIII", 1, 0, 1, 1, 3, 7, 9) + b"abc"], [0])
data, fds, _, _ = socket.recv_fds(ours, 100, 2)
assert data == struct.pack("<BBBBIII", 1, 1, 1, 0, 3, 7, 9) + b"abc", data
assert len(fds) == 1 and os.path.sameopenfile(fds[0], 0)
"#;

#[test] // P1
fn a_child_in_python_is_answered() {
    let ledger = Ledger::open();
    if cli::python("").is_some() {
        let options = "--profile packet --reply echo --max-descriptors 1";
        let ended = run(options, &["python3", "-c", PYTHON]);
        let line = r#"{"event":"message","bytes":3,"descriptors":1,"kinds":["device"],"data":"616263","kind":7,"correlation":9}"#;
        ended.expect(0, &[READY, line, CLOSED]);
    }
    ledger.close();
}

#[test] // P1
fn libcameras_worker_is_started_and_answers() {
    let ledger = Ledger::open();
    let Some(worker) = vimc::find() else {
        let required = std::env::var("FDPOST_REQUIRE_WORKER").is_ok_and(|value| value == "1");
        assert!(!required, "{}", vimc::ABSENT);
        println!("{}", vimc::ABSENT);
        return;
    };
    let [binary, module] = [&worker.binary, &worker.module].map(|path| path.to_str().unwrap());
    let script = vimc::Script::load().unwrap();
    let request = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("start-{}", std::process::id()));
    fs::write(&request, script.payload("start", "request").unwrap()).unwrap();
    let options = format!("--profile libcamera --idle-timeout 5000 --data-file {}", request.display());
    let ended = run(&options, &[binary, module, "{}"]);
    fs::remove_file(&request).unwrap();
    let reply: String =
        script.payload("start", "reply").unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let line = format!(r#"{{"event":"message","bytes":12,"descriptors":0,"kinds":[],"data":"{reply}"}}"#);
    ended.expect(0, &[READY, &line, IDLE]);
    ledger.close();
}
