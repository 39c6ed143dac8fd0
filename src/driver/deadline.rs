//! Until when to wait.

use std::time::{Duration, Instant};

/// A moment after which a call gives up. Held under any number of signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Wait for ever.
    pub const NEVER: Self = Self(None);

    /// This long from now; for ever, where that is beyond what a clock can tell.
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }

    /// At this moment.
    pub const fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// The moment, if there is one.
    pub const fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.0.is_some_and(|instant| Instant::now() >= instant)
    }

    /// How long from now; nothing where it has passed, `None` for ever.
    pub(super) fn remaining(self) -> Option<Duration> {
        self.0.map(|instant| instant.saturating_duration_since(Instant::now()))
    }

    /// The earlier of two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_one_counts_and_never_is_the_last() {
        let (soon, late) = (Deadline::after(Duration::ZERO), Deadline::after(Duration::from_secs(60)));
        assert_eq!(soon.min(late), soon);
        assert_eq!(Deadline::NEVER.min(late), late);
        assert_eq!(late.min(Deadline::NEVER), late);
        assert!(soon.has_passed() && !late.has_passed() && !Deadline::NEVER.has_passed());
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
    }

    #[test]
    fn what_remains_shrinks_to_nothing() {
        assert_eq!(Deadline::NEVER.remaining(), None);
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), Some(Duration::ZERO));
        let remaining = Deadline::after(Duration::from_secs(3600)).remaining().unwrap();
        assert!(!remaining.is_zero() && remaining <= Duration::from_secs(3600), "{remaining:?}");
    }
}
