//! A message: head, payload, descriptors.

use alloc::vec::Vec;
use core::fmt;

/// What a wire's header says beside sizes. Each wire carries the fields that it has and refuses
/// to send a value in one that it has not, so that nothing is dropped in silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
pub struct Head {
    /// What the message is about; the user's own number.
    pub kind: u32,
    /// Ties a reply to its request; 0 = no reply is awaited.
    pub correlation: u32,
    /// The wire's own flag bits (`packet`: [`REPLY`](crate::profile::packet::REPLY) and
    /// [`ERROR`](crate::profile::packet::ERROR)).
    pub flags: u32,
    /// How many descriptors a reply to this message may carry.
    pub reply_descriptors: u8,
}

/// A whole message. `F` owns a descriptor: `OwnedFd` in the driver, anything in a test (P8).
///
/// Descriptors that nobody took close when the message is dropped (P2).
pub struct Message<F> {
    pub(crate) head: Head,
    pub(crate) payload: Vec<u8>,
    /// `None` once taken: places keep their numbers.
    pub(crate) descriptors: Vec<Option<F>>,
}

impl<F> Message<F> {
    /// A message of these bytes, without descriptors.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { head: Head::default(), payload: payload.into(), descriptors: Vec::new() }
    }

    /// Appends a descriptor.
    #[must_use]
    pub fn with(mut self, descriptor: F) -> Self {
        self.descriptors.push(Some(descriptor));
        self
    }

    /// Sets the head.
    #[must_use]
    pub const fn with_head(mut self, head: Head) -> Self {
        self.head = head;
        self
    }

    /// Sets the head's `kind`.
    #[must_use]
    pub const fn with_kind(mut self, kind: u32) -> Self {
        self.head.kind = kind;
        self
    }

    /// The head.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload, to be refilled in place when a message is used again.
    pub const fn payload_mut(&mut self) -> &mut Vec<u8> {
        &mut self.payload
    }

    /// The payload alone; descriptors left in the message close.
    pub fn into_payload(self) -> Vec<u8> {
        self.payload
    }

    /// How many descriptors the message came with, taken ones included.
    pub fn descriptor_count(&self) -> usize {
        self.descriptors.len()
    }

    /// The descriptor at `index`, if the message has it and nobody took it.
    pub fn descriptor(&self, index: usize) -> Option<&F> {
        self.descriptors.get(index)?.as_ref()
    }

    /// Takes the descriptor at `index`: once. The others keep their places.
    pub fn take(&mut self, index: usize) -> Option<F> {
        self.descriptors.get_mut(index)?.take()
    }

    /// Takes all descriptors that are left, in order. What the iterator did not come to stays.
    pub fn take_all(&mut self) -> impl Iterator<Item = F> + use<'_, F> {
        self.descriptors.iter_mut().filter_map(Option::take)
    }

    /// Empties the message, closing what was not taken, and keeps its memory.
    pub fn clear(&mut self) {
        self.head = Head::default();
        self.payload.clear();
        self.descriptors.clear();
    }
}

impl<F> Default for Message<F> {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl<F> fmt::Debug for Message<F> {
    /// Sizes only: payloads do not belong in logs by accident.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("head", &self.head)
            .field("bytes", &self.payload.len())
            .field("descriptors", &self.descriptors.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;

    #[test] // P2
    fn a_descriptor_is_taken_once_and_the_rest_close() {
        let token = Rc::new(());
        let mut message = Message::new(b"x").with(token.clone()).with(token.clone());
        let first = message.take(0);
        assert!(first.is_some() && message.take(0).is_none());
        assert!(message.descriptor(0).is_none() && message.descriptor(1).is_some());
        assert_eq!(message.descriptor_count(), 2);
        drop(message);
        assert_eq!(Rc::strong_count(&token), 2);
    }

    #[test] // P2
    fn clear_closes_and_take_all_hands_out_in_order() {
        let tokens = [Rc::new(1), Rc::new(2)];
        let mut message = Message::new([]).with(tokens[0].clone()).with(tokens[1].clone());
        assert_eq!(message.take_all().map(|token| *token).collect::<Vec<_>>(), [1, 2]);
        message = message.with(tokens[0].clone());
        message.clear();
        assert!(tokens.iter().all(|token| Rc::strong_count(token) == 1));
    }
}
