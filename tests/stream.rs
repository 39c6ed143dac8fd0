//! The `stream` wire over real sockets, rule by rule (`docs/PROTOCOL.md`). The large payload
//! stands in `stream_large.rs`, the handshake in `stream_handshake.rs`.

mod support;

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use fdpost::{Channel, Deadline, Error, Head, Limits, Message, Misuse, Sent, Stream, Violation};
use nix::sys::socket::{MsgFlags, recv};
use support::{Ledger, assert_final, assert_refused, files, identity, queued, raw_send, soon, try_raw_send};

const LIMITS: Limits = Limits::new().payload(100).descriptors(4);
const MARKER: u8 = 0x77;

/// Header and payload; with `fds` a marker is to follow.
fn said(private: u32, payload: &[u8], fds: u8) -> Vec<u8> {
    let words = [private.to_ne_bytes(), (payload.len() as u32).to_ne_bytes()].concat();
    [&words[..], &[fds, 0, 0, 0], payload].concat()
}

fn pair(limits: Limits) -> (Channel<Stream>, OwnedFd) {
    Channel::pair(limits).unwrap()
}

/// The next message: kind, payload, and which files came.
#[track_caller]
fn heard(channel: &mut Channel<Stream>) -> (u32, Vec<u8>, Vec<std::path::PathBuf>) {
    let mut message = channel.receive_by(soon()).unwrap();
    let names = message.take_all().map(|descriptor| identity(&descriptor)).collect();
    (message.head().kind, message.into_payload(), names)
}

#[test] // P1, P5; cases 1, 8, 11, 14
fn st_1_a_header_cut_anywhere() {
    let ledger = Ledger::open();
    let message = said(7, b"payload", 0);
    for first in 1..12 {
        for second in first..12 {
            let (mut channel, peer) = pair(LIMITS);
            for piece in [&message[..first], &message[first..second], &message[second..]] {
                assert!(channel.try_receive().unwrap().is_none());
                if !piece.is_empty() {
                    raw_send(&peer, piece, &[]);
                }
            }
            assert_eq!(heard(&mut channel), (7, b"payload".to_vec(), vec![]), "cut at {first}, {second}");
        }
    }
    // A header of any other length is one whose rest never comes.
    for length in 1..12 {
        let (mut channel, peer) = pair(LIMITS.assembly_timeout(Duration::from_millis(5)));
        raw_send(&peer, &message[..length], &[]);
        let expected = Violation::PayloadMissing { expected: 12, received: length as u64 };
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
        assert_final(&mut channel, &peer, expected);
        // Nor does it where the stream ends.
        let (mut channel, peer) = pair(LIMITS);
        raw_send(&peer, &message[..length], &[]);
        drop(peer);
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    }
    ledger.close();
}

#[test] // P1; case 6
fn st_2_padding_is_ignored_and_sent_as_zeros() {
    let ledger = Ledger::open();
    let (mut channel, peer) = pair(LIMITS);
    let mut dirty = said(7, b"abc", 1);
    dirty[9..12].copy_from_slice(&[0xff, 1, 0x77]);
    raw_send(&peer, &dirty, &[]);
    raw_send(&peer, &[MARKER], &files(1));
    let message = channel.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.descriptor_count()), (&b"abc"[..], 1));
    channel.send(message).unwrap();
    let mut sent = [0xaa; 32];
    let length = recv(peer.as_raw_fd(), &mut sent, MsgFlags::MSG_DONTWAIT).unwrap();
    assert_eq!(sent[..length], [&said(7, b"abc", 1)[..], &[MARKER]].concat());
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P6; case 16
fn st_3_the_private_word_alone() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = pair(LIMITS);
    let mut theirs = Channel::<Stream>::from_fd(theirs, LIMITS).unwrap();
    for private in [0, 1, 0x0403_0201, u32::MAX] {
        ours.send(Message::default().with_kind(private)).unwrap();
        assert_eq!(heard(&mut theirs), (private, vec![], vec![]));
    }
    // What the header has no place for is refused before a byte leaves.
    let head = Head { correlation: 1, ..Head::default() };
    let refused = ours.send(Message::new(b"x").with_head(head)).unwrap_err();
    let expected = Misuse::HeadUnsupported { wire: "stream", field: "correlation", value: 1 };
    assert_eq!(refused.error, Error::Misuse(expected));
    assert_eq!(queued(&theirs), 0);
    drop((ours, theirs, refused));
    ledger.close();
}

