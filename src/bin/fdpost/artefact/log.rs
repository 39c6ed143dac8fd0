//! What a receiver met, and what should come of it: the words in which kernel, model and oracles
//! talk.

use fdpost::Head;
use std::time::Duration;

/// The four wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `fdpost::Libcamera`
    Libcamera,
    /// `fdpost::Packet`
    Packet,
    /// `fdpost::Stream`
    Stream,
    /// `wires::VhostUser`
    VhostUser,
}

/// A datagram, a packet, or one read of a stream: bytes and descriptors as they were sent.
#[derive(Clone, Debug, Default)]
pub struct Read {
    pub at: Duration,
    pub bytes: Vec<u8>,
    pub descriptors: Vec<u64>,
    /// The kernel cut control data for a reason of its own.
    pub cut: bool,
    pub malformed: bool,
    pub unknown: bool,
    /// The driver knows that nothing more comes.
    pub end: bool,
}

/// What the receiver met.
#[derive(Clone, Debug)]
pub enum Event {
    Read(Read),
    Block(Duration),
}

/// A message as it should come out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub head: Head,
    pub payload: Vec<u8>,
    pub descriptors: Vec<u64>,
}

/// What should come of it all: messages, then a rule's name, "end" or "more".
#[derive(Debug)]
pub struct Judgement {
    pub messages: Vec<Heard>,
    pub verdict: &'static str,
    pub deadline: Option<Duration>,
}
