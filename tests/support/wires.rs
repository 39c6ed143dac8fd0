//! A wire that the crate does not have, to hold the trait against: a stream that must not read
//! ahead, where `fdpost::Stream` may.

use fdpost::profile::{Carrier, Frame, Framing, Grant, Next, Outline, Part, Profile, Role};
use fdpost::{Head, Misuse, Violation};

/// The byte that carries the descriptors of a `stream` message.
pub const MARKER: u8 = 0x77;

/// The rule that is this wire's own: the high byte of the flags is reserved.
pub const FLAGS: &str = "vhost-user-flags";
const RESERVED: u32 = 0xff00_0000;

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
        if flags & RESERVED != 0 {
            let received = (flags & RESERVED).into();
            return Err(Violation::WireRule { rule: FLAGS, expected: 0, received });
        }
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
        refuse(Self::NAME, "flags", head.flags & RESERVED)?;
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
