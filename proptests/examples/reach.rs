//! Replays inputs of a fuzz target and prints which rules they break, and how many there are to be
//! broken: `cargo run --example reach -- TARGET DIRECTORY...`. Fails where one is missing.

use std::fs;
use std::process::ExitCode;

use fdpost_proptests::reach::{TARGETS, rules, take};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().expect("a target");
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target's name");
    let mut inputs = 0;
    for directory in arguments {
        for entry in fs::read_dir(directory).expect("a directory of inputs") {
            (target.check)(&fs::read(entry.expect("an input").path()).expect("an input"));
            inputs += 1;
        }
    }
    let broken = take();
    let wanted = target.reachable();
    let (reached, missing): (Vec<&str>, Vec<&str>) =
        wanted.iter().partition(|rule| broken.contains_key(*rule));
    let counts: Vec<_> = reached.iter().map(|rule| format!("{rule} {}", broken[rule])).collect();
    println!(
        "  rules: {} of {} reached by {inputs} inputs: {}",
        reached.len(),
        wanted.len(),
        counts.join(", ")
    );
    let mut others: Vec<(&str, &str)> = Vec::new();
    for rule in rules().filter(|rule| !wanted.contains(rule)) {
        let said = target.not.iter().find(|(rules, _)| rules.contains(&rule));
        others.push((said.map_or(target.otherwise, |(_, why)| why), rule));
    }
    others.sort_by_key(|(why, _)| *why);
    for group in others.chunk_by(|one, two| one.0 == two.0) {
        let names: Vec<_> = group.iter().map(|(_, rule)| *rule).collect();
        println!("  not by this target: {}: {}", names.join(", "), group[0].0);
    }
    if missing.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("  missing: {}", missing.join(", "));
    ExitCode::FAILURE
}
