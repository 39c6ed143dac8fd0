use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::wire::{HEADER, Wire};
use crate::limits::Limits;
use crate::machine::assembly::{Assembly, KEEP};
use crate::machine::{Held, Receiver, SLACK};
use crate::message::Message;
use crate::profile::{Grant, Libcamera, Packet, Part, Profile, Stream};

const LIMITS: Limits = Limits::new().payload(5000).descriptors(2);

type Of<P> = Receiver<P, Rc<()>>;

/// The room of each hunk that is lent, which stays unfilled.
fn rooms<P: Profile>(receiver: &mut Of<P>) -> Vec<usize> {
    let rooms = receiver.windows().unwrap().unwrap().iter().map(|hunk| hunk.room()).collect();
    receiver.handle(Duration::ZERO, 0);
    rooms
}

/// The room of each hunk that is lent, of which the first takes `bytes`.
fn take<P: Profile>(receiver: &mut Of<P>, bytes: &[u8]) -> Vec<usize> {
    let hunks = receiver.windows().unwrap().unwrap();
    let rooms = hunks.iter().map(|hunk| hunk.room()).collect();
    hunks[0].fill(bytes, []);
    receiver.handle(Duration::ZERO, 1);
    rooms
}

/// The message that was read, and nothing behind it: its payload's length.
fn came<P: Profile>(receiver: &mut Of<P>) -> usize {
    let message = receiver.poll().unwrap().unwrap();
    assert!(receiver.poll().unwrap().is_none());
    message.payload().len()
}

fn libcamera(length: usize) -> Vec<u8> {
    [&(length as u32).to_ne_bytes()[..], &[0; 4]].concat()
}

fn stream(length: usize) -> Vec<u8> {
    [&[0; 4][..], &(length as u32).to_ne_bytes(), &[0; 4]].concat()
}

fn packet(length: usize) -> Vec<u8> {
    [&[1, 0, 0, 0][..], &(length as u32).to_le_bytes(), &[0; 8], &vec![b'x'; length]].concat()
}

/// A whole `libcamera` message: what was lent for its header and for its payload.
fn pair(receiver: &mut Of<Libcamera>, length: usize) -> [Vec<usize>; 2] {
    let header = take(receiver, &libcamera(length));
    assert!(receiver.poll().unwrap().is_none());
    let payload = take(receiver, &vec![b'x'; length]);
    assert_eq!(came(receiver), length);
    [header, payload]
}

#[test] // P4
fn headers_are_offered_no_more_than_a_header() {
    let mut one = Of::<Libcamera>::new(LIMITS).unwrap();
    assert_eq!(pair(&mut one, 3), [vec![8], vec![3]]);
    // A pair: the payload and the next header.
    let mut two = Of::<Libcamera>::new(LIMITS).unwrap().batch(2);
    assert_eq!(pair(&mut two, 3), [vec![8], vec![3, 8]]);
    let mut four = Of::<Libcamera>::new(LIMITS).unwrap().batch(4);
    let batch = [vec![8, 5000, 8, 5000], vec![5000, 8, 5000, 8]];
    assert_eq!(pair(&mut four, 3), batch);
    assert_eq!(pair(&mut four, 4096), batch, "worth the copy still");
    assert_eq!(pair(&mut four, 4097), [batch[0].clone(), vec![4097, 8]]);
    assert_eq!(pair(&mut four, 3), [vec![8], batch[1].clone()], "the last one was large");
    assert_eq!(pair(&mut four, 3), batch);
}

#[test] // P4
fn datagrams_that_are_no_pairs_are_offered_all_that_may_come() {
    let mut receiver = Of::<Wire<0, 0>>::new(LIMITS).unwrap().batch(3);
    assert_eq!(take(&mut receiver, &HEADER), [5000; 3]);
    let mut receiver = Of::<Packet>::new(LIMITS).unwrap().batch(3);
    assert_eq!(rooms(&mut receiver), [65536; 3]);
    let mut receiver = Of::<Stream>::new(LIMITS).unwrap().batch(3);
    assert_eq!(rooms(&mut receiver), [4096]);
}

/// What is lent for the header, and for the payload, after a message of `last` bytes.
fn ahead(last: usize, payload: usize) -> (usize, usize) {
    let mut receiver = Of::<Stream>::new(LIMITS.payload(20_000)).unwrap();
    for length in [last, payload] {
        let header = take(&mut receiver, &stream(length))[0];
        assert!(receiver.poll().unwrap().is_none());
        let body = take(&mut receiver, &vec![b'x'; length])[0];
        assert_eq!(came(&mut receiver), length);
        if length == payload {
            return (header, body);
        }
    }
    unreachable!("the second is a payload")
}

#[test] // P4
fn a_stream_reads_ahead_as_far_as_the_last_message_suggests() {
    assert_eq!(ahead(10, 11), (4096, 4096));
    assert_eq!(ahead(10, 5000), (4096, 5000), "in place");
    assert_eq!(ahead(4095, 11), (4127, 4127));
    assert_eq!(ahead(8160, 11), (8192, 8192), "one whole message and no more");
    assert_eq!(ahead(8161, 12), (12, 12), "header and payload apart");
}

