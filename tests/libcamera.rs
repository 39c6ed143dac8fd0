//! The `libcamera` wire over real sockets, rule by rule (`docs/PROTOCOL.md`).

mod support;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use fdpost::{Channel, Error, Libcamera, Limits, Message, Misuse, Violation};
use nix::sys::socket::{MsgFlags, recv};
use support::{
    Ledger, assert_final, assert_refused, files, identity, libcamera_header as header, raw_send, soon,
};

const LIMITS: Limits = Limits::new().payload(100).descriptors(4);

#[test] // P1, P2
fn a_message_with_descriptors_goes_round() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Libcamera>::pair(Limits::new().descriptors(4)).unwrap();
    let mut theirs = Channel::<Libcamera>::from_fd(theirs, Limits::new().descriptors(4)).unwrap();
    let [one, two] = <[_; 2]>::try_from(files(2)).unwrap();
    let names = [identity(&one), identity(&two)];
    ours.send(Message::new(b"hello").with(one).with(two)).unwrap();
    let mut message = theirs.receive_by(soon()).unwrap();
    assert_eq!(message.payload(), b"hello");
    let came = [message.take(0).unwrap(), message.take(1).unwrap()];
    assert_eq!(came.each_ref().map(identity), names);
    drop((message, came, ours, theirs));
    ledger.close();
}

#[test] // P1, P3; case 1
fn lc_1_a_header_of_every_length() {
    // Bytes that mean a header of `data` = 5 where there are eight of them.
    let bytes = [header(5, 0), header(5, 0)].concat();
    for length in (0..=16).filter(|length| *length != 8) {
        let expected = Violation::HeaderLength { expected: 8, received: length as u64 };
        assert_refused::<Libcamera>(LIMITS, &[(&bytes[..length], 0)], 0, expected);
    }
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    raw_send(&peer, &bytes[..8], &[]);
    raw_send(&peer, b"whole", &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"whole");
    drop((channel, peer));
    ledger.close();
}

#[test] // P1; case 6
fn lc_2_padding_is_ignored_and_sent_as_zeros() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let mut dirty = header(3, 1);
    dirty[5..].fill(0xff);
    raw_send(&peer, &dirty, &[]);
    raw_send(&peer, b"abc", &files(1));
    let message = channel.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.descriptor_count()), (&b"abc"[..], 1));
    channel.send(message).unwrap();
    let mut sent = [0xaa; 16];
    assert_eq!(recv(peer.as_raw_fd(), &mut sent, MsgFlags::MSG_DONTWAIT), Ok(8));
    assert_eq!(sent[..8], header(3, 1));
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P3, P6; case 16
fn lc_3_an_empty_message() {
    assert_refused::<Libcamera>(LIMITS, &[(&header(0, 0), 0)], 0, Violation::EmptyMessage);
    // The other direction: refused before a byte leaves, and the channel lives on.
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let mut theirs = Channel::<Libcamera>::from_fd(theirs, LIMITS).unwrap();
    let refused = ours.send(Message::new([])).unwrap_err();
    assert_eq!(refused.error, Error::Misuse(Misuse::EmptyMessage { wire: "libcamera" }));
    assert_eq!(refused.messages.len(), 1);
    ours.send(Message::new(b"next")).unwrap();
    assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"next");
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1, P2; case 34
fn lc_4_descriptors_alone() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let sent = files(4);
    raw_send(&peer, &header(0, 4), &[]);
    raw_send(&peer, b"", &sent);
    let mut message = channel.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.descriptor_count()), (&b""[..], 4));
    let came: Vec<_> = message.take_all().map(|descriptor| identity(&descriptor)).collect();
    assert_eq!(came, sent.iter().map(identity).collect::<Vec<_>>());
    // And as we send it: both datagrams, the second empty.
    channel.send(Message::new([]).with(files(1).remove(0))).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(recv(peer.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT), Ok(8));
    assert_eq!(bytes[..8], header(0, 1));
    assert_eq!(recv(peer.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT), Ok(0));
    drop((message, channel, peer, sent));
    ledger.close();
}

