//! What a peer puts on the wire: the encodings, written from `docs/PROTOCOL.md` and not with the
//! crate's own encoder, and everything that can be wrong with them.

use fdpost::{Head, Limits};

use super::log::Wire;
use super::script::{Script, Spec, Step};

/// What is [wrong](Spec::wrong) is nothing: an honest message that takes its time.
pub const SLOWLY: u8 = 16;

/// Payload bytes that a peer says in all, about: behind them every message is small. A few of the
/// largest packets are as good as many.
pub const BUDGET: usize = 200_000;

/// One sendmsg(2) of the peer's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub bytes: Vec<u8>,
    /// Descriptors that the peer attached.
    pub descriptors: usize,
    /// How many of them the receiver's process cannot install.
    pub lost: usize,
    /// MSG_CTRUNC without a loss.
    pub cut: bool,
    pub malformed: bool,
    pub unknown: bool,
}

/// A message as it should be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub head: Head,
    pub payload: Vec<u8>,
    pub count: usize,
}

/// What a spec asks for where nothing is wrong.
pub fn said(spec: &Spec, wire: Wire, limits: &Limits) -> Said {
    // Within the limits, small or larger; or close to them on either side.
    let (payload, descriptors) = (i64::from(limits.payload), i64::from(limits.descriptors));
    let size = match spec.size {
        0xf800.. => payload + i64::from(spec.size as i8 / 16),
        0xf000.. => (i64::from(spec.size - 0xf000) * 8).min(payload),
        _ => i64::from(spec.size % 100).min(payload),
    };
    let count = match spec.count {
        250.. => descriptors + i64::from(spec.count) - 252,
        _ => i64::from(spec.count % 20).min(descriptors),
    };
    let mut said = Said {
        head: Head::default(),
        payload: (0..size.clamp(0, 150_000)).map(|at| (at as u8).wrapping_add(spec.head)).collect(),
        count: count.clamp(0, 253) as usize,
    };
    let number = u32::from(spec.head);
    match wire {
        Wire::Libcamera => {}
        Wire::Stream => said.head.kind = number,
        Wire::VhostUser => {
            (said.head.kind, said.head.flags) = (number, number << 7);
            said.count = said.count.min(8);
        }
        Wire::Packet => {
            said.head.kind = number << 9;
            said.head.correlation = if spec.head & 1 != 0 { number << 8 } else { 0 };
            match spec.head & 7 {
                3 => said.head.flags = 1,
                5 => said.head.flags = 3,
                7 => said.head.reply_descriptors = spec.head.min(253),
                _ => {}
            }
        }
    }
    if wire == Wire::Libcamera && said.payload.is_empty() && said.count == 0 {
        said.payload.push(spec.head);
    }
    said
}

/// The parts of a message: bytes and descriptors, send by send.
pub fn encode(wire: Wire, said: &Said, declared: u32, count: u8) -> Vec<(Vec<u8>, usize)> {
    let Head { kind, correlation, flags, reply_descriptors } = said.head;
    let payload = said.payload.clone();
    match wire {
        Wire::Libcamera => {
            let mut header = declared.to_ne_bytes().to_vec();
            header.extend([count, 0, 0, 0]);
            vec![(header, 0), (payload, said.count)]
        }
        Wire::Packet => {
            let mut packet = vec![1, flags as u8, count, reply_descriptors];
            packet.extend([declared, kind, correlation].map(u32::to_le_bytes).concat());
            packet.extend(payload);
            vec![(packet, said.count)]
        }
        Wire::Stream => {
            let mut plain = [kind, declared].map(u32::to_ne_bytes).concat();
            plain.extend([count, 0, 0, 0]);
            plain.extend(payload);
            let marker = (vec![0x77], said.count);
            if said.count > 0 || count > 0 { vec![(plain, 0), marker] } else { vec![(plain, 0)] }
        }
        Wire::VhostUser => {
            let mut whole = [kind, flags, declared].map(u32::to_ne_bytes).concat();
            whole.extend(payload);
            vec![(whole, said.count)]
        }
    }
}

/// Bytes of a header.
const fn header(wire: Wire) -> usize {
    match wire {
        Wire::Libcamera => 8,
        Wire::Packet => 16,
        Wire::Stream | Wire::VhostUser => 12,
    }
}

