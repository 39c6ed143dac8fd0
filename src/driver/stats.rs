//! Plain counters.

use crate::error::Violation;
use crate::machine::{Held, Received, Sending};

/// What passed through a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Delivered to the user.
    pub received: Received,
    /// Handed to the kernel, whole.
    pub sent: Sending,
    /// The violation that ended the conversation, if one did.
    pub violation: Option<Violation>,
    /// What the receiver holds now.
    pub held: Held,
    /// The most that it held.
    pub held_most: Held,
}
