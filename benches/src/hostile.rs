//! Goal 9: what bytes cost that are refused.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::Duration;

use fdpost::machine::Receiver;
use fdpost::wire::control::{self, Item, Layout};
use fdpost::{Channel, Error, Fault, Libcamera, Limits, Packet, Profile, Stream};

use crate::bench::{Bench, Entry, Goal, Timing};
use crate::clock::Clock;
use crate::kernel_free::encoded;
use crate::measure::Contestant;
use crate::sys::{self, Control};
use crate::way::template;

const HONEST: &str = "honest";
const HOSTILE: &str = "hostile";

/// What a whole conversation brings: packets, and how many descriptors come with each.
type Input = Vec<(Vec<u8>, usize)>;

/// A conversation of one input that a receiver made for it takes, or refuses: both pay for the
/// receiver, as a listener's would.
pub fn refuse(bench: &mut Bench) {
    let honest = (frames(64, 64), 0);
    let cases = [
        ("a version unknown in the last of 64 frames", with(&honest.0, 63 * FRAME, 9)),
        ("a last frame that overruns its packet", with(&honest.0, 63 * FRAME + 4, 65)),
        ("a version unknown in the first of 64 frames", with(&honest.0, 0, 9)),
        ("65 frames in a packet", frames(65, 64)),
    ];
    for (what, bytes) in cases {
        compare::<Packet>(bench, "packet", what, vec![honest.clone()], vec![(bytes, 0)]);
    }
    let claims = with(&frames(1, 64), 2, 16);
    let (honest, hostile) = (vec![(claims.clone(), 16)], vec![(claims, 17)]);
    compare::<Packet>(bench, "packet", "17 descriptors where 16 are declared", honest, hostile);

    // Larger ones are copied by `rep movsb` (glibc on x86, from 2 KiB on), which takes five times as
    // long where source and destination happen to lie badly to each other.
    let honest: Input = encoded::<Libcamera>(&template(1024)).into_iter().map(|part| (part, 0)).collect();
    let mut short = honest.clone();
    short[1].0.pop();
    compare::<Libcamera>(bench, "libcamera", "a payload of 1 KiB that is a byte short", honest, short);
    let honest: Input = encoded::<Libcamera>(&[7]).into_iter().map(|part| (part, 0)).collect();
    let huge = vec![(vec![0xff; 8], 0)];
    compare::<Libcamera>(bench, "libcamera", "a header that declares 4 GiB, against a byte", honest, huge);

    let honest = encoded::<Stream>(&template(32)).concat().repeat(16);
    let last = honest.len() / 16 * 15;
    let (huge, honest) = (vec![(with(&honest, last + 7, 0xff), 0)], vec![(honest, 0)]);
    compare::<Stream>(bench, "stream", "a length beyond the limit in the last of 16 messages", honest, huge);

    control(bench);
    sockets(bench);
}

/// A frame of 64 bytes.
const FRAME: usize = 16 + 64;

fn frames(count: usize, size: usize) -> Vec<u8> {
    encoded::<Packet>(&template(size)).concat().repeat(count)
}

/// The bytes with another at a place.
fn with(bytes: &[u8], place: usize, byte: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[place] = byte;
    bytes
}

fn compare<P: Profile + 'static>(bench: &mut Bench, wire: &str, what: &str, honest: Input, hostile: Input) {
    let entries = vec![
        Entry::new(HONEST, || Some(judged::<P>(HONEST, honest, false))),
        Entry::new(HOSTILE, || Some(judged::<P>(HOSTILE, hostile, true))),
    ];
    scene(bench, &format!("{wire}: {what}"), entries);
}

fn scene(bench: &mut Bench, what: &str, entries: Vec<Entry>) {
    let name = format!("{what}: CPU per byte against honest input");
    let goals = vec![Goal::dearer(9, name, HOSTILE, HONEST, 2.0)];
    let place = bench.scenes.len();
    bench.scene(("hostile", place, what), what, Timing::Cpu, entries, goals);
}

