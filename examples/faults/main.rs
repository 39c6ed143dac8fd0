//! `make faults`: each system call of each party fails once, at every time that it is made, with
//! every error that it can have. Afterwards nobody hangs, there was at most one error and a clear one,
//! no descriptor is left open, and whoever had no fault can talk with the others.
//!
//! Without arguments: all scenarios, a process for each case, and then the real programs under
//! strace(1). With a scenario's name: that one. `case SCENARIO PARTY CALL ERRNO NUMBER`: one case.
//! Exit code 1, if a case failed.

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod cases;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod party;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod processes;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod scenario;
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
mod shim;

use std::process::ExitCode;

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let failed = match words[..] {
        ["case", scenario, party, call, errno, number] => {
            return cases::play(scenario, party, call, errno, number);
        }
        ["processes"] => processes::all(),
        [] => cases::all(None) + processes::all(),
        [scenario] => cases::all(Some(scenario)),
        _ => {
            eprintln!("usage: faults [SCENARIO | processes | case SCENARIO PARTY CALL ERRNO NUMBER]");
            return ExitCode::from(2);
        }
    };
    println!("{failed} cases failed");
    ExitCode::from(u8::from(failed > 0))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
fn main() -> ExitCode {
    println!("skipped: system calls are replaced on 64-bit Linux with the GNU C library only");
    ExitCode::SUCCESS
}
