//! libcamera's `IPCUnixSocket` (src/libcamera/ipc_unixsocket.cpp): SOCK_DGRAM, a header
//! datagram and a payload datagram.

use crate::error::{Misuse, Violation};
use crate::message::Head;
use crate::profile::{Carrier, Frame, Framing, Grant, Next, Outline, Part, Profile, Role, refuse_head};
use crate::wire::cursor::Cursor;

/// Bytes of `IPCUnixSocket::Header`.
const HEADER: u32 = 8;

/// Header `{ data: u32, fds: u8, 3 bytes of padding }` in native order, then one datagram of
/// `data` bytes with `fds` descriptors. Rules LC-1.. of `docs/PROTOCOL.md`.
#[derive(Clone, Copy, Debug)]
pub struct Libcamera;

/// Whether the header was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Declared {
    /// Nothing yet.
    #[default]
    Nothing,
    /// The header; its payload follows.
    Payload,
}

impl Profile for Libcamera {
    const NAME: &'static str = "libcamera";
    const FRAMING: Framing = Framing::PartPerDatagram;
    const FIRST: Part = Part { role: Role::Frame, bytes: HEADER, grant: Grant::None };
    const PAIRED: bool = true;
    // No larger datagram passes a kernel with 4 KiB pages (net/core/sock.c), so none is awaited.
    const PAYLOAD_MOST: u32 = 4 * 1024 * 1024;

    type Declared = Declared;

    #[inline]
    fn next(declared: &mut Declared, bytes: &[u8]) -> Result<Next, Violation> {
        if *declared == Declared::Payload {
            return Ok(Next::End);
        }
        let Some((data, fds)) = header(bytes) else {
            return Err(Violation::HeaderLength { expected: HEADER.into(), received: bytes.len() as u64 });
        };
        if data == 0 && fds == 0 {
            return Err(Violation::EmptyMessage);
        }
        *declared = Declared::Payload;
        Ok(Next::Part(Part::payload(data, Grant::exactly(fds))))
    }

    #[inline]
    fn head(_: &Declared) -> Head {
        Head::default()
    }

    #[inline]
    fn encode(head: &Head, payload: u32, descriptors: u8) -> Result<Outline, Misuse> {
        refuse_head(Self::NAME, head)?;
        if payload == 0 && descriptors == 0 {
            return Err(Misuse::EmptyMessage { wire: Self::NAME });
        }
        let [a, b, c, d] = payload.to_ne_bytes();
        // Upstream leaves its padding uninitialised; we do not hand out our memory.
        let header = Frame::new([a, b, c, d, descriptors, 0, 0, 0]);
        Ok(Outline { header, trailer: Frame::EMPTY, carrier: Carrier::Payload })
    }
}

/// `data` and `fds`; the padding is whatever upstream left there.
#[inline]
fn header(bytes: &[u8]) -> Option<(u32, u8)> {
    let mut cursor = Cursor::new(bytes);
    let fields = (cursor.u32_ne()?, cursor.u8()?);
    cursor.take(3)?;
    cursor.finish(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_every_length() {
        for length in 0..=16 {
            let bytes = [1; 16];
            let next = Libcamera::next(&mut Declared::Nothing, &bytes[..length]);
            assert_eq!(next.is_ok(), length == 8, "{length}");
        }
    }

    #[test]
    fn padding_is_ignored_when_decoding_and_zero_when_encoding() {
        let mut bytes = [0xff; 8];
        bytes[..4].copy_from_slice(&9_u32.to_ne_bytes());
        bytes[4] = 2;
        let part = Part::payload(9, Grant::Exactly(2));
        assert_eq!(Libcamera::next(&mut Declared::Nothing, &bytes), Ok(Next::Part(part)));
        let outline = Libcamera::encode(&Head::default(), 9, 2).unwrap();
        assert_eq!(outline.header.as_slice()[5..], [0, 0, 0]);
        assert_eq!(outline.header.as_slice()[..5], bytes[..5]);
    }

    #[test]
    fn empty_is_refused_in_both_directions_and_descriptors_alone_are_legal() {
        assert_eq!(Libcamera::next(&mut Declared::Nothing, &[0; 8]), Err(Violation::EmptyMessage));
        let empty = Libcamera::encode(&Head::default(), 0, 0);
        assert_eq!(empty, Err(Misuse::EmptyMessage { wire: "libcamera" }));
        assert!(Libcamera::encode(&Head::default(), 0, 1).is_ok());
        let next = Libcamera::next(&mut Declared::Nothing, &[0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(next, Ok(Next::Part(Part::payload(0, Grant::Exactly(1)))));
    }

    #[test]
    fn a_head_that_the_wire_cannot_carry_is_refused() {
        let refused = |head: Head| Libcamera::encode(&head, 1, 0).unwrap_err();
        for (field, head) in [
            ("kind", Head { kind: 1, ..Head::default() }),
            ("correlation", Head { correlation: 1, ..Head::default() }),
            ("flags", Head { flags: 1, ..Head::default() }),
            ("reply_descriptors", Head { reply_descriptors: 1, ..Head::default() }),
        ] {
            assert_eq!(refused(head), Misuse::HeadUnsupported { wire: "libcamera", field, value: 1 });
        }
    }
}
