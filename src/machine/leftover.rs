//! What a direction that closed leaves behind.

use alloc::collections::VecDeque;
use core::fmt;

use super::outgoing::Outgoing;
use crate::message::Message;

/// The messages that did not leave, whole and in order. It is the queue itself: to hand them back on
/// an error's path takes no memory, which may be what is lacking (P4).
pub struct Leftover<F>(VecDeque<Outgoing<F>>);

impl<F> Leftover<F> {
    pub(super) const fn of(queue: VecDeque<Outgoing<F>>) -> Self {
        Self(queue)
    }

    /// The first, if there is any: the one of which a part may have left.
    pub fn first(&self) -> Option<&Message<F>> {
        self.0.front().map(Outgoing::message)
    }
}

impl<F> Default for Leftover<F> {
    fn default() -> Self {
        Self::of(VecDeque::new())
    }
}

impl<F> Iterator for Leftover<F> {
    type Item = Message<F>;

    fn next(&mut self) -> Option<Message<F>> {
        self.0.pop_front().map(Outgoing::into_message)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len(), Some(self.0.len()))
    }
}

impl<F> DoubleEndedIterator for Leftover<F> {
    fn next_back(&mut self) -> Option<Message<F>> {
        self.0.pop_back().map(Outgoing::into_message)
    }
}

impl<F> ExactSizeIterator for Leftover<F> {}

impl<F> fmt::Debug for Leftover<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leftover").field("messages", &self.len()).finish()
    }
}
