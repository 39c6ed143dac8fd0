//! fdpost and its peers, side by side in one run.
//!
//! `make bench` measures, `make bench-publish` copies what it measured into `docs/bench/`. What is
//! compared and how stands in `docs/bench/README.md`, which this writes.

mod bench;
mod clock;
mod count;
mod exchange;
mod footprint;
mod hostile;
mod kernel_free;
mod kinds;
mod machine;
mod measure;
mod plan;
mod plot;
mod publish;
mod report;
mod scenes;
mod stats;
mod sys;
mod way;
mod ways;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use bench::Bench;
use machine::Machine;
use plan::Plan;
use report::Report;

const USAGE: &str = "\
usage: fdpost-bench [--quick | --smoke] [--goal N]... [--directory DIR]
       fdpost-bench --publish [--directory DIR]";

fn main() -> ExitCode {
    let (plan, publish) = match arguments(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    let result = if publish { publish::publish(&plan.directory, Path::new(".")) } else { run(plan) };
    match result {
        Ok(words) => {
            println!("{words}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fdpost-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, writes, and gives the rows.
fn run(plan: Plan) -> Result<String, Box<dyn Error>> {
    let directory = plan.directory.clone();
    let machine = Machine::look();
    let _pin = warm_heap();
    let mut bench = Bench::new(plan);
    scenes::all(&mut bench);
    let report = Report::new(bench, machine.after());
    report.keep(&directory)?;
    report.write(&directory)?;
    let lines = report.rows.iter().map(report::line);
    let skipped = report.skipped.iter().map(|skipped| format!("skipped: {skipped}"));
    Ok(lines.chain(skipped).collect::<Vec<_>>().join("\n"))
}

/// As in a process that has run for a while: there is room on the heap, and it is not at its end.
/// Else every way's figure depends on whether what it frees happens to lie there, is given back to the
/// kernel (M_TRIM_THRESHOLD of mallopt(3)) and faulted in again, which costs more than any message.
fn warm_heap() -> Box<[u8]> {
    let blocks: Vec<_> = (0..128).map(|_| std::hint::black_box(vec![1_u8; 64 * 1024])).collect();
    let pin = vec![1; 64].into_boxed_slice();
    drop(blocks);
    pin
}

/// What to measure; whether to publish what was measured instead.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<(Plan, bool), String> {
    let (mut plan, mut goals, mut directory, mut publish) = (Plan::full(), Vec::new(), None, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--quick" => plan = Plan::quick(),
            "--smoke" => plan = Plan::smoke(),
            "--publish" => publish = true,
            "--goal" => goals.push(value()?.parse().map_err(|_| "--goal wants a number".to_owned())?),
            "--directory" => directory = Some(value()?.into()),
            _ => return Err(format!("{argument} is unknown")),
        }
    }
    plan.goals = goals;
    plan.directory = directory.unwrap_or(plan.directory);
    Ok((plan, publish))
}
