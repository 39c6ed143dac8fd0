//! Two wires over SOCK_STREAM, held against the core and real sockets: one that reads ahead, and one
//! that must not and that the crate does not have. Nothing in `machine` names them.

#[path = "support/wires.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the property tests")]
mod wires;

mod support;

use std::thread;
use std::time::{Duration, Instant};

use fdpost::profile::Profile;
use fdpost::{Channel, Error, Head, Limits, Message, Stream, Violation};
use support::{
    Ledger, assert_final, assert_refused, files, identity, is_shut_down, raw_send, soon, try_raw_send,
};
use wires::{MARKER, VhostUser};

const LIMITS: Limits = Limits::new().descriptors(8);

/// A `stream` message but for its marker.
fn stream(kind: u32, payload: &[u8], fds: u8) -> Vec<u8> {
    let lengths = [kind.to_ne_bytes(), (payload.len() as u32).to_ne_bytes()].concat();
    [&lengths[..], &[fds, 0, 0, 0], payload].concat()
}

/// A `vhost-user` message.
fn vhost(request: u32, payload: &[u8]) -> Vec<u8> {
    let words = [request.to_ne_bytes(), 5_u32.to_ne_bytes(), (payload.len() as u32).to_ne_bytes()];
    [&words.concat()[..], payload].concat()
}

/// Two channels, end to end.
fn both<P: Profile>(limits: Limits) -> [Channel<P>; 2] {
    let (ours, theirs) = Channel::<P>::pair(limits).unwrap();
    [ours, Channel::from_fd(theirs, limits).unwrap()]
}

#[test] // P1, P2; case 28
fn messages_go_round_on_both_wires() {
    fn round<P: Profile>(head: Head) {
        let [mut ours, mut theirs] = both::<P>(LIMITS);
        for (bytes, count) in [(0, 0), (0, 1), (1, 0), (5, 8), (5000, 3), (65_536, 8)] {
            let payload: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            let sent = files(count);
            let names: Vec<_> = sent.iter().map(identity).collect();
            let message = Message::new(payload.clone()).with_head(head);
            ours.send(sent.into_iter().fold(message, Message::with)).unwrap();
            let mut message = theirs.receive_by(soon()).unwrap();
            assert_eq!((message.payload(), *message.head()), (&payload[..], head));
            let came: Vec<_> = message.take_all().map(|descriptor| identity(&descriptor)).collect();
            assert_eq!(came, names);
            [ours, theirs] = [theirs, ours];
        }
    }
    let ledger = Ledger::open();
    round::<Stream>(Head { kind: 7, ..Head::default() });
    round::<VhostUser>(Head { kind: 7, flags: 9, ..Head::default() });
    ledger.close();
}

#[test] // P1, P2, P6
fn a_large_payload_goes_in_pieces_and_its_descriptors_once() {
    // Many times SO_SNDBUF: every send is a partial one, and descriptors that left again with the
    // rest would come where none belong.
    fn large<P: Profile<Declared: Send> + Send + 'static>() {
        let bytes = 8 * 1024 * 1024;
        let [mut one, mut two] = both::<P>(LIMITS.payload(bytes));
        let payload: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
        for _ in 0..2 {
            let (copy, sent) = (payload.clone(), files(3));
            let names: Vec<_> = sent.iter().map(identity).collect();
            let sender = thread::spawn(move || {
                let message = sent.into_iter().fold(Message::new(copy), Message::with);
                one.send(message).unwrap();
                one.send(Message::new(b"behind it")).unwrap();
                one
            });
            let mut message = two.receive_by(soon()).unwrap();
            assert!(message.payload() == payload, "another payload");
            let came: Vec<_> = message.take_all().map(|descriptor| identity(&descriptor)).collect();
            assert_eq!(came, names);
            let behind = two.receive_by(soon()).unwrap();
            assert_eq!((behind.payload(), behind.descriptor_count()), (&b"behind it"[..], 0));
            [one, two] = [two, sender.join().unwrap()];
        }
        // Read where the message keeps it: one payload and a window at most, never two payloads.
        let most = two.stats().held_most.bytes.max(one.stats().held_most.bytes);
        assert!(most < bytes as usize + 64 * 1024, "{most} bytes were held");
    }
    let ledger = Ledger::open();
    large::<Stream>();
    large::<VhostUser>();
    ledger.close();
}

