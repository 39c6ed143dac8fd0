//! A wire that no peer speaks: any framing and any place for descriptors, a header and a trailer.

use crate::error::{Misuse, Violation};
use crate::message::Head;
use crate::profile::{Carrier, Frame, Framing, Grant, Next, Outline, Part, Profile, Role};

/// `FRAMING`: 0 datagrams, 1 packets, 2 a stream; `CARRIER`: 0 header, 1 payload, 2 trailer.
pub(super) struct Wire<const FRAMING: u8, const CARRIER: u8>;

/// The one byte of the header.
pub(super) const HEADER: [u8; 1] = [b'h'];
/// The one byte of the trailer.
pub(super) const TRAILER: [u8; 1] = [b't'];

impl<const FRAMING: u8, const CARRIER: u8> Profile for Wire<FRAMING, CARRIER> {
    const NAME: &'static str = "of the tests";
    const FRAMING: Framing = match FRAMING {
        0 => Framing::PartPerDatagram,
        1 => Framing::MessagesPerPacket(crate::profile::PacketCaps {
            messages: 4,
            bytes: 4096,
            descriptors: 4,
        }),
        _ => Framing::Stream { read_ahead: false },
    };
    const FIRST: Part = Part { role: Role::Frame, bytes: 1, grant: Grant::AtMost(8) };

    type Declared = ();

    fn next((): &mut (), _: &[u8]) -> Result<Next, Violation> {
        Ok(Next::End)
    }

    fn head((): &()) -> Head {
        Head::default()
    }

    fn encode(_: &Head, _: u32, _: u8) -> Result<Outline, Misuse> {
        let carrier = match CARRIER {
            0 => Carrier::Header,
            1 => Carrier::Payload,
            _ => Carrier::Trailer,
        };
        Ok(Outline { header: Frame::new(HEADER), trailer: Frame::new(TRAILER), carrier })
    }
}
