//! The same bytes and descriptors, cut anywhere, are the same messages: the stream wires through
//! the core with a kernel made by hand, and through real sockets.

#[path = "support/wires.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the property tests")]
mod wires;

mod support;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use fdpost::machine::{Hunk, Receiver};
use fdpost::profile::Profile;
use fdpost::{Channel, Error, Fault, Limits, Stream, Violation};
use support::{Ledger, Random, files, identity, raw_send, soon};
use wires::{MARKER, VhostUser};

const LIMITS: Limits = Limits::new().payload(20_000).descriptors(4);

/// What one message should come out as.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    kind: u32,
    payload: Vec<u8>,
    descriptors: usize,
}

/// One send: bytes, and how many descriptors on them.
type Send = (Vec<u8>, usize);

/// Messages and the sends that carry them, cut and joined at random as far as a sender may.
trait Wire: Profile {
    fn sends(message: &Expected) -> Vec<Send>;
    /// A header that declares one byte of payload more than the limits allow.
    fn too_large() -> Vec<u8>;
}

impl Wire for Stream {
    fn sends(message: &Expected) -> Vec<Send> {
        let lengths = [message.kind.to_ne_bytes(), (message.payload.len() as u32).to_ne_bytes()].concat();
        let plain = [&lengths[..], &[message.descriptors as u8, 0, 0, 0], &message.payload].concat();
        let marker = (vec![MARKER], message.descriptors);
        [(plain, 0)].into_iter().chain(Some(marker).filter(|(_, count)| *count > 0)).collect()
    }

    fn too_large() -> Vec<u8> {
        [[0; 4], 20_001_u32.to_ne_bytes(), [0; 4]].concat()
    }
}

impl Wire for VhostUser {
    fn sends(message: &Expected) -> Vec<Send> {
        let size = message.payload.len() as u32;
        let header = [message.kind, 0, size].map(u32::to_ne_bytes).concat();
        vec![([&header[..], &message.payload].concat(), message.descriptors)]
    }

    fn too_large() -> Vec<u8> {
        [[0; 4], [0; 4], 20_001_u32.to_ne_bytes()].concat()
    }
}

fn messages(random: &mut Random) -> Vec<Expected> {
    (0..1 + random.below(6))
        .map(|_| {
            let most = [1, 8, 100, 4096, 4097, 12_000][random.below(6)];
            let (bytes, first) = (random.below(most), random.below(256));
            Expected {
                kind: random.below(1 << 20) as u32,
                payload: (0..bytes).map(|index| (first + index) as u8).collect(),
                descriptors: [0, 0, 1, 2, 4][random.below(5)],
            }
        })
        .collect()
}

/// Cuts sends in pieces; the descriptors go with the first. Plain ones may join the one before.
fn cut<W: Wire>(random: &mut Random, messages: &[Expected], tail: &[u8]) -> Vec<Send> {
    let mut cut: Vec<Send> = Vec::new();
    let tail = Some((tail.to_vec(), 0)).filter(|(bytes, _)| !bytes.is_empty());
    for (bytes, mut descriptors) in messages.iter().flat_map(W::sends).chain(tail) {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let most = [1, 3, 13, 5000, 30_000][random.below(5)].min(rest.len());
            let (piece, left) = rest.split_at(1 + random.below(most));
            rest = left;
            match cut.last_mut() {
                Some((before, 0)) if descriptors == 0 && random.below(3) == 0 => {
                    before.extend_from_slice(piece);
                }
                _ => cut.push((piece.to_vec(), descriptors)),
            }
            descriptors = 0;
        }
    }
    cut
}

/// A read as unix(7) has it: bytes of several sends, up to and with the first that brings
/// descriptors; and by chance fewer bytes than there is room for.
fn read(random: &mut Random, queue: &mut VecDeque<(Vec<u8>, Vec<Rc<usize>>)>, hunk: &mut Hunk<Rc<usize>>) {
    let mut room = if random.below(2) == 0 { hunk.room() } else { 1 + random.below(hunk.room()) };
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    while let (Some((front, carried)), true) = (queue.front_mut(), room > 0 && descriptors.is_empty()) {
        let taken = front.len().min(room);
        bytes.extend(front.drain(..taken));
        room -= taken;
        descriptors.append(carried);
        if front.is_empty() {
            queue.pop_front();
        }
    }
    hunk.fill(&bytes, descriptors);
}

