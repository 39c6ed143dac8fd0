//! The report: JSON, tables, plots.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Better, Row, Scene};
use crate::machine::Machine;
use crate::plot;
use crate::way::Way;
use crate::ways::FourCalls;

/// All that a run gave.
#[derive(Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub plan: String,
    pub rounds: usize,
    pub rows: Vec<Row>,
    pub scenes: Vec<Scene>,
    pub skipped: Vec<String>,
}

const METHOD: &str = include_str!("../METHOD.md");

impl Report {
    pub fn new(bench: Bench, machine: Machine) -> Self {
        let Bench { plan, mut rows, scenes, skipped } = bench;
        // The goals in their order; what is no goal of the list comes last.
        rows.sort_by_key(|row| if row.goal == 0 { u32::MAX } else { row.goal });
        Self { machine, plan: plan.name.into(), rounds: plan.rounds, rows, scenes, skipped }
    }

    /// Writes `scenes.json`, from which all else can be made again.
    pub fn keep(&self, directory: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(directory)?;
        Ok(fs::write(directory.join("scenes.json"), serde_json::to_string(self)? + "\n")?)
    }

    /// What [`keep`](Self::keep) wrote.
    pub fn kept(directory: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(serde_json::from_slice(&fs::read(directory.join("scenes.json"))?)?)
    }

    /// Writes `report.json` (the rows), `README.md` (the tables) and the plots.
    pub fn write(&self, directory: &Path) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("report.json"), serde_json::to_string_pretty(&self.rows)? + "\n")?;
        let limits = directory.join("LIMITS.md").exists();
        fs::write(directory.join("README.md"), self.page(limits))?;
        plot::draw(&self.scenes, directory)
    }

    /// When, where, and how long, in words.
    fn occasion(&self) -> String {
        let Machine { date, processor, cores, kernel, compiler, load_before, load_after } = &self.machine;
        let cores = if *cores == 1 { "one core".into() } else { format!("{cores} cores") };
        let rounds = match self.plan.as_str() {
            "full" => format!("{} rounds", self.rounds),
            plan => format!("a {plan} run of {} rounds, good for a rough idea only", self.rounds),
        };
        format!(
            "Measured on {date}: {cores} of {processor}, Linux {kernel}, {compiler}; {rounds}. Load average before {load_before}, after {load_after}."
        )
    }

    /// The whole report as a page.
    fn page(&self, limits: bool) -> String {
        let met = self.rows.iter().filter(|row| row.is_met()).count();
        let mut page = format!(
            "# fdpost and its peers, side by side\n\nMade by `make bench bench-publish`; what is written \
             by hand here goes with the next run.\n\n{}\n\n{met} of {} rows meet their goal.",
            self.occasion(),
            self.rows.len()
        );
        if limits {
            page += " [LIMITS.md](LIMITS.md) says what holds the others.";
        }
        page += "\n\n## Goals\n\n";
        page += &self.goals();
        for skipped in &self.skipped {
            let _never = write!(page, "\nSkipped: {skipped}.\n");
        }
        page += "\n## Peers\n\nHow many times as fast as libcamera's way (its floor of four calls), median; \
                 and that way's own figure.\n";
        for (kind, title) in KINDS {
            page += &self.peers(kind, title);
        }
        for (file, words) in PLOTS {
            let _never = write!(page, "\n![{words}]({file})\n");
        }
        page + "\n" + METHOD
    }

    /// A table of all rows.
    pub fn goals(&self) -> String {
        let mut table = "| goal | what | measured | asked for | |\n|---|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let goal = if row.goal == 0 { "-".into() } else { row.goal.to_string() };
            let met = if row.is_met() { "met" } else { "**missed**" };
            let _never =
                writeln!(table, "| {goal} | {} | {} | {} | {met} |", row.name, measured(row), asked(row));
        }
        table
    }

    /// A table of the scenes of a kind: ways down, scenes across.
    fn peers(&self, kind: &str, title: &str) -> String {
        // Where only some goals are measured the way that all are compared with may be absent.
        let compared = |scene: &&Scene| scene.standings.first().is_some_and(|one| one.way == FourCalls::NAME);
        let of_kind = self.scenes.iter().filter(|scene| scene.kind == kind);
        let full: Vec<&Scene> = of_kind.filter(compared).collect();
        let Some(widest) = full.iter().max_by_key(|scene| scene.standings.len()) else {
            return String::new();
        };
        let mut table = format!("\n{title}:\n\n| way |");
        for scene in &full {
            let _never = write!(table, " {} |", scene.column);
        }
        table += "\n|---|";
        table += &"---|".repeat(full.len());
        for (place, standing) in widest.standings.iter().enumerate() {
            let _never = write!(table, "\n| {} |", standing.way);
            for scene in &full {
                let found = scene.standings.iter().find(|other| other.way == standing.way);
                let cell = match found {
                    None => "-".into(),
                    Some(found) if place == 0 => format!("1 ({:.0} ns)", found.figure.median),
                    Some(found) => format!("{:.2}", found.speed.median),
                };
                let _never = write!(table, " {cell} |");
            }
        }
        table + "\n"
    }

    /// What the project's README says: a line for each goal, and the occasion.
    pub fn summary(&self, directory: &str) -> String {
        let met = self.rows.iter().filter(|row| row.is_met()).count();
        let mut text = format!(
            "{}\n[{met} of {} rows]({directory}/README.md) meet their goal; here the row of each goal that is \
             nearest to missing it, or misses it by most.\n\n| what | measured | asked for | rows met |\n|---|---|---|---|\n",
            self.occasion(),
            self.rows.len()
        );
        let mut goals: Vec<u32> = self.rows.iter().map(|row| row.goal).collect();
        goals.dedup();
        for goal in goals {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.goal == goal).collect();
            let met = rows.iter().filter(|row| row.is_met()).count();
            let Some(worst) = rows.iter().min_by(|one, other| margin(one).total_cmp(&margin(other))) else {
                continue;
            };
            let missed = if worst.is_met() { "" } else { " (**missed**)" };
            let _never = writeln!(
                text,
                "| {} | {}{missed} | {} | {met} of {} |",
                worst.name,
                measured(worst),
                asked(worst),
                rows.len()
            );
        }
        for (file, words) in PLOTS.into_iter().take(2) {
            let _never = write!(text, "\n![{words}]({directory}/{file})\n");
        }
        text
    }
}

