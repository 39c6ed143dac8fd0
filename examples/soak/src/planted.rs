//! Defects of the soak's own, each of which must make it fail, and with the right words.

use std::process::{Command, ExitCode};

/// The word for `--plant`, the promise and what breaks it, and what is said of it.
const DEFECTS: [(&str, &str, &str); 5] = [
    ("memory", "P4: a server that keeps 512 KiB of each session", "of memory in the last fifth"),
    (
        "descriptor",
        "P2: a server that keeps a descriptor of each session",
        "descriptors are open between sessions",
    ),
    ("broker", "P2: a broker that keeps a descriptor for each party that left", "the broker has"),
    ("order", "P7: a sender whose second message leaves before its first", "were due"),
    ("blame", "P5: an honest peer that begins with a header of no wire", "an honest peer, and Violation"),
];

/// Long enough for the leak of memory to be seen.
const MINUTES: &str = "0.3";

/// The exit code: 1, where one went unnoticed.
pub(crate) fn all() -> ExitCode {
    for (plant, what, words) in DEFECTS {
        let played = Command::new("/proc/self/exe").args([MINUTES, "--plant", plant]).output();
        let (said, failed) = match &played {
            Ok(played) => (String::from_utf8_lossy(&played.stdout), !played.status.success()),
            Err(error) => (error.to_string().into(), false),
        };
        let caught = said
            .lines()
            .filter_map(|line| line.strip_prefix("soak: failed: "))
            .find(|line| line.contains(words));
        match caught.filter(|_| failed) {
            Some(caught) => println!("planted: soak: {what} -> `make soak`, \"{caught}\""),
            None => {
                println!("{said}soak: {what} went unnoticed");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
