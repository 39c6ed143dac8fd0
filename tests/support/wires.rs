//! Two wires that the crate does not have, to hold the trait against: a stream that reads ahead
//! and one that must not.

use fdpost::profile::{Carrier, Frame, Framing, Grant, Next, Outline, Part, Profile, Role};
use fdpost::{Head, Misuse, Violation};

/// The byte that carries the descriptors of a [`Stream`] message.
pub const MARKER: u8 = 0x77;

/// libcamera's first wire over SOCK_STREAM: `u32 private; u32 data; u8 fds`, 3 bytes of padding,
/// native-endian; `data` bytes; and where there are descriptors, one marker byte that brings them
/// all. A message of neither bytes nor descriptors is legal.
#[derive(Clone, Copy, Debug)]
pub struct Stream;

/// What a [`Stream`] message declared.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamDeclared {
    /// Parts that are whole.
    parts: u8,
    private: u32,
    fds: u8,
}

impl Profile for Stream {
    const NAME: &'static str = "stream";
    // Descriptors ride on the last byte of a message, so reading on cannot misread them.
    const FRAMING: Framing = Framing::Stream { read_ahead: true };
    const FIRST: Part = Part { role: Role::Frame, bytes: 12, grant: Grant::None };

    type Declared = StreamDeclared;

    fn next(declared: &mut StreamDeclared, bytes: &[u8]) -> Result<Next, Violation> {
        declared.parts += 1;
        match (declared.parts, bytes) {
            (1, &[a, b, c, d, e, f, g, h, fds, ..]) => {
                declared.private = u32::from_ne_bytes([a, b, c, d]);
                declared.fds = fds;
                Ok(Next::Part(Part::payload(u32::from_ne_bytes([e, f, g, h]), Grant::None)))
            }
            (2, _) if declared.fds > 0 => Ok(Next::Part(Part::frame(1, Grant::Exactly(declared.fds)))),
            (3, &[marker]) if marker != MARKER => {
                Err(Violation::WireRule { rule: "marker", expected: MARKER.into(), received: marker.into() })
            }
            _ => Ok(Next::End),
        }
    }

    fn head(declared: &StreamDeclared) -> Head {
        Head { kind: declared.private, ..Head::default() }
    }

    fn encode(head: &Head, payload: u32, descriptors: u8) -> Result<Outline, Misuse> {
        refuse(Self::NAME, "flags", head.flags)?;
        refuse(Self::NAME, "correlation", head.correlation)?;
        refuse(Self::NAME, "reply_descriptors", head.reply_descriptors.into())?;
        let [a, b, c, d] = head.kind.to_ne_bytes();
        let [e, f, g, h] = payload.to_ne_bytes();
        let header = Frame::new([a, b, c, d, e, f, g, h, descriptors, 0, 0, 0]);
        let trailer = if descriptors > 0 { Frame::new([MARKER]) } else { Frame::EMPTY };
        Ok(Outline { header, trailer, carrier: Carrier::Trailer })
    }
}

/// The shape of vhost-user: `u32 request; u32 flags; u32 size`, native-endian, with up to eight
/// descriptors; then `size` bytes, with none.
#[derive(Clone, Copy, Debug)]
pub struct VhostUser;

/// What a [`VhostUser`] message declared.
#[derive(Clone, Copy, Debug, Default)]
pub struct VhostDeclared {
    seen: bool,
    request: u32,
    flags: u32,
}

impl Profile for VhostUser {
    const NAME: &'static str = "vhost-user";
    // Descriptors ride on the header, so a read beyond a part could bring the next one's.
    const FRAMING: Framing = Framing::Stream { read_ahead: false };
    const FIRST: Part = Part { role: Role::Frame, bytes: 12, grant: Grant::AtMost(8) };

    type Declared = VhostDeclared;

    fn next(declared: &mut VhostDeclared, bytes: &[u8]) -> Result<Next, Violation> {
        let (false, &[a, b, c, d, e, f, g, h, i, j, k, l]) = (declared.seen, bytes) else {
            return Ok(Next::End);
        };
        let (request, flags) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
        *declared = VhostDeclared { seen: true, request, flags };
        match u32::from_ne_bytes([i, j, k, l]) {
            0 => Ok(Next::End),
            size => Ok(Next::Part(Part::payload(size, Grant::None))),
        }
    }

    fn head(declared: &VhostDeclared) -> Head {
        Head { kind: declared.request, flags: declared.flags, ..Head::default() }
    }

    fn encode(head: &Head, payload: u32, descriptors: u8) -> Result<Outline, Misuse> {
        refuse(Self::NAME, "correlation", head.correlation)?;
        refuse(Self::NAME, "reply_descriptors", head.reply_descriptors.into())?;
        if descriptors > 8 {
            return Err(Misuse::TooManyDescriptors { descriptors: descriptors.into(), limit: 8 });
        }
        let [a, b, c, d] = head.kind.to_ne_bytes();
        let [e, f, g, h] = head.flags.to_ne_bytes();
        let [i, j, k, l] = payload.to_ne_bytes();
        let header = Frame::new([a, b, c, d, e, f, g, h, i, j, k, l]);
        Ok(Outline { header, trailer: Frame::EMPTY, carrier: Carrier::Header })
    }
}

fn refuse(wire: &'static str, field: &'static str, value: u32) -> Result<(), Misuse> {
    if value == 0 { Ok(()) } else { Err(Misuse::HeadUnsupported { wire, field, value }) }
}
