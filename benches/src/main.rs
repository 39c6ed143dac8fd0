//! fdpost and its peers, side by side in one run.
//!
//! `make bench` measures, `make bench-publish` copies what it measured into `docs/bench/`. What is
//! compared and how stands in `docs/bench/README.md`, which this writes.

mod bench;
mod clock;
mod count;
mod exchange;
mod kernel_free;
mod machine;
mod measure;
mod plan;
mod report;
mod scenes;
mod stats;
mod sys;
mod way;
mod ways;

use std::process::ExitCode;

use bench::Bench;
use machine::Machine;
use plan::Plan;
use report::Report;

const USAGE: &str = "usage: fdpost-bench [--quick | --smoke] [--goal N]... [--directory DIR]";

fn main() -> ExitCode {
    let plan = match plan(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    let directory = plan.directory.clone();
    let machine = Machine::look();
    let mut bench = Bench::new(plan);
    scenes::all(&mut bench);
    let report = Report::new(bench, machine.after());
    if let Err(error) = report.write(&directory) {
        eprintln!("{}: {error}", directory.display());
        return ExitCode::FAILURE;
    }
    print!("{}", report.markdown());
    ExitCode::SUCCESS
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let (mut plan, mut goals, mut directory) = (Plan::full(), Vec::new(), None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--quick" => plan = Plan::quick(),
            "--smoke" => plan = Plan::smoke(),
            "--goal" => goals.push(value()?.parse().map_err(|_| "--goal wants a number".to_owned())?),
            "--directory" => directory = Some(value()?.into()),
            _ => return Err(format!("{argument} is unknown")),
        }
    }
    plan.goals = goals;
    plan.directory = directory.unwrap_or(plan.directory);
    Ok(plan)
}
