//! This project's own wire: SOCK_SEQPACKET, frames back to back. Layout and reasons stand in
//! `docs/PROTOCOL.md`, rules PK-1...

use crate::error::{Misuse, Violation};
use crate::limits::SCM_MAX_FD;
use crate::message::Head;
use crate::profile::{Carrier, Frame, Framing, Grant, Next, Outline, PacketCaps, Part, Profile, Role};
use crate::wire::cursor::Cursor;

/// Flag: a reply to the message with the same correlation.
pub const REPLY: u32 = 1;
/// Flag: that reply says that the call failed.
pub const ERROR: u32 = 2;

/// The one version spoken.
const VERSION: u8 = 1;
/// Bytes of a frame's header.
const HEADER: u32 = 16;
/// Bytes of the largest packet: a receiver has to offer room for all of it before it sees any.
const PACKET: u32 = 4 * 1024 * 1024;

/// A 16-byte little-endian header and its payload, 1 to 64 to a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet;

/// What the header said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    head: Head,
    seen: bool,
}

impl Profile for Packet {
    const NAME: &'static str = "packet";
    const FRAMING: Framing =
        Framing::MessagesPerPacket(PacketCaps { messages: 64, bytes: 64 * 1024, descriptors: 16 });
    const FIRST: Part = Part { role: Role::Frame, bytes: HEADER, grant: Grant::None };

    const PAYLOAD_MOST: u32 = PACKET - HEADER;

    type Declared = Declared;

    #[inline]
    fn next(declared: &mut Declared, bytes: &[u8]) -> Result<Next, Violation> {
        if declared.seen {
            return Ok(Next::End);
        }
        let Some(header) = Header::decode(bytes) else {
            return Err(Violation::HeaderLength { expected: HEADER.into(), received: bytes.len() as u64 });
        };
        header.check()?;
        *declared = Declared { head: header.head(), seen: true };
        if header.length == 0 && header.descriptors == 0 {
            return Ok(Next::End);
        }
        Ok(Next::Part(Part::payload(header.length, Grant::exactly(header.descriptors))))
    }

    #[inline]
    fn head(declared: &Declared) -> Head {
        declared.head
    }

    #[inline]
    fn encode(head: &Head, payload: u32, descriptors: u8) -> Result<Outline, Misuse> {
        let unsupported = |field, value| Misuse::HeadUnsupported { wire: Self::NAME, field, value };
        let flags = u8::try_from(head.flags).map_err(|_| unsupported("flags", head.flags))?;
        let header = Header {
            version: VERSION,
            flags,
            descriptors,
            reply_descriptors: head.reply_descriptors,
            length: payload,
            kind: head.kind,
            correlation: head.correlation,
        };
        header.meaning().map_err(|(field, value)| unsupported(field, value))?;
        let frame = Frame::new(header.encode());
        Ok(Outline { header: frame, trailer: Frame::EMPTY, carrier: Carrier::Header })
    }
}

/// The header's fields, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    version: u8,
    flags: u8,
    descriptors: u8,
    reply_descriptors: u8,
    length: u32,
    kind: u32,
    correlation: u32,
}

