//! How long to measure, and what.

use std::path::PathBuf;
use std::time::Duration;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `full`, `quick` or `smoke`.
    pub name: &'static str,
    pub rounds: usize,
    /// What each contestant has of each round.
    pub slice: Duration,
    /// The same where threads hand over to each other and the scheduler has its say.
    pub long_slice: Duration,
    /// Only these goals, and nothing that is no goal; empty: everything.
    pub goals: Vec<u32>,
    pub directory: PathBuf,
}

impl Plan {
    /// What is published. Forty rounds, so that a row keeps its thirty pairs with room to spare.
    pub fn full() -> Self {
        Self {
            name: "full",
            rounds: 40,
            slice: Duration::from_millis(10),
            long_slice: Duration::from_millis(25),
            goals: Vec::new(),
            directory: PathBuf::from("target/bench"),
        }
    }

    /// The same rows roughly.
    pub fn quick() -> Self {
        let (slice, long_slice) = (Duration::from_millis(4), Duration::from_millis(10));
        Self { name: "quick", rounds: 12, slice, long_slice, ..Self::full() }
    }

    /// Every row at work, and nothing that could be called a measurement.
    pub fn smoke() -> Self {
        Self { name: "smoke", rounds: 1, slice: Duration::ZERO, long_slice: Duration::ZERO, ..Self::full() }
    }

    /// Whether rows of this goal are asked for.
    pub fn wants(&self, goal: u32) -> bool {
        self.goals.is_empty() || self.goals.contains(&goal)
    }

    pub fn with_slice(&self, slice: Duration) -> Self {
        Self { slice, ..self.clone() }
    }
}
