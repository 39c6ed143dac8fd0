//! A case: one scenario with one fault, in a process of its own; and all of them, counted.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;

use crate::party::{Report, Stop};
use crate::processes::ended_within;
use crate::scenario::{self, SCENARIOS};
use crate::shim::{CALLS_AND_ERRORS, Fault};

/// Longer than any case's own deadlines.
const HANGS: Duration = Duration::from_secs(120);

/// Later than any scenario makes a call.
const ENDLESS: u32 = 2000;

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
    failed: u32,
    /// How often the call is made at most.
    reached: u32,
    said: BTreeMap<String, u32>,
}

/// All cases of one scenario, or of all; how many failed.
pub(crate) fn all(only: Option<&str>) -> u32 {
    let mut failed = 0;
    println!(
        "scenario   party    call           n    as if nothing  an error, all came  one error, over  failed"
    );
    for (scenario, parties) in SCENARIOS {
        if only.is_some_and(|only| only != scenario) {
            continue;
        }
        for party in parties {
            for (call, errors) in CALLS_AND_ERRORS {
                let mut tally = Tally::default();
                for errno in errors {
                    every_number(scenario, party, call, *errno, &mut tally);
                }
                if tally.reached == 0 {
                    continue;
                }
                let Tally { unnoticed, passed, ended, reached, .. } = tally;
                println!(
                    "{scenario:<10} {party:<8} {call:<12} {reached:>3}  {unnoticed:>15}  {passed:>18}  {ended:>15}  {:>6}",
                    tally.failed
                );
                if std::env::var_os("FAULTS_SAID").is_some() {
                    for (said, times) in &tally.said {
                        println!("    {times:>4} x {said}");
                    }
                }
                failed += tally.failed;
            }
        }
    }
    failed
}

fn every_number(scenario: &str, party: &str, call: &str, errno: Errno, tally: &mut Tally) {
    for number in 1..ENDLESS {
        let words = [scenario, party, call, &format!("{errno:?}"), &number.to_string()];
        let mut command = Command::new("/proc/self/exe");
        command.arg("case").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = ended_within(command, HANGS);
        let (code, said) = match &ended {
            Some(output) => (output.status.code(), String::from_utf8_lossy(&output.stdout)),
            None => (None, "hangs".into()),
        };
        match code {
            Some(NOT_REACHED) => return,
            Some(0) => tally.unnoticed += 1,
            Some(PASSED) => tally.passed += 1,
            Some(ENDED) => tally.ended += 1,
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