impl Header {
    #[inline]
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(bytes);
        let header = Self {
            version: cursor.u8()?,
            flags: cursor.u8()?,
            descriptors: cursor.u8()?,
            reply_descriptors: cursor.u8()?,
            length: cursor.u32_le()?,
            kind: cursor.u32_le()?,
            correlation: cursor.u32_le()?,
        };
        cursor.finish(header)
    }

    #[inline]
    fn encode(self) -> [u8; HEADER as usize] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [k0, k1, k2, k3] = self.kind.to_le_bytes();
        let [c0, c1, c2, c3] = self.correlation.to_le_bytes();
        let Self { version, flags, descriptors, reply_descriptors, .. } = self;
        [version, flags, descriptors, reply_descriptors, l0, l1, l2, l3, k0, k1, k2, k3, c0, c1, c2, c3]
    }

    #[inline]
    fn check(&self) -> Result<(), Violation> {
        if self.version != VERSION {
            return Err(Violation::HeaderVersion {
                supported: VERSION.into(),
                received: self.version.into(),
            });
        }
        self.meaning().map_err(|(field, value)| Violation::HeaderReserved { field, value })
    }

    /// Values and combinations that mean nothing are reserved, so that a later version can give
    /// them a meaning. The same check serves both directions.
    #[inline]
    fn meaning(&self) -> Result<(), (&'static str, u32)> {
        let flags = u32::from(self.flags);
        let reply = flags & REPLY != 0;
        if flags & !(REPLY | ERROR) != 0 || (flags & ERROR != 0 && !reply) {
            return Err(("flags", flags));
        }
        if reply && self.correlation == 0 {
            return Err(("correlation", 0));
        }
        let grants = self.reply_descriptors;
        if grants > SCM_MAX_FD || (grants != 0 && (reply || self.correlation == 0)) {
            return Err(("reply_descriptors", grants.into()));
        }
        Ok(())
    }

    #[inline]
    const fn head(&self) -> Head {
        Head {
            kind: self.kind,
            correlation: self.correlation,
            flags: self.flags as u32,
            reply_descriptors: self.reply_descriptors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: [u8; 16] = [1, 0, 2, 0, 5, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];

    fn first(bytes: &[u8]) -> Result<Next, Violation> {
        Packet::next(&mut Declared::default(), bytes)
    }

    fn with(changes: &[(usize, u8)]) -> Result<Next, Violation> {
        let mut bytes = PLAIN;
        for &(place, value) in changes {
            bytes[place] = value;
        }
        first(&bytes)
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut declared = Declared::default();
        let next = Packet::next(&mut declared, &[1, 0, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(next, Ok(Next::Part(Part::payload(0x0403_0201, Grant::Exactly(3)))));
        let head = Packet::head(&declared);
        let expected = Head { kind: 0x0807_0605, correlation: 0x0c0b_0a09, flags: 0, reply_descriptors: 4 };
        assert_eq!(head, expected);
        assert_eq!(Packet::next(&mut declared, &[]), Ok(Next::End));
        let outline = Packet::encode(&head, 0x0403_0201, 3).unwrap();
        assert_eq!(outline.header.as_slice(), [1, 0, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn header_of_every_length() {
        for length in 0..=32 {
            let mut bytes = [0; 32];
            bytes[..16].copy_from_slice(&PLAIN);
            assert_eq!(first(&bytes[..length]).is_ok(), length == 16, "{length}");
        }
    }

    #[test]
    fn a_kind_alone_is_a_message() {
        assert_eq!(with(&[(2, 0), (4, 0)]), Ok(Next::End));
        assert_eq!(with(&[(4, 0)]), Ok(Next::Part(Part::payload(0, Grant::Exactly(2)))));
    }

    #[test]
    fn unknown_versions() {
        for version in [0, 2, 255] {
            let error = Violation::HeaderVersion { supported: 1, received: version.into() };
            assert_eq!(with(&[(0, version)]), Err(error));
        }
    }

    #[test]
    fn what_means_nothing_is_reserved() {
        let reserved = |field, value| Err(Violation::HeaderReserved { field, value });
        for bit in 2..8 {
            let flags = 1_u8 << bit;
            assert_eq!(with(&[(1, flags)]), reserved("flags", flags.into()));
        }
        assert_eq!(with(&[(1, 2), (12, 1)]), reserved("flags", 2), "an error that is no reply");
        assert_eq!(with(&[(1, 1)]), reserved("correlation", 0), "a reply to nothing");
        assert_eq!(with(&[(3, 1)]), reserved("reply_descriptors", 1), "for no reply");
        assert_eq!(with(&[(1, 1), (3, 1), (12, 1)]), reserved("reply_descriptors", 1), "in a reply");
        assert_eq!(with(&[(3, 254), (12, 1)]), reserved("reply_descriptors", 254), "beyond SCM_MAX_FD");
        for legal in [&[(1, 1), (12, 1)][..], &[(1, 3), (12, 1)], &[(3, 253), (12, 1)]] {
            assert!(with(legal).is_ok(), "{legal:?}");
        }
    }

    #[test]
    fn the_same_is_refused_when_sending() {
        let refused = |head: Head| Packet::encode(&head, 1, 0).unwrap_err();
        let unsupported = |field, value| Misuse::HeadUnsupported { wire: "packet", field, value };
        let plain = Head::default();
        assert_eq!(refused(Head { flags: 4, ..plain }), unsupported("flags", 4));
        assert_eq!(refused(Head { flags: 0x101, ..plain }), unsupported("flags", 0x101));
        assert_eq!(refused(Head { flags: REPLY, ..plain }), unsupported("correlation", 0));
        assert_eq!(refused(Head { reply_descriptors: 1, ..plain }), unsupported("reply_descriptors", 1));
    }
}
