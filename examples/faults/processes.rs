//! The real programs, the demo and the broker's example, under strace(1), which makes a call fail.
//!
//! Why strace and no shim: what is started again by exec(2), and what a program says at its end and by
//! its exit code, is the real thing here, with nothing of this program in it. Each process and thread
//! meets the fault, at its own n-th call: strace counts so. A run takes ten times as long as a case in
//! process, so the broker's example, whose scenario is played in process with every error, meets the
//! mildest error of each call and the worst; the demo, which is played nowhere else, meets all.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::evidence::Evidence;
use crate::shim::{ALLOCATION, CALLS_AND_ERRORS};

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

pub(crate) fn all(evidence: &mut Evidence) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("skipped: strace is not installed (apt-get install strace)");
        return;
    }
    let here = std::env::current_exe().unwrap_or_default();
    let programs = [
        ("broker", here.with_file_name("broker"), None),
        ("demo", here.with_file_name("../fdpost"), Some("demo")),
    ];
    println!("program  call           n    exit 0  another, with a word  failed");
    for (name, program, argument) in programs {
        if !program.exists() {
            println!("skipped: {} is not built (make faults)", program.display());
            continue;
        }
        for (call, errors) in CALLS_AND_ERRORS.into_iter().filter(|(call, _)| *call != ALLOCATION) {
            // The C library's send(2) is the kernel's sendto(2).
            let call = if call == "send" { "sendto" } else { call };
            let mut tally = [0_u32; 3];
            let mut reached = 0;
            let chosen = errors
                .iter()
                .enumerate()
                .filter(|(at, _)| name == "demo" || [0, errors.len() - 1].contains(at));
            for (_, errno) in chosen {
                for number in 1.. {
                    let mut command = Command::new("strace");
                    let log = std::env::temp_dir().join(format!("fdpost-faults-{}", std::process::id()));
                    command
                        // Only what is named by `trace=` stops, and only that can be injected.
                        .args(["-f", "-qq", "--seccomp-bpf", "-o"])
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
                    // Without a fault it must do well.
                    let verdict = if struck { verdict } else { 2 };
                    tally[verdict] += 1;
                    reached = reached.max(number);
                    if verdict == 2 {
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
                evidence.count(&format!("{name} (strace)"), call, well + said + bad, bad);
            }
        }
    }
}
