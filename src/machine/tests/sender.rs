use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::wire::{HEADER, TRAILER, Wire};
use crate::error::{Fault, Misuse};
use crate::machine::{Failure, Leftover, Outcome, Outgoing, Sender, Sending};
use crate::message::Message;
use crate::profile::{Libcamera, Packet, Profile, Stream};

fn message(payload: usize, descriptors: i32) -> Message<i32> {
    (0..descriptors).fold(Message::new(vec![b'p'; payload]), Message::with)
}

/// What leaves, transmit by transmit: bytes and descriptors.
fn sends<P: Profile>(message: Message<i32>) -> Vec<(Vec<u8>, usize)> {
    let mut sender = Sender::<P, i32>::new();
    sender.push(message).unwrap();
    let transmits = sender.transmits();
    let sends = transmits.map(|transmit| {
        let bytes = transmit.slices().collect::<Vec<_>>().concat();
        assert_eq!(bytes.len(), transmit.bytes());
        assert_eq!(transmit.descriptors().count(), transmit.descriptor_count());
        (bytes, transmit.descriptor_count())
    });
    sends.collect()
}

#[test] // P1: descriptors ride on the first byte of the part that owns them
fn what_carries_descriptors_begins_a_send_of_its_own() {
    let (h, p, t) = (&HEADER[..], &b"pp"[..], &TRAILER[..]);
    let all = [h, p, t].concat();
    for sent in [sends::<Wire<2, 0>>, sends::<Wire<2, 1>>, sends::<Wire<2, 2>>] {
        assert_eq!(sent(message(2, 0)), [(all.clone(), 0)], "nothing to carry");
    }
    assert_eq!(sends::<Wire<2, 0>>(message(2, 3)), [(all.clone(), 3)]);
    assert_eq!(sends::<Wire<2, 1>>(message(2, 3)), [(h.to_vec(), 0), ([p, t].concat(), 3)]);
    assert_eq!(sends::<Wire<2, 2>>(message(2, 3)), [([h, p].concat(), 0), (t.to_vec(), 3)]);
    assert_eq!(sends::<Wire<1, 1>>(message(2, 3)), [(all, 3)], "a packet pools them");
    let parts = |on: usize| {
        [h, p, t]
            .iter()
            .enumerate()
            .map(|(i, part)| (part.to_vec(), if i == on { 3 } else { 0 }))
            .collect::<Vec<_>>()
    };
    assert_eq!(sends::<Wire<0, 0>>(message(2, 3)), parts(0));
    assert_eq!(sends::<Wire<0, 1>>(message(2, 3)), parts(1));
    assert_eq!(sends::<Wire<0, 2>>(message(2, 3)), parts(2));
    // libcamera has no trailer: two datagrams.
    assert_eq!(sends::<Libcamera>(message(2, 3)).len(), 2);
}

#[test] // P6
fn what_just_fits_is_taken_and_one_more_is_not() {
    let mut sender = Sender::<Packet, i32>::new();
    assert_eq!(sender.packet_limit(), None);
    sender.set_packet_limit(Some(16 + 5));
    assert_eq!(sender.packet_limit(), Some(21));
    assert!(sender.push(message(5, 253)).is_ok());
    let (fault, back) = sender.push(message(6, 0)).unwrap_err();
    assert_eq!(fault, Fault::Misuse(Misuse::PayloadTooLarge { bytes: 6, limit: 5 }));
    assert_eq!(back.payload().len(), 6);
    let (fault, back) = sender.push(message(1, 254)).unwrap_err();
    assert_eq!(fault, Fault::Misuse(Misuse::TooManyDescriptors { descriptors: 254, limit: 253 }));
    assert_eq!(back.descriptor_count(), 254);
}

/// Whether a message of two bytes left whole with `count`, and what is counted as sent.
fn departs<P: Profile>(descriptors: i32, count: usize) -> (bool, u64) {
    let mut sender = Sender::<P, i32>::new();
    let message = message(2, descriptors);
    let outline = sender.check(&message).unwrap();
    sender.make_room().unwrap();
    let whole = sender.departed(message, &outline, count);
    assert_eq!(sender.is_empty(), whole);
    (whole, sender.sending().messages)
}

