//! The real programs, the demo and the broker's example, under strace(1), which makes a call fail.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::shim::CALLS_AND_ERRORS;

/// Runs it, and kills it after so long: `None`.
pub(crate) fn ended_within(mut command: Command, most: Duration) -> Option<Output> {
    let process = command.spawn();
    let mut process = match process {
        Ok(process) => process,
        Err(error) => panic!("{command:?}: {error}"),
    };
    let began = Instant::now();
    while matches!(process.try_wait(), Ok(None)) {
        if began.elapsed() > most {
            kill(&mut process);
            return None;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    process.wait_with_output().ok()
}

fn kill(process: &mut Child) {
    let _ended_meanwhile: io::Result<()> = process.kill();
    let _reaped: io::Result<_> = process.wait();
}

/// Longer than any program's own deadlines.
const HANGS: Duration = Duration::from_secs(150);

/// How many cases failed. Every process and thread of a program meets the fault, each at its own
/// n-th call: strace counts so.
pub(crate) fn all() -> u32 {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("skipped: strace is not installed (apt-get install strace)");
        return 0;
    }
    let Ok(here) = std::env::current_exe() else { return 1 };
    let programs = [
        ("broker", here.with_file_name("broker"), None),
        ("demo", here.with_file_name("../fdpost"), Some("demo")),
    ];
    println!("program  call           n    exit 0  another, with a word  failed");
    let mut failed = 0;
    for (name, program, argument) in programs {
        if !program.exists() {
            println!("skipped: {} is not built (make faults)", program.display());
            continue;
        }
        for (call, errors) in CALLS_AND_ERRORS {
            let mut tally = [0_u32; 3];
            let mut reached = 0;
            // A program takes a hundred times as long as a case: the mildest error, and the worst.
            let chosen = errors.iter().enumerate().filter(|(at, _)| [0, errors.len() - 1].contains(at));
            for (_, errno) in chosen {
                for number in 1.. {
                    let mut command = Command::new("strace");
                    let log = std::env::temp_dir().join(format!("fdpost-faults-{}", std::process::id()));
                    // The C library's send(2) is the kernel's sendto(2).
                    let call = if call == "send" { "sendto" } else { call };
                    command
                        .args(["-f", "-qq", "-o"])
                        .arg(&log)
                        .args(["-e", &format!("trace={call}"), "-e"])
                        .arg(format!("inject={call}:error={errno:?}:when={number}"))
                        .arg(&program)
                        .args(argument)
                        .stdin(Stdio::null())
                        .stdout(Stdio::null())
                        .stderr(Stdio::piped());
                    let ended = ended_within(command, HANGS);
                    let struck = std::fs::read_to_string(&log).is_ok_and(|log| log.contains("(INJECTED)"));
                    let _unwritten = std::fs::remove_file(&log);
                    let word =
                        ended.as_ref().map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
                    let verdict = match (&ended, &word) {
                        (Some(output), Some(word)) if !word.contains("panicked") => {
                            match (output.status.code(), word.trim().is_empty()) {
                                (Some(0), _) => 0,
                                (Some(_), false) => 1,
                                _ => 2,
                            }
                        }
                        _ => 2,
                    };
                    if !struck && verdict == 0 {
                        break;
                    }
                    tally[verdict] += 1;
                    reached = reached.max(number);
                    if verdict == 2 {
                        failed += 1;
                        println!(
                            "FAILED: {name} {call} {errno:?} {number}: {}",
                            word.as_deref().unwrap_or("hangs")
                        );
                    }
                }
            }
            if reached > 0 {
                let [well, said, bad] = tally;
                println!("{name:<8} {call:<12} {reached:>3}  {well:>8}  {said:>20}  {bad:>6}");
            }
        }
    }
    failed
}