#[test] // P4
fn the_most_that_may_be_held_is_what_the_windows_need() {
    let (room, parted) = (2 + 1 + SLACK, 2);
    let most = |held: Held| (held.bytes, held.descriptors);
    let libcamera = |batch| most(Of::<Libcamera>::most_held(&LIMITS, batch));
    assert_eq!(libcamera(1).1, room + parted);
    assert!(libcamera(1).0 < 5000 + 1000, "a payload is read in place: {}", libcamera(1).0);
    assert_eq!(libcamera(4).1, (2 * 2 + 1) * room + parted);
    let unpaired = most(Of::<Wire<0, 0>>::most_held(&LIMITS, 4));
    assert_eq!(unpaired.1, 4 * room + parted);
    let stream = |batch| most(Of::<Stream>::most_held(&LIMITS, batch));
    assert_eq!(stream(4), stream(1));
    // A payload of more than half the packet's window may keep the window.
    let packet = |payload| most(Of::<Packet>::most_held(&LIMITS.payload(payload), 1)).0;
    assert_eq!(packet(32_768) - packet(32_767), 1);
    assert_eq!(packet(32_769) - packet(32_768), 32_768);
}

#[test] // P4
fn a_smaller_batch_gives_back_what_a_larger_one_took() {
    fn after<P: Profile>(batches: &[u16]) -> Held {
        let mut receiver = Of::<P>::new(LIMITS).unwrap();
        for &batch in batches {
            receiver.set_batch(batch);
            assert!(receiver.windows().unwrap().is_some());
        }
        receiver.held()
    }
    assert_eq!(after::<Packet>(&[8, 1]), after::<Packet>(&[1]));
    assert_eq!(after::<Packet>(&[8, 2]), after::<Packet>(&[2]));
    for [back, fresh] in
        [[&[8, 1][..], &[1]].map(after::<Wire<0, 0>>), [&[8, 1][..], &[1]].map(after::<Libcamera>)]
    {
        assert!(back.bytes <= fresh.bytes + 5000, "one hunk is left: {back:?}");
    }
}

#[test] // P4
fn between_messages_little_is_held_and_the_most_is_remembered() {
    let mut receiver = Of::<Packet>::new(LIMITS).unwrap().batch(8);
    assert!(receiver.windows().unwrap().is_some());
    let busy = receiver.held();
    receiver.handle(Duration::ZERO, 0);
    let mut single = Of::<Packet>::new(LIMITS).unwrap();
    assert_eq!(rooms(&mut single), [65536]);
    assert_eq!(receiver.held(), single.held());
    assert!(receiver.held().bytes < 1000 && busy.bytes > 2 * 65536);
    assert_eq!(receiver.held_most().bytes, busy.bytes);
    // A stream's window is small enough to stay.
    let mut stream = Of::<Stream>::new(LIMITS).unwrap();
    assert_eq!(rooms(&mut stream), [KEEP]);
    let held = stream.held().bytes;
    assert!((KEEP..KEEP + 1000).contains(&held), "{held}");
}

#[test] // P4
fn of_what_a_message_brought_an_idle_receiver_keeps_half_a_page() {
    for (brought, kept) in [(100, 100), (KEEP / 2, KEEP / 2), (KEEP / 2 + 1, 0), (KEEP, 0)] {
        let mut receiver = Of::<Packet>::new(LIMITS).unwrap();
        take(&mut receiver, &packet(0));
        let mut message = Message::new(Vec::with_capacity(brought));
        assert!(receiver.poll_into(&mut message).unwrap());
        assert!(!receiver.poll_into(&mut message).unwrap());
        let mut other = Of::<Packet>::new(LIMITS).unwrap();
        rooms(&mut receiver);
        rooms(&mut other);
        assert_eq!(receiver.held().bytes - other.held().bytes, kept, "{brought}");
    }
}

#[test] // P4
fn a_payload_gathered_in_pieces_is_given_its_room_at_once() {
    let mut assembly = Assembly::<Stream, ()>::new(&LIMITS);
    assembly.part = Part::payload(3000, Grant::None);
    assembly.gather(&[b'x'; 100]).unwrap();
    assert_eq!(assembly.payload.capacity(), 3000);
    assembly.gather(&[b'x'; 2900]).unwrap();
    assert_eq!((assembly.payload.len(), assembly.payload.capacity()), (3000, 3000));
}

#[test] // P1, P4
fn a_packet_is_read_in_two_pieces_only_after_a_large_one() {
    for (length, head) in [(32_768, 0), (32_769, 16)] {
        let mut receiver = Of::<Packet>::new(LIMITS.payload(40_000)).unwrap();
        take(&mut receiver, &packet(length));
        assert_eq!(came(&mut receiver), length);
        assert_eq!(receiver.windows().unwrap().unwrap()[0].head_room(), head, "{length}");
    }
}
