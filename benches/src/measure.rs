//! Slices of contestants, in turn.

use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::stats::Estimate;

/// A way at work.
pub struct Contestant {
    pub name: String,
    /// Runs this many turns and gives the figure that counts: nanoseconds a message, or what the
    /// scene says.
    slice: Box<dyn FnMut(usize) -> f64>,
}

impl Contestant {
    pub fn new(name: impl Into<String>, slice: impl FnMut(usize) -> f64 + 'static) -> Self {
        Self { name: name.into(), slice: Box::new(slice) }
    }

    /// One whose turns have this many messages and are timed as a whole.
    pub fn timed(
        name: impl Into<String>,
        messages: usize,
        mut slice: impl FnMut(usize) -> Duration + 'static,
    ) -> Self {
        Self::new(name, move |turns| slice(turns).as_nanos() as f64 / (turns * messages) as f64)
    }

    /// How many turns fill a slice, by doubling. Warms up too.
    fn calibrate(&mut self, plan: &Plan) -> usize {
        let mut turns = 1;
        loop {
            let begin = Instant::now();
            (self.slice)(turns);
            let took = begin.elapsed();
            if took >= plan.slice {
                return turns;
            }
            if took >= plan.slice / 8 {
                let whole = plan.slice.as_secs_f64() / took.as_secs_f64();
                return (turns as f64 * whole).ceil() as usize;
            }
            turns *= 2;
        }
    }
}

/// A contestant's figures, one a round.
#[derive(Clone, Debug)]
pub struct Figures {
    pub name: String,
    pub rounds: Vec<f64>,
}

impl Figures {
    pub fn estimate(&self) -> Estimate {
        Estimate::of(self.rounds.iter().copied())
    }
}

/// Lets each contestant have a slice in each round, forwards and backwards by turns, so that
/// whatever the machine does meanwhile meets all of them.
pub fn measure(plan: &Plan, contestants: &mut [Contestant]) -> Vec<Figures> {
    let turns: Vec<usize> = contestants.iter_mut().map(|contestant| contestant.calibrate(plan)).collect();
    let mut figures: Vec<Figures> =
        contestants.iter().map(|one| Figures { name: one.name.clone(), rounds: Vec::new() }).collect();
    for round in 0..plan.rounds {
        for place in 0..contestants.len() {
            let place = if round % 2 == 0 { place } else { contestants.len() - 1 - place };
            figures[place].rounds.push((contestants[place].slice)(turns[place]));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[test]
    fn rounds_go_forwards_and_backwards() {
        let plan = Plan { rounds: 3, slice: Duration::ZERO, ..Plan::smoke() };
        let order = Rc::new(RefCell::new(String::new()));
        let mut contestants: Vec<Contestant> = ["a", "b", "c"]
            .map(|name| {
                let order = Rc::clone(&order);
                Contestant::new(name, move |turns| {
                    order.borrow_mut().push_str(name);
                    turns as f64
                })
            })
            .into();
        let figures = measure(&plan, &mut contestants);
        // The first three are the calibration.
        assert_eq!(*order.borrow(), "abcabccbaabc");
        assert!(figures.iter().all(|figures| figures.rounds == [1.0; 3]));
    }
}