#[test] // P2, P3; case 25
fn lc_5_descriptors_on_the_header() {
    for (came, received) in [(1, 1), (4, 4), (5, 5), (6, 5), (253, 5)] {
        // Room is for one more than the limit of 4: beyond that read "at least".
        let expected = Violation::DescriptorUnexpected { received };
        assert_refused::<Libcamera>(LIMITS, &[(&header(3, 1), came)], 0, expected);
        assert_refused::<Libcamera>(LIMITS, &[(&header(3, 0), came)], 0, expected);
    }
}

#[test] // P1, P3; cases 2, 5
fn lc_6_a_payload_of_another_length() {
    for declared in [1_u32, 2, 50, 99, 100] {
        for received in [0, declared - 1, declared + 1, 100].into_iter().filter(|length| *length <= 100) {
            if received == declared {
                continue;
            }
            let expected =
                Violation::PayloadLength { declared: declared.into(), received: u64::from(received) };
            let payload = vec![b'x'; received as usize];
            assert_refused::<Libcamera>(LIMITS, &[(&header(declared, 0), 0), (&payload, 0)], 0, expected);
        }
    }
    // Descriptors alone were declared, and bytes came with them.
    let expected = Violation::PayloadLength { declared: 0, received: 1 };
    assert_refused::<Libcamera>(LIMITS, &[(&header(0, 1), 0), (b"x", 1)], 0, expected);
}

#[test] // P1, P3
fn lc_7_a_payload_beyond_any_window() {
    for (declared, received) in [(1_u32, 101_u64), (100, 101), (100, 4096), (100, 100_000)] {
        let expected = Violation::PayloadTruncated { room: 100, received };
        let payload = vec![b'x'; received as usize];
        assert_refused::<Libcamera>(LIMITS, &[(&header(declared, 0), 0), (&payload, 0)], 0, expected);
    }
    // The largest that is allowed is another length, and not beyond.
    let expected = Violation::PayloadLength { declared: 1, received: 100 };
    assert_refused::<Libcamera>(LIMITS, &[(&header(1, 0), 0), (&[b'x'; 100], 0)], 0, expected);
}

#[test] // P2, P3; cases 22, 23, 24
fn lc_8_another_number_of_descriptors() {
    for declared in 1..=4_u8 {
        let few = u32::from(declared) - 1;
        for received in [0, few, u32::from(declared) + 1] {
            let expected = Violation::DescriptorCount { declared: declared.into(), received };
            let sends = [(&header(3, declared)[..], 0), (&b"abc"[..], received as usize)];
            assert_refused::<Libcamera>(LIMITS, &sends, 0, expected);
        }
    }
    // None declared: then none belongs there.
    let expected = Violation::DescriptorUnexpected { received: 1 };
    assert_refused::<Libcamera>(LIMITS, &[(&header(3, 0), 0), (b"abc", 1)], 0, expected);
}

#[test] // P3, P5; cases 11, 14
fn lc_9_a_header_and_then_silence() {
    let timeout = Duration::from_millis(60);
    let limits = LIMITS.assembly_timeout(timeout);
    let expected = Violation::PayloadMissing { expected: 3, received: 0 };
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(limits).unwrap();
    raw_send(&peer, &header(3, 2), &[]);
    let begun = Instant::now();
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    assert!(begun.elapsed() >= timeout, "blamed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(20), "blamed after {:?}", begun.elapsed());
    assert_final(&mut channel, &peer, expected);
    drop((channel, peer));
    // The same from a peer that died: its end is closed, which nothing here can see.
    let (mut channel, peer) = Channel::<Libcamera>::pair(limits).unwrap();
    raw_send(&peer, &header(3, 2), &[]);
    drop(peer);
    for _ in 0..2 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    }
    drop(channel);
    ledger.close();
}

#[test] // P4
fn lc_10_a_payload_beyond_4_mib() {
    const MOST: u32 = 4 * 1024 * 1024;
    let limits = Limits::new().payload(u32::MAX);
    let expected = Violation::PayloadTooLarge { declared: u64::from(MOST) + 1, limit: MOST.into() };
    assert_refused::<Libcamera>(limits, &[(&header(MOST + 1, 0), 0)], 0, expected);
    let expected = Violation::PayloadLength { declared: MOST.into(), received: 1 };
    assert_refused::<Libcamera>(limits, &[(&header(MOST, 0), 0), (b"x", 0)], 0, expected);
}