/// The sends of a message, wrong as its spec wants it.
fn sends(spec: &Spec, wire: Wire, limits: &Limits) -> Vec<Sent> {
    let mut said = said(spec, wire, limits);
    let argument = usize::from(spec.argument);
    let (mut declared, mut count) = (said.payload.len() as u32, said.count as u8);
    match spec.wrong() {
        0 => declared += u32::from(spec.argument) + 1,
        1 => declared = declared.saturating_sub(u32::from(spec.argument) + 1),
        2 => count = count.saturating_add(1 + spec.argument % 3),
        3 => said.count = (said.count + 1 + argument % 3).min(253),
        11 => declared = u32::MAX - u32::from(spec.argument),
        _ => {}
    }
    let mut parts = encode(wire, &said, declared, count);
    match spec.wrong() {
        4 => {
            let at = argument % 32 % header(wire);
            parts[0].0[at] ^= 1 << (argument / 32);
        }
        5 => parts[0].0.resize(argument % (2 * header(wire)), 0),
        6 => {
            // On another part: the first instead of the last, or a send of its own.
            let carried = said.count.max(1 + argument % 3);
            parts.iter_mut().for_each(|part| part.1 = 0);
            let split = header(wire).min(parts[0].0.len());
            if matches!(wire, Wire::Stream | Wire::VhostUser) {
                let tail = parts[0].0.split_off(split);
                parts.insert(1, (tail, 0));
            }
            let at = if wire == Wire::Stream { argument % parts.len() } else { (argument / 2) % parts.len() };
            parts[at].1 = carried;
        }
        12 => {
            let keep = if parts.len() > 1 { header(wire) } else { argument % header(wire) };
            parts.truncate(1);
            parts[0].0.truncate(keep);
        }
        13 => parts.reverse(),
        14 => parts.iter_mut().for_each(|part| part.0.clear()),
        15 => {
            let last = &mut parts.last_mut().expect("every message has a part").0;
            match last.as_slice() {
                [0x77] => last[0] = spec.argument,
                _ => drop(last.pop()),
            }
        }
        _ => {}
    }
    let mut sent: Vec<Sent> = parts
        .into_iter()
        .map(|(bytes, descriptors)| Sent { bytes, descriptors, ..Sent::default() })
        .collect();
    let carrier = sent.iter().position(|sent| sent.descriptors > 0).unwrap_or(sent.len() - 1);
    let carrier = &mut sent[carrier];
    match spec.wrong() {
        7 => carrier.lost = 1 + argument % carrier.descriptors.max(1),
        8 => carrier.cut = true,
        9 => carrier.malformed = true,
        10 => carrier.unknown = true,
        _ => {}
    }
    carrier.lost = carrier.lost.min(carrier.descriptors);
    sent
}

impl Sent {
    /// Makes it one send with what follows.
    fn join(&mut self, next: Self) {
        self.bytes.extend(next.bytes);
        self.descriptors = (self.descriptors + next.descriptors).min(253);
        self.lost = (self.lost + next.lost).min(self.descriptors);
        self.cut |= next.cut;
        self.malformed |= next.malformed;
        self.unknown |= next.unknown;
    }
}

/// What happens to the receiver, sends in the place of what the peer says.
#[derive(Clone, Debug)]
pub enum Act {
    Send(Sent),
    Drain,
    Wait(u16),
    Close,
}

/// Send by send, on streams piece by piece, with a look and a pause between them.
fn slowly(sent: Vec<Sent>, wire: Wire, argument: u8) -> Vec<Act> {
    let mut acts = Vec::new();
    for mut sent in sent {
        let at = 1 + usize::from(argument) % sent.bytes.len().max(1);
        let streams = matches!(wire, Wire::Stream | Wire::VhostUser);
        let rest = if streams && at < sent.bytes.len() { sent.bytes.split_off(at) } else { Vec::new() };
        let rest = (!rest.is_empty()).then(|| Sent { bytes: rest, ..Sent::default() });
        for piece in [sent].into_iter().chain(rest) {
            acts.extend([Act::Send(piece), Act::Drain, Act::Wait(argument.into())]);
        }
    }
    acts
}

/// Plays the peer's part of a script. It ends with a look at all that came.
pub fn acts(script: &Script) -> Vec<Act> {
    let (wire, limits) = (script.wire(), script.limits());
    let mut acts: Vec<Act> = Vec::new();
    let mut budget = BUDGET;
    for step in &script.steps {
        match step {
            Step::Say(spec) => {
                let spec = &spec.within(budget);
                let mut sent = sends(spec, wire, &limits);
                budget = budget.saturating_sub(sent.iter().map(|sent| sent.bytes.len()).sum());
                let join = spec.joined & 1 != 0;
                if wire == Wire::Packet && sent[0].bytes.len() < 100 {
                    // As often as fills a packet beyond its 64 frames.
                    let times = 1 + 3 * usize::from(spec.joined.saturating_sub(224));
                    sent = vec![sent[0].clone(); times];
                }
                match acts.last_mut() {
                    Some(Act::Send(before)) if join && wire == Wire::Packet => {
                        sent.drain(..).for_each(|sent| before.join(sent));
                    }
                    _ if join => {
                        let mut whole = Sent::default();
                        sent.drain(..).for_each(|sent| whole.join(sent));
                        sent.push(whole);
                    }
                    _ => {}
                }
                if spec.wrong() == SLOWLY && wire != Wire::Packet {
                    acts.extend(slowly(sent, wire, spec.argument));
                } else {
                    acts.extend(sent.into_iter().map(Act::Send));
                }
            }
            Step::Raw(bytes, count, flags) => acts.push(Act::Send(Sent {
                bytes: bytes.clone(),
                descriptors: usize::from(count % 32),
                lost: usize::from((flags & 1).min(count % 32)),
                cut: flags & 14 == 2,
                malformed: flags & 15 == 4,
                unknown: flags & 15 == 8,
            })),
            Step::Drain => acts.push(Act::Drain),
            Step::Wait(milliseconds) => acts.push(Act::Wait(*milliseconds)),
            Step::Close => {
                acts.push(Act::Close);
                break;
            }
        }
    }
    if matches!(wire, Wire::Stream | Wire::VhostUser) {
        // A send of no bytes on a stream is no send: its descriptors are lost to the sender.
        acts.retain(|act| !matches!(act, Act::Send(sent) if sent.bytes.is_empty()));
    }
    acts.push(Act::Drain);
    acts
}
