//! The report: JSON, and a table.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Better, Row, Scene};

/// All that a run gave.
#[derive(Serialize, Deserialize)]
pub struct Report {
    pub machine: crate::machine::Machine,
    pub plan: String,
    pub rounds: usize,
    pub rows: Vec<Row>,
    pub scenes: Vec<Scene>,
    pub skipped: Vec<String>,
}

impl Report {
    pub fn new(bench: Bench, machine: crate::machine::Machine) -> Self {
        let Bench { plan, mut rows, scenes, skipped } = bench;
        // The goals in their order; what is no goal of the list comes last.
        rows.sort_by_key(|row| if row.goal == 0 { u32::MAX } else { row.goal });
        Self { machine, plan: plan.name.into(), rounds: plan.rounds, rows, scenes, skipped }
    }

    /// Writes `report.json` (the rows), `scenes.json` (everything) and `report.md`.
    pub fn write(&self, directory: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join("report.json"), serde_json::to_string_pretty(&self.rows)? + "\n")?;
        std::fs::write(directory.join("scenes.json"), serde_json::to_string(self)? + "\n")?;
        std::fs::write(directory.join("report.md"), self.markdown())
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let _never = writeln!(text, "{}", line(row));
        }
        text
    }
}

/// A row in a line.
pub fn line(row: &Row) -> String {
    let sign = if row.better == Better::Higher { '≥' } else { '≤' };
    let met = if row.is_met() { "" } else { "  MISSED" };
    let Row { goal, name, ratio, goal_ratio, unit, estimate, .. } = row;
    format!("{goal} {name}: {ratio:.2} {unit} ({sign} {goal_ratio}; median {:.2}){met}", estimate.median)
}
