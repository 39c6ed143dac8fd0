//! A call of the peer's.

use core::fmt;

/// A call of the peer's that waits for its answer: once. What it needs is kept here, so that the
/// message that brought it may be taken apart. Dropping it leaves the peer to its own deadline.
#[derive(PartialEq, Eq)]
pub struct Request {
    correlation: u32,
    command: u32,
    reply_descriptors: u8,
    pub(super) answered: bool,
}

impl Request {
    /// For a wire of one's own: the id that the peer gave its call, what the answer must repeat
    /// beside it (0: nothing), and the descriptors that it may carry.
    pub const fn new(correlation: u32, command: u32, reply_descriptors: u8) -> Self {
        Self { correlation, command, reply_descriptors, answered: false }
    }

    /// The id that the peer gave its call; 0 where the wire has none.
    pub const fn correlation(&self) -> u32 {
        self.correlation
    }

    /// The command that the answer must repeat (`libcamera`), else 0.
    pub const fn command(&self) -> u32 {
        self.command
    }

    /// How many descriptors the answer may carry. Where the wire does not say, the most that it
    /// carries: the caller knows, and refuses more.
    pub const fn reply_descriptors(&self) -> u8 {
        self.reply_descriptors
    }

    /// Whether it was answered.
    pub const fn is_answered(&self) -> bool {
        self.answered
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("correlation", &self.correlation)
            .field("reply_descriptors", &self.reply_descriptors)
            .field("answered", &self.answered)
            .finish_non_exhaustive()
    }
}