fn through_the_core<W: Wire>(seed: u64, broken: bool) {
    let random = &mut Random(seed);
    let expected = messages(random);
    let tail = if broken { W::too_large() } else { Vec::new() };
    let mut numbers = 0..;
    let mut tokens = Vec::new();
    let mut queue = VecDeque::new();
    for (bytes, count) in cut::<W>(random, &expected, &tail) {
        let carried: Vec<_> = numbers.by_ref().take(count).map(Rc::new).collect();
        tokens.extend_from_slice(&carried);
        queue.push_back((bytes, carried));
    }
    let mut receiver = Receiver::<W, Rc<usize>>::new(LIMITS).unwrap();
    let (mut came, mut order) = (Vec::new(), Vec::new());
    let fault = loop {
        match receiver.poll() {
            Ok(Some(mut message)) => {
                let (kind, payload) = (message.head().kind, message.payload().to_vec());
                let descriptors = message.descriptor_count();
                order.extend(message.take_all().map(|token| *token));
                came.push(Expected { kind, payload, descriptors });
                continue;
            }
            Ok(None) => {}
            Err(fault) => break Some(fault),
        }
        if queue.is_empty() {
            break None;
        }
        let hunks = receiver.windows().unwrap().unwrap();
        // Now and then there is nothing to read yet.
        let filled = random.below(8).min(1);
        if filled == 1 {
            read(random, &mut queue, &mut hunks[0]);
        }
        receiver.handle(Duration::ZERO, filled);
    };
    let too_large = Violation::PayloadTooLarge { declared: 20_001, limit: 20_000 };
    assert_eq!(fault, broken.then_some(Fault::Violation(too_large)), "seed {seed}");
    assert_eq!(came, expected, "seed {seed}");
    assert!(order.iter().copied().eq(0..tokens.len()), "seed {seed}: {order:?}");
    drop(receiver);
    assert!(tokens.iter().all(|token| Rc::strong_count(token) == 1), "seed {seed}");
}

#[test] // P1, P2; case 8
fn however_the_bytes_are_cut_the_messages_are_the_same() {
    for seed in 0..3000 {
        through_the_core::<Stream>(seed, false);
        through_the_core::<VhostUser>(seed, false);
    }
}

#[test] // P3; case 8
fn however_the_bytes_are_cut_the_violation_is_the_same_and_comes_last() {
    for seed in 3000..4500 {
        through_the_core::<Stream>(seed, true);
        through_the_core::<VhostUser>(seed, true);
    }
}

fn through_a_socket<W: Wire>(seed: u64) {
    let random = &mut Random(seed);
    let expected = messages(random);
    let (mut channel, peer) = Channel::<W>::pair(LIMITS).unwrap();
    let (mut came, mut names, mut order) = (Vec::new(), Vec::new(), Vec::new());
    let mut receive = |channel: &mut Channel<W>| {
        while let Some(mut message) = channel.try_receive().unwrap() {
            let (kind, payload) = (message.head().kind, message.payload().to_vec());
            let descriptors = message.descriptor_count();
            order.extend(message.take_all().map(|descriptor| identity(&descriptor)));
            came.push(Expected { kind, payload, descriptors });
        }
    };
    let mut sent = Vec::new();
    for (bytes, count) in cut::<W>(random, &expected, &[]) {
        let carried = files(count);
        names.extend(carried.iter().map(identity));
        assert_eq!(raw_send(&peer, &bytes, &carried), bytes.len());
        // Kept, so that no inode is given out twice.
        sent.extend(carried);
        // Often enough that SO_SNDBUF never fills: a raw send would wait for ever.
        if random.below(4) == 0 {
            receive(&mut channel);
        }
    }
    receive(&mut channel);
    assert_eq!(came, expected, "seed {seed}");
    assert_eq!(order, names, "seed {seed}");
    drop(peer);
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
}

#[test] // P1, P2; case 8
fn however_the_bytes_are_sent_the_messages_are_the_same() {
    let ledger = Ledger::open();
    for seed in 0..300 {
        through_a_socket::<Stream>(seed);
        through_a_socket::<VhostUser>(seed);
    }
    ledger.close();
}
