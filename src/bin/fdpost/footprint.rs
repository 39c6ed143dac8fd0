//! What this process holds: what a hostile peer must not be able to change.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::Outcome;

/// Memory and descriptors of this process at one moment.
#[derive(Debug)]
pub(crate) struct Footprint {
    /// VmRSS: memory in use.
    pub(crate) resident_kib: u64,
    /// VmPeak: the most address space ever asked for, so that memory is seen which was asked for
    /// and given back, or never touched.
    pub(crate) asked_kib: u64,
    /// Each open descriptor and what it refers to.
    pub(crate) descriptors: BTreeMap<u32, PathBuf>,
}

/// What two moments may differ by. The kernel counts VmRSS per processor and sums up only now
/// and then (include/linux/mm.h, get_mm_counter), so exactly the same cannot be asked for; this is
/// a thousandth of the 4 GiB in question.
const FUZZ_KIB: u64 = 4 * 1024;

impl Footprint {
    pub(crate) fn now() -> Outcome<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let kib = |field: &str| -> Outcome<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
            number.ok_or_else(|| format!("/proc/self/status has no {field}").into())
        };
        let (resident_kib, asked_kib) = (kib("VmRSS")?, kib("VmPeak")?);
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir("/proc/self/fd")?.flatten() {
            // The directory being read is open too, and is gone when its name is asked for.
            let (name, file) = (entry.file_name(), fs::read_link(entry.path()));
            if let (Some(Ok(number)), Ok(file)) = (name.to_str().map(str::parse), file) {
                descriptors.insert(number, file);
            }
        }
        descriptors.retain(|_, file| !file.ends_with("fd"));
        Ok(Self { resident_kib, asked_kib, descriptors })
    }

    /// Fails unless what was held at `before` is what is held now.
    pub(crate) fn check_unchanged(&self, before: &Self) -> Outcome {
        for (what, then, now) in [
            ("memory in use", before.resident_kib, self.resident_kib),
            ("memory asked for", before.asked_kib, self.asked_kib),
        ] {
            if now > then + FUZZ_KIB {
                return Err(format!("{what} grew from {then} to {now} KiB").into());
            }
        }
        if self.descriptors != before.descriptors {
            let (then, now) = (&before.descriptors, &self.descriptors);
            return Err(format!("the open descriptors changed from {then:?} to {now:?}").into());
        }
        Ok(())
    }
}
