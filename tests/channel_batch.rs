//! Several datagrams or packets in one system call (recvmmsg(2)).

mod support;

use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Profile, Violation};
use support::{Ledger, files, identity, libcamera_header, packet_header, raw_send, soon};

const LIMITS: Limits = Limits::new().payload(3000).descriptors(3).held_bytes(1 << 20).held_descriptors(400);

/// Messages of many sizes, with and without descriptors, are the same however they are read.
fn in_batches<P: Profile>(batch: u16) {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    let mut theirs = Channel::<P>::from_fd(theirs, LIMITS).unwrap();
    ours.set_batch(batch);
    for round in 0..5 {
        let mut names = Vec::new();
        for number in 0..30_usize {
            let sent = files((number + round) % 4);
            names.push(sent.iter().map(identity).collect::<Vec<_>>());
            let message = Message::new(vec![number as u8; 1 + number * 100]);
            theirs.send(sent.into_iter().fold(message, Message::with)).unwrap();
        }
        for (number, names) in names.into_iter().enumerate() {
            let mut message = ours.receive_by(soon()).unwrap();
            assert_eq!(message.payload(), vec![number as u8; 1 + number * 100]);
            assert_eq!(message.take_all().map(|came| identity(&came)).collect::<Vec<_>>(), names);
        }
        assert!(ours.try_receive().unwrap().is_none());
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1, P2
fn messages_in_batches_of_every_size() {
    for batch in [0, 1, 2, 3, 16, 17, 1000] {
        in_batches::<Libcamera>(batch);
        in_batches::<Packet>(batch);
    }
}

#[test] // P2, P3
fn a_violation_in_the_middle_of_a_batch() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    channel.set_batch(16);
    for (bytes, descriptors) in [
        (&libcamera_header(2, 1)[..], 0),
        (b"ok", 1),
        (&libcamera_header(2, 1), 0),
        (b"no", 2),
        (&libcamera_header(2, 1), 0),
        (b"late", 1),
    ] {
        raw_send(&peer, bytes, &files(descriptors));
    }
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"ok");
    let expected = Violation::DescriptorCount { declared: 1, received: 2 };
    for _ in 0..2 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    }
    assert_eq!(ledger.more(), 2, "the two ends, and no descriptor of what was refused");
    drop((channel, peer));
    ledger.close();
}

#[test] // P4
fn a_batch_keeps_to_what_may_be_held() {
    let ledger = Ledger::open();
    let limits = Limits::new().payload(1000).descriptors(2).held_bytes(70_000).held_descriptors(40);
    let (mut channel, peer) = Channel::<Packet>::pair(limits).unwrap();
    channel.set_batch(1000);
    for _ in 0..20 {
        raw_send(&peer, &packet_header(0, 2), &files(2));
    }
    for _ in 0..20 {
        assert_eq!(channel.receive_by(soon()).unwrap().descriptor_count(), 2);
    }
    // 65,536 bytes and 17 descriptors a slot: one fits into 70,000 bytes.
    let most = channel.stats().held_most;
    assert!(most.bytes < 80_000 && most.descriptors <= 17 + 2, "{most:?}");
    drop((channel, peer));
    ledger.close();
}

/// What was promised of memory holds for pairs of headers and payloads too.
#[test] // P4
fn pairs_of_datagrams_keep_to_what_may_be_held() {
    use fdpost::machine::Receiver;
    use std::os::fd::OwnedFd;

    let ledger = Ledger::open();
    for (batch, limits) in [
        (16, Limits::new()),
        (16, Limits::new().payload(3000).descriptors(4)),
        (2, Limits::new().descriptors(1)),
        (7, Limits::new().payload(20_000).held_bytes(30_000)),
        (16, Limits::new().payload(8).descriptors(253)),
    ] {
        let (mut channel, theirs) = Channel::<Libcamera>::pair(limits).unwrap();
        let mut theirs = Channel::<Libcamera>::from_fd(theirs, limits).unwrap();
        channel.set_batch(batch);
        let mut reused = Message::default();
        for sizes in [[8, 8, 8, 8, 8, 8], [8, 4096, 4097, 20_000, 60_000, 1], [60_000, 1, 60_000, 8, 9, 4100]]
        {
            let sizes = sizes.map(|bytes: usize| bytes.min(limits.payload as usize));
            let mut sent = 0;
            for (number, bytes) in sizes.into_iter().enumerate() {
                let given = files(usize::from(limits.descriptors).min(number));
                let message = Message::new(vec![number as u8; bytes]);
                match theirs.try_send(given.into_iter().fold(message, Message::with)) {
                    Ok(fdpost::Sent::Complete) => sent += 1,
                    Ok(_) => panic!("half of a message fitted"),
                    // The socket holds no more of this size.
                    Err(error) => assert_eq!(error.error, Error::WouldBlock),
                }
            }
            let accepted = sizes.iter().enumerate().take(sent);
            for (number, bytes) in accepted {
                channel.receive_into(&mut reused, soon()).unwrap();
                assert_eq!(reused.payload(), vec![number as u8; *bytes], "batch {batch}");
                assert_eq!(reused.descriptor_count(), usize::from(limits.descriptors).min(number));
            }
            assert!(channel.try_receive().unwrap().is_none());
        }
        let most = Receiver::<Libcamera, OwnedFd>::most_held(&limits, batch);
        let held = channel.stats().held_most;
        let control = 17 * 2048; // the scratch for control data, which is no part of the formula
        assert!(held.bytes <= most.bytes + control, "batch {batch}: {held:?}, formula {most:?}");
        assert!(held.descriptors <= most.descriptors, "batch {batch}: {held:?}, formula {most:?}");
    }
    ledger.close();
}

#[test] // P1, P3: a header's place takes no more than a header
fn a_payload_where_a_header_belongs() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    channel.set_batch(16);
    for bytes in [&libcamera_header(2, 0)[..], b"ok", &[9; 2000]] {
        raw_send(&peer, bytes, &[]);
    }
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"ok");
    let expected = Violation::HeaderLength { expected: 8, received: 2000 };
    for _ in 0..2 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    }
    drop((channel, peer));
    ledger.close();
}