/// Kinds of scenes that compare ways, and what a table of them is called.
const KINDS: [(&str, &str); 7] = [
    ("alone", "One message at a time, CPU time of both ends"),
    ("burst-16", "Bursts of 16, CPU time of both ends"),
    ("burst-64", "Bursts of 64, CPU time of both ends"),
    (
        "senders",
        "Threads that send on one channel, 64 B, time that passes (libcamera's way, unix-ipc and the stream behind a mutex)",
    ),
    ("round-trip-0", "Round trips, both ends on one core"),
    ("round-trip-1", "Round trips, each end on a core of its own"),
    ("one-way", "One way, bursts of 64, on one core and on two"),
];

const PLOTS: [(&str, &str); 6] = [
    ("alone.svg", "CPU time of a message alone, by way and size"),
    ("depth.svg", "Messages a second over queue depth"),
    ("bursts.svg", "CPU time of a message in bursts of 64, by way and size"),
    ("senders.svg", "Messages a second over sending threads"),
    ("round-trips.svg", "Round trips by way"),
    ("descriptors.svg", "CPU time over descriptors of a message"),
];

/// How far a row is above its goal, as a factor: below 1 it misses.
fn margin(row: &Row) -> f64 {
    match row.better {
        _ if row.ratio == row.goal_ratio => 1.0,
        Better::Higher => row.ratio / row.goal_ratio,
        Better::Lower => row.goal_ratio / row.ratio,
    }
}

/// Figures with the places that they are good for.
fn digits(value: f64) -> String {
    match value {
        value if value == value.round() => format!("{value:.0}"),
        value if value.abs() >= 100.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The figure that counts with its unit; behind it the median and the interval, where it was measured.
fn measured(row: &Row) -> String {
    let estimate = row.estimate;
    let figure = format!("{} {}", digits(row.ratio), row.unit);
    if estimate.pairs == 0 {
        return figure;
    }
    let [median, low, high] = [estimate.median, estimate.low, estimate.high].map(digits);
    format!("{figure} (median {median}, {low} to {high})")
}

fn asked(row: &Row) -> String {
    let sign = if row.better == Better::Higher { "≥" } else { "≤" };
    format!("{sign} {} {}", digits(row.goal_ratio), row.unit)
}

/// A row in a line.
pub fn line(row: &Row) -> String {
    let missed = if row.is_met() { "" } else { "  MISSED" };
    format!("{} {}: {}, {}{missed}", row.goal, row.name, measured(row), asked(row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Estimate;

    #[test]
    fn a_row_that_misses_says_so() {
        let estimate = Estimate { low: 1.5, median: 1.7, high: 1.8, pairs: 40 };
        let row = Row::new(3, "one", estimate, 1.9, Better::Higher, "x");
        assert_eq!(line(&row), "3 one: 1.50 x (median 1.70, 1.50 to 1.80), ≥ 1.90 x  MISSED");
        assert!(margin(&row) < 1.0);
        let row = Row::new(9, "two", estimate, 2.0, Better::Lower, "x");
        assert_eq!(line(&row), "9 two: 1.80 x (median 1.70, 1.50 to 1.80), ≤ 2 x");
        assert!(margin(&row) > 1.0);
        let none = Row::new(1, "none", Estimate::exactly(0.0), 0.0, Better::Lower, "allocations");
        assert_eq!((line(&none), margin(&none)), ("1 none: 0 allocations, ≤ 0 allocations".into(), 1.0));
    }
}
