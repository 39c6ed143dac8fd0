//! What a hostile or unlucky peer does to sizes (the cases of the house's list are named by
//! their numbers). Single rules stand in `libcamera.rs`, `packet.rs` and `common_rules.rs`.

mod support;

use fdpost::profile::Profile;
use fdpost::{Channel, Libcamera, Limits, Message, Packet, Violation};
use support::{
    Ledger, assert_refused, files, libcamera_header, packet_header, raw_send, soon, unguarded_pair,
};

/// Bytes of a page.
const PAGE: usize = 4096;

fn both<P: Profile>(limits: Limits) -> [Channel<P>; 2] {
    let (ours, theirs) = unguarded_pair::<P>(limits);
    [ours, Channel::from_fd(theirs, limits).unwrap()]
}

/// A payload and the raw sends that carry it.
fn raw_payload<P: Profile>(peer: &std::os::fd::OwnedFd, payload: &[u8], fds: u8) {
    let descriptors = files(fds.into());
    match P::NAME {
        "libcamera" => {
            raw_send(peer, &libcamera_header(payload.len() as u32, fds), &[]);
            raw_send(peer, payload, &descriptors);
        }
        _ => {
            let header = packet_header(payload.len() as u32, fds);
            raw_send(peer, &[&header[..], payload].concat(), &descriptors);
        }
    }
}

#[test] // P1; case 7
fn every_payload_size_up_to_four_pages() {
    fn sizes<P: Profile>() {
        let [mut one, mut two] = both::<P>(Limits::new());
        let pattern: Vec<u8> = (0..4 * PAGE).map(|index| (index % 253) as u8).collect();
        let (mut there, mut back) = (Message::default(), Message::default());
        // The libcamera wire has no message of neither bytes nor descriptors.
        for size in usize::from(P::NAME == "libcamera")..=pattern.len() {
            one.send(Message::new(&pattern[..size])).unwrap();
            two.receive_into(&mut there, soon()).unwrap();
            assert!(there.payload() == &pattern[..size], "{size} bytes there");
            two.send(Message::new(&pattern[pattern.len() - size..])).unwrap();
            one.receive_into(&mut back, soon()).unwrap();
            assert!(back.payload() == &pattern[pattern.len() - size..], "{size} bytes back");
        }
    }
    let ledger = Ledger::open();
    sizes::<Libcamera>();
    sizes::<Packet>();
    ledger.close();
}

#[test] // P1, P4; cases 3, 4
fn each_limit_at_one_less_and_exactly() {
    fn limits<P: Profile>() {
        for payload in [1, 2, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 65_536, 150_000] {
            for descriptors in [0_u8, 1, 2, 16, 17, 253] {
                let limits = Limits::new().payload(payload as u32).descriptors(descriptors);
                let (mut channel, peer) = unguarded_pair::<P>(limits);
                for (bytes, fds) in [(payload, descriptors), (payload - 1, descriptors.saturating_sub(1))] {
                    if P::NAME == "libcamera" && bytes == 0 && fds == 0 {
                        continue;
                    }
                    raw_payload::<P>(&peer, &vec![b'x'; bytes], fds);
                    let message = channel.receive_by(soon()).unwrap();
                    assert_eq!(
                        (message.payload().len(), message.descriptor_count()),
                        (bytes, usize::from(fds))
                    );
                }
            }
        }
    }
    let ledger = Ledger::open();
    limits::<Libcamera>();
    limits::<Packet>();
    ledger.close();
}

