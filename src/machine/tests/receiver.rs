use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::wire::{HEADER, Wire};
use crate::error::{Fault, Violation};
use crate::limits::Limits;
use crate::machine::Receiver;
use crate::machine::table::State;
use crate::profile::{Libcamera, Packet, Profile, Stream};

const LIMITS: Limits = Limits::new().payload(5000).descriptors(2);

/// One read of these bytes and descriptors, at the time 0.
fn read<P: Profile>(receiver: &mut Receiver<P, i32>, bytes: &[u8], descriptors: &[i32]) {
    let hunk = &mut receiver.windows().unwrap().unwrap()[0];
    hunk.fill(bytes, descriptors.iter().copied());
    receiver.handle(Duration::ZERO, 1);
}

fn receiver<P: Profile>() -> Receiver<P, i32> {
    Receiver::new(LIMITS).unwrap()
}

/// Header of `packet`.
fn packet(length: u32, descriptors: u8) -> Vec<u8> {
    let [a, b, c, d] = length.to_le_bytes();
    vec![1, 0, descriptors, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn libcamera(length: u32, descriptors: u8) -> Vec<u8> {
    [&length.to_ne_bytes()[..], &[descriptors, 0, 0, 0]].concat()
}

fn stream(length: u32, descriptors: u8) -> Vec<u8> {
    [&[7, 7, 7, 7], &length.to_ne_bytes()[..], &[descriptors, 0, 0, 0]].concat()
}

#[test]
fn what_it_was_made_with_is_what_it_says() {
    let mut receiver = receiver::<Packet>();
    assert_eq!(*receiver.limits(), LIMITS);
    assert_eq!(receiver.state(), State::Idle);
    assert_eq!(receiver.windows().unwrap().unwrap().len(), 1);
    receiver.handle(Duration::ZERO, 0);
    receiver.set_batch(3);
    assert_eq!(receiver.windows().unwrap().unwrap().len(), 3);
    receiver.handle(Duration::ZERO, 0);
    receiver.set_batch(0);
    assert_eq!(receiver.windows().unwrap().unwrap().len(), 1);
    let large = Limits::new().payload(u32::MAX);
    assert_eq!(Receiver::<Packet, ()>::new(large).unwrap().limits().payload, Packet::PAYLOAD_MOST);
}

#[test] // P1
fn nothing_can_have_been_filled_where_nothing_was_lent() {
    let mut receiver = receiver::<Packet>();
    receiver.handle(Duration::ZERO, 1);
    assert!(receiver.is_between() && receiver.poll().unwrap().is_none());
    read(&mut receiver, &packet(0, 0), &[]);
    receiver.handle(Duration::ZERO, 1); // not lent again: the first is still to be looked at
    assert!(receiver.poll().unwrap().is_some() && receiver.poll().unwrap().is_none());
    // One was lent: no second one can have been filled.
    let hunk = &mut receiver.windows().unwrap().unwrap()[0];
    hunk.fill(&packet(0, 0), []);
    receiver.handle(Duration::ZERO, 2);
    assert!(receiver.poll().unwrap().is_some() && receiver.poll().unwrap().is_none());
}

/// After each read: whether input waits, then whether a message came and input waits still.
fn looks<P: Profile>(reads: &[(&[u8], &[i32])]) -> Vec<(bool, bool, bool)> {
    let mut receiver = receiver::<P>();
    assert!(receiver.is_between() && !receiver.has_input());
    let look = |(bytes, descriptors): &(&[u8], &[i32])| {
        read(&mut receiver, bytes, descriptors);
        let before = receiver.has_input();
        assert_eq!(receiver.is_between(), !before && receiver.state() == State::Idle);
        let came = receiver.poll().unwrap().is_some();
        let after = receiver.has_input();
        assert_eq!(receiver.is_between(), !after && receiver.state() == State::Idle);
        assert_eq!(
            receiver.poll().map_or(true, |message| message.is_some()),
            after,
            "input is a message or an error"
        );
        (before, came, after)
    };
    reads.iter().map(look).collect()
}

#[test] // P1: a receiver that would be given up with input loses it
fn whether_input_waits_is_said_before_and_after_each_message() {
    let two = [packet(0, 0), packet(0, 0)].concat();
    let unclaimed = packet(0, 0);
    assert_eq!(looks::<Packet>(&[(&packet(0, 1), &[3])]), [(true, true, false)]);
    assert_eq!(looks::<Packet>(&[(&two, &[])]), [(true, true, true)]);
    assert_eq!(looks::<Packet>(&[(&unclaimed, &[3])]), [(true, true, true)], "a breach waits");
    let datagrams = looks::<Libcamera>(&[(&libcamera(2, 1), &[]), (b"ab", &[3])]);
    assert_eq!(datagrams, [(true, false, false), (true, true, false)]);
    let whole = [&stream(2, 0)[..], b"ab"].concat();
    assert_eq!(looks::<Stream>(&[(&whole, &[])]), [(true, true, false)]);
    let twice = [&whole[..], &whole].concat();
    assert_eq!(looks::<Stream>(&[(&twice, &[])]), [(true, true, true)]);
    assert_eq!(looks::<Stream>(&[(&stream(4096, 0), &[]), (&[b'x'; 4096], &[])])[1], (true, true, false));
}

#[test] // P1: a packet that was cut is a breach that waits
fn a_cut_packet_is_not_at_its_end() {
    let mut receiver = receiver::<Packet>();
    let hunk = &mut receiver.windows().unwrap().unwrap()[0];
    hunk.fill(&packet(0, 0), []);
    hunk.set_length(17);
    receiver.handle(Duration::ZERO, 1);
    assert!(receiver.poll().unwrap().is_some());
    assert!(receiver.has_input() && !receiver.is_between());
    let error = Violation::HeaderLength { expected: 16, received: 0 };
    assert_eq!(receiver.poll().unwrap_err(), Fault::Violation(error));
    assert!(!receiver.has_input() && !receiver.is_between(), "nothing waits behind a fault");
}

#[test] // P5: it is no "would block" either
fn what_was_never_lent_blames_nobody() {
    let mut receiver = receiver::<Stream>();
    read(&mut receiver, &[1], &[]);
    assert!(receiver.poll().unwrap().is_none());
    receiver.handle(Duration::MAX, 1);
    assert!(receiver.poll().unwrap().is_none());
    assert_eq!(receiver.state(), State::Header);
}

#[test] // P3
fn nothing_waits_behind_the_end() {
    let mut receiver = receiver::<Packet>();
    read(&mut receiver, &[], &[]);
    assert!(receiver.has_input());
    assert!(receiver.poll().unwrap().is_none());
    assert_eq!((receiver.state(), receiver.has_input(), receiver.is_between()), (State::Ended, false, false));
}

#[test] // P9: no kernel does this
fn descriptors_without_a_byte_on_a_stream_are_refused() {
    let mut receiver = receiver::<Stream>();
    read(&mut receiver, &[], &[1, 2]);
    let error = Violation::DescriptorUnexpected { received: 2 };
    assert_eq!(receiver.poll().unwrap_err(), Fault::Violation(error));
    assert_eq!(receiver.refused().collect::<Vec<_>>(), [1, 2]);
}

#[test] // P1, P9
fn a_first_part_takes_no_more_descriptors_than_the_limits_allow() {
    let mut receiver = receiver::<Wire<0, 0>>();
    read(&mut receiver, &HEADER, &[1, 2]);
    assert_eq!(receiver.poll().unwrap().unwrap().descriptor_count(), 2);
    assert!(receiver.poll().unwrap().is_none());
    read(&mut receiver, &HEADER, &[1, 2, 3]);
    let error = Violation::DescriptorCount { declared: 2, received: 3 };
    assert_eq!(receiver.poll().unwrap_err(), Fault::Violation(error));
}

#[test] // P4
fn a_small_payload_keeps_no_large_buffer() {
    let limits = LIMITS.payload(100_000);
    let mut receiver = Receiver::<Packet, i32>::new(limits).unwrap();
    let mut apart = |length: u32| {
        let hunk = &mut receiver.windows().unwrap().unwrap()[0];
        let head = hunk.head_room();
        let frame = [packet(length, 0), vec![b'x'; length as usize]].concat();
        hunk.set_head(&frame[..head]);
        hunk.fill(&frame[head..], []);
        receiver.handle(Duration::ZERO, 1);
        let message = receiver.poll().unwrap().unwrap();
        assert!(receiver.poll().unwrap().is_none());
        assert_eq!(message.payload(), &frame[16..]);
        (head, message.into_payload().capacity())
    };
    assert_eq!(apart(90_000), (0, 90_000));
    assert_eq!(apart(100), (16, 100));
    assert_eq!(apart(90_000), (0, 90_000));
    let (head, capacity) = apart(90_000);
    assert_eq!(head, 16);
    assert!(capacity > 100_000, "the window itself");
}

#[test] // P1
fn a_payload_whose_packet_was_cut_behind_it_is_delivered_before_the_breach() {
    let limits = LIMITS.payload(100_000);
    let mut receiver = Receiver::<Packet, i32>::new(limits).unwrap();
    let frame = [packet(100_000, 0), vec![b'x'; 100_000]].concat();
    for cut in [false, true] {
        let hunk = &mut receiver.windows().unwrap().unwrap()[0];
        let head = hunk.head_room();
        hunk.set_head(&frame[..head]);
        hunk.fill(&frame[head..], []);
        assert_eq!((head > 0, hunk.room()), (cut, frame.len()));
        if cut {
            hunk.set_length(frame.len() + 1);
        }
        receiver.handle(Duration::ZERO, 1);
        assert_eq!(receiver.poll().unwrap().unwrap().payload().len(), 100_000);
        assert_eq!(receiver.poll().is_err(), cut);
    }
}

#[test] // P1
fn several_reads_wait_one_behind_the_other() {
    let mut receiver = receiver::<Packet>().batch(2);
    for hunk in receiver.windows().unwrap().unwrap() {
        hunk.fill(&packet(0, 0), []);
    }
    receiver.handle(Duration::ZERO, 2);
    for left in [true, false] {
        assert!(receiver.poll().unwrap().is_some());
        assert_eq!((receiver.has_input(), receiver.is_between()), (left, !left));
    }
}

#[test] // P1: what came with the hang-up is not lost
fn the_end_comes_behind_the_last_datagram() {
    let mut receiver = receiver::<Libcamera>();
    for bytes in [&libcamera(2, 0)[..], b"ab"] {
        let hunk = &mut receiver.windows().unwrap().unwrap()[0];
        hunk.fill(bytes, []);
        hunk.set_end();
        receiver.handle(Duration::ZERO, 1);
        assert_eq!(receiver.poll().unwrap().is_some(), bytes == b"ab");
        assert!(receiver.poll().unwrap().is_none());
    }
    assert_eq!(receiver.state(), State::Idle);
    receiver.windows().unwrap().unwrap()[0].set_end();
    receiver.handle(Duration::ZERO, 1);
    assert!(receiver.poll().unwrap().is_none());
    assert_eq!(receiver.state(), State::Ended);
}

#[test] // P2, P3: the end stands
fn nothing_is_refused_behind_the_end() {
    let mut receiver = receiver::<Packet>();
    read(&mut receiver, &packet(0, 1), &[3]);
    let mut message = receiver.poll().unwrap().unwrap();
    assert!(receiver.poll().unwrap().is_none());
    read(&mut receiver, &[], &[]);
    assert!(receiver.poll().unwrap().is_none());
    receiver.refuse(&mut message, Fault::Violation(Violation::EmptyMessage));
    assert_eq!((message.descriptor_count(), receiver.fault(), receiver.state()), (0, None, State::Ended));
}

#[test] // P5, ST-15: a campaign of the fuzz target found that only the first of several late reads counted
fn what_is_there_to_be_read_late_counts_in_however_many_reads_it_comes() {
    let limits = LIMITS.assembly_timeout(Duration::from_secs(1)).minimum_rate(1000);
    let deadline = |reads: &[usize]| {
        let mut receiver = Receiver::<Stream, i32>::new(limits).unwrap();
        read(&mut receiver, &stream(4000, 0), &[]);
        assert!(receiver.poll().unwrap().is_none());
        assert!(receiver.windows().unwrap().is_some());
        receiver.handle(Duration::ZERO, 0);
        let late = receiver.deadline().unwrap() + Duration::from_secs(1);
        for bytes in reads {
            receiver.windows().unwrap().unwrap()[0].fill(&vec![b'x'; *bytes], []);
            receiver.handle(late, 1);
            assert!(receiver.poll().unwrap().is_none());
        }
        assert!(receiver.windows().unwrap().is_some());
        receiver.handle(late, 0);
        receiver.deadline().unwrap() - late
    };
    for reads in [&[600][..], &[9, 591], &[1, 1, 598], &[300, 300]] {
        assert_eq!(deadline(reads), Duration::from_millis(600), "{reads:?}");
    }
}

#[test] // P5, ST-15
fn who_has_caught_up_is_late_no_more() {
    let limits = LIMITS.assembly_timeout(Duration::from_secs(1)).minimum_rate(1000);
    let mut receiver = Receiver::<Stream, i32>::new(limits).unwrap();
    read(&mut receiver, &stream(4000, 0), &[]);
    assert!(receiver.poll().unwrap().is_none());
    let mut now = receiver.deadline().unwrap();
    for _ in 0..3 {
        receiver.windows().unwrap().unwrap()[0].fill(&[b'x'; 100], []);
        receiver.handle(now, 1);
        assert!(receiver.poll().unwrap().is_none() && receiver.windows().unwrap().is_some());
        receiver.handle(now, 0);
        // Each time what came, not what came the times before.
        assert_eq!(receiver.deadline().unwrap() - now, Duration::from_millis(100));
        // What is read in time moves nothing.
        receiver.windows().unwrap().unwrap()[0].fill(&[b'x'; 50], []);
        receiver.handle(now, 1);
        assert!(receiver.poll().unwrap().is_none() && receiver.windows().unwrap().is_some());
        receiver.handle(now, 0);
        assert_eq!(receiver.deadline().unwrap() - now, Duration::from_millis(100));
        now = receiver.deadline().unwrap();
    }
    let missing = Violation::PayloadMissing { expected: 4000, received: 450 };
    assert!(receiver.windows().unwrap().is_some());
    receiver.handle(now, 0);
    assert_eq!(receiver.poll().unwrap_err(), Fault::Violation(missing));
}

#[test] // P5, ST-15
fn who_was_idle_for_long_is_not_late() {
    let limits = LIMITS.assembly_timeout(Duration::from_secs(1)).minimum_rate(1000);
    let mut receiver = Receiver::<Stream, i32>::new(limits).unwrap();
    // Long after the last message another begins, and goes on in time, before anybody says "would block".
    let begun = Duration::from_secs(100);
    let due = begun + limits.patience(4012);
    for (at, bytes) in [(begun, stream(4000, 0)), (due - Duration::from_millis(1), vec![b'x'; 600])] {
        receiver.windows().unwrap().unwrap()[0].fill(&bytes, []);
        receiver.handle(at, 1);
        assert!(receiver.poll().unwrap().is_none());
        assert_eq!(receiver.deadline().unwrap(), due, "at {at:?}");
    }
}
