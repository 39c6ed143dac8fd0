//! A run: scenes are measured, rows are read off them.

use serde::{Deserialize, Serialize};

use crate::measure::{Contestant, Figures, measure};
use crate::plan::Plan;
use crate::stats::Estimate;
use crate::way::Way;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

/// What is asked of a ratio between two of a scene's contestants.
pub struct Goal {
    pub number: u32,
    pub name: String,
    pub subject: &'static str,
    pub against: &'static str,
    pub wanted: f64,
    pub better: Better,
}

impl Goal {
    /// The subject is at least so many times as fast as the other.
    pub fn faster(
        number: u32,
        name: impl Into<String>,
        subject: &'static str,
        against: &'static str,
        wanted: f64,
    ) -> Self {
        Self { number, name: name.into(), subject, against, wanted, better: Better::Higher }
    }

    /// The subject costs at most so many times what the other costs.
    pub fn dearer(
        number: u32,
        name: impl Into<String>,
        subject: &'static str,
        against: &'static str,
        wanted: f64,
    ) -> Self {
        Self { better: Better::Lower, ..Self::faster(number, name, subject, against, wanted) }
    }

    fn read(&self, figures: &[Figures]) -> Option<Row> {
        let of = |name| figures.iter().find(|figures| figures.name == name).map(|figures| &*figures.rounds);
        let (subject, against) = (of(self.subject)?, of(self.against)?);
        let estimate = match self.better {
            Better::Higher => Estimate::ratio(against, subject),
            Better::Lower => Estimate::ratio(subject, against),
        };
        Some(Row::new(self.number, self.name.clone(), estimate, self.wanted, self.better, "x"))
    }
}

/// A row of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its number among the goals; 0: asked for elsewhere.
    pub goal: u32,
    pub name: String,
    /// The end of the 95 % interval of the median that is worse for us: the lower one where more
    /// is better, the upper one where less is.
    pub ratio: f64,
    pub goal_ratio: f64,
    pub better: Better,
    pub unit: String,
    /// The interval itself, and of how many pairs; none where it was counted.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl Row {
    pub fn new(
        goal: u32,
        name: impl Into<String>,
        estimate: Estimate,
        goal_ratio: f64,
        better: Better,
        unit: &str,
    ) -> Self {
        let ratio = match better {
            Better::Higher => estimate.low,
            Better::Lower => estimate.high,
        };
        Self { goal, name: name.into(), ratio, goal_ratio, better, unit: unit.into(), estimate }
    }

    pub fn is_met(&self) -> bool {
        match self.better {
            Better::Higher => self.ratio >= self.goal_ratio,
            Better::Lower => self.ratio <= self.goal_ratio,
        }
    }
}

/// What a contestant's figures came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standing {
    pub way: String,
    pub figure: Estimate,
    /// How many times as fast as the scene's first contestant, round by round.
    pub speed: Estimate,
}

/// A scene as it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scene {
    /// What kind of scene, and the number that tells it from others of its kind.
    pub kind: String,
    pub at: usize,
    /// What stands over its column in a table of its kind.
    pub column: String,
    pub title: String,
    /// Of the figures.
    pub unit: String,
    pub standings: Vec<Standing>,
}

/// A contestant to be.
pub struct Entry {
    name: &'static str,
    make: Box<dyn FnOnce() -> Option<Contestant>>,
}

impl Entry {
    pub fn new(name: &'static str, make: impl FnOnce() -> Option<Contestant> + 'static) -> Self {
        Self { name, make: Box::new(make) }
    }

    pub fn of<W: Way>(make: impl FnOnce() -> Option<Contestant> + 'static) -> Self {
        Self::new(W::NAME, make)
    }
}

/// How a scene's contestants are timed, in words, and for how long.
#[derive(Clone, Copy)]
pub enum Timing {
    /// CPU time of one thread that plays both ends.
    Cpu,
    /// Wall time of several threads.
    Threads,
}

/// A run.
pub struct Bench {
    pub plan: Plan,
    pub rows: Vec<Row>,
    pub scenes: Vec<Scene>,
    /// What could not be measured here, in words.
    pub skipped: Vec<String>,
}

impl Bench {
    pub const fn new(plan: Plan) -> Self {
        Self { plan, rows: Vec::new(), scenes: Vec::new(), skipped: Vec::new() }
    }

    /// Measures a scene and reads the goals off it. Where only some goals are asked for, only
    /// those that play a part in them are let in.
    pub fn scene(
        &mut self,
        (kind, at, column): (&str, usize, &str),
        title: &str,
        timing: Timing,
        mut entries: Vec<Entry>,
        mut goals: Vec<Goal>,
    ) {
        if !self.plan.goals.is_empty() {
            goals.retain(|goal| self.plan.wants(goal.number));
            entries
                .retain(|entry| goals.iter().any(|goal| [goal.subject, goal.against].contains(&entry.name)));
        }
        if entries.is_empty() {
            return;
        }
        eprintln!("{title}");
        let mut contestants = Vec::new();
        for Entry { name, make } in entries {
            match make() {
                Some(contestant) => contestants.push(contestant),
                None => self.skipped.push(format!("{title}: {name}: this machine lends one core only")),
            }
        }
        let plan = match timing {
            Timing::Cpu => self.plan.clone(),
            Timing::Threads => self.plan.with_slice(self.plan.long_slice),
        };
        let figures = measure(&plan, &mut contestants);
        let rows = goals.iter().filter_map(|goal| goal.read(&figures));
        for row in rows {
            eprintln!("  {}", crate::report::line(&row));
            self.rows.push(row);
        }
        let Some(first) = figures.first() else { return };
        let standings = figures
            .iter()
            .map(|one| Standing {
                way: one.name.clone(),
                figure: one.estimate(),
                speed: Estimate::ratio(&first.rounds, &one.rounds),
            })
            .collect();
        let unit = match timing {
            Timing::Cpu => "ns of CPU time a message",
            Timing::Threads => "ns a message",
        };
        let (kind, column, title, unit) = (kind.into(), column.into(), title.into(), unit.into());
        self.scenes.push(Scene { kind, at, column, title, unit, standings });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(name: &str, rounds: &[f64]) -> Figures {
        Figures { name: name.into(), rounds: rounds.into() }
    }

    #[test]
    fn the_figure_that_counts_is_the_worse_end_for_us() {
        let figures = [figures("ours", &[1.0, 1.0, 2.0]), figures("theirs", &[3.0, 4.0, 4.0])];
        let faster = Goal::faster(3, "faster", "ours", "theirs", 2.0).read(&figures).expect("both are there");
        assert_eq!((faster.ratio, faster.estimate.median), (2.0, 3.0));
        assert!(faster.is_met());
        let dearer = Goal::dearer(9, "dearer", "theirs", "ours", 3.9).read(&figures).expect("both are there");
        assert_eq!((dearer.ratio, dearer.estimate.median), (4.0, 3.0));
        assert!(!dearer.is_met());
        assert!(Goal::faster(3, "absent", "ours", "nobody", 1.0).read(&figures).is_none());
    }
}
