//! What a broker says.

use alloc::vec::Vec;

use super::refusal::MISMATCH;
use super::{
    ASK, HAND_OVER, NAME_MOST, Name, REGISTER, Refusal, SocketKind, TURNED_AWAY, WITHDRAW, Wire, WireName,
    broken,
};
use crate::error::Violation;
use crate::limits::SCM_MAX_FD;
use crate::message::{Head, Message};
use crate::profile::packet::{ERROR, REPLY};
use crate::wire::control::Credentials;
use crate::wire::cursor::Cursor;

/// The flags of a refusal.
const REPLIED_ERROR: u32 = REPLY | ERROR;

/// Bytes before the text.
const FIXED: usize = 16;

/// Bytes of the largest answer.
pub const ANSWER_MOST: u32 = (FIXED + NAME_MOST) as u32;

/// Who has the other end of a fresh channel. On the channel itself SO_PEERCRED would name the
/// broker, which made it: so the broker says what it saw when the other one connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its credentials, in the broker's namespaces.
    pub credentials: Credentials,
    /// How many descriptors it accepts in one message, as it said itself.
    pub accepts: u8,
}

/// A message of the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The name is registered, or withdrawn.
    Done,
    /// One descriptor comes with it: the client's end.
    Granted(Peer),
    /// No.
    Refused(Refusal),
    /// To a service, unasked: one descriptor comes with it, its end of a channel that was asked
    /// for under this name.
    HandOver(Name, Peer),
    /// To a party that gets no connection, unasked, before the broker closes.
    TurnedAway(Refusal),
}

impl Answer {
    /// Descriptors that come with it.
    pub const fn descriptors(&self) -> u8 {
        match self {
            Self::Granted(_) | Self::HandOver(..) => 1,
            Self::Done | Self::Refused(_) | Self::TurnedAway(_) => 0,
        }
    }

    /// The message that says it, to the request of this kind and correlation, which both are of no
    /// account where the answer comes unasked. Its descriptor is still to be added.
    pub fn message<F>(&self, kind: u32, correlation: u32) -> Message<F> {
        let (kind, correlation, flags) = match self {
            Self::Done | Self::Granted(_) => (kind, correlation, REPLY),
            Self::Refused(_) => (kind, correlation, REPLIED_ERROR),
            Self::HandOver(..) => (HAND_OVER, 0, 0),
            Self::TurnedAway(_) => (TURNED_AWAY, 0, 0),
        };
        let mut fixed = Fixed::default();
        let mut text: &[u8] = &[];
        match self {
            Self::Done => {}
            Self::Granted(peer) => fixed.set_peer(peer),
            Self::HandOver(name, peer) => {
                fixed.set_peer(peer);
                text = name.as_bytes();
            }
            Self::Refused(refusal) | Self::TurnedAway(refusal) => {
                fixed.status = refusal.status();
                if let Refusal::WireMismatch(wire) = refusal {
                    fixed.socket = wire.socket.code();
                    text = wire.name.as_bytes();
                }
            }
        }
        let mut payload = Vec::with_capacity(FIXED.saturating_add(text.len()));
        payload.extend([fixed.status, fixed.socket, fixed.accepts, 0]);
        payload.extend(fixed.pid.to_le_bytes());
        payload.extend(fixed.uid.to_le_bytes());
        payload.extend(fixed.gid.to_le_bytes());
        payload.extend(text);
        Message::new(payload).with_head(Head { kind, correlation, flags, reply_descriptors: 0 })
    }

    /// What a broker said; everything that is not exactly an answer is refused.
    ///
    /// # Errors
    /// [`Violation::BrokerMessage`], [`Violation::PayloadLength`]; [`Violation::DescriptorCount`]
    /// for another number of descriptors than the answer has.
    pub fn decode(head: &Head, payload: &[u8], descriptors: usize) -> Result<Self, Violation> {
        let answer = Self::decode_bytes(head, payload)?;
        let declared = u32::from(answer.descriptors());
        let received = u32::try_from(descriptors).unwrap_or(u32::MAX);
        if declared != received {
            return Err(Violation::DescriptorCount { declared, received });
        }
        Ok(answer)
    }

    fn decode_bytes(head: &Head, payload: &[u8]) -> Result<Self, Violation> {
        let unasked = match head.kind {
            REGISTER | WITHDRAW | ASK => false,
            HAND_OVER | TURNED_AWAY => true,
            kind => return Err(broken("kind", kind)),
        };
        // The wire keeps most of this already; whoever reads messages from elsewhere need not know.
        if unasked && head.flags != 0 || !unasked && !matches!(head.flags, REPLY | REPLIED_ERROR) {
            return Err(broken("flags", head.flags));
        }
        if unasked != (head.correlation == 0) {
            return Err(broken("correlation", head.correlation));
        }
        if head.reply_descriptors != 0 {
            return Err(broken("reply_descriptors", head.reply_descriptors.into()));
        }
        let (fixed, text) = Fixed::decode(payload)?;
        if !unasked && (head.flags & ERROR != 0) != (fixed.status != 0) {
            return Err(broken("status", fixed.status.into()));
        }
        let answer = match (head.kind, fixed.status) {
            (HAND_OVER, 0) => return fixed.hand_over(text),
            (TURNED_AWAY, 0) | (HAND_OVER, _) => return Err(broken("status", fixed.status.into())),
            (ASK, 0) => Self::Granted(fixed.peer()?),
            (_, 0) => Self::Done,
            (ASK, MISMATCH) => return fixed.mismatch(text),
            (TURNED_AWAY, status) => Self::TurnedAway(Refusal::decode(status)?),
            (_, status) => Self::Refused(Refusal::decode(status)?),
        };
        fixed.only(matches!(answer, Self::Granted(_)))?;
        no_text(text)?;
        Ok(answer)
    }
}

