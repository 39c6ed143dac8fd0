//! The `packet` wire over real sockets, rule by rule (`docs/PROTOCOL.md`).

mod support;

use fdpost::machine::Receiver;
use fdpost::profile::packet::{ERROR, REPLY};
use fdpost::{Channel, Error, Fault, Head, Limits, Message, Misuse, Packet, Violation};
use std::rc::Rc;
use std::time::Duration;
use support::{
    Ledger, assert_refused, assert_unread, files, identity, packet_header as header, raw_send, soon,
};

const LIMITS: Limits = Limits::new().payload(100).descriptors(4);

/// A frame: header and payload.
fn frame(payload: usize, descriptors: u8) -> Vec<u8> {
    let mut frame = header(payload as u32, descriptors).to_vec();
    frame.resize(16 + payload, b'x');
    frame
}

/// A frame of no payload whose header has these bytes in place.
fn kind_alone(changes: &[(usize, u8)]) -> [u8; 16] {
    let mut bytes = header(0, 0);
    for &(place, value) in changes {
        bytes[place] = value;
    }
    bytes
}

#[test] // P1, P2
fn a_message_with_descriptors_goes_round() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(4)).unwrap();
    let mut theirs = Channel::<Packet>::from_fd(theirs, Limits::new().descriptors(4)).unwrap();
    let [one, two] = <[_; 2]>::try_from(files(2)).unwrap();
    let names = [identity(&one), identity(&two)];
    ours.send(Message::new(b"hello").with(one).with(two).with_kind(7)).unwrap();
    let mut message = theirs.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.head().kind), (&b"hello"[..], 7));
    let came = [message.take(0).unwrap(), message.take(1).unwrap()];
    assert_eq!(came.each_ref().map(identity), names);
    drop((message, came, ours, theirs));
    ledger.close();
}

#[test] // P1, P3; case 1
fn pk_1_a_header_of_every_length() {
    let bytes = [kind_alone(&[]), kind_alone(&[])].concat();
    for length in 1..16 {
        let expected = Violation::HeaderLength { expected: 16, received: length as u64 };
        assert_refused::<Packet>(LIMITS, &[(&bytes[..length], 0)], 0, expected);
        // A second frame whose header is cut: the first one is whole.
        assert_refused::<Packet>(LIMITS, &[(&bytes[..16 + length], 0)], 1, expected);
    }
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    raw_send(&peer, &bytes[..16], &[]);
    raw_send(&peer, &bytes, &[]);
    for _ in 0..3 {
        channel.receive_by(soon()).unwrap();
    }
    assert!(channel.try_receive().unwrap().is_none());
    drop((channel, peer));
    ledger.close();
}

#[test] // P3; case 6
fn pk_2_an_unknown_version() {
    for version in [0, 2, 3, 128, 255] {
        let expected = Violation::HeaderVersion { supported: 1, received: version.into() };
        assert_refused::<Packet>(LIMITS, &[(&kind_alone(&[(0, version)]), 0)], 0, expected);
    }
}

#[test] // P3; case 6
fn pk_3_reserved_flags() {
    for flags in [2, 4, 8, 16, 32, 64, 128, 255] {
        // With a correlation, so that nothing but the flags is wrong.
        let bytes = kind_alone(&[(1, flags), (12, 1)]);
        let expected = Violation::HeaderReserved { field: "flags", value: flags.into() };
        assert_refused::<Packet>(LIMITS, &[(&bytes, 0)], 0, expected);
    }
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut theirs = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
    let head = |flags| Head { flags, correlation: 9, ..Head::default() };
    for flags in [0, REPLY, REPLY | ERROR] {
        ours.send(Message::new([]).with_head(head(flags))).unwrap();
        assert_eq!(*theirs.receive_by(soon()).unwrap().head(), head(flags));
    }
    let refused = ours.send(Message::new([]).with_head(head(ERROR))).unwrap_err();
    let misuse = Misuse::HeadUnsupported { wire: "packet", field: "flags", value: ERROR };
    assert_eq!(refused.error, Error::Misuse(misuse));
    drop((ours, theirs));
    ledger.close();
}

