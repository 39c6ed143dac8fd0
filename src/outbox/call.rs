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
