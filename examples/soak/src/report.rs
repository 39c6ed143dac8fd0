//! What a lasting process tells the conductor, line by line on its standard output.

use std::io::Write;
use std::time::Instant;

/// A process at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) millis: u64,
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
    pub(crate) descriptors: u64,
}

impl Sample {
    pub(crate) fn own(begin: Instant, descriptors: usize) -> Self {
        let millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (resident_kib, peak_kib) = memory("self").unwrap_or_default();
        Self { millis, resident_kib, peak_kib, descriptors: descriptors as u64 }
    }
}

/// VmRSS and VmHWM of a process (proc_pid_status(5)), in KiB.
pub(crate) fn memory(process: &str) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().strip_suffix(" kB")?.parse().ok()
    };
    Some((field("VmRSS")?, field("VmHWM")?))
}

/// Descriptors that a process has open.
pub(crate) fn open_in(process: u32) -> Option<u64> {
    Some(std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64)
}

fn say(line: &str) {
    // In one piece: several threads speak.
    let _nobody_listens = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

pub(crate) fn say_sample(sample: &Sample) {
    let Sample { millis, resident_kib, peak_kib, descriptors } = sample;
    say(&format!("sample {millis} {resident_kib} {peak_kib} {descriptors}"));
}

pub(crate) fn say_failure(text: &str) {
    say(&format!("failure {}", text.replace('\n', " ")));
}

pub(crate) fn say_rule(rule: &str, count: u64) {
    say(&format!("rule {count} {rule}"));
}

pub(crate) fn say_total(name: &str, count: u64) {
    say(&format!("total {count} {name}"));
}

/// A line, understood.
#[derive(Debug)]
pub(crate) enum Said {
    Sample(Sample),
    Failure(String),
    Rule(String, u64),
    Total(String, u64),
}

impl Said {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let counted = || {
            let (count, name) = rest.split_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        match word {
            "sample" => {
                let numbers: Vec<u64> = rest.split(' ').filter_map(|number| number.parse().ok()).collect();
                let &[millis, resident_kib, peak_kib, descriptors] = &numbers[..] else { return None };
                Some(Self::Sample(Sample { millis, resident_kib, peak_kib, descriptors }))
            }
            "failure" => Some(Self::Failure(rest.to_owned())),
            "rule" => counted().map(|(name, count)| Self::Rule(name, count)),
            "total" => counted().map(|(name, count)| Self::Total(name, count)),
            _ => None,
        }
    }
}
