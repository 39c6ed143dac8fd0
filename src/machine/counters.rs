//! Plain numbers.

/// What a receiver delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Messages.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Their descriptors.
    pub descriptors: u64,
}

/// What a receiver holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Heap bytes: capacities, not lengths.
    pub bytes: usize,
    /// Descriptors.
    pub descriptors: usize,
}
