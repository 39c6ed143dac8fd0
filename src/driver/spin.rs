//! Trying again for a moment before sleeping.

use std::time::Duration;

/// The longest moment. A sleeper on another core is woken in some 15 us: longer than that the
/// wait was not worth it.
const MOST: Duration = Duration::from_micros(20);

/// Receives that sleep at once after a miss: so many for the first in a row, doubled with each, up
/// to the second. At 20 us a miss and 10 us a message that is at most a twentieth, and a
/// two-thousandth where both ends share a core for good.
const REST: (u32, u32) = (64, 4096);

/// Whether to spin before a receive sleeps: a spin that is missed, because the message took longer
/// or because its sender needs this very core, is followed by receives that sleep at once.
#[derive(Debug, Default)]
pub(super) struct Spin {
    moment: Duration,
    rest: u32,
    /// Receives that are still to sleep at once.
    left: u32,
}

impl Spin {
    pub(super) fn of(moment: Duration) -> Self {
        Self { moment: moment.min(MOST), ..Self::default() }
    }

    /// How long to spin now, if at all.
    pub(super) fn moment(&mut self) -> Option<Duration> {
        if self.moment.is_zero() {
            return None;
        }
        if self.left > 0 {
            self.left -= 1;
            return None;
        }
        Some(self.moment)
    }

    /// The spin was worth it.
    pub(super) const fn hit(&mut self) {
        self.rest = 0;
    }

    /// It was not.
    pub(super) fn missed(&mut self) {
        self.rest = (self.rest * 2).clamp(REST.0, REST.1);
        self.left = self.rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_unless_asked_for_and_bounded() {
        assert_eq!(Spin::default().moment(), None);
        assert_eq!(Spin::of(Duration::ZERO).moment(), None);
        assert_eq!(Spin::of(Duration::from_secs(1)).moment(), Some(MOST));
        assert_eq!(Spin::of(Duration::from_micros(5)).moment(), Some(Duration::from_micros(5)));
    }

    #[test]
    fn it_gives_up_after_misses_and_comes_back_after_hits() {
        let mut spin = Spin::of(MOST);
        let mut spins = 0_u32;
        for _ in 0..100_000 {
            if spin.moment().is_some() {
                spins += 1;
                spin.missed();
            }
        }
        assert!(spins < 40, "{spins} spins in 100,000 waits, all missed");
        let mut waits = 0;
        while spin.moment().is_none() {
            waits += 1;
        }
        assert!(waits <= REST.1, "{waits} waits without a try");
        spin.hit();
        assert!((0..1000).all(|_| spin.moment().is_some()), "hits spin on");
        spin.missed();
        assert_eq!((0..REST.0).filter(|_| spin.moment().is_some()).count(), 0);
        assert!(spin.moment().is_some(), "one miss after hits rests shortly");
    }
}
