//! The rules common to all wires over real sockets, rule by rule (`docs/PROTOCOL.md`).

#[path = "support/wires.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the property tests")]
mod wires;

mod support;

use std::rc::Rc;
use std::time::{Duration, Instant};

use fdpost::error::Malformed;
use fdpost::machine::Receiver;
use fdpost::profile::Profile;
use fdpost::wire::control::Layout;
use fdpost::{Channel, Error, Fault, Libcamera, Limits, Message, Packet, Stream, Violation};
use nix::sys::socket::{setsockopt, sockopt};
use support::{
    Ledger, assert_final, assert_refused, assert_unread, files, libcamera_header, packet_header, raw_send,
    soon, unguarded_pair,
};
use wires::VhostUser;

const LIMITS: Limits = Limits::new().payload(100).descriptors(4);

/// One `packet` frame.
fn frame(payload: &[u8], descriptors: u8) -> Vec<u8> {
    [&packet_header(payload.len() as u32, descriptors)[..], payload].concat()
}

/// The header of the `stream` wire.
fn stream_header(data: u32, fds: u8) -> [u8; 12] {
    let [e, f, g, h] = data.to_ne_bytes();
    [0, 0, 0, 0, e, f, g, h, fds, 0, 0, 0]
}

#[test] // P3, P4; cases 3, 4
fn co_1_a_payload_beyond_the_limit() {
    for limit in [0_u32, 1, 100, 4096, 65_536] {
        let limits = LIMITS.payload(limit);
        for declared in [limit + 1, limit + 4096, i32::MAX as u32 + 1, u32::MAX - 4096, u32::MAX] {
            let expected = Violation::PayloadTooLarge { declared: declared.into(), limit: limit.into() };
            let header = libcamera_header(declared, 0);
            assert_refused::<Libcamera>(limits, &[(&header, 0)], 0, expected);
            assert_refused::<Packet>(limits, &[(&packet_header(declared, 0), 0)], 0, expected);
            assert_refused::<Stream>(limits, &[(&stream_header(declared, 0), 0)], 0, expected);
        }
    }
    // Nothing was allocated for it: refusing 4 GiB takes no more than a window.
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    raw_send(&peer, &libcamera_header(u32::MAX, 0), &[]);
    assert_eq!(channel.receive_by(soon()).unwrap_err().violation().unwrap().rule(), "payload-too-large");
    assert!(channel.stats().held_most.bytes < 1024, "{:?}", channel.stats());
    drop((channel, peer));
    ledger.close();
}

#[test] // P2, P3, P4; cases 4, 33
fn co_2_more_descriptors_than_the_limit() {
    for limit in [0_u8, 1, 4, 252, 253] {
        let limits = LIMITS.descriptors(limit);
        for declared in [limit + 1, 254, 255] {
            let expected = Violation::TooManyDescriptors { declared: declared.into(), limit: limit.into() };
            let header = libcamera_header(3, declared);
            assert_refused::<Libcamera>(limits, &[(&header, 0)], 0, expected);
            assert_refused::<Packet>(limits, &[(&frame(b"abc", declared), 0)], 0, expected);
            let stream = [&stream_header(3, declared)[..], b"abc"].concat();
            assert_refused::<Stream>(limits, &[(&stream, 0)], 0, expected);
        }
    }
    // However many came with it.
    let expected = Violation::TooManyDescriptors { declared: 5, limit: 4 };
    assert_refused::<Packet>(LIMITS, &[(&frame(b"abc", 5), 5)], 0, expected);
}

