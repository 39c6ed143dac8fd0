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
