//! What one call brings, and which of the accepted messages are its own.

use std::collections::VecDeque;

use crate::error::Exhausted;
use crate::machine::Outgoing;
use crate::sync::broken;

/// What a call brings, in order: one message, or a burst.
pub(super) trait Brought<F> {
    /// The next that was not accepted yet.
    fn first(&self) -> Option<&Outgoing<F>>;
    /// Takes it out.
    fn take_first(&mut self) -> Option<Outgoing<F>>;
}

impl<F> Brought<F> for Option<Outgoing<F>> {
    fn first(&self) -> Option<&Outgoing<F>> {
        self.as_ref()
    }

    fn take_first(&mut self) -> Option<Outgoing<F>> {
        self.take()
    }
}

impl<F> Brought<F> for VecDeque<Outgoing<F>> {
    fn first(&self) -> Option<&Outgoing<F>> {
        self.front()
    }

    fn take_first(&mut self) -> Option<Outgoing<F>> {
        self.pop_front()
    }
}

/// Messages of one call that were accepted one behind the other: their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    first: u64,
    last: u64,
}

impl Numbers {
    pub(super) const fn first(self) -> u64 {
        self.first
    }

    pub(super) const fn contain(self, number: u64) -> bool {
        self.first <= number && number <= self.last
    }
}

/// The numbers of what one call had accepted. A burst that had to wait for room has other
/// senders' messages in between.
#[derive(Debug, Default)]
pub(super) struct Own {
    latest: Option<Numbers>,
    earlier: Vec<Numbers>,
}

impl Own {
    pub(super) const fn new() -> Self {
        Self { latest: None, earlier: Vec::new() }
    }

    /// One number.
    pub(super) const fn of(number: u64) -> Self {
        Self { latest: Some(Numbers { first: number, last: number }), earlier: Vec::new() }
    }

    /// Memory to [`add`](Self::add) this number.
    pub(super) fn reserve(&mut self, number: u64) -> Result<(), Exhausted> {
        match self.latest {
            Some(latest) if latest.last.checked_add(1) != Some(number) => {
                let bytes = size_of::<Numbers>() as u64;
                self.earlier.try_reserve(1).map_err(|_| Exhausted::OutOfMemory { bytes })
            }
            _ => Ok(()),
        }
    }

    /// One number more, the largest so far. For bursts memory was [reserved](Self::reserve).
    pub(super) fn add(&mut self, number: u64) {
        match &mut self.latest {
            Some(latest) if latest.last.checked_add(1) == Some(number) => latest.last = number,
            latest => {
                let before = latest.replace(Numbers { first: number, last: number });
                self.earlier.extend(before.filter(|_| !broken("forgets-earlier-numbers")));
            }
        }
    }

    /// The last of them; 0, which is nobody's, where there is none.
    pub(super) fn last(&self) -> u64 {
        self.latest.map_or(0, |latest| latest.last)
    }

    pub(super) fn ranges(&self) -> impl Iterator<Item = Numbers> + use<'_> {
        self.earlier.iter().copied().chain(self.latest)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.ranges().any(|numbers| numbers.contain(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // P7: whose messages are whose, where other senders' came between those of a burst.
    fn numbers_of_a_burst() {
        let mut own = Own::new();
        assert_eq!((own.last(), own.ranges().count()), (0, 0));
        for number in [3, 4, 5, 9, 10, 20] {
            own.add(number);
        }
        let numbers = |first, last| Numbers { first, last };
        assert_eq!(own.ranges().collect::<Vec<_>>(), [numbers(3, 5), numbers(9, 10), numbers(20, 20)]);
        assert_eq!((own.last(), numbers(3, 5).first()), (20, 3));
        let contained: Vec<_> = (0..25).filter(|number| own.contains(*number)).collect();
        assert_eq!(contained, [3, 4, 5, 9, 10, 20]);
        assert_eq!(Own::of(4).ranges().collect::<Vec<_>>(), [numbers(4, 4)]);
    }

    #[test] // P4: memory is asked for before a message is accepted, and only where it will be used.
    fn memory_for_a_number() {
        let mut own = Own::new();
        let next = |own: &mut Own, number| {
            own.reserve(number).unwrap();
            let capacity = own.earlier.capacity();
            own.add(number);
            assert_eq!(own.earlier.capacity(), capacity, "memory that was not asked for");
            capacity
        };
        assert_eq!((next(&mut own, 1), next(&mut own, 2)), (0, 0), "one behind the other");
        assert!(next(&mut own, 5) > 0);
        assert_eq!(own.earlier.len(), 1);
    }
}
