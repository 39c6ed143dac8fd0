//! Goal 10: how much there is of it.

use std::path::Path;
use std::process::Command;

use fdpost::{Channel, Limits, Message};

use crate::bench::{Bench, Better, Row};
use crate::count::counted;
use crate::stats::Estimate;
use crate::ways::Wire;

const KIB: f64 = 1024.0;

/// The static library of `benches/staticlib`, and channels of each wire that have nothing to do.
pub fn weigh(bench: &mut Bench) {
    if !bench.plan.wants(10) {
        return;
    }
    match library(&bench.plan.directory) {
        Ok(bytes) => {
            let name = "the core without its driver in a no_std static library, all that can be loaded of it";
            let estimate = Estimate::exactly(bytes as f64 / KIB);
            bench.rows.push(Row::new(10, name, estimate, 150.0, Better::Lower, "KiB"));
        }
        Err(why) => bench.skipped.push(format!("the size of the static library: {why}")),
    }
    idle::<fdpost::Packet>(bench);
    idle::<fdpost::Libcamera>(bench);
    idle::<fdpost::Stream>(bench);
}

/// Text, data and bss of the archive's members, those of the compiler's own routines included. What
/// a file holds beside them (symbols, relocations) is gone once it is linked and stripped.
fn library(directory: &Path) -> Result<u64, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("staticlib/Cargo.toml");
    let built = directory.join("staticlib");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "--release", "--manifest-path"]).arg(manifest);
    build.arg("--target-dir").arg(&built);
    // Whoever runs this has cargo: only size(1) may be missing.
    let status = build.status().expect("cargo starts");
    assert!(status.success(), "benches/staticlib does not build: {status}");
    let library = built.join("release/libfdpost_core.a");
    let output = Command::new("size").arg("-t").arg(library).output();
    let output = output.map_err(|error| format!("size(1), of binutils: {error}"))?;
    total(&String::from_utf8_lossy(&output.stdout)).ok_or("size(1) gave no totals".into())
}

/// The column `dec` of the line of totals.
fn total(table: &str) -> Option<u64> {
    let line = table.lines().find(|line| line.trim_end().ends_with("(TOTALS)"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// A channel through which a burst has gone in each direction and that found nothing more: its own
/// size, and what it has on the heap.
fn idle<P: Wire>(bench: &mut Bench) {
    let limits = Limits::new();
    let (mut theirs, ours) = Channel::<P>::pair(limits).expect("a pair");
    let burst = || (0..64).map(|_| Message::new([1; 1024])).collect::<Vec<_>>();
    let (ours, count) = counted(|| {
        let mut ours = Channel::<P>::from_fd(ours, limits).expect("its other end");
        ours.set_batch(P::BATCH);
        theirs.send_all(&mut burst()).expect("sent");
        (0..64).for_each(|_| drop(ours.receive().expect("received")));
        ours.send_all(&mut burst()).expect("sent");
        assert!(ours.try_receive().expect("no fault").is_none());
        ours
    });
    (0..64).for_each(|_| drop(theirs.receive().expect("received")));
    let bytes = count.held + size_of_val(&ours) as i64;
    let name = format!("an idle channel's memory, {}, after bursts both ways", P::WAY);
    let estimate = Estimate::exactly(bytes as f64 / KIB);
    bench.rows.push(Row::new(10, name, estimate, 8.0, Better::Lower, "KiB"));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_totals_of_size_1() {
        let table = "   text    data     bss     dec     hex filename\n   10  2  1  13  d a.o (ex l.a)\n  132282     464       4  132750   2068e (TOTALS)\n";
        assert_eq!(super::total(table), Some(132_750));
        assert_eq!(super::total("nothing"), None);
    }
}