#[test] // P4; case 4
fn limits_of_nothing() {
    // Not a byte of payload, not a descriptor: what is left is a kind alone.
    let limits = Limits::new().payload(0);
    let expected = Violation::PayloadTooLarge { declared: 1, limit: 0 };
    assert_refused::<Libcamera>(limits, &[(&libcamera_header(1, 0), 0)], 0, expected);
    assert_refused::<Packet>(limits, &[(&[&packet_header(1, 0)[..], b"x"].concat(), 0)], 0, expected);
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Packet>::pair(limits).unwrap();
    raw_send(&peer, &packet_header(0, 0), &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"");
    drop((channel, peer));
    // Descriptors alone, where they are accepted.
    let (mut channel, peer) = Channel::<Libcamera>::pair(limits.descriptors(1)).unwrap();
    raw_payload::<Libcamera>(&peer, b"", 1);
    assert_eq!(channel.receive_by(soon()).unwrap().descriptor_count(), 1);
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P3; case 2
fn a_declared_size_against_every_size_that_follows() {
    let limits = Limits::new().payload(64);
    for follows in [0_u32, 1, 7, 8, 63, 64] {
        let payload = vec![b'x'; follows as usize];
        for declared in 0..=follows + 1 {
            if declared == follows || declared > 64 || declared == 0 {
                continue;
            }
            let expected = Violation::PayloadLength { declared: declared.into(), received: follows.into() };
            let header = libcamera_header(declared, 0);
            assert_refused::<Libcamera>(limits, &[(&header, 0), (&payload, 0)], 0, expected);
            // In a packet the bytes too many begin another frame, which is cut or means nothing.
            let packet = [&packet_header(declared, 0)[..], &payload].concat();
            let (whole, expected) = match follows.checked_sub(declared) {
                None => {
                    let (declared, remaining) = (declared.into(), follows.into());
                    (0, Violation::FrameOverrun { declared, remaining })
                }
                Some(left @ 0..16) => (1, Violation::HeaderLength { expected: 16, received: left.into() }),
                Some(_) => (1, Violation::HeaderVersion { supported: 1, received: u32::from(b'x') }),
            };
            assert_refused::<Packet>(limits, &[(&packet, 0)], whole, expected);
        }
    }
}

#[test] // P3, P4; case 3
fn declared_sizes_near_the_end_of_32_bits_hold_no_memory() {
    let sizes =
        [0x7fff_ffff, 0x8000_0000, u32::MAX - 4096, u32::MAX - 15, u32::MAX - 8, u32::MAX - 1, u32::MAX];
    let ledger = Ledger::open();
    for declared in sizes {
        let expected = Some(Violation::PayloadTooLarge { declared: declared.into(), limit: 65_536 });
        let (mut channel, peer) = Channel::<Libcamera>::pair(Limits::new()).unwrap();
        raw_send(&peer, &libcamera_header(declared, 0), &[]);
        assert_eq!(channel.receive_by(soon()).unwrap_err().violation(), expected);
        assert!(channel.stats().held_most.bytes < 1024, "{:?}", channel.stats());
        let (mut channel, peer) = Channel::<Packet>::pair(Limits::new()).unwrap();
        raw_send(&peer, &[&packet_header(declared, 0)[..], &[0; 100]].concat(), &[]);
        assert_eq!(channel.receive_by(soon()).unwrap_err().violation(), expected);
        // One window of the largest packet allowed, and what goes with it.
        assert!(channel.stats().held_most.bytes < 65_536 + 1024, "{:?}", channel.stats());
    }
    ledger.close();
}

#[test] // P1, P3; case 10
fn two_packets_worth_of_frames_with_the_last_one_byte_over() {
    let frame = |bytes: usize| {
        let mut frame = packet_header(bytes as u32, 0).to_vec();
        frame.resize(16 + bytes, b'x');
        frame
    };
    // Each packet on its own is fine.
    let ledger = Ledger::open();
    let (mut channel, peer) = unguarded_pair::<Packet>(Limits::new());
    let packet = frame(1000).repeat(64);
    for _ in 0..2 {
        raw_send(&peer, &packet, &[]);
    }
    for _ in 0..128 {
        assert_eq!(channel.receive_by(soon()).unwrap().payload().len(), 1000);
    }
    drop((channel, peer));
    ledger.close();
    let cut = &packet[..packet.len() - 1];
    let expected = Violation::FrameOverrun { declared: 1000, remaining: 999 };
    assert_refused::<Packet>(Limits::new(), &[(&packet, 0), (cut, 0)], 127, expected);
}
