//! libcamera's first wire (before `IPCUnixSocket` became a datagram pair): SOCK_STREAM. Rules
//! ST-1.. of `docs/PROTOCOL.md`.

use crate::error::{Misuse, Violation};
use crate::message::Head;
use crate::profile::{Carrier, Frame, Framing, Grant, Next, Outline, Part, Profile, Role, refuse_head};
use crate::wire::cursor::Cursor;

/// Bytes of the header.
const HEADER: u32 = 12;
/// The byte that carries a message's descriptors.
const MARKER: u8 = 0x77;

/// Header `{ private: u32, data: u32, fds: u8, 3 bytes of padding }` in native order; `data`
/// bytes; then, with descriptors, one marker byte whose send carries all of them. `private` is the
/// message's `kind`.
#[derive(Clone, Copy, Debug)]
pub struct Stream;

/// What the header said, and how far the message came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    private: u32,
    fds: u8,
    awaited: Awaited,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Awaited {
    #[default]
    Header,
    Payload,
    Marker,
}

impl Profile for Stream {
    const NAME: &'static str = "stream";
    // Descriptors ride on the last byte of a message, so a read that goes on into the next
    // message cannot take them for somebody else's.
    const FRAMING: Framing = Framing::Stream { read_ahead: true };
    const FIRST: Part = Part { role: Role::Frame, bytes: HEADER, grant: Grant::None };

    type Declared = Declared;

    #[inline]
    fn next(declared: &mut Declared, bytes: &[u8]) -> Result<Next, Violation> {
        match declared.awaited {
            Awaited::Header => {
                let Some((private, data, fds)) = header(bytes) else {
                    let (expected, received) = (HEADER.into(), bytes.len() as u64);
                    return Err(Violation::HeaderLength { expected, received });
                };
                *declared = Declared { private, fds, awaited: Awaited::Payload };
                Ok(Next::Part(Part::payload(data, Grant::None)))
            }
            Awaited::Payload if declared.fds > 0 => {
                declared.awaited = Awaited::Marker;
                Ok(Next::Part(Part::frame(1, Grant::Exactly(declared.fds))))
            }
            Awaited::Payload => Ok(Next::End),
            Awaited::Marker => match bytes {
                [MARKER] => Ok(Next::End),
                other => {
                    let received = other.first().copied().unwrap_or(0);
                    Err(Violation::Marker { expected: MARKER, received })
                }
            },
        }
    }

    #[inline]
    fn head(declared: &Declared) -> Head {
        Head { kind: declared.private, ..Head::default() }
    }

    #[inline]
    fn encode(head: &Head, payload: u32, descriptors: u8) -> Result<Outline, Misuse> {
        refuse_head(Self::NAME, &Head { kind: 0, ..*head })?;
        let [p0, p1, p2, p3] = head.kind.to_ne_bytes();
        let [d0, d1, d2, d3] = payload.to_ne_bytes();
        let header = Frame::new([p0, p1, p2, p3, d0, d1, d2, d3, descriptors, 0, 0, 0]);
        let trailer = if descriptors > 0 { Frame::new([MARKER]) } else { Frame::EMPTY };
        Ok(Outline { header, trailer, carrier: Carrier::Trailer })
    }
}

/// `private`, `data` and `fds`; the padding is whatever upstream left there.
#[inline]
fn header(bytes: &[u8]) -> Option<(u32, u32, u8)> {
    let mut cursor = Cursor::new(bytes);
    let fields = (cursor.u32_ne()?, cursor.u32_ne()?, cursor.u8()?);
    cursor.take(3)?;
    cursor.finish(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_follow_from_the_header() {
        let mut declared = Declared::default();
        let header = [[7, 0, 0, 0], [5, 0, 0, 0], [2, 0xff, 0xff, 0xff]].map(u32::from_le_bytes);
        let bytes = header.map(u32::to_le_bytes).concat();
        if cfg!(target_endian = "little") {
            assert_eq!(Stream::next(&mut declared, &bytes), Ok(Next::Part(Part::payload(5, Grant::None))));
            assert_eq!(Stream::head(&declared).kind, 7);
        } else {
            declared = Declared { private: 7, fds: 2, awaited: Awaited::Payload };
        }
        let marker = Part::frame(1, Grant::Exactly(2));
        assert_eq!(Stream::next(&mut declared, &[]), Ok(Next::Part(marker)));
        let error = Violation::Marker { expected: 0x77, received: 0x78 };
        assert_eq!(Stream::next(&mut declared.clone(), &[0x78]), Err(error));
        assert_eq!(Stream::next(&mut declared, &[0x77]), Ok(Next::End));
    }

    #[test]
    fn the_private_word_alone_is_a_message() {
        let mut declared = Declared::default();
        let next = Stream::next(&mut declared, &[1, 1, 1, 1, 0, 0, 0, 0, 0, 9, 9, 9]);
        assert_eq!(next, Ok(Next::Part(Part::payload(0, Grant::None))));
        assert_eq!(Stream::next(&mut declared, &[]), Ok(Next::End));
        assert!(Stream::encode(&Head { kind: 1, ..Head::default() }, 0, 0).is_ok());
    }

    #[test]
    fn what_the_wire_cannot_carry_is_refused() {
        let head = Head { kind: 3, correlation: 4, ..Head::default() };
        let error = Misuse::HeadUnsupported { wire: "stream", field: "correlation", value: 4 };
        assert_eq!(Stream::encode(&head, 0, 0), Err(error));
    }

    #[test]
    fn a_header_of_another_length_is_none() {
        for length in [11, 13] {
            let error = Violation::HeaderLength { expected: 12, received: length };
            let next = Stream::next(&mut Declared::default(), &[0; 13][..length as usize]);
            assert_eq!(next, Err(error));
        }
    }
}
