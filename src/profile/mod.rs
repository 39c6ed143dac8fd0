//! What one wire promises: a framing and the parts of its messages.
//!
//! A profile knows no socket, no limit and no buffer. It names the first part of a message and,
//! from what it has seen, the next one or the end; [`machine`](crate::machine) does the rest, so
//! a wire of your own is one `impl` of [`Profile`] (see `examples/vhost_user.rs`).
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod libcamera;
pub mod packet;
pub mod stream;

use core::fmt::Debug;

use crate::error::{Misuse, Violation};
use crate::message::Head;

pub use libcamera::Libcamera;
pub use packet::Packet;
pub use stream::Stream;

/// How reads relate to messages, and so which type of socket a wire needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Framing {
    /// SOCK_DGRAM: each part is one datagram, and owns the descriptors that come with it.
    PartPerDatagram,
    /// SOCK_SEQPACKET: whole messages back to back in a packet; its descriptors are claimed in
    /// the order of the messages.
    MessagesPerPacket(PacketCaps),
    /// SOCK_STREAM: parts follow each other as bytes; descriptors belong to the part that holds
    /// the last byte of the read that brought them.
    Stream {
        /// Whether a read may go beyond the part awaited: only where no descriptor can be
        /// misread by that, because descriptors ride on the last byte of a message.
        read_ahead: bool,
    },
}

/// What a packet of *several* messages is bounded by. A packet of one is bounded by `Limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketCaps {
    /// Messages in one packet.
    pub messages: u32,
    /// Bytes of the packet.
    pub bytes: u32,
    /// Descriptors of the packet.
    pub descriptors: u8,
}

/// What the bytes of a part are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The wire's own: shown to [`Profile::next`], at most [`FRAME_MAX`] bytes.
    Frame,
    /// The user's: they go to the message.
    Payload,
}

/// The descriptors that a part grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grant {
    /// No descriptor belongs here.
    None,
    /// Exactly so many.
    Exactly(u8),
    /// Up to so many.
    AtMost(u8),
}

impl Grant {
    /// `Exactly(count)`, or `None` for 0.
    pub const fn exactly(count: u8) -> Self {
        if count == 0 { Self::None } else { Self::Exactly(count) }
    }

    /// The most that it allows.
    pub const fn most(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Exactly(count) | Self::AtMost(count) => count,
        }
    }
}

/// An exact number of bytes and a grant of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What its bytes are for.
    pub role: Role,
    /// How many bytes; 0 is legal where the wire sends a part all the same (an empty datagram).
    pub bytes: u32,
    /// How many descriptors.
    pub grant: Grant,
}

impl Part {
    /// A part of the wire's own.
    pub const fn frame(bytes: u32, grant: Grant) -> Self {
        Self { role: Role::Frame, bytes, grant }
    }

    /// A part of the user's.
    pub const fn payload(bytes: u32, grant: Grant) -> Self {
        Self { role: Role::Payload, bytes, grant }
    }
}

/// What follows a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// Another part of the same message. Payload parts follow each other in the payload.
    Part(Part),
    /// The message is whole.
    End,
}

/// The most bytes of a [`Role::Frame`] part: what the core keeps in place for a header that
/// arrives in pieces.
pub const FRAME_MAX: usize = 32;

/// A wire.
pub trait Profile {
    /// The wire's name in errors and tools.
    const NAME: &'static str;
    /// How reads relate to messages.
    const FRAMING: Framing;
    /// The first part of every message: a [`Role::Frame`] of 1 to [`FRAME_MAX`] bytes.
    const FIRST: Part;
    /// On datagrams: every message is exactly two, its header and one payload. A reader that takes
    /// several at once then knows which of them is a header, and offers that no more room.
    const PAIRED: bool = false;
    /// The most payload bytes that a message of this wire has, whatever `Limits` allow.
    const PAYLOAD_MOST: u32 = u32::MAX;

    /// What a message has declared so far. Kept by the machine while the parts arrive, and reset
    /// to its default before each message.
    type Declared: Copy + Default + Debug;

    /// Looks at a completed part: `bytes` are those of a [`Role::Frame`], and empty for the
    /// payload. Checks the wire's own rules only; limits and counts are the machine's to check.
    ///
    /// # Errors
    /// The rule of the wire that the part breaks.
    fn next(declared: &mut Self::Declared, bytes: &[u8]) -> Result<Next, Violation>;

    /// What the message is handed out with, once it is whole.
    fn head(declared: &Self::Declared) -> Head;

    /// The wire's own bytes around a payload of `payload` bytes with `descriptors`.
    ///
    /// # Errors
    /// What this wire cannot say.
    fn encode(head: &Head, payload: u32, descriptors: u8) -> Result<Outline, Misuse>;
}

/// A few bytes of the wire's own, in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; FRAME_MAX],
    length: u8,
}

impl Frame {
    /// No bytes.
    pub const EMPTY: Self = Self { bytes: [0; FRAME_MAX], length: 0 };

    /// These bytes; what exceeds [`FRAME_MAX`] does not compile.
    #[inline]
    pub fn new<const N: usize>(bytes: [u8; N]) -> Self {
        const { assert!(N <= FRAME_MAX) };
        let mut frame = Self { bytes: [0; FRAME_MAX], length: u8::try_from(N).unwrap_or(0) };
        for (place, byte) in frame.bytes.iter_mut().zip(bytes) {
            *place = byte;
        }
        frame
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }
}

/// Which part carries the descriptors of a message that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Carrier {
    /// The header.
    Header,
    /// The payload.
    Payload,
    /// The trailer.
    Trailer,
}

/// A message as it leaves: header, payload, trailer. On streams and in packets what is empty is
/// left out; in datagrams header and payload are always sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The wire's bytes before the payload.
    pub header: Frame,
    /// The wire's bytes behind it, or none.
    pub trailer: Frame,
    /// Where the descriptors ride.
    pub carrier: Carrier,
}

/// Refuses the fields of `head` that a wire without any cannot carry.
pub(crate) fn refuse_head(wire: &'static str, head: &Head) -> Result<(), Misuse> {
    let fields = [
        ("kind", head.kind),
        ("correlation", head.correlation),
        ("flags", head.flags),
        ("reply_descriptors", u32::from(head.reply_descriptors)),
    ];
    match fields.into_iter().find(|(_, value)| *value != 0) {
        Some((field, value)) => Err(Misuse::HeadUnsupported { wire, field, value }),
        None => Ok(()),
    }
}