#[test] // P1
fn bytes_of_the_next_message_in_the_same_read_are_kept() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
    let mut bytes = [stream(1, b"one", 0), stream(2, b"", 0), stream(3, b"three", 0)].concat();
    bytes.extend_from_slice(&stream(4, b"four", 0)[..14]);
    raw_send(&peer, &bytes, &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"one");
    // All of it was read: what follows comes from memory.
    assert_eq!(support::queued(&channel), 0);
    assert_eq!(channel.receive_by(soon()).unwrap().head().kind, 2);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"three");
    assert!(channel.try_receive().unwrap().is_none());
    raw_send(&peer, b"ur", &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"four");
    drop((channel, peer));
    // Who must not read ahead leaves the next message in the socket.
    let (mut channel, peer) = Channel::<VhostUser>::pair(LIMITS).unwrap();
    let next = vhost(2, b"two");
    raw_send(&peer, &[vhost(1, b"one"), next.clone()].concat(), &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"one");
    assert_eq!(support::queued(&channel), next.len());
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"two");
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P2; case 55
fn plain_bytes_of_one_message_and_the_descriptors_of_the_next_in_one_read() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
    let sent = files(2);
    raw_send(&peer, &stream(1, b"plain", 0), &[]);
    raw_send(&peer, &[stream(2, b"rich", 2), vec![MARKER]].concat(), &sent);
    raw_send(&peer, &stream(3, b"plain again", 0), &[]);
    let mut counts = Vec::new();
    for _ in 0..3 {
        let mut message = channel.receive_by(soon()).unwrap();
        let came: Vec<_> = message.take_all().map(|descriptor| identity(&descriptor)).collect();
        counts.push((message.head().kind, came));
    }
    let names = sent.iter().map(identity).collect();
    assert_eq!(counts, [(1, vec![]), (2, names), (3, vec![])]);
    drop((channel, peer));
    // On vhost-user a message's descriptors stand in front, so they are its header's.
    let (mut channel, peer) = Channel::<VhostUser>::pair(LIMITS).unwrap();
    raw_send(&peer, &vhost(1, b"plain"), &[]);
    raw_send(&peer, &vhost(2, b"rich"), &sent);
    for (kind, count) in [(1, 0), (2, 2)] {
        let message = channel.receive_by(soon()).unwrap();
        assert_eq!((message.head().kind, message.descriptor_count()), (kind, count));
    }
    drop((channel, peer, sent));
    ledger.close();
}

#[test] // P1, P2, P3; cases 22, 23, 25, 26
fn descriptors_in_the_wrong_place_on_stream() {
    let unexpected = |received| Violation::DescriptorUnexpected { received };
    let count = |declared, received| Violation::DescriptorCount { declared, received };
    let (message, marker) = (stream(1, b"abc", 1), [MARKER]);
    // On the header, on the payload, on both in one send, behind the marker.
    assert_refused::<Stream>(LIMITS, &[(&message[..12], 1)], 0, unexpected(1));
    assert_refused::<Stream>(LIMITS, &[(&message[..7], 2)], 0, unexpected(2));
    assert_refused::<Stream>(LIMITS, &[(&message[..12], 0), (b"abc", 1)], 0, unexpected(1));
    assert_refused::<Stream>(LIMITS, &[(&message, 1), (&marker, 1)], 0, unexpected(1));
    let whole = [&message[..], &marker].concat();
    assert_refused::<Stream>(LIMITS, &[(&whole, 1), (&[1], 1)], 1, unexpected(1));
    // A send that runs on behind its marker: the descriptors belong to its last byte.
    let on = [&whole[..], &[0; 3]].concat();
    assert_refused::<Stream>(LIMITS, &[(&on, 1)], 0, count(1, 0));
    // Promised, and other than promised.
    assert_refused::<Stream>(LIMITS, &[(&whole, 0)], 0, count(1, 0));
    assert_refused::<Stream>(LIMITS, &[(&whole, 2)], 0, count(1, 2));
    // A marker that is none, with all that it should bring.
    for byte in [0, MARKER - 1, MARKER + 1, 255] {
        let expected = Violation::Marker { expected: MARKER, received: byte };
        assert_refused::<Stream>(LIMITS, &[(&message, 0), (&[byte], 1)], 0, expected);
    }
}