/// The fields before the text; zero where an answer has no use for them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Fixed {
    status: u8,
    socket: u8,
    accepts: u8,
    pid: i32,
    uid: u32,
    gid: u32,
}

impl Fixed {
    const fn set_peer(&mut self, peer: &Peer) {
        let Peer { credentials: Credentials { pid, uid, gid }, accepts } = *peer;
        *self = Self { status: self.status, socket: self.socket, accepts, pid, uid, gid };
    }

    fn decode(payload: &[u8]) -> Result<(Self, &[u8]), Violation> {
        let mut cursor = Cursor::new(payload);
        let fields = (|| {
            let [status, socket, accepts, reserved] = cursor.array()?;
            let pid = i32::from_le_bytes(cursor.array()?);
            let (uid, gid) = (cursor.u32_le()?, cursor.u32_le()?);
            Some((Self { status, socket, accepts, pid, uid, gid }, reserved))
        })();
        match fields {
            Some((fixed, 0)) => Ok((fixed, cursor.rest())),
            Some((_, reserved)) => Err(broken("reserved", reserved.into())),
            None => Err(Violation::PayloadLength { declared: FIXED as u64, received: payload.len() as u64 }),
        }
    }

    fn peer(&self) -> Result<Peer, Violation> {
        let Self { accepts, pid, uid, gid, .. } = *self;
        if accepts > SCM_MAX_FD {
            return Err(broken("accepts", accepts.into()));
        }
        Ok(Peer { credentials: Credentials { pid, uid, gid }, accepts })
    }

    fn hand_over(&self, text: &[u8]) -> Result<Answer, Violation> {
        self.only(true)?;
        Ok(Answer::HandOver(Name::decode(text, "name_length", "name")?, self.peer()?))
    }

    fn mismatch(&self, text: &[u8]) -> Result<Answer, Violation> {
        let socket = SocketKind::decode(self.socket)?;
        Self { socket: 0, ..*self }.only(false)?;
        let name = WireName::decode(text, "wire_length", "wire")?;
        Ok(Answer::Refused(Refusal::WireMismatch(Wire { socket, name })))
    }

    /// Refuses what stands in a field that this answer has no use for.
    fn only(&self, has_peer: bool) -> Result<(), Violation> {
        let peer = [
            ("accepts", self.accepts.into()),
            ("pid", u32::from_le_bytes(self.pid.to_le_bytes())),
            ("uid", self.uid),
            ("gid", self.gid),
        ];
        let unused = peer.into_iter().filter(|_| !has_peer).chain([("socket", self.socket.into())]);
        match { unused }.find(|(_, value)| *value != 0) {
            Some((field, value)) => Err(broken(field, value)),
            None => Ok(()),
        }
    }
}

fn no_text(text: &[u8]) -> Result<(), Violation> {
    if text.is_empty() {
        return Ok(());
    }
    let received = FIXED.saturating_add(text.len()) as u64;
    Err(Violation::PayloadLength { declared: FIXED as u64, received })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_exactly_what_an_answer_has() {
        let peer = Peer { credentials: Credentials { pid: 1, uid: 2, gid: 3 }, accepts: 4 };
        let name = Name::new("clock").unwrap();
        let answers =
            [Answer::Granted(peer), Answer::HandOver(name, peer), Answer::Refused(Refusal::NameTaken)];
        for answer in answers {
            let message = answer.message::<()>(ASK, 9);
            let count = usize::from(answer.descriptors());
            let decode = |head: Head| Answer::decode(&head, message.payload(), count);
            let head = *message.head();
            assert_eq!(decode(head), Ok(answer));
            // Bits that the wire reserves, and what the wire itself would refuse.
            for flags in [head.flags | 4, head.flags | 1 << 31, head.flags ^ REPLY] {
                assert_eq!(decode(Head { flags, ..head }), Err(broken("flags", flags)));
            }
            let correlation = if head.correlation == 0 { 7 } else { 0 };
            assert_eq!(decode(Head { correlation, ..head }), Err(broken("correlation", correlation)));
            assert_eq!(decode(Head { reply_descriptors: 1, ..head }), Err(broken("reply_descriptors", 1)));
        }
    }
}
