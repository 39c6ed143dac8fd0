//! What flat means.

use crate::report::Sample;

/// How much higher the last fifth's median may be than the second fifth's: an eighth of it, and 1 MiB.
/// The allocator keeps pages for each thread that ever ran, so memory is never a straight line; a
/// leak is, and passes this bound sooner or later: the longer the run, the smaller the leak.
const SLACK_KIB: u64 = 1024;
const SLACK_PART: u64 = 8;

/// Samples without which there is nothing to compare: three in each fifth. A run lasts until it has them.
pub(crate) const LEAST: usize = 15;

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// The medians of the second and the last fifth. The first is the warm-up.
pub(crate) fn fifths(samples: &[Sample], of: impl Fn(&Sample) -> u64) -> (u64, u64) {
    let fifth = samples.len() / 5;
    let median_of = |range: &[Sample]| median(range.iter().map(&of).collect());
    (median_of(&samples[fifth..2 * fifth]), median_of(&samples[samples.len() - fifth..]))
}

/// Why this is not flat.
pub(crate) fn rises(who: &str, samples: &[Sample]) -> Option<String> {
    if samples.len() < LEAST {
        return Some(format!("{who}: {} looks are too few to judge: let it run longer", samples.len()));
    }
    let (second, last) = fifths(samples, |sample| sample.resident_kib);
    let most = second + second / SLACK_PART + SLACK_KIB;
    (last > most).then(|| {
        format!("{who}: {last} KiB of memory in the last fifth, {second} KiB in the second: {most} KiB would be flat")
    })
}