#[test] // P3
fn co_3_the_order_of_checks() {
    // Malformed control data before an unknown control message before all else. The kernel does
    // not write both at will, so the core is handed them.
    let (malformed, unknown) = (Malformed::NegativeDescriptor { value: -24 }, (1, 99));
    let both = told::<Packet>(|hunk| {
        hunk.set_unknown(unknown.0, unknown.1);
        hunk.set_malformed(malformed);
    });
    assert_eq!(both, Violation::ControlMalformed(malformed));
    let empty = told::<Packet>(|hunk| hunk.set_unknown(unknown.0, unknown.1));
    assert_eq!(empty, Violation::ControlUnknown { level: 1, kind: 99 });

    // An empty packet before descriptors that belong nowhere.
    let expected = Violation::EmptyPacket { descriptors: 2 };
    assert_refused::<Packet>(LIMITS, &[(b"", 2)], 0, expected);
    // Descriptors beyond what belongs here before the length ...
    let expected = Violation::DescriptorUnexpected { received: 2 };
    assert_refused::<Libcamera>(LIMITS, &[(&[0; 7], 2)], 0, expected);
    let expected = Violation::DescriptorCount { declared: 1, received: 2 };
    assert_refused::<Libcamera>(LIMITS, &[(&libcamera_header(9, 1), 0), (b"x", 2)], 0, expected);
    // ... the length before too few descriptors ...
    let expected = Violation::PayloadLength { declared: 9, received: 1 };
    assert_refused::<Libcamera>(LIMITS, &[(&libcamera_header(9, 2), 0), (b"x", 1)], 0, expected);
    let mut overrun = packet_header(9, 2).to_vec();
    overrun.push(b'x');
    let expected = Violation::FrameOverrun { declared: 9, remaining: 1 };
    assert_refused::<Packet>(LIMITS, &[(&overrun, 1)], 0, expected);
    // ... too few descriptors before values: a marker that is none and brings nothing ...
    let stream = [&stream_header(1, 1)[..], b"x", &[0]].concat();
    let expected = Violation::DescriptorCount { declared: 1, received: 0 };
    assert_refused::<Stream>(LIMITS, &[(&stream, 0)], 0, expected);
    // ... values before limits, and of those the payload's first.
    let mut version = packet_header(101, 5);
    version[0] = 2;
    let expected = Violation::HeaderVersion { supported: 1, received: 2 };
    assert_refused::<Packet>(LIMITS, &[(&version, 0)], 0, expected);
    let expected = Violation::PayloadTooLarge { declared: 101, limit: 100 };
    assert_refused::<Packet>(LIMITS, &[(&packet_header(101, 5), 0)], 0, expected);
    assert_refused::<Libcamera>(LIMITS, &[(&libcamera_header(101, 5), 0)], 0, expected);
}

/// What a receiver says of one hunk without bytes but with two descriptors, of which `kernel`
/// tells the rest. For ever the same, the messages before it first, and nothing lost (P2, P3).
fn told<P: Profile>(kernel: impl Fn(&mut fdpost::machine::Hunk<Rc<()>>)) -> Violation {
    let token = Rc::new(());
    let mut receiver = Receiver::<P, Rc<()>>::new(LIMITS).unwrap();
    let hunk = &mut receiver.windows().unwrap().unwrap()[0];
    hunk.fill(b"", [token.clone(), token.clone()]);
    kernel(hunk);
    receiver.handle(Duration::ZERO, 1);
    let fault = receiver.poll().unwrap_err();
    for _ in 0..3 {
        assert_eq!(receiver.poll().unwrap_err(), fault);
        assert_eq!(receiver.windows().unwrap_err(), fault);
    }
    assert_eq!(receiver.refused().count(), 2, "handed over to be closed");
    assert_eq!(Rc::strong_count(&token), 1);
    match fault {
        Fault::Violation(violation) => violation,
        other => panic!("{other:?}"),
    }
}

