//! A case: one scenario with one fault, in a process of its own; and all of them, counted.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};

use crate::evidence::Evidence;
use crate::memory::{self, Place};

use crate::party::{Report, Stop};
use crate::processes::ended_within;
use crate::scenario::{self, SCENARIOS};
use crate::shim::{ALLOCATION, CALLS_AND_ERRORS, Fault, SAYS_WHERE};

/// Longer than any case's own deadlines.
const HANGS: Duration = Duration::from_secs(120);

/// Later than any scenario makes a call.
const ENDLESS: u32 = 5000;

/// Exit codes of a case beside 0 and 1.
const NOT_REACHED: i32 = 3;
const PASSED: i32 = 4;
const ENDED: i32 = 5;

/// Plays one case; what it came to is the exit code.
pub(crate) fn play(scenario: &str, victim: &str, call: &str, errno: &str, number: &str) -> ExitCode {
    let known = CALLS_AND_ERRORS.iter().find(|(known, _)| *known == call);
    let number: u32 = number.parse().unwrap_or(0);
    let Some((call, errno)) = known.and_then(|(call, errors)| {
        Some((*call, *errors.iter().find(|error| format!("{error:?}") == errno)?))
    }) else {
        eprintln!("no such call or error");
        return ExitCode::from(2);
    };
    // An allocation that may not fail ends the process, as std has it: no picture of that is wanted.
    let _forbidden = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    SAYS_WHERE.store(std::env::var_os(memory::SAY).is_some(), Ordering::Relaxed);
    let before = descriptors();
    let reports = scenario::run(scenario, victim, Some(Fault { call, number, errno }));
    let after = descriptors();
    match judge(&reports, victim, call, errno) {
        _ if before != after => fail(&format!("open before {before:?}, after {after:?}"), &reports),
        Err(why) => fail(&why, &reports),
        Ok(code) => {
            // What was answered goes into the tally.
            if let Some(error) = reports.iter().find_map(|report| report.errors.first()) {
                println!("{error}");
            }
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
    }
}

fn fail(why: &str, reports: &[Report]) -> ExitCode {
    eprintln!("{why}: {reports:?}");
    ExitCode::FAILURE
}

/// What a case must look like, whatever the fault was.
fn judge(reports: &[Report], victim: &str, call: &str, errno: Errno) -> Result<i32, String> {
    let struck = reports.iter().any(|report| report.struck);
    let mut ended = false;
    for Report { name, end, errors, .. } in reports {
        match end {
            Err(Stop::Broken(what)) => return Err(format!("{name}: {what}")),
            Err(_) if !struck => return Err(format!("{name} failed without a fault")),
            // It had no fault, and started behind one. Nobody may be left to serve it, or the fault
            // said that a party is gone, or cannot be read from any more: then it was told.
            Err(_)
                if *name == "client three"
                    && !is_end(errno)
                    && errno != Errno::EIO
                    && !over(reports, victim) =>
            {
                return Err(format!("{name} is not served"));
            }
            Err(_) => ended = true,
            Ok(()) => {}
        }
        // What is short for a moment ends nothing; but a stream that `send_fd` has read in part.
        if end.is_err() && *name == victim && passes(call, errno) && *name != "taker" {
            return Err(format!("{errno:?} of {call} ended it"));
        }
        // The end may be seen by a receive first, and by the next send.
        if errors.len() > 1 && *name == victim && !is_end(errno) {
            return Err(format!("{name} was told of one fault more than once"));
        }
        // A broker does not wait for who has no room: it says so (BR-18).
        let may_be_said = errno == Errno::EAGAIN && victim == "broker" && call.starts_with("send");
        if !errors.is_empty() && matches!(errno, Errno::EINTR | Errno::EAGAIN) && !may_be_said {
            return Err(format!("{name} was told of {errno:?}"));
        }
    }
    let told = reports.iter().any(|report| !report.errors.is_empty());
    Ok(match (struck, told, ended) {
        (false, ..) => NOT_REACHED,
        (true, _, true) => ENDED,
        (true, true, false) => PASSED,
        (true, false, false) => 0,
    })
}

/// A call in the middle of a conversation that can be made again with more luck.
fn passes(call: &str, errno: Errno) -> bool {
    let again = ["recvmsg", "recvmmsg", "sendmsg", "sendmmsg", "send", "poll", "statx"].contains(&call);
    again
        && matches!(
            errno,
            Errno::EINTR | Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS | Errno::ETOOMANYREFS
        )
}

/// The one with the fault, or its conversation, is over.
fn over(reports: &[Report], victim: &str) -> bool {
    reports.iter().any(|report| report.name == victim && report.end.is_err())
}

/// The peer is gone, says this error.
const fn is_end(errno: Errno) -> bool {
    matches!(errno, Errno::ECONNRESET | Errno::EPIPE)
}

/// Numbers of what is open.
fn descriptors() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let mut open: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    open.sort();
    open
}