#[test] // P1, P2, P3; cases 23, 25, 26
fn descriptors_in_the_wrong_place_on_vhost_user() {
    let unexpected = |received| Violation::DescriptorUnexpected { received };
    let message = vhost(1, b"abc");
    assert_refused::<VhostUser>(LIMITS, &[(&message[..12], 1), (b"abc", 2)], 0, unexpected(2));
    assert_refused::<VhostUser>(LIMITS, &[(&message[..12], 0), (b"a", 0), (b"bc", 1)], 0, unexpected(1));
    // The grant of eight is the message's, however many reads bring them.
    let expected = Violation::DescriptorCount { declared: 8, received: 9 };
    assert_refused::<VhostUser>(LIMITS, &[(&message[..4], 5), (&message[4..12], 4)], 0, expected);
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<VhostUser>::pair(LIMITS).unwrap();
    raw_send(&peer, &message[..4], &files(5));
    raw_send(&peer, &message[4..], &files(3));
    assert_eq!(channel.receive_by(soon()).unwrap().descriptor_count(), 8);
    drop((channel, peer));
    ledger.close();
}

#[test] // P3; cases 11, 14
fn a_message_cut_off_at_every_byte() {
    let ledger = Ledger::open();
    let message = [&stream(1, b"abc", 1)[..], &[MARKER]].concat();
    for cut in 0..message.len() {
        let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
        try_raw_send(&peer, &message[..cut], &[]).unwrap();
        drop(peer);
        let expected = match cut {
            0 => Error::Closed,
            1..12 => missing(12, cut),
            12..15 => missing(3, cut - 12),
            _ => missing(1, 0),
        };
        assert_eq!(channel.receive_by(soon()).unwrap_err(), expected, "cut at {cut}");
        assert_eq!(channel.receive_by(soon()).unwrap_err(), expected);
    }
    ledger.close();
}

fn missing(expected: u64, received: usize) -> Error {
    Error::Violation(Violation::PayloadMissing { expected, received: received as u64 })
}

#[test] // P5
fn a_slow_drip_is_bounded() {
    fn drip<P: Profile>(header: Vec<u8>) {
        let timeout = Duration::from_millis(100);
        // 4,000 bytes at 20,000 a second: 200 ms more than the timeout.
        let limits = LIMITS.assembly_timeout(timeout).minimum_rate(20_000);
        let (mut channel, peer) = Channel::<P>::pair(limits).unwrap();
        raw_send(&peer, &header, &[]);
        let begun = Instant::now();
        let drips = thread::spawn(move || {
            // A byte every two milliseconds: never silent for as long as the timeout.
            while try_raw_send(&peer, b"x", &[]).is_ok() {
                thread::sleep(Duration::from_millis(2));
            }
            peer
        });
        let violation = channel.receive_by(soon()).unwrap_err().violation();
        let Some(Violation::PayloadMissing { expected: 4000, received }) = violation else {
            panic!("{violation:?}")
        };
        let took = begun.elapsed();
        assert!(took >= timeout + Duration::from_millis(200), "blamed after {took:?}");
        assert!(took < Duration::from_secs(20), "blamed after {took:?}");
        assert!((1..4000).contains(&received), "{received} bytes in {took:?}");
        let peer = drips.join().unwrap();
        assert!(is_shut_down(&peer));
        assert_final(&mut channel, &peer, Violation::PayloadMissing { expected: 4000, received });
    }
    let ledger = Ledger::open();
    drip::<Stream>(stream(1, &[0; 4000], 0)[..12].to_vec());
    drip::<VhostUser>(vhost(1, &[0; 4000])[..12].to_vec());
    ledger.close();
}

#[test] // P5
fn a_slow_but_honest_peer_is_waited_for() {
    // More than the timeout for the whole, but above the rate.
    let ledger = Ledger::open();
    let limits = LIMITS.assembly_timeout(Duration::from_millis(100)).minimum_rate(100);
    let (mut channel, peer) = Channel::<Stream>::pair(limits).unwrap();
    let sender = thread::spawn(move || {
        for piece in stream(1, &[b'x'; 1000], 0).chunks(253) {
            raw_send(&peer, piece, &[]);
            thread::sleep(Duration::from_millis(60));
        }
        peer
    });
    assert_eq!(channel.receive_by(soon()).unwrap().payload().len(), 1000);
    drop((channel, sender.join().unwrap()));
    ledger.close();
}