#[test] // P2, P3
fn st_4_a_marker_of_another_value() {
    for received in [0, 1, MARKER - 1, MARKER + 1, 255] {
        for (payload, fds) in [(&b""[..], 1), (b"abc", 4)] {
            let message = said(1, payload, fds);
            let expected = Violation::Marker { expected: MARKER, received };
            assert_refused::<Stream>(LIMITS, &[(&message, 0), (&[received], fds.into())], 0, expected);
        }
    }
}

#[test] // P2, P3; cases 22, 23, 24
fn st_5_a_marker_with_another_number_of_descriptors() {
    for declared in 1..=4_u8 {
        let message = said(1, b"abc", declared);
        for received in (0..=u32::from(declared) + 1).filter(|count| *count != u32::from(declared)) {
            let expected = Violation::DescriptorCount { declared: declared.into(), received };
            let sends = [(&message[..], 0), (&[MARKER][..], received as usize)];
            assert_refused::<Stream>(LIMITS, &sends, 0, expected);
        }
    }
    // Without descriptors, in the same send as the payload.
    let expected = Violation::DescriptorCount { declared: 1, received: 0 };
    assert_refused::<Stream>(LIMITS, &[(&[&said(1, b"abc", 1)[..], &[MARKER]].concat(), 0)], 0, expected);
}

#[test] // P2, P3; cases 25, 26, 55
fn st_6_descriptors_anywhere_but_on_the_marker() {
    let unexpected = |received| Violation::DescriptorUnexpected { received };
    let rich = said(1, b"abc", 2);
    let marked = [&rich[..], &[MARKER]].concat();
    // On every byte of header and payload, whether descriptors are declared or not.
    for at in 0..rich.len() {
        for message in [&rich, &said(1, b"abc", 0)] {
            let sends: Vec<(&[u8], usize)> = [(&message[..at], 0), (&message[at..=at], 2)]
                .into_iter()
                .filter(|(b, _)| !b.is_empty())
                .collect();
            assert_refused::<Stream>(LIMITS, &sends, 0, unexpected(2));
        }
    }
    // A message without any is whole, and the read that ends with it brings one all the same.
    assert_refused::<Stream>(LIMITS, &[(&said(1, b"abc", 0), 1)], 0, unexpected(1));
    // On what stands behind the marker: the message before it is delivered first.
    assert_refused::<Stream>(LIMITS, &[(&rich, 0), (&[MARKER], 2), (&[1], 1)], 1, unexpected(1));
    // The marker in one send with its payload is the read's last byte: its descriptors are its own.
    let ledger = Ledger::open();
    let (mut channel, peer) = pair(LIMITS);
    let sent = files(2);
    raw_send(&peer, &marked, &sent);
    assert_eq!(heard(&mut channel), (1, b"abc".to_vec(), sent.iter().map(identity).collect()));
    drop((channel, peer, sent));
    ledger.close();
}

#[test] // P1, P2; case 55
fn st_7_bytes_of_the_next_message_are_kept() {
    let ledger = Ledger::open();
    let (mut channel, peer) = pair(LIMITS);
    let sent = files(1);
    let next = said(4, b"four", 0);
    let all = [said(1, b"one", 0), said(2, b"", 0), said(3, b"three", 1)].concat();
    raw_send(&peer, &all, &[]);
    raw_send(&peer, &[MARKER], &sent);
    raw_send(&peer, &next[..14], &[]);
    assert_eq!(heard(&mut channel), (1, b"one".to_vec(), vec![]));
    assert_eq!(queued(&channel), 14, "everything up to the marker came in one read");
    assert_eq!(heard(&mut channel), (2, vec![], vec![]));
    assert_eq!(heard(&mut channel), (3, b"three".to_vec(), vec![identity(&sent[0])]));
    assert!(channel.try_receive().unwrap().is_none());
    raw_send(&peer, &next[14..], &[]);
    assert_eq!(heard(&mut channel), (4, b"four".to_vec(), vec![]));
    drop((channel, peer, sent));
    ledger.close();
}

fn missing(expected: u64, received: usize) -> Violation {
    Violation::PayloadMissing { expected, received: received as u64 }
}

#[test] // P3, P5; cases 11, 14
fn st_8_begun_and_not_finished() {
    let ledger = Ledger::open();
    let whole = [&said(1, b"abc", 1)[..], &[MARKER]].concat();
    for cut in 1..whole.len() {
        let expected = match cut {
            ..12 => missing(12, cut),
            12..15 => missing(3, cut - 12),
            _ => missing(1, 0),
        };
        // At the end of the stream, ...
        let (mut channel, peer) = pair(LIMITS);
        raw_send(&peer, &whole[..cut], &[]);
        drop(peer);
        for _ in 0..2 {
            assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected), "cut at {cut}");
        }
        // ... and at the deadline, not before.
        let timeout = Duration::from_millis(20);
        let (mut channel, peer) = pair(LIMITS.assembly_timeout(timeout));
        raw_send(&peer, &whole[..cut], &[]);
        let begun = Instant::now();
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected), "cut at {cut}");
        assert!(begun.elapsed() >= timeout, "blamed after {:?}", begun.elapsed());
        assert_final(&mut channel, &peer, expected);
    }
    ledger.close();
}

