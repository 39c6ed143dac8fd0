//! A message on its way out: checked, with the wire's bytes around it.

use crate::error::Misuse;
use crate::limits::SCM_MAX_FD;
use crate::message::Message;
use crate::profile::{Carrier, Framing, Outline, Profile};

use super::transmit::Transmit;

/// A message that was checked for one wire, and the bytes that the wire puts around it.
#[derive(Debug)]
pub struct Outgoing<F> {
    pub(super) message: Message<F>,
    pub(super) outline: Outline,
}

impl<F> Outgoing<F> {
    /// A message with the outline that it was [checked](super::Sender::check) to have.
    pub const fn checked(message: Message<F>, outline: Outline) -> Self {
        Self { message, outline }
    }

    /// Checks a message for the wire `P`. `packet_limit`: the bytes of the largest datagram or
    /// packet that the socket takes, where it has such a limit.
    ///
    /// # Errors
    /// The message comes back, with what the wire, the kernel or the socket would not take.
    pub fn new<P: Profile>(
        message: Message<F>,
        packet_limit: Option<usize>,
    ) -> Result<Self, (Misuse, Message<F>)> {
        match Self::check::<P>(&message, packet_limit) {
            Ok(outline) => Ok(Self { message, outline }),
            Err(misuse) => Err((misuse, message)),
        }
    }

    /// The message, given back.
    pub fn into_message(self) -> Message<F> {
        self.message
    }

    /// The message.
    pub const fn message(&self) -> &Message<F> {
        &self.message
    }

    pub(super) fn check<P: Profile>(
        message: &Message<F>,
        packet_limit: Option<usize>,
    ) -> Result<Outline, Misuse> {
        if let Some(index) = message.descriptors.iter().position(Option::is_none) {
            return Err(Misuse::DescriptorTaken { index: index as u64 });
        }
        let too_many = |limit: u8| Misuse::TooManyDescriptors {
            descriptors: message.descriptors.len() as u64,
            limit: limit.into(),
        };
        let descriptors = u8::try_from(message.descriptors.len()).map_err(|_| too_many(SCM_MAX_FD))?;
        if descriptors > SCM_MAX_FD {
            return Err(too_many(SCM_MAX_FD));
        }
        let bytes = message.payload.len();
        let too_large = |limit: u64| Misuse::PayloadTooLarge { bytes: bytes as u64, limit };
        let payload = u32::try_from(bytes).ok().filter(|payload| *payload <= P::PAYLOAD_MOST);
        let payload = payload.ok_or_else(|| too_large(P::PAYLOAD_MOST.into()))?;
        let outline = P::encode(&message.head, payload, descriptors)?;
        if let Some(limit) = packet_limit {
            let around = match P::FRAMING {
                Framing::MessagesPerPacket(_) => {
                    outline.header.as_slice().len().saturating_add(outline.trailer.as_slice().len())
                }
                Framing::PartPerDatagram | Framing::Stream { .. } => 0,
            };
            let limit = limit.saturating_sub(around);
            if bytes > limit {
                return Err(too_large(limit as u64));
            }
        }
        Ok(outline)
    }

    /// The transmit at `index`, if the message has so many.
    pub(super) fn transmit<P: Profile>(&self, index: usize) -> Option<Transmit<'_, F>> {
        transmit::<P, F>(&self.message, &self.outline, index)
    }
}

/// The kernel took `count`, as for [`Sender::transmitted`](super::Sender::transmitted): whether that
/// was all of the message.
pub(super) fn is_whole<P: Profile, F>(message: &Message<F>, outline: &Outline, count: usize) -> bool {
    match P::FRAMING {
        Framing::Stream { .. } => {
            let only = transmit::<P, F>(message, outline, 1).is_none();
            only && transmit::<P, F>(message, outline, 0).is_none_or(|first| first.bytes() <= count)
        }
        _ => transmit::<P, F>(message, outline, count).is_none(),
    }
}

/// The transmit at `index` of a message, if it has so many.
pub(super) fn transmit<'a, P: Profile, F>(
    message: &'a Message<F>,
    outline: &'a Outline,
    index: usize,
) -> Option<Transmit<'a, F>> {
    let (header, trailer) = (outline.header.as_slice(), outline.trailer.as_slice());
    let payload = message.payload.as_slice();
    let carrier = outline.carrier;
    let all = message.descriptors.as_slice();
    let on = |part: Carrier| if carrier == part { all } else { &[] };
    let transmit = |slices, descriptors| Some(Transmit::new(slices, descriptors));
    match (P::FRAMING, index) {
        (Framing::PartPerDatagram, 0) => transmit([header, &[], &[]], on(Carrier::Header)),
        (Framing::PartPerDatagram, 1) => transmit([payload, &[], &[]], on(Carrier::Payload)),
        (Framing::PartPerDatagram, 2) if !trailer.is_empty() => {
            transmit([trailer, &[], &[]], on(Carrier::Trailer))
        }
        (Framing::MessagesPerPacket(_), 0) => transmit([header, payload, trailer], all),
        // Descriptors ride on the first byte of their part: what comes before it is a send of
        // its own.
        (Framing::Stream { .. }, 0) => match carrier {
            Carrier::Payload if !all.is_empty() => transmit([header, &[], &[]], &[]),
            Carrier::Trailer if !all.is_empty() => transmit([header, payload, &[]], &[]),
            _ => transmit([header, payload, trailer], all),
        },
        (Framing::Stream { .. }, 1) if !all.is_empty() => match carrier {
            Carrier::Header => None,
            Carrier::Payload => transmit([payload, trailer, &[]], all),
            Carrier::Trailer => transmit([trailer, &[], &[]], all),
        },
        _ => None,
    }
}