#[test] // P3
fn pk_4_a_reply_to_nothing() {
    let expected = Violation::HeaderReserved { field: "correlation", value: 0 };
    for flags in [REPLY, REPLY | ERROR] {
        let bytes = kind_alone(&[(1, flags as u8)]);
        assert_refused::<Packet>(LIMITS, &[(&bytes, 0)], 0, expected);
    }
}

#[test] // P3
fn pk_5_reply_descriptors_where_no_reply_can_come() {
    let reserved = |value| Violation::HeaderReserved { field: "reply_descriptors", value };
    for (changes, value) in [
        (&[(3, 1)][..], 1),
        (&[(3, 253)], 253),
        (&[(1, 1), (3, 1), (12, 1)], 1),
        (&[(3, 254), (12, 1)], 254),
        (&[(3, 255), (12, 1)], 255),
    ] {
        assert_refused::<Packet>(LIMITS, &[(&kind_alone(changes), 0)], 0, reserved(value));
    }
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    raw_send(&peer, &kind_alone(&[(3, 253), (12, 1)]), &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().head().reply_descriptors, 253);
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P3; cases 2, 5, 10
fn pk_6_a_frame_that_overruns_its_packet() {
    for declared in [1_u32, 2, 99, 100] {
        for remaining in [0, declared - 1] {
            let mut bytes = header(declared, 0).to_vec();
            bytes.resize(16 + remaining as usize, b'x');
            let (declared, remaining) = (declared.into(), remaining.into());
            let expected = Violation::FrameOverrun { declared, remaining };
            assert_refused::<Packet>(LIMITS, &[(&bytes, 0)], 0, expected);
        }
    }
    // The last of several frames runs one byte over.
    let mut bytes = [frame(20, 0), frame(30, 0), frame(40, 0)].concat();
    bytes.pop();
    let expected = Violation::FrameOverrun { declared: 40, remaining: 39 };
    assert_refused::<Packet>(LIMITS, &[(&bytes, 0)], 2, expected);
    // One byte more than declared begins another frame.
    let mut bytes = frame(20, 0);
    bytes.push(1);
    let expected = Violation::HeaderLength { expected: 16, received: 1 };
    assert_refused::<Packet>(LIMITS, &[(&bytes, 0)], 1, expected);
}

#[test] // P1, P3; case 56
fn pk_7_sixty_five_frames() {
    let frames = |count| kind_alone(&[]).repeat(count);
    assert_refused::<Packet>(LIMITS, &[(&frames(65), 0)], 64, Violation::TooManyFrames { limit: 64 });
    assert_refused::<Packet>(LIMITS, &[(&frames(4096), 0)], 64, Violation::TooManyFrames { limit: 64 });
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    raw_send(&peer, &frames(64), &[]);
    for _ in 0..64 {
        channel.receive_by(soon()).unwrap();
    }
    assert!(channel.try_receive().unwrap().is_none());
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P3; case 56
fn pk_8_a_packet_of_several_frames_beyond_64_kib() {
    // Two frames of so many bytes together. With either limit: under the small one the kernel
    // cuts the packet, under the large one all of it is there.
    let packet = |bytes: usize| [frame(30_000, 0), frame(bytes - 30_000 - 32, 0)].concat();
    for payload in [40_000, 200_000] {
        let limits = LIMITS.payload(payload);
        for bytes in [65_537, 70_000] {
            let expected = Violation::PacketTooLarge { received: bytes as u64, limit: 65_536 };
            assert_refused::<Packet>(limits, &[(&packet(bytes), 0)], 1, expected);
        }
        let ledger = Ledger::open();
        let (mut channel, peer) = Channel::<Packet>::pair(limits).unwrap();
        raw_send(&peer, &packet(65_536), &[]);
        assert_eq!(channel.receive_by(soon()).unwrap().payload().len(), 30_000);
        assert_eq!(channel.receive_by(soon()).unwrap().payload().len(), 65_536 - 30_032);
        drop((channel, peer));
        ledger.close();
    }
    // A packet of one frame may be as large as the limits allow.
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS.payload(200_000)).unwrap();
    raw_send(&peer, &frame(200_000, 0), &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload().len(), 200_000);
    drop((channel, peer));
    ledger.close();
}

#[test] // P2, P3; case 56
fn pk_9_several_frames_claim_seventeen_descriptors() {
    let limits = LIMITS.descriptors(20);
    let expected = Violation::TooManyDescriptors { declared: 17, limit: 16 };
    let packet = [frame(1, 8), frame(1, 9)].concat();
    assert_refused::<Packet>(limits, &[(&packet, 17)], 1, expected);
    // One frame alone may have them; a second beside it may not, even if it claims none.
    for second in [frame(1, 0), frame(0, 0)] {
        let packet = [frame(1, 17), second].concat();
        assert_refused::<Packet>(limits, &[(&packet, 17)], 1, expected);
    }
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(limits).unwrap();
    raw_send(&peer, &[frame(1, 8), frame(1, 8)].concat(), &files(16));
    raw_send(&peer, &frame(1, 17), &files(17));
    for count in [8, 8, 17] {
        assert_eq!(channel.receive_by(soon()).unwrap().descriptor_count(), count);
    }
    drop((channel, peer));
    // An honest sender packs up to 16 without knowing that the limit on one message is 1.
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS.descriptors(1)).unwrap();
    raw_send(&peer, &frame(1, 1).repeat(16), &files(16));
    for _ in 0..16 {
        assert_eq!(channel.receive_by(soon()).unwrap().descriptor_count(), 1);
    }
    drop((channel, peer));
    ledger.close();
}

