//! What may be said of a ratio that was measured in pairs.
//!
//! The median, and an interval for it made of order statistics: if X is the number of pairs below
//! the true median, X is binomial(n, 1/2) whatever the ratios' distribution is, so the k-th
//! smallest and the k-th largest enclose the median unless X < k or X > n - k. (W. J. Conover,
//! "Practical Nonparametric Statistics", confidence interval for a quantile.) No resampling, so the
//! same figures give the same interval, and outliers, of which a shared machine has many, weigh nothing.

use serde::{Deserialize, Serialize};

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub low: f64,
    pub median: f64,
    pub high: f64,
    pub pairs: usize,
}

impl Estimate {
    /// Of figures in any order; zeros of none. With fewer than six no interval has 95 %: then it
    /// is all that was seen.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let pairs = sorted.len();
        let Some(last) = pairs.checked_sub(1) else {
            return Self::exactly(0.0);
        };
        let rank = rank(pairs);
        Self { low: sorted[rank], median: median(&sorted), high: sorted[last - rank], pairs }
    }

    /// What was counted and not measured.
    pub const fn exactly(value: f64) -> Self {
        Self { low: value, median: value, high: value, pairs: 0 }
    }

    /// How often `other` is this, pair by pair.
    pub fn ratio(of: &[f64], to: &[f64]) -> Self {
        Self::of(of.iter().zip(to).map(|(of, to)| of / to))
    }
}

/// The median of sorted figures.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The figure at `share` (0 to 1) of figures in any order, which are sorted by it.
pub fn quantile(figures: &mut [u64], share: f64) -> u64 {
    figures.sort_unstable();
    let at = (figures.len().saturating_sub(1)) as f64 * share;
    figures.get(at.round() as usize).copied().unwrap_or(0)
}

/// From 0, the largest place k for which P(X <= k) is at most 2.5 %: the k-th figure is left out
/// of the interval together with all below it, so the next is its end.
fn rank(pairs: usize) -> usize {
    let mut probability = 0.5_f64.powi(i32::try_from(pairs).unwrap_or(i32::MAX));
    let mut below = probability;
    let mut rank = 0;
    // The interval [x_(rank+1), x_(n-rank)], counted from 1, misses the median with 2 P(X <= rank).
    while below <= 0.025 && rank < pairs / 2 {
        rank += 1;
        probability *= (pairs - rank + 1) as f64 / rank as f64;
        below += probability;
    }
    rank.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ranks of the tables (Conover, table A3; from 1): n = 6: 1 and 6; 10: 2 and 9; 20: 6 and
    /// 15; 30: 10 and 21; 40: 14 and 27.
    #[test]
    fn ranks_are_those_of_the_tables() {
        for (pairs, low, high) in [(6, 1, 6), (10, 2, 9), (20, 6, 15), (30, 10, 21), (40, 14, 27)] {
            let estimate = Estimate::of((1..=pairs).map(f64::from));
            assert_eq!((estimate.low, estimate.high), (f64::from(low), f64::from(high)), "n = {pairs}");
        }
    }

    #[test]
    fn the_median_of_odd_and_even_numbers_of_figures_in_any_order() {
        assert_eq!(Estimate::of([9.0, 1.0, 5.0]).median, 5.0);
        assert_eq!(Estimate::of([9.0, 1.0, 5.0, 6.0]).median, 5.5);
        assert_eq!(Estimate::of([]).median, 0.0);
    }

    #[test]
    fn too_few_pairs_give_all_that_was_seen() {
        let estimate = Estimate::of([3.0, 1.0, 2.0]);
        assert_eq!((estimate.low, estimate.high, estimate.pairs), (1.0, 3.0, 3));
    }

    #[test]
    fn a_ratio_is_taken_pair_by_pair() {
        // Of the medians it would be 2 / 20.
        let estimate = Estimate::ratio(&[1.0, 2.0, 30.0], &[10.0, 20.0, 30.0]);
        assert_eq!((estimate.low, estimate.median, estimate.high), (0.1, 0.1, 1.0));
    }

    /// Of many runs with a known median about one in twenty may miss it, and no more.
    #[test]
    fn the_interval_holds_the_median_as_often_as_it_says() {
        let mut state = 1_u64;
        let mut random = move || {
            // Knuth's MMIX generator; its upper bits.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let runs = 4000;
        // Skewed on purpose: an exponential distribution, whose median is ln 2.
        let held = (0..runs)
            .filter(|_| {
                let estimate = Estimate::of((0..30).map(|_| -(1.0 - random()).ln()));
                (estimate.low..=estimate.high).contains(&std::f64::consts::LN_2)
            })
            .count();
        let share = held as f64 / f64::from(runs);
        // Exactly 95.7 % for n = 30; four standard deviations of 4000 runs are 1.3 %.
        assert!((0.944..0.970).contains(&share), "{share}");
    }

    #[test]
    fn quantiles() {
        let mut figures: Vec<u64> = (0..=100).rev().collect();
        assert_eq!(quantile(&mut figures, 0.99), 99);
        assert_eq!(quantile(&mut figures, 0.5), 50);
        assert_eq!(quantile(&mut [], 0.5), 0);
    }
}