#[test] // P2, P3; case 50
fn co_4_malformed_control_data() {
    // No kernel writes most of these, so the core is handed them; what makes them of raw bytes is
    // tested beside the decoder.
    for malformed in [
        Malformed::HeaderCut { remaining: 3, header: 16 },
        Malformed::LengthBelowHeader { length: 0, header: 16 },
        Malformed::LengthBeyondBuffer { length: 25, remaining: 24 },
        Malformed::ArrayLength { length: 3, element: 4 },
        Malformed::NegativeDescriptor { value: -24 },
    ] {
        assert_eq!(told::<Libcamera>(|hunk| hunk.set_malformed(malformed)), malformed.into_violation());
        assert_eq!(told::<Packet>(|hunk| hunk.set_malformed(malformed)), malformed.into_violation());
        assert_eq!(told::<Stream>(|hunk| hunk.set_malformed(malformed)), malformed.into_violation());
    }
    // One a kernel does write: credentials cut to the room for one descriptor, because another
    // holder of the socket asked for them behind the channel's back (cases 48, 54).
    let violation = Malformed::ArrayLength { length: 4, element: 12 }.into_violation();
    let limits = LIMITS.descriptors(0);
    assert_spoilt::<Libcamera>(limits, &[(&libcamera_header(3, 0), 0)], Spoiler::Credentials, 0, violation);
    let packet = frame(b"abc", 0);
    assert_spoilt::<Packet>(limits, &[(&packet, 0)], Spoiler::Credentials, 0, violation);
}

trait IntoViolation {
    fn into_violation(self) -> Violation;
}

impl IntoViolation for Malformed {
    fn into_violation(self) -> Violation {
        Violation::ControlMalformed(self)
    }
}

/// What another holder of the channel's socket may switch on once the channel was made.
enum Spoiler {
    Timestamps,
    Credentials,
}

/// As [`assert_refused`], over a socket whose options were changed behind the channel's back.
#[track_caller]
fn assert_spoilt<P: Profile>(
    limits: Limits,
    sends: &[(&[u8], usize)],
    spoiler: Spoiler,
    whole: usize,
    expected: Violation,
) {
    let ledger = Ledger::open();
    let (mut channel, peer) = unguarded_pair::<P>(limits);
    match spoiler {
        Spoiler::Timestamps => setsockopt(&channel, sockopt::ReceiveTimestamp, &true).unwrap(),
        Spoiler::Credentials => setsockopt(&channel, sockopt::PassCred, &true).unwrap(),
    }
    for (bytes, descriptors) in sends {
        raw_send(&peer, bytes, &files(*descriptors));
    }
    raw_send(&peer, b"unread", &[]);
    for _ in 0..whole {
        drop(channel.receive_by(soon()).unwrap());
    }
    assert_final(&mut channel, &peer, expected);
    assert_unread(&channel, b"unread");
    drop((channel, peer));
    ledger.close();
}

#[test] // P2, P3; cases 49, 54
fn co_5_an_unknown_control_message() {
    let expected = Violation::ControlUnknown { level: nix::libc::SOL_SOCKET, kind: nix::libc::SCM_TIMESTAMP };
    for limit in [0, 4] {
        let limits = LIMITS.descriptors(limit);
        let header = libcamera_header(3, 0);
        assert_spoilt::<Libcamera>(limits, &[(&header, 0)], Spoiler::Timestamps, 0, expected);
        let packet = frame(b"abc", 1);
        assert_spoilt::<Packet>(limits, &[(&packet, 1)], Spoiler::Timestamps, 0, expected);
    }
    // Whatever else the read brought.
    assert_eq!(
        told::<Stream>(|hunk| hunk.set_unknown(7, 8)),
        Violation::ControlUnknown { level: 7, kind: 8 }
    );
}

#[test] // P2, P3; cases 48, 54
fn co_6_control_data_cut_behind_the_last_descriptor() {
    // The room is for one more than may come, so only something else that takes room can hide the
    // one too many: credentials, switched on once the channel was made.
    let layout = Layout::NATIVE;
    let fits = |room: usize| {
        let left = layout.length(4 * room) - layout.space(12);
        (left - layout.length(0)) / 4
    };
    let declared = fits(13);
    let (sends, limits) = (libcamera_header(3, declared as u8), LIMITS.descriptors(12));
    let sends = [(&sends[..], 0), (&b"abc"[..], declared + 1)];
    let expected = Violation::ControlTruncated { received: declared as u32 };
    assert_spoilt::<Libcamera>(limits, &sends, Spoiler::Credentials, 0, expected);
    // The packet's pool: max(12, 16) and one.
    let declared = fits(17);
    let packet = frame(b"abc", declared as u8);
    let expected = Violation::ControlTruncated { received: declared as u32 };
    assert_spoilt::<Packet>(limits, &[(&packet, declared + 1)], Spoiler::Credentials, 1, expected);
}