#[test] // P2, P3; cases 22, 23
fn pk_10_a_frame_claims_more_than_there_are() {
    for declared in 1..=4_u8 {
        for received in 0..declared {
            let (declared, came) = (u32::from(declared), usize::from(received));
            let expected = Violation::DescriptorCount { declared, received: received.into() };
            assert_refused::<Packet>(LIMITS, &[(&frame(3, declared as u8), came)], 0, expected);
        }
    }
    // The second frame finds what the first one left.
    let packet = [frame(3, 2), frame(3, 2)].concat();
    let expected = Violation::DescriptorCount { declared: 2, received: 1 };
    assert_refused::<Packet>(LIMITS, &[(&packet, 3)], 1, expected);
}

#[test] // P2, P3; cases 23, 24, 31
fn pk_11_descriptors_that_no_frame_claims() {
    for came in [1, 2, 17] {
        let expected = Violation::DescriptorUnexpected { received: came as u32 };
        assert_refused::<Packet>(LIMITS, &[(&frame(3, 0), came)], 1, expected);
    }
    // Some are claimed, then one is left.
    for declared in 1..=4_u8 {
        let received = u32::from(declared) + 1;
        let expected = Violation::DescriptorCount { declared: declared.into(), received };
        assert_refused::<Packet>(LIMITS, &[(&frame(3, declared), received as usize)], 1, expected);
    }
    // Beyond the room of max(4, 16) + 1 the number is "at least".
    let expected = Violation::DescriptorCount { declared: 1, received: 17 };
    assert_refused::<Packet>(LIMITS, &[(&frame(3, 1), 253)], 1, expected);
    // Where none is accepted there is room for one.
    let expected = Violation::DescriptorUnexpected { received: 1 };
    assert_refused::<Packet>(LIMITS.descriptors(0), &[(&frame(3, 0), 9)], 1, expected);
}

