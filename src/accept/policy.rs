//! Place by place.

use alloc::vec::Vec;

use super::{Accept, Found};

/// Which kinds of descriptors a channel accepts, place by place. How many is
/// [`Limits`](crate::Limits)' to say.
///
/// It begins with accepting none. Several kinds for one place are alternatives.
///
/// ```
/// use fdpost::accept::{Accept, Domain, Policy, Seals, SocketType};
/// // The first is a socket, all others are memfds or pipes to read from.
/// let policy = Policy::new()
///     .slot(0, Accept::socket_of(Domain::Unix, SocketType::SeqPacket))
///     .every(Accept::memfd(Seals::STEADY))
///     .every(Accept::pipe().readable());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    every: Vec<Accept>,
    slots: Vec<(u8, Accept)>,
}

impl Policy {
    /// Accepts no descriptor.
    pub const fn new() -> Self {
        Self { every: Vec::new(), slots: Vec::new() }
    }

    /// Every place that has no kind of its own accepts this kind (too).
    #[must_use]
    pub fn every(mut self, accept: Accept) -> Self {
        self.every.push(accept);
        self
    }

    /// The message's descriptor at `index`, from 0, may be of this kind (too). What
    /// [`every`](Self::every) says no longer holds there.
    #[must_use]
    pub fn slot(mut self, index: u8, accept: Accept) -> Self {
        self.slots.push((index, accept));
        self
    }

    /// The kinds that the place at `index` accepts.
    pub fn alternatives(&self, index: usize) -> impl Iterator<Item = &Accept> {
        let own = move |slot: &&(u8, Accept)| usize::from(slot.0) == index;
        let every = if self.slots.iter().any(|slot| own(&slot)) { &[][..] } else { &self.every };
        self.slots.iter().filter(own).map(|(_, accept)| accept).chain(every)
    }

    /// Of what the place at `index` accepts, what comes closest to `found`: the first of its kind,
    /// else the first.
    pub fn closest(&self, index: usize, found: &Found) -> Accept {
        let akin = self.alternatives(index).find(|accept| accept.is_akin(found));
        akin.or_else(|| self.alternatives(index).next()).copied().unwrap_or_else(Accept::nothing)
    }
}