#[test] // P2, P3, P9; cases 25, 31
fn co_7_descriptors_where_none_belong() {
    for limit in [0_u8, 4] {
        let limits = LIMITS.descriptors(limit);
        let expected = Violation::DescriptorUnexpected { received: 1 };
        assert_refused::<Libcamera>(limits, &[(&libcamera_header(3, 0), 1)], 0, expected);
        let sends = [(&libcamera_header(3, 0)[..], 0), (&b"abc"[..], 1)];
        assert_refused::<Libcamera>(limits, &sends, 0, expected);
        assert_refused::<Packet>(limits, &[(&frame(b"abc", 0), 1)], 1, expected);
        let stream = [&stream_header(3, 0)[..], b"abc"].concat();
        assert_refused::<Stream>(limits, &[(&stream, 1)], 0, expected);
        let vhost = [&[0; 8], &3_u32.to_ne_bytes()[..]].concat();
        assert_refused::<VhostUser>(limits, &[(&vhost, 0), (b"abc", 1)], 0, expected);
    }
    // vhost-user grants up to eight on its header, but never more than the limits.
    let expected = Violation::DescriptorUnexpected { received: 1 };
    assert_refused::<VhostUser>(LIMITS.descriptors(0), &[(&[0; 12], 3)], 0, expected);
    let expected = Violation::DescriptorCount { declared: 4, received: 5 };
    assert_refused::<VhostUser>(LIMITS, &[(&[0; 12], 9)], 0, expected);
    let expected = Violation::DescriptorCount { declared: 8, received: 9 };
    assert_refused::<VhostUser>(LIMITS.descriptors(20), &[(&[0; 12], 9)], 0, expected);
}

#[test] // P1, P2, P3; cases 22, 23
fn co_8_another_number_of_descriptors() {
    for (declared, came, received) in [(1, 0, 0), (2, 1, 1), (4, 3, 3), (1, 2, 2), (4, 5, 5), (4, 9, 5)] {
        let expected = Violation::DescriptorCount { declared: declared.into(), received };
        let sends = [(&libcamera_header(3, declared)[..], 0), (&b"abc"[..], came)];
        assert_refused::<Libcamera>(LIMITS, &sends, 0, expected);
        let stream = [&stream_header(3, declared)[..], b"abc"].concat();
        assert_refused::<Stream>(LIMITS, &[(&stream, 0), (&[0x77], came)], 0, expected);
        // In a packet the frame that is short is refused; one too many shows when it ends, and
        // the room is for max(4, 16) + 1.
        let whole = usize::from(came > declared.into());
        let expected = Violation::DescriptorCount { declared: declared.into(), received: came as u32 };
        assert_refused::<Packet>(LIMITS, &[(&frame(b"abc", declared), came)], whole, expected);
    }
}

#[test] // P3, P5; cases 11, 14, 59
fn co_9_a_message_begun_and_not_finished() {
    let timeout = Duration::from_millis(60);
    let ledger = Ledger::open();
    // Silence.
    let limits = LIMITS.assembly_timeout(timeout);
    begun_and_silent::<Libcamera>(limits, &libcamera_header(9, 0), 9, 0);
    begun_and_silent::<Stream>(limits, &stream_header(9, 0)[..5], 12, 5);
    begun_and_silent::<Stream>(limits, &[&stream_header(9, 0)[..], b"abc"].concat(), 9, 3);
    begun_and_silent::<Stream>(limits, &[&stream_header(3, 1)[..], b"abc"].concat(), 1, 0);
    begun_and_silent::<VhostUser>(limits, &[1], 12, 1);
    // The rest is there to be read although the deadline passed: a late reader blames nobody.
    let timeout = Duration::from_secs(1);
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS.assembly_timeout(timeout)).unwrap();
    raw_send(&peer, &libcamera_header(9, 1), &[]);
    assert!(channel.try_receive().unwrap().is_none());
    assert!(channel.timeout().is_some(), "a deadline runs");
    raw_send(&peer, b"the whole", &files(1));
    std::thread::sleep(timeout + Duration::from_millis(50));
    assert_eq!(channel.timeout(), Some(Duration::ZERO), "overdue");
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"the whole");
    assert_eq!(channel.timeout(), None, "between messages no deadline runs");
    drop((channel, peer));
    // The peer closes.
    let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
    raw_send(&peer, &stream_header(9, 0), &[]);
    drop(peer);
    let expected = Violation::PayloadMissing { expected: 9, received: 0 };
    for _ in 0..3 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    }
    drop(channel);
    ledger.close();
}