#[test] // P2, P3; cases 34, 53
fn pk_12_an_empty_packet_with_a_descriptor() {
    for (limit, came, descriptors) in [(4, 1, 1), (4, 17, 17), (4, 200, 17), (0, 3, 1)] {
        let expected = Violation::EmptyPacket { descriptors };
        assert_refused::<Packet>(LIMITS.descriptors(limit), &[(b"", came)], 0, expected);
    }
    // Without one it is the end, for ever: what is sent behind it is not read.
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    raw_send(&peer, b"", &[]);
    raw_send(&peer, &frame(3, 1), &files(1));
    for _ in 0..3 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
    }
    assert_unread(&channel, &frame(3, 1));
    drop((channel, peer));
    ledger.close();
}

#[test] // P1; case 16
fn pk_13_a_kind_alone() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut theirs = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
    ours.send(Message::new([]).with_kind(0xfeed_beef)).unwrap();
    let message = theirs.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.descriptor_count()), (&b""[..], 0));
    assert_eq!(message.head().kind, 0xfeed_beef);
    drop((ours, theirs, message));
    ledger.close();
}

#[test] // P1, P2, P3
fn pk_14_frames_before_a_broken_one() {
    let broken = kind_alone(&[(0, 9)]);
    let packet = [&frame(7, 1)[..], &frame(8, 2), &broken].concat();
    let expected = Violation::HeaderVersion { supported: 1, received: 9 };
    assert_refused::<Packet>(LIMITS, &[(&packet, 3)], 2, expected);
    // What they brought is whole.
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    let sent = files(3);
    raw_send(&peer, &packet, &sent);
    let names: Vec<_> = sent.iter().map(identity).collect();
    let (mut came, mut bytes) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut message = channel.receive_by(soon()).unwrap();
        bytes.push(message.payload().len());
        came.extend(message.take_all().map(|descriptor| identity(&descriptor)));
    }
    assert_eq!((came, bytes), (names, vec![7, 8]));
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    drop((channel, peer, sent));
    ledger.close();
}

#[test] // P1, P2; case 34
fn descriptors_alone_in_any_frame() {
    // A part of no bytes is a part all the same: what it claims is its own, wherever it stands.
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    let sent = files(6);
    raw_send(&peer, &[frame(0, 2), frame(5, 1), frame(0, 0), frame(0, 3)].concat(), &sent);
    let names: Vec<_> = sent.iter().map(identity).collect();
    let mut came = Vec::new();
    for (bytes, count) in [(0, 2), (5, 1), (0, 0), (0, 3)] {
        let mut message = channel.receive_by(soon()).unwrap();
        assert_eq!((message.payload().len(), message.descriptor_count()), (bytes, count));
        came.extend(message.take_all().map(|descriptor| identity(&descriptor)));
    }
    assert_eq!(came, names);
    // As we send it.
    channel.send(Message::new([]).with(files(1).remove(0))).unwrap();
    let mut theirs = Channel::<Packet>::from_fd(peer, LIMITS).unwrap();
    assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), 1);
    drop((channel, theirs, sent));
    ledger.close();
}

#[test] // P4
fn pk_15_a_frame_beyond_4_mib() {
    const MOST: u32 = 4 * 1024 * 1024 - 16;
    let expected = Violation::PayloadTooLarge { declared: u64::from(MOST) + 1, limit: MOST.into() };
    let limits = Limits::new().payload(u32::MAX);
    assert_refused::<Packet>(limits, &[(&header(MOST + 1, 0), 0)], 0, expected);
    // One byte less is allowed, so what is wrong is that it is not there.
    let expected = Violation::FrameOverrun { declared: MOST.into(), remaining: 0 };
    assert_refused::<Packet>(limits, &[(&header(MOST, 0), 0)], 0, expected);

    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(limits).unwrap();
    let refused = channel.send(Message::new(vec![0; MOST as usize + 1])).unwrap_err();
    let bytes = u64::from(MOST) + 1;
    assert_eq!(refused.error, Error::Misuse(Misuse::PayloadTooLarge { bytes, limit: MOST.into() }));
    drop((channel, peer));
    ledger.close();
}

