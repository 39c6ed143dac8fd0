//! What was really run, counted.

use std::collections::BTreeMap;

use crate::grouped::grouped;
use crate::memory::{INFALLIBLE, Place};

/// Cases by scenario and call, and what failed.
#[derive(Default)]
pub(crate) struct Evidence {
    cases: BTreeMap<String, BTreeMap<String, u32>>,
    infallible: BTreeMap<Place, u32>,
    pub(crate) failed: u32,
    /// One failed case is enough: for planted defects.
    pub(crate) first_only: bool,
}

impl Evidence {
    pub(crate) fn count(&mut self, scenario: &str, call: &str, cases: u32, failed: u32) {
        *self.cases.entry(scenario.into()).or_default().entry(call.into()).or_default() += cases;
        self.failed += failed;
    }

    pub(crate) fn note_infallible(&mut self, place: Place) {
        *self.infallible.entry(place).or_default() += 1;
    }

    /// The lines for whoever collects them.
    pub(crate) fn say(&self) {
        if !self.infallible.is_empty() {
            println!("allocations that end the process when they fail:");
        }
        for (place, times) in &self.infallible {
            match place {
                Place::Scenarios => println!("  {times:>4} times: the scenario's own messages and threads"),
                Place::Foreign => println!("  {times:>4} times: Tokio's and std's own"),
                Place::Listed(at) => {
                    let (file, function, why) = INFALLIBLE.get(*at).copied().unwrap_or_default();
                    println!("  {times:>4} times: src/{file}, {function}: {why}");
                }
            }
        }
        let mut all = 0;
        for (scenario, calls) in &self.cases {
            let cases: u32 = calls.values().sum();
            let each: Vec<String> =
                calls.iter().map(|(call, cases)| format!("{call} {}", grouped(*cases))).collect();
            println!("evidence: faults: {scenario}: {} cases: {}", grouped(cases), each.join(", "));
            all += cases;
        }
        let listed = self.infallible.iter().filter(|(place, _)| matches!(place, Place::Listed(_)));
        let aborts: u32 = listed.clone().map(|(_, times)| *times).sum();
        if aborts > 0 {
            println!(
                "evidence: faults: allocation: {} cases ended the process, at {} places that are listed with the reason",
                grouped(aborts),
                listed.count()
            );
        }
        println!(
            "evidence: faults: {} cases over {} scenarios, {} failed",
            grouped(all),
            self.cases.len(),
            grouped(self.failed)
        );
    }
}