#[test] // P6
fn what_left_at_once_is_whole_or_waits() {
    assert_eq!(departs::<Packet>(1, 1), (true, 1));
    assert_eq!(departs::<Libcamera>(1, 1), (false, 0), "its payload is still to be sent");
    assert_eq!(departs::<Libcamera>(1, 2), (true, 1));
    assert_eq!(departs::<Stream>(0, 13), (false, 0));
    assert_eq!(departs::<Stream>(0, 14), (true, 1));
    assert_eq!(departs::<Stream>(1, 14), (false, 0), "the marker carries its descriptor");
}

#[test] // P6
fn a_burst_of_one_is_no_packet_and_what_left_is_counted() {
    let mut sender = Sender::<Packet, i32>::new();
    let one = [message(2, 1)];
    assert_eq!(sender.pack_burst(&one), 0);
    assert!(sender.burst(&one).is_none());
    assert_eq!(sender.burst_left(&one), 1);
    let sent = Sending { messages: 1, bytes: 2, descriptors: 1 };
    assert_eq!(sender.sending(), sent);
    let three = [message(2, 1), message(3, 0), message(4, 1)];
    assert_eq!(sender.pack_burst(&three), 3);
    let transmit = sender.burst(&three).unwrap();
    assert_eq!((transmit.bytes(), transmit.descriptor_count()), (3 * 16 + 9, 2));
    assert_eq!(transmit.slices().collect::<Vec<_>>().concat().len(), 57);
    assert_eq!(sender.burst_left(&three), 3);
    assert_eq!(sender.sending(), Sending { messages: 4, bytes: 11, descriptors: 3 });
    // Of a kind that is never sent: those before it leave, and it does not.
    let mut holed = [message(2, 0), message(2, 0), message(2, 1)];
    assert!(holed[2].take(0).is_some());
    assert_eq!(sender.pack_burst(&holed), 2);
    sender.burst_over();
    assert!(sender.burst(&holed).is_none());
}

#[test]
fn payloads_that_are_not_small_are_gathered_and_not_copied() {
    for (payload, slices) in [(2048, 1), (2049, 4)] {
        let burst = [message(payload, 0), message(payload, 0)];
        let mut sender = Sender::<Packet, i32>::new();
        assert_eq!(sender.pack_burst(&burst), 2);
        let transmit = sender.burst(&burst).unwrap();
        assert_eq!(transmit.slices().filter(|slice| !slice.is_empty()).count(), slices, "{payload}");
        assert_eq!(transmit.bytes(), 2 * (16 + payload));
    }
}

#[test] // P6
fn memory_is_given_back_only_where_nothing_is_queued() {
    let mut sender = Sender::<Packet, i32>::new();
    for _ in 0..20 {
        sender.push(message(1, 1)).unwrap();
    }
    sender.release();
    assert_eq!(sender.queued(), Sending { messages: 20, bytes: 20, descriptors: 20 });
}

#[test] // P6
fn a_queue_is_appended_behind_what_is_there() {
    let checked = |payload| {
        let outgoing = Outgoing::new::<Packet>(message(payload, 1), None);
        outgoing.map_err(|(misuse, _)| misuse).unwrap()
    };
    let mut sender = Sender::<Packet, i32>::new();
    let mut queue = VecDeque::from([checked(1)]);
    sender.append(&mut queue);
    assert!(queue.is_empty());
    queue.extend([checked(2), checked(3)]);
    sender.append(&mut queue);
    assert!(queue.is_empty());
    let mut left = sender.close();
    assert_eq!(left.len(), 3);
    assert_eq!(left.first().map(|first| first.payload().len()), Some(1));
    assert_eq!(format!("{left:?}"), "Leftover { messages: 3 }");
    let newest = left.next_back().unwrap();
    assert_eq!(newest.payload().len(), 3);
    assert_eq!(left.map(|message| message.payload().len()).collect::<Vec<_>>(), [1, 2]);
    assert!(Leftover::<i32>::default().first().is_none());
    queue.push_back(checked(4));
    sender.append(&mut queue);
    assert_eq!((queue.len(), sender.is_empty()), (1, true), "the direction is closed");
}

#[test] // P6
fn a_kernel_that_says_more_than_there_was_changes_nothing() {
    let mut sender = Sender::<Packet, i32>::new();
    assert!(matches!(sender.failed(Duration::ZERO, Failure::Refused), Outcome::Wait));
    sender.push(message(1, 1)).unwrap();
    sender.transmitted(3);
    assert!(sender.is_empty() && !sender.begun());
    assert_eq!(sender.sending(), Sending { messages: 1, bytes: 1, descriptors: 1 });
}
