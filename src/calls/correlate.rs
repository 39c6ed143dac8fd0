//! How each wire ties a reply to its call.

use crate::calls::request::Request;
use crate::error::{Misuse, Violation};
use crate::limits::SCM_MAX_FD;
use crate::message::Head;
use crate::profile::packet::{ERROR, REPLY};
use crate::profile::{Libcamera, Packet, Profile, Stream};

/// Which side of a conversation this is. It matters on wires where nothing but that tells a
/// request from a reply; where the wire does ([`Correlate::BOTH_CALL`]), both sides call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that calls.
    Caller,
    /// The side that is called.
    Answerer,
}

/// What a message is to who received it.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// An answer to a call of this side's.
    Answer {
        /// The call's id; whatever stands here where the wire has none.
        id: u32,
        /// What the answer must repeat beside the id, 0 where that is nothing.
        command: u32,
        /// The call failed, says the peer.
        error: bool,
    },
    /// A call of the peer's.
    Request(Request),
    /// A message that asks for nothing and answers nothing.
    Plain,
}

/// A wire over which calls can be made.
pub trait Correlate: Profile {
    /// Whether an id travels with each call. Without, one call at a time is in flight, and a call
    /// that is given up ends the conversation.
    const IDS: bool;
    /// Whether the wire tells an answer from a request, so that both sides may call.
    const BOTH_CALL: bool;

    /// What a message that came is.
    ///
    /// # Errors
    /// It has no place for what the wire needs there.
    fn kind(head: &Head, payload: &[u8], role: Role) -> Result<Kind, Violation>;

    /// Makes a message the call `id`; says what its answer must repeat beside the id.
    ///
    /// # Errors
    /// The message has no place for it, or says already what only a call may say.
    fn ask(head: &mut Head, payload: &mut [u8], id: u32) -> Result<u32, Misuse>;

    /// Makes a message the answer to `request`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and where the wire has no answer that says "failed".
    fn answer(head: &mut Head, payload: &mut [u8], request: &Request, error: bool) -> Result<(), Misuse>;

    /// Checks that a message asks for nothing and answers nothing.
    ///
    /// # Errors
    /// It does.
    fn plain(head: &Head, payload: &[u8]) -> Result<(), Misuse>;
}

impl Correlate for Packet {
    const IDS: bool = true;
    const BOTH_CALL: bool = true;

    fn kind(head: &Head, _: &[u8], _: Role) -> Result<Kind, Violation> {
        Ok(if head.flags & REPLY != 0 {
            Kind::Answer { id: head.correlation, command: 0, error: head.flags & ERROR != 0 }
        } else if head.correlation != 0 {
            Kind::Request(Request::new(head.correlation, 0, head.reply_descriptors))
        } else {
            Kind::Plain
        })
    }

    fn ask(head: &mut Head, _: &mut [u8], id: u32) -> Result<u32, Misuse> {
        unset("flags", head.flags)?;
        unset("correlation", head.correlation)?;
        head.correlation = id;
        Ok(0)
    }

    fn answer(head: &mut Head, _: &mut [u8], request: &Request, error: bool) -> Result<(), Misuse> {
        let flags = if error { REPLY | ERROR } else { REPLY };
        unset_or("flags", head.flags, flags)?;
        unset_or("correlation", head.correlation, request.correlation())?;
        unset("reply_descriptors", head.reply_descriptors.into())?;
        (head.flags, head.correlation) = (flags, request.correlation());
        Ok(())
    }

    fn plain(head: &Head, _: &[u8]) -> Result<(), Misuse> {
        unset("flags", head.flags)?;
        unset("correlation", head.correlation)
    }
}

/// `IPCMessage::Header` of libcamera (include/libcamera/internal/ipc_pipe.h), in native order: the
/// payload begins with a command and a cookie, which an answer repeats. Its events have cookie 0.
impl Correlate for Libcamera {
    const IDS: bool = true;
    const BOTH_CALL: bool = false;

    fn kind(_: &Head, payload: &[u8], role: Role) -> Result<Kind, Violation> {
        let short = Violation::HeaderLength { expected: COOKIE_END, received: payload.len() as u64 };
        let [command, cookie] = words(payload).ok_or(short)?;
        Ok(match role {
            // Upstream's first call has cookie 0 (its `seq_` begins there), and is answered.
            Role::Answerer => Kind::Request(Request::new(cookie, command, SCM_MAX_FD)),
            Role::Caller if cookie == 0 => Kind::Plain,
            Role::Caller => Kind::Answer { id: cookie, command, error: false },
        })
    }

    fn ask(head: &mut Head, payload: &mut [u8], id: u32) -> Result<u32, Misuse> {
        // No place on the wire: this side keeps it.
        head.reply_descriptors = 0;
        let [command, _] = mark(payload, None, id)?;
        Ok(command)
    }

    fn answer(_: &mut Head, payload: &mut [u8], request: &Request, error: bool) -> Result<(), Misuse> {
        no_error_bit(Self::NAME, error)?;
        mark(payload, Some(request.command()), request.correlation()).map(drop)
    }

    fn plain(_: &Head, payload: &[u8]) -> Result<(), Misuse> {
        let [_, cookie] = words(payload).ok_or(Misuse::CallHeader { bytes: payload.len() as u64 })?;
        unset("cookie", cookie)
    }
}

impl Correlate for Stream {
    const IDS: bool = false;
    const BOTH_CALL: bool = false;

    fn kind(_: &Head, _: &[u8], role: Role) -> Result<Kind, Violation> {
        Ok(match role {
            Role::Caller => Kind::Answer { id: 0, command: 0, error: false },
            Role::Answerer => Kind::Request(Request::new(0, 0, SCM_MAX_FD)),
        })
    }

    fn ask(head: &mut Head, _: &mut [u8], _: u32) -> Result<u32, Misuse> {
        head.reply_descriptors = 0;
        Ok(0)
    }

    fn answer(_: &mut Head, _: &mut [u8], _: &Request, error: bool) -> Result<(), Misuse> {
        no_error_bit(Self::NAME, error)
    }

    fn plain(_: &Head, _: &[u8]) -> Result<(), Misuse> {
        Err(Misuse::CallsOnly { wire: Self::NAME })
    }
}

/// Bytes of command and cookie.
const COOKIE_END: u64 = 8;

fn words(payload: &[u8]) -> Option<[u32; 2]> {
    let (command, rest) = payload.split_first_chunk()?;
    let (cookie, _) = rest.split_first_chunk()?;
    Some([u32::from_ne_bytes(*command), u32::from_ne_bytes(*cookie)])
}

/// Writes the cookie and, for an answer, the command.
fn mark(payload: &mut [u8], command: Option<u32>, cookie: u32) -> Result<[u32; 2], Misuse> {
    let short = Misuse::CallHeader { bytes: payload.len() as u64 };
    let before = words(payload).ok_or(short)?;
    let after = [command.unwrap_or(before[0]), cookie];
    let bytes = after.iter().flat_map(|word| word.to_ne_bytes());
    payload.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    Ok(after)
}

const fn unset(field: &'static str, value: u32) -> Result<(), Misuse> {
    unset_or(field, value, 0)
}

const fn unset_or(field: &'static str, value: u32, or: u32) -> Result<(), Misuse> {
    if value == 0 || value == or { Ok(()) } else { Err(Misuse::CallField { field, value }) }
}

const fn no_error_bit(wire: &'static str, error: bool) -> Result<(), Misuse> {
    if error { Err(Misuse::HeadUnsupported { wire, field: "flags", value: REPLY | ERROR }) } else { Ok(()) }
}
