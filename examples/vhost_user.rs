//! Write your own wire: vhost-user's header (request, flags, size; up to 8 descriptors on the
//! header's send) as a `Profile`, and a conversation with a peer written in Python.
#![allow(dead_code, unreachable_pub, reason = "a test drives it too")]

use fdpost::profile::{Carrier, Frame, Framing, Grant, Next, Outline, Part, Role};
use fdpost::{Channel, Deadline, Head, Limits, Memfd, Message, Misuse, Profile, Violation};
use std::{error::Error, io::ErrorKind, os::fd::AsFd, process::Command, time::Duration};

/// A message's request is its `kind`, its flags are its `flags`.
pub struct VhostUser;

/// What the header said; `None` while it is awaited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said(Option<(u32, u32)>);

impl Profile for VhostUser {
    const NAME: &'static str = "vhost-user";
    // Descriptors come in front, so a read beyond the part awaited could bring the next message's.
    const FRAMING: Framing = Framing::Stream { read_ahead: false };
    const FIRST: Part = Part { role: Role::Frame, bytes: 12, grant: Grant::AtMost(8) };
    type Declared = Said;

    fn next(said: &mut Said, bytes: &[u8]) -> Result<Next, Violation> {
        let (None, Some((header, []))) = (said.0, bytes.split_first_chunk::<12>()) else {
            return Ok(Next::End); // the payload is whole
        };
        let [request, flags, size] = [0, 4, 8].map(|at| {
            header[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word)) // always there
        });
        if flags & 3 != 1 {
            return Err(Violation::WireRule { rule: "version", expected: 1, received: (flags & 3).into() });
        }
        said.0 = Some((request, flags));
        Ok(if size == 0 { Next::End } else { Next::Part(Part::payload(size, Grant::None)) })
    }

    fn head(said: &Said) -> Head {
        let (kind, flags) = said.0.unwrap_or_default();
        Head { kind, flags, ..Head::default() }
    }

    fn encode(head: &Head, payload: u32, descriptors: u8) -> Result<Outline, Misuse> {
        if descriptors > 8 {
            return Err(Misuse::TooManyDescriptors { descriptors: descriptors.into(), limit: 8 });
        }
        if head.correlation != 0 || head.reply_descriptors != 0 {
            let (field, value) = ("correlation", head.correlation.max(head.reply_descriptors.into()));
            return Err(Misuse::HeadUnsupported { wire: Self::NAME, field, value });
        }
        let mut header = [0; 12];
        let words = [head.kind, head.flags | 1, payload].map(u32::to_ne_bytes); // version 1
        header.iter_mut().zip(words.as_flattened()).for_each(|(place, byte)| *place = *byte);
        Ok(Outline { header: Frame::new(header), trailer: Frame::EMPTY, carrier: Carrier::Header })
    }
}

const GET_FEATURES: u32 = 1;
const SET_MEM_TABLE: u32 = 5;
const GET_INFLIGHT_FD: u32 = 31;
const NEED_REPLY: u32 = 8;

/// Asks `peer`, who must answer within a few seconds.
fn ask(peer: &mut Channel<VhostUser>, request: u32, message: Message) -> Result<Message, Box<dyn Error>> {
    peer.send(message.with_head(Head { kind: request, flags: NEED_REPLY, ..Head::default() }))?;
    let reply = peer.receive_by(Deadline::after(Duration::from_secs(10)))?;
    if (reply.head().kind, reply.head().flags) != (request, 5) {
        return Err(format!("an answer of {:?} to request {request}", reply.head()).into());
    }
    Ok(reply)
}

/// The conversation, told line by line. `false`: there is no Python to hold it with.
pub fn converse(mut say: impl FnMut(String)) -> Result<bool, Box<dyn Error>> {
    let (mut peer, theirs) = Channel::<VhostUser>::pair(Limits::new().descriptors(8))?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/vhost_peer.py");
    let mut child = match Command::new("python3").arg(script).stdin(theirs).spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            say("skipped: python3 is not installed (apt-get install python3)".into());
            return Ok(false);
        }
        child => child?,
    };
    let features = ask(&mut peer, GET_FEATURES, Message::new([]))?;
    say(format!("features: {:#x}", u64::from_ne_bytes(features.payload().try_into()?)));

    // Two regions of memory, their descriptors on the header's send: count, padding, then guest
    // address, size, our address and offset of each.
    let regions = [Memfd::sealed("one", b"region one")?, Memfd::sealed("two", b"and two")?];
    let table = [2_u64, 0x1000, 10, 0, 0, 0x2000, 7, 0, 0].map(u64::to_ne_bytes);
    let message = regions.into_iter().fold(Message::new(table.as_flattened()), Message::with);
    let sum = ask(&mut peer, SET_MEM_TABLE, message)?;
    say(format!("the peer mapped both and sees: {}", sum.payload().escape_ascii()));

    let mut reply = ask(&mut peer, GET_INFLIGHT_FD, Message::new([0; 24]))?;
    let memfd = reply.take(0).ok_or("the answer brings a descriptor")?;
    let bytes = Memfd::map(memfd.as_fd(), 13)?;
    say(format!("its own memory, sealed: {}", bytes.escape_ascii()));
    drop(peer);
    let status = child.wait()?;
    if status.success() { Ok(true) } else { Err(format!("the peer ended with {status}").into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    converse(|line| println!("{line}")).map(drop)
}