/// What became of the cases of one call.
#[derive(Default)]
struct Tally {
    unnoticed: u32,
    passed: u32,
    ended: u32,
    /// The process ended at an allocation that may not fail.
    aborted: u32,
    failed: u32,
    /// How often the call is made at most.
    reached: u32,
    said: BTreeMap<String, u32>,
}

/// All cases of one scenario, or of all: of one party and one call, if that is said.
pub(crate) fn all(only: &[&str], evidence: &mut Evidence) {
    let wanted = |place: usize, word: &str| only.get(place).is_none_or(|only| *only == word);
    println!(
        "scenario   party    call           n    as if nothing  an error, all came  one error, over  aborted  failed"
    );
    for (scenario, parties) in SCENARIOS.iter().filter(|(scenario, _)| wanted(0, scenario)) {
        for party in parties.iter().filter(|party| wanted(1, party)) {
            for (call, errors) in CALLS_AND_ERRORS.iter().filter(|(call, _)| wanted(2, call)) {
                let mut tally = Tally::default();
                if evidence.failed > 0 && evidence.first_only {
                    return;
                }
                for errno in errors.iter().filter(|errno| may_be_said(scenario, **errno)) {
                    every_number(scenario, party, call, *errno, &mut tally, evidence);
                }
                if tally.reached == 0 {
                    continue;
                }
                let Tally { unnoticed, passed, ended, aborted, failed, reached, .. } = tally;
                println!(
                    "{scenario:<10} {party:<8} {call:<12} {reached:>3}  {unnoticed:>15}  {passed:>18}  {ended:>15}  {aborted:>7}  {failed:>6}",
                );
                if std::env::var_os("FAULTS_SAID").is_some() {
                    for (said, times) in &tally.said {
                        println!("    {times:>4} x {said}");
                    }
                }
                evidence.count(scenario, call, unnoticed + passed + ended + aborted + failed, failed);
            }
        }
    }
}

/// In a reactor "would block" is true when it is said, or nobody is woken: readiness is told once
/// (EPOLLET). The kernel says it truly often enough there.
fn may_be_said(scenario: &str, errno: Errno) -> bool {
    !(scenario == "reactor" && errno == Errno::EAGAIN)
}

fn every_number(
    scenario: &str,
    party: &str,
    call: &str,
    errno: Errno,
    tally: &mut Tally,
    evidence: &mut Evidence,
) {
    for number in 1..ENDLESS {
        if tally.failed > 0 && evidence.first_only {
            return;
        }
        let words = [scenario, party, call, &format!("{errno:?}"), &number.to_string()];
        let ended = one(&words, false);
        let (code, said) = match &ended {
            Some(output) => (output.status.code(), String::from_utf8_lossy(&output.stdout)),
            None => (None, "hangs".into()),
        };
        match code {
            Some(NOT_REACHED) => return,
            Some(0) => tally.unnoticed += 1,
            Some(PASSED) => tally.passed += 1,
            Some(ENDED) => tally.ended += 1,
            None if call == ALLOCATION && aborted(ended.as_ref()) => match place(&words) {
                Ok(place) => {
                    tally.aborted += 1;
                    evidence.note_infallible(place);
                }
                Err(why) => {
                    tally.failed += 1;
                    println!("FAILED: case {}: {why}", words.join(" "));
                }
            },
            _ => {
                tally.failed += 1;
                let why = ended.as_ref().map_or("hangs".into(), |output| {
                    String::from_utf8_lossy(&output.stderr).trim().to_owned()
                });
                println!("FAILED: case {}: {why}", words.join(" "));
            }
        }
        *tally.said.entry(format!("{errno:?}: {}", said.trim())).or_default() += 1;
        tally.reached = tally.reached.max(number);
    }
    tally.failed += 1;
    println!("FAILED: {scenario} {party} makes {call} without end after {errno:?}");
}

/// One case in a process of its own; `None`: it hangs.
fn one(words: &[&str], says_where: bool) -> Option<Output> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("case").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if says_where {
        // What stands on paths is said shorter from there.
        command.env(memory::SAY, "yes").current_dir(env!("CARGO_MANIFEST_DIR"));
    }
    ended_within(command, HANGS)
}

fn aborted(ended: Option<&Output>) -> bool {
    ended.is_some_and(|output| output.status.signal() == Some(libc::SIGABRT))
}

/// Whose allocation ended the process; it is found out by playing the case again.
fn place(words: &[&str]) -> Result<Place, String> {
    // Threads take turns as they like: the n-th allocation of a thread need not be the same again.
    for _ in 0..50 {
        let ended = one(words, true);
        if let Some(output) = ended.filter(|output| aborted(Some(output))) {
            return memory::place(&String::from_utf8_lossy(&output.stderr));
        }
    }
    Err("aborts, and not when it is asked where".into())
}
