//! What calls are told by and about.

use core::fmt;

use crate::calls::request::Request;
use crate::error::Violation;
use crate::message::Message;

/// Names a call of this side's while its answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(super) u32);

impl CallId {
    /// Its number: what the wire carries as `correlation` or cookie, where it has one.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the peer answered.
#[derive(Debug)]
#[must_use = "the peer may have said that the call failed"]
pub enum Answer<F> {
    /// The call's result.
    Reply(Message<F>),
    /// The peer says that the call failed (`packet`: flag 2), and this is what it says of it.
    Error(Message<F>),
}

impl<F> Answer<F> {
    /// Whether the peer says that the call failed.
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The message, whichever it is.
    pub const fn message(&self) -> &Message<F> {
        match self {
            Self::Reply(message) | Self::Error(message) => message,
        }
    }

    /// The message, whichever it is.
    pub fn into_message(self) -> Message<F> {
        match self {
            Self::Reply(message) | Self::Error(message) => message,
        }
    }
}

/// What a message that came is.
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming<F> {
    /// The answer to a call.
    Answered(CallId, Answer<F>),
    /// A call of the peer's.
    Request(Request, Message<F>),
    /// A message that asks for nothing and answers nothing.
    Message(Message<F>),
    /// The answer to a call that was given up: counted, and to be dropped.
    Late(Message<F>),
}

/// A message that broke a rule; its descriptors are the caller's to close.
#[derive(Debug)]
pub struct Refused<F> {
    /// The rule.
    pub violation: Violation,
    /// What came.
    pub message: Message<F>,
}

/// What is held for calls (P4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds {
    /// Calls whose answer may still come, those given up included. Default 1024: a peer that
    /// leaves so many unanswered is not answering.
    pub in_flight: u32,
    /// Messages that came while something else was waited for, and wait to be received.
    /// Default 1024.
    pub messages: u32,
    /// Payload bytes of these. Default 1 MiB; the last one taken may exceed it.
    pub bytes: u64,
    /// Descriptors of these. Default 64; the last message taken may exceed it.
    pub descriptors: u32,
}

impl Bounds {
    /// The defaults.
    pub const fn new() -> Self {
        Self { in_flight: 1024, messages: 1024, bytes: 1024 * 1024, descriptors: 64 }
    }

    /// Sets the calls whose answer may still come.
    #[must_use]
    pub const fn in_flight(mut self, calls: u32) -> Self {
        self.in_flight = calls;
        self
    }

    /// Sets the messages that wait to be received.
    #[must_use]
    pub const fn messages(mut self, messages: u32) -> Self {
        self.messages = messages;
        self
    }

    /// Sets the payload bytes that wait to be received.
    #[must_use]
    pub const fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Sets the descriptors that wait to be received.
    #[must_use]
    pub const fn descriptors(mut self, descriptors: u32) -> Self {
        self.descriptors = descriptors;
        self
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self::new()
    }
}

/// Plain numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Calls begun.
    pub begun: u64,
    /// Calls answered.
    pub answered: u64,
    /// Answers that came after their caller had given up, and were dropped.
    pub late: u64,
    /// Calls that wait for their answer now.
    pub pending: u32,
    /// Calls given up whose answer may still come.
    pub given_up: u32,
}
