//! `make faults`: each system call of each party fails once, at every time that it is made, with
//! every error that it can have; and each allocation. Afterwards nobody hangs, there was at most one error and a clear one,
//! no descriptor is left open, and whoever had no fault can talk with the others.
//!
//! Without arguments: all scenarios, a process for each case, and then the real programs under
//! strace(1). With a scenario's name, a party's and a call's: those. `case SCENARIO PARTY CALL ERRNO NUMBER`: one case.
//! Exit code 1, if a case failed.

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod cases;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod evidence;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#[path = "../../tests/support/grouped.rs"]
mod grouped;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod handing;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod memory;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod party;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod processes;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod reactor;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod scenario;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod shim;

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut evidence = evidence::Evidence::default();
    evidence.first_only = std::env::var_os("FAULTS_FIRST").is_some();
    match words[..] {
        ["case", scenario, party, call, errno, number] => {
            return cases::play(scenario, party, call, errno, number);
        }
        ["processes"] => processes::all(&mut evidence),
        [] => {
            cases::all(&[], &mut evidence);
            processes::all(&mut evidence);
        }
        [_] | [_, _] | [_, _, _] => cases::all(&words, &mut evidence),
        _ => {
            eprintln!(
                "usage: faults [SCENARIO [PARTY [CALL]] | processes | case SCENARIO PARTY CALL ERRNO NUMBER]"
            );
            return ExitCode::from(2);
        }
    }
    evidence.say();
    ExitCode::from(u8::from(evidence.failed > 0))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
fn main() -> ExitCode {
    println!("skipped: system calls are replaced on 64-bit Linux with the GNU C library only");
    ExitCode::SUCCESS
}
