//! Which wire a fresh channel speaks.

use super::{WireName, broken};
use crate::error::{Misuse, Violation};
use crate::profile::{Framing, Profile};

/// The type of a socket; the numbers on the wire are Linux's SOCK_STREAM, SOCK_DGRAM and
/// SOCK_SEQPACKET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketKind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
    /// SOCK_SEQPACKET.
    SeqPacket,
}

impl SocketKind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Stream => 1,
            Self::Datagram => 2,
            Self::SeqPacket => 5,
        }
    }

    pub(super) const fn decode(code: u8) -> Result<Self, Violation> {
        match code {
            1 => Ok(Self::Stream),
            2 => Ok(Self::Datagram),
            5 => Ok(Self::SeqPacket),
            _ => Err(broken("socket", code as u32)),
        }
    }
}

/// A wire by the name of its profile, and the type of its sockets. The broker compares both and
/// understands only the second, so that profiles written elsewhere can be handed out too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The type of its sockets.
    pub socket: SocketKind,
    /// [`Profile::NAME`].
    pub name: WireName,
}

impl Wire {
    /// The wire of a profile.
    ///
    /// # Errors
    /// [`Misuse::WordLength`] or [`Misuse::WordByte`], where the profile's name is none that a
    /// broker takes.
    pub fn of<P: Profile>() -> Result<Self, Misuse> {
        let socket = match P::FRAMING {
            Framing::PartPerDatagram => SocketKind::Datagram,
            Framing::MessagesPerPacket(_) => SocketKind::SeqPacket,
            Framing::Stream { .. } => SocketKind::Stream,
        };
        Ok(Self { socket, name: WireName::new(P::NAME)? })
    }
}
