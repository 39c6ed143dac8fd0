//! How much may be queued.

use crate::machine::Sending;
use crate::message::Message;

/// What may be queued, the lot in flight counted. A message that exceeds a bound by itself is
/// taken when nothing else is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Messages. Default 1024: a burst, and no more than a reader wakes for.
    pub messages: u32,
    /// Payload bytes. Default 1 MiB: some times what a socket holds.
    pub bytes: u64,
    /// Descriptors. Default 256: they count against RLIMIT_NOFILE, often 1024.
    pub descriptors: u32,
    /// Transmits after its own message that a flusher sends before it hands over. Default 64.
    pub tenure: u32,
}

impl Bounds {
    /// The defaults.
    pub const fn new() -> Self {
        Self { messages: 1024, bytes: 1024 * 1024, descriptors: 256, tenure: 64 }
    }

    /// Sets the messages.
    #[must_use]
    pub const fn messages(mut self, messages: u32) -> Self {
        self.messages = messages;
        self
    }

    /// Sets the payload bytes.
    #[must_use]
    pub const fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the descriptors.
    #[must_use]
    pub const fn descriptors(mut self, descriptors: u32) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// Sets the transmits of a tenure.
    #[must_use]
    pub const fn tenure(mut self, transmits: u32) -> Self {
        self.tenure = transmits;
        self
    }

    /// Whether the message may join what is queued.
    pub(super) fn admit<F>(&self, load: &Sending, message: &Message<F>) -> bool {
        load.messages == 0
            || (load.messages < self.messages.into()
                && load.bytes.saturating_add(message.payload().len() as u64) <= self.bytes
                && load.descriptors.saturating_add(message.descriptor_count() as u64)
                    <= self.descriptors.into())
    }

    /// Whether some message may join.
    pub(super) fn has_room(&self, load: &Sending) -> bool {
        self.admit(load, &Message::<()>::default())
    }

    /// Whether half of it is free: then those who wait for room are woken together, and not one
    /// by one with every message that leaves.
    pub(super) fn is_half_free(&self, load: &Sending) -> bool {
        let half = |load: u64, bound: u64| load <= bound / 2;
        half(load.messages, self.messages.into())
            && half(load.bytes, self.bytes)
            && half(load.descriptors, self.descriptors.into())
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(messages: u64, bytes: u64, descriptors: u64) -> Sending {
        Sending { messages, bytes, descriptors }
    }

    #[test]
    fn each_bound_is_set_by_itself() {
        let bounds = Bounds::new().messages(7).bytes(8).descriptors(9).tenure(10);
        assert_eq!(bounds, Bounds { messages: 7, bytes: 8, descriptors: 9, tenure: 10 });
        assert_eq!(Bounds::default(), Bounds::new());
        assert_eq!(Bounds::new(), Bounds { messages: 1024, bytes: 1_048_576, descriptors: 256, tenure: 64 });
    }

    #[test] // P4: each bound by itself keeps a message out, and none keeps out the first.
    fn what_is_admitted() {
        let bounds = Bounds { messages: 3, bytes: 10, descriptors: 2, tenure: 1 };
        let message = Message::new([0; 4]).with(()).with(());
        for (load, admitted) in [
            (load(0, 0, 0), true),
            (load(2, 6, 0), true),
            (load(3, 6, 0), false),
            (load(2, 7, 0), false),
            (load(2, 6, 1), false),
        ] {
            assert_eq!(bounds.admit(&load, &message), admitted, "{load:?}");
        }
        let large = Message::new([0; 11]).with(()).with(()).with(());
        assert!(bounds.admit(&load(0, 0, 0), &large), "nothing else is queued");
        assert!(!bounds.admit(&load(1, 0, 0), &large));
    }

    #[test]
    fn room_is_for_some_message_and_half_of_it_of_each_bound() {
        let bounds = Bounds { messages: 6, bytes: 10, descriptors: 8, tenure: 1 };
        for (load, room, half) in [
            (load(0, 0, 0), true, true),
            (load(3, 5, 4), true, true),
            (load(4, 5, 4), true, false),
            (load(3, 6, 4), true, false),
            (load(3, 5, 5), true, false),
            (load(5, 10, 8), true, false),
            (load(6, 0, 0), false, false),
            (load(1, 11, 0), false, false),
            (load(1, 0, 9), false, false),
        ] {
            assert_eq!((bounds.has_room(&load), bounds.is_half_free(&load)), (room, half), "{load:?}");
        }
    }
}