/// A message that begins with `bytes` and goes on no further.
#[track_caller]
fn begun_and_silent<P: Profile>(limits: Limits, bytes: &[u8], expected: u64, received: u64) {
    let (mut channel, peer) = Channel::<P>::pair(limits).unwrap();
    raw_send(&peer, bytes, &[]);
    let begun = Instant::now();
    let expected = Violation::PayloadMissing { expected, received };
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    assert!(begun.elapsed() >= limits.assembly_timeout, "blamed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(20), "blamed after {:?}", begun.elapsed());
    assert_final(&mut channel, &peer, expected);
}

#[test] // P1, P3; cases 20, 38
fn co_10_a_clean_end() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    raw_send(&peer, &frame(b"last", 1), &files(1));
    drop(peer);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"last");
    for _ in 0..3 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
        assert_eq!(channel.try_receive().unwrap_err(), Error::Closed);
    }
    assert_eq!(channel.stats().violation, None);
    drop(channel);
    let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
    raw_send(&peer, &[&stream_header(4, 0)[..], b"last"].concat(), &[]);
    drop(peer);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"last");
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
    drop(channel);
    // On a datagram socket only this side can say so.
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    raw_send(&peer, &libcamera_header(4, 1), &[]);
    raw_send(&peer, b"last", &files(1));
    channel.shutdown();
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"last");
    for _ in 0..3 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
        assert_eq!(channel.try_receive().unwrap_err(), Error::Closed);
    }
    assert_eq!(channel.stats().violation, None);
    drop((channel, peer));
    ledger.close();
}

#[test] // P2, P3
fn co_11_a_violation_is_final_and_comes_last() {
    // Whole, whole, broken: what `assert_final` says, after both.
    let header = libcamera_header(3, 1);
    let sends = [(&header[..], 0), (&b"one"[..], 1), (&header, 0), (b"two", 1), (&header, 0), (b"bad", 0)];
    let expected = Violation::DescriptorCount { declared: 1, received: 0 };
    assert_refused::<Libcamera>(LIMITS, &sends, 2, expected);
    let packet = frame(b"one", 1);
    assert_refused::<Packet>(LIMITS, &[(&packet, 1), (&packet, 1), (&packet, 0)], 2, expected);
    // In one read as well as in several.
    let packet = [&packet[..], &packet, &packet].concat();
    assert_refused::<Packet>(LIMITS, &[(&packet, 2)], 2, expected);
    let whole = [&stream_header(3, 0)[..], b"one"].concat();
    let stream = [&whole[..], &whole, &stream_header(101, 0)].concat();
    let expected = Violation::PayloadTooLarge { declared: 101, limit: 100 };
    assert_refused::<Stream>(LIMITS, &[(&stream, 0)], 2, expected);
    // A message that was handed over stays the user's.
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    raw_send(&peer, &frame(b"mine", 1), &files(1));
    raw_send(&peer, b"broken", &files(2));
    let message: Message = channel.receive_by(soon()).unwrap();
    assert_eq!(channel.receive_by(soon()).unwrap_err().violation().unwrap().rule(), "header-length");
    assert_eq!(ledger.more(), 3, "the channel, its peer, and the message's descriptor");
    assert_eq!(message.payload(), b"mine");
    drop((channel, peer, message));
    ledger.close();
}