/// The core alone judges the input.
fn judged<P: Profile + 'static>(name: &str, input: Input, refused: bool) -> Contestant {
    let limits = Limits::new().descriptors(16);
    let bytes: usize = input.iter().map(|(bytes, _)| bytes.len()).sum();
    Contestant::new(name, move |turns| {
        let took = Clock::Cpu.time(|| {
            for _ in 0..turns {
                let mut receiver = Receiver::<P, u32>::new(limits).expect("limits");
                let mut fault = false;
                for (bytes, descriptors) in &input {
                    let hunks = receiver.windows().expect("no fault yet").expect("not the end");
                    hunks[0].fill(bytes, 0..*descriptors as u32);
                    receiver.handle(Duration::ZERO, 1);
                    fault = loop {
                        match receiver.poll() {
                            Ok(Some(message)) => drop(black_box(message)),
                            Ok(None) => break false,
                            Err(fault) => break matches!(black_box(fault), Fault::Violation(_)),
                        }
                    };
                }
                assert_eq!(fault, refused);
            }
        });
        took.as_nanos() as f64 / (turns * bytes) as f64
    })
}

/// Control data: 253 descriptors, against as many bytes of control messages that nobody knows.
fn control(bench: &mut Bench) {
    let bytes = Layout::NATIVE.length(253 * 4);
    let mut honest = vec![0; bytes.next_multiple_of(8)];
    let used = control::encode_rights(&mut honest, Layout::NATIVE, 0..253).expect("room");
    honest.truncate(used);
    let mut unknown = vec![0; Layout::NATIVE.length(0)];
    // An empty SCM_RIGHTS, of a type that there is not.
    control::encode_rights(&mut unknown, Layout::NATIVE, 0..0).expect("room");
    let place = unknown.len() - 4;
    unknown[place] = 0x7f;
    let hostile = unknown.repeat(used / unknown.len());
    let entry = |name: &'static str, bytes: Vec<u8>, refused: bool| {
        Entry::new(name, move || {
            Some(Contestant::new(name, move |turns| {
                let took = Clock::Cpu.time(|| {
                    for _ in 0..turns {
                        let items = control::items(black_box(&bytes), Layout::NATIVE);
                        let known = items.filter(|item| matches!(item, Item::Descriptor(_))).count();
                        assert_eq!(black_box(known) == 0, refused);
                    }
                });
                took.as_nanos() as f64 / (turns * bytes.len()) as f64
            }))
        })
    };
    let entries = vec![entry(HONEST, honest, false), entry(HOSTILE, hostile, true)];
    scene(bench, "control data: unknown messages, against 253 descriptors", entries);
}

/// The same over a socket: who sends, the channel made for it, and its end.
fn sockets(bench: &mut Bench) {
    let honest = frames(64, 64);
    let hostile = with(&honest, 63 * FRAME, 9);
    let entries = vec![
        Entry::new(HONEST, move || Some(received(HONEST, honest, 0, false))),
        Entry::new(HOSTILE, move || Some(received(HOSTILE, hostile, 0, true))),
    ];
    scene(bench, "over a socket, packet: a version unknown in the last of 64 frames", entries);
    let claims = with(&frames(1, 64), 2, 16);
    let less = with(&claims, 2, 15);
    let entries = vec![
        Entry::new(HONEST, move || Some(received(HONEST, claims, 16, false))),
        Entry::new(HOSTILE, move || Some(received(HOSTILE, less, 16, true))),
    ];
    scene(bench, "over a socket, packet: 16 descriptors where 15 are declared", entries);
}

fn received(name: &str, bytes: Vec<u8>, descriptors: usize, refused: bool) -> Contestant {
    let limits = Limits::new().descriptors(16);
    let descriptors: Vec<OwnedFd> = (0..descriptors).map(|_| sys::descriptor()).collect();
    let mut control = Control::with_room(sys::control_space(16));
    Contestant::new(name, move |turns| {
        let took = Clock::Cpu.time(|| {
            for _ in 0..turns {
                let (peer, ours) = sys::pair(libc::SOCK_SEQPACKET);
                sys::send(&peer, &bytes, &descriptors, (!descriptors.is_empty()).then_some(&mut control));
                let mut channel = Channel::<Packet>::from_fd(ours, limits).expect("a channel");
                let fault = loop {
                    match channel.try_receive() {
                        Ok(Some(message)) => drop(black_box(message)),
                        Ok(None) => break false,
                        Err(error) => break matches!(error, Error::Violation(_)),
                    }
                };
                assert_eq!(fault, refused);
            }
        });
        took.as_nanos() as f64 / (turns * bytes.len()) as f64
    })
}