#[test] // P5; case 59
fn st_9_a_slow_drip() {
    let ledger = Ledger::open();
    let timeout = Duration::from_millis(100);
    // 2,000 bytes at 10,000 a second: 200 ms more than the timeout.
    let limits = LIMITS.payload(2000).assembly_timeout(timeout).minimum_rate(10_000);
    let (mut channel, peer) = pair(limits);
    raw_send(&peer, &said(1, &[0; 2000], 0)[..12], &[]);
    let begun = Instant::now();
    let drips = thread::spawn(move || {
        // Never silent for as long as the timeout.
        while try_raw_send(&peer, b"x", &[]).is_ok() {
            thread::sleep(Duration::from_millis(3));
        }
        peer
    });
    let violation = channel.receive_by(soon()).unwrap_err().violation();
    let Some(Violation::PayloadMissing { expected: 2000, received: 1..2000 }) = violation else {
        panic!("{violation:?}")
    };
    let took = begun.elapsed();
    assert!(took >= timeout + Duration::from_millis(200), "blamed after {took:?}");
    assert!(took < Duration::from_secs(20), "blamed after {took:?}");
    let peer = drips.join().unwrap();
    assert_final(&mut channel, &peer, violation.unwrap());
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P2, P6; cases 45, 51
fn st_11_descriptors_leave_once() {
    let ledger = Ledger::open();
    // Many times SO_SNDBUF: nothing leaves in one piece.
    let bytes = 3_000_000_u32;
    let limits = LIMITS.payload(bytes);
    let (mut ours, theirs) = pair(limits);
    let mut theirs = Channel::<Stream>::from_fd(theirs, limits).unwrap();
    let sent = files(4);
    let names: Vec<_> = sent.iter().map(identity).collect();
    let payload: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
    let message = sent.into_iter().fold(Message::new(payload.clone()).with_kind(9), Message::with);
    assert_eq!(ours.try_send(message).unwrap(), Sent::Pending);
    let (mut flushes, mut came) = (0, None);
    while came.is_none() {
        came = theirs.try_receive().unwrap();
        let _rest_later = ours.flush_by(Deadline::after(Duration::ZERO));
        flushes += usize::from(ours.wants_write());
    }
    assert!(flushes > 5, "resumed {flushes} times");
    let mut message = came.unwrap();
    assert!(message.payload() == payload, "another payload");
    assert_eq!(message.take_all().map(|one| identity(&one)).collect::<Vec<_>>(), names);
    // Had they left again with the rest, they would be unexpected here.
    ours.send(Message::new(b"behind")).unwrap();
    assert_eq!(heard(&mut theirs), (0, b"behind".to_vec(), vec![]));
    drop((ours, theirs, message));
    ledger.close();
}

#[test] // P5
fn st_15_a_late_reader_blames_nobody() {
    let ledger = Ledger::open();
    // 25,000 bytes at 20,000 a second: overdue 1.35 s after they began.
    let limits = LIMITS.payload(25_000).assembly_timeout(Duration::from_millis(100)).minimum_rate(20_000);
    let (mut channel, peer) = pair(limits);
    let message = said(1, &[7; 25_000], 0);
    raw_send(&peer, &message[..5_000], &[]);
    assert!(channel.try_receive().unwrap().is_none());
    raw_send(&peer, &message[5_000..24_000], &[]);
    thread::sleep(channel.timeout().expect("it has begun") + Duration::from_millis(50));
    // It was there in time: nothing is to be said against the peer. What was read is worth 0.95 s.
    assert!(channel.try_receive().unwrap().is_none());
    assert!(channel.timeout().expect("it still runs") > Duration::ZERO);
    raw_send(&peer, &message[24_000..], &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload().len(), 25_000);

    // Who then stops is blamed all the same.
    raw_send(&peer, &message[..5_000], &[]);
    assert!(channel.try_receive().unwrap().is_none());
    raw_send(&peer, &message[5_000..6_000], &[]);
    thread::sleep(channel.timeout().expect("it has begun") + Duration::from_millis(50));
    assert_final(&mut channel, &peer, Violation::PayloadMissing { expected: 25_000, received: 5_988 });
    drop((channel, peer));
    ledger.close();
}
