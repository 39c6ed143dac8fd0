//! What a party asks of a broker.

use alloc::vec::Vec;

use super::{ASK, NAME_MOST, Name, REGISTER, SocketKind, WIRE_MOST, WITHDRAW, Wire, WireName, broken};
use crate::error::Violation;
use crate::limits::SCM_MAX_FD;
use crate::message::{Head, Message};
use crate::wire::cursor::Cursor;

/// Bytes before the two names.
const FIXED: usize = 8;

/// Bytes of the largest request.
pub const REQUEST_MOST: u32 = (FIXED + WIRE_MOST + NAME_MOST) as u32;

/// A request, as it stands in the payload of a message whose `kind` says which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// This connection serves a name from now on.
    Register(Registration),
    /// This connection serves a name no longer. Channels that were handed out live on.
    Withdraw(Name),
    /// A channel to whoever serves a name.
    Ask(Ask),
}

/// A name and its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The name.
    pub name: Name,
    /// What the fresh channels speak.
    pub wire: Wire,
    /// How many descriptors the service accepts in one message on them, 0 to 253. With 0 its ends
    /// refuse them, where the kernel can (SO_PASSRIGHTS).
    pub accepts: u8,
    /// Who may ask.
    pub audience: Audience,
}

/// A name that a client wants a channel to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The name.
    pub name: Name,
    /// What the fresh channel is to speak.
    pub wire: Wire,
    /// How many descriptors the client accepts in one message on it, 0 to 253. With 0 its end
    /// refuses them, where the kernel can.
    pub accepts: u8,
}

/// Who may ask for a name, by the credentials that the kernel noted when the asker connected
/// (SO_PEERCRED).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience {
    /// The service's own user.
    #[default]
    SameUser,
    /// This user.
    User(u32),
    /// Who has this group as its effective one; supplementary groups do not count.
    Group(u32),
    /// Everybody whom the broker lets connect.
    Anyone,
}

impl Audience {
    const fn encode(self) -> (u8, u32) {
        match self {
            Self::SameUser => (0, 0),
            Self::User(user) => (1, user),
            Self::Group(group) => (2, group),
            Self::Anyone => (3, 0),
        }
    }

    const fn decode(code: u8, id: u32) -> Result<Self, Violation> {
        match (code, id) {
            (0, 0) => Ok(Self::SameUser),
            (1, user) => Ok(Self::User(user)),
            (2, group) => Ok(Self::Group(group)),
            (3, 0) => Ok(Self::Anyone),
            (0 | 3, id) => Err(broken("id", id)),
            (code, _) => Err(broken("audience", code as u32)),
        }
    }
}

impl Request {
    /// The name that it is about.
    pub const fn name(&self) -> &Name {
        match self {
            Self::Register(Registration { name, .. })
            | Self::Withdraw(name)
            | Self::Ask(Ask { name, .. }) => name,
        }
    }

    /// The `kind` of its message.
    pub const fn kind(&self) -> u32 {
        match self {
            Self::Register(_) => REGISTER,
            Self::Withdraw(_) => WITHDRAW,
            Self::Ask(_) => ASK,
        }
    }

    /// The message that says it. `accepts_ends`: this party takes the ends of channels, in the
    /// answer or in hand-overs.
    pub fn message<F>(&self, correlation: u32, accepts_ends: bool) -> Message<F> {
        let (wire, accepts, audience) = match self {
            Self::Register(it) => (Some(it.wire), it.accepts, it.audience),
            Self::Withdraw(_) => (None, 0, Audience::SameUser),
            Self::Ask(it) => (Some(it.wire), it.accepts, Audience::SameUser),
        };
        let mut payload = Vec::with_capacity(REQUEST_MOST as usize);
        if let Some(wire) = wire {
            let (audience, id) = audience.encode();
            payload.extend([wire.socket.code(), accepts, audience, wire.name.as_bytes().len() as u8]);
            payload.extend(id.to_le_bytes());
            payload.extend(wire.name.as_bytes());
        }
        payload.extend(self.name().as_bytes());
        let reply_descriptors = u8::from(accepts_ends);
        Message::new(payload).with_head(Head { kind: self.kind(), correlation, flags: 0, reply_descriptors })
    }

    /// What a party said; everything that is not exactly a request is refused.
    ///
    /// # Errors
    /// [`Violation::BrokerMessage`], [`Violation::PayloadLength`].
    pub fn decode(head: &Head, payload: &[u8]) -> Result<Self, Violation> {
        if head.flags != 0 {
            return Err(broken("flags", head.flags));
        }
        if !matches!(head.kind, REGISTER | WITHDRAW | ASK) {
            return Err(broken("kind", head.kind));
        }
        if head.correlation == 0 {
            return Err(broken("correlation", 0));
        }
        if head.kind == WITHDRAW {
            return name(payload).map(Self::Withdraw);
        }
        let terms = Terms::decode(payload)?;
        let Terms { name, wire, accepts, audience, id } = terms;
        if head.kind == REGISTER {
            let audience = Audience::decode(audience, id)?;
            return Ok(Self::Register(Registration { name, wire, accepts, audience }));
        }
        // Reserved, so that an asker can say more one day.
        match (audience, id) {
            (0, 0) => Ok(Self::Ask(Ask { name, wire, accepts })),
            (0, id) => Err(broken("id", id)),
            (audience, _) => Err(broken("audience", audience.into())),
        }
    }
}

/// The layout that registrations and asks share.
struct Terms {
    name: Name,
    wire: Wire,
    accepts: u8,
    audience: u8,
    id: u32,
}

impl Terms {
    fn decode(payload: &[u8]) -> Result<Self, Violation> {
        let short = |declared: usize| Violation::PayloadLength {
            declared: declared as u64,
            received: payload.len() as u64,
        };
        let mut cursor = Cursor::new(payload);
        let fixed = (|| Some((cursor.array::<4>()?, cursor.u32_le()?)))();
        let Some(([socket, accepts, audience, wire_length], id)) = fixed else { return Err(short(FIXED)) };
        let wire_length = usize::from(wire_length);
        let Some(wire) = cursor.take(wire_length) else {
            return Err(short(FIXED.saturating_add(wire_length)));
        };
        let socket = SocketKind::decode(socket)?;
        if accepts > SCM_MAX_FD {
            return Err(broken("accepts", accepts.into()));
        }
        let wire = Wire { socket, name: WireName::decode(wire, "wire_length", "wire")? };
        Ok(Self { name: name(cursor.rest())?, wire, accepts, audience, id })
    }
}

fn name(bytes: &[u8]) -> Result<Name, Violation> {
    Name::decode(bytes, "name_length", "name")
}