/// What comes of one packet behind a large one, where its first bytes are stored apart or not.
fn behind_a_large_one(packet: &[u8], apart: Option<usize>) -> (Vec<Vec<u8>>, Option<Fault>) {
    let mut receiver = Receiver::<Packet, Rc<()>>::new(Limits::new()).unwrap();
    let large = [&header(65_536, 0)[..], &[7; 65_536]].concat();
    receiver.windows().unwrap().unwrap()[0].fill(&large, []);
    receiver.handle(Duration::ZERO, 1);
    assert_eq!(receiver.poll().unwrap().unwrap().payload(), [7; 65_536]);
    assert!(receiver.poll().unwrap().is_none());
    let hunk = &mut receiver.windows().unwrap().unwrap()[0];
    assert_eq!(hunk.head_room(), 16);
    let (head, rest) = packet.split_at(apart.unwrap_or(0).min(packet.len()));
    hunk.set_head(head);
    hunk.fill(rest, []);
    receiver.handle(Duration::ZERO, 1);
    let mut came = Vec::new();
    loop {
        match receiver.poll() {
            Ok(Some(message)) => came.push(message.payload().to_vec()),
            Ok(None) => return (came, None),
            Err(fault) => return (came, Some(fault)),
        }
    }
}

#[test] // P1, P3; CO-3
fn what_is_read_in_two_pieces_is_heard_as_in_one() {
    let frame = |bytes: usize, fill: u8| [&header(bytes as u32, 0)[..], &vec![fill; bytes]].concat();
    let whole = [frame(65_536, 1), frame(32_777, 1), frame(32_776, 1), frame(3, 1), frame(0, 1)];
    let several = [
        [frame(40_000, 1), frame(3, 2)].concat(),
        [frame(3, 1), frame(40_000, 2)].concat(),
        [frame(40_000, 1), frame(0, 2), frame(9, 3)].concat(),
        frame(5, 4).repeat(64),
        frame(5, 4).repeat(65),
    ];
    let wrong = [
        Vec::new(),
        frame(0, 1)[..9].to_vec(),
        frame(40_000, 1)[..39_000].to_vec(),
        [&frame(40_000, 1)[..], &[1]].concat(),
        // More than the window has room for: cut behind a payload that fills it.
        [&frame(65_536, 1)[..], &[1; 100]].concat(),
        [&frame(65_500, 1)[..], &[1; 100]].concat(),
        [frame(40_000, 1), frame(40_000, 2)].concat(),
    ];
    for (number, packet) in whole.iter().chain(&several).chain(&wrong).enumerate() {
        let expected = behind_a_large_one(packet, None);
        assert_eq!(expected.1.is_none(), number < whole.len() + 4 || packet.is_empty(), "packet {number}");
        for apart in [16, 15, 1] {
            assert_eq!(behind_a_large_one(packet, Some(apart)), expected, "packet {number}, {apart} apart");
        }
    }
}

#[test] // P3: a packet that is too long is told by its real length, however the reader waits for it.
fn a_packet_beyond_the_window_is_told_by_its_length() {
    let limits = Limits::new().payload(1000);
    let said = [true, false].map(|sleeps| {
        let ledger = Ledger::open();
        let (mut ours, theirs) = Channel::<Packet>::pair(limits).unwrap();
        let long = [&header(90_000, 0)[..], &[7; 90_000]].concat();
        assert_eq!(raw_send(&theirs, &long, &[]), long.len());
        let said = if sleeps { ours.receive() } else { ours.receive_by(soon()) }.unwrap_err();
        drop((ours, theirs));
        ledger.close();
        said
    });
    assert!(matches!(said[0], Error::Violation(_)), "{said:?}");
    assert_eq!(said[0], said[1]);
}
