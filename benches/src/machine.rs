//! Where and when, in words.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::clock::Cores;

/// What a reader has to know of the machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// `25 November 2026`.
    pub date: String,
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub compiler: String,
    /// Load averages (1, 5, 15 minutes) before and after the run.
    pub load_before: String,
    pub load_after: String,
}

impl Machine {
    pub fn look() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = model.map_or("an unknown processor", |(_, model)| model.trim());
        // What cpuid says inside one (arch/x86/kernel/cpu/hypervisor.c); other processors do not tell.
        let guest = processors.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let compiler = Command::new("rustc").arg("--version").output().ok();
        let compiler = compiler.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self {
            date: date(seconds / 86_400),
            processor: if guest { format!("{model} in a virtual machine") } else { model.into() },
            cores: Cores::allowed().numbers().len(),
            // The build's own suffix says nothing to a reader.
            kernel: kernel.trim().split('-').next().unwrap_or_default().into(),
            compiler: compiler.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
            load_before: load(),
            load_after: String::new(),
        }
    }

    #[must_use]
    pub fn after(self) -> Self {
        Self { load_after: load(), ..self }
    }
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// The date so many days after 1 January 1970, of the Gregorian calendar.
fn date(days: u64) -> String {
    const MONTHS: [(&str, u64); 12] = [
        ("January", 31),
        ("February", 28),
        ("March", 31),
        ("April", 30),
        ("May", 31),
        ("June", 30),
        ("July", 31),
        ("August", 31),
        ("September", 30),
        ("October", 31),
        ("November", 30),
        ("December", 31),
    ];
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    for (name, length) in MONTHS {
        let length = length + u64::from(name == "February" && leap(year));
        if left < length {
            return format!("{} {name} {year}", left + 1);
        }
        left -= length;
    }
    unreachable!("a year's days are used up by its months")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        assert_eq!(date(0), "1 January 1970");
        assert_eq!(date(59), "1 March 1970");
        assert_eq!(date(11_016), "29 February 2000");
        assert_eq!(date(11_017), "1 March 2000");
        assert_eq!(date(47_541), "1 March 2100");
        assert_eq!(date(20_782), "25 November 2026");
        assert_eq!(date(20_818), "31 December 2026");
        assert_eq!(date(20_819), "1 January 2027");
    }
}
