//! What a hostile or unlucky peer does to the order of things (the cases of the house's list are
//! named by their numbers).

mod support;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use fdpost::profile::Profile;
use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Sent, Violation};
use support::{
    Ledger, assert_refused, files, identity, libcamera_header as header, packet_header, raw_send, soon,
};

const LIMITS: Limits = Limits::new().payload(100).descriptors(4);

fn both<P: Profile>(limits: Limits) -> [Channel<P>; 2] {
    let (ours, theirs) = Channel::<P>::pair(limits).unwrap();
    [ours, Channel::from_fd(theirs, limits).unwrap()]
}

#[test] // P1, P3; case 12
fn a_header_and_another_header() {
    // The second one is taken for the payload, and judged as one.
    let expected = Violation::PayloadLength { declared: 9, received: 8 };
    assert_refused::<Libcamera>(LIMITS, &[(&header(9, 0), 0), (&header(9, 0), 0)], 0, expected);
    let expected = Violation::DescriptorCount { declared: 1, received: 0 };
    assert_refused::<Libcamera>(LIMITS, &[(&header(8, 1), 0), (&header(8, 1), 0)], 0, expected);
    // One of eight bytes cannot be told from a payload: it is one, whole.
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    raw_send(&peer, &header(8, 0), &[]);
    raw_send(&peer, &header(3, 0), &[]);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), header(3, 0));
    drop((channel, peer));
    ledger.close();
}

#[test] // P3; case 13
fn a_payload_without_a_header() {
    for payload in [&b"x"[..], b"payload", b"a payload", &[0; 100]] {
        let expected = Violation::HeaderLength { expected: 8, received: payload.len() as u64 };
        assert_refused::<Libcamera>(LIMITS, &[(payload, 0)], 0, expected);
    }
    // With descriptors those are named first.
    let expected = Violation::DescriptorUnexpected { received: 2 };
    assert_refused::<Libcamera>(LIMITS, &[(b"payload", 2)], 0, expected);
    // Eight bytes of it are read as a header, and believed no more than any.
    let declared = u32::from_ne_bytes(*b"eigh").into();
    let expected = Violation::PayloadTooLarge { declared, limit: 100 };
    assert_refused::<Libcamera>(LIMITS, &[(b"eightby\0", 0)], 0, expected);
    let expected = Violation::HeaderVersion { supported: 1, received: u32::from(b'p') };
    assert_refused::<Packet>(LIMITS, &[(b"payload without a header", 0)], 0, expected);
}

#[test] // P2; case 18
fn a_channel_dropped_inside_its_receive_loop() {
    fn dropped<P: Profile>() {
        let [mut ours, theirs] = both::<P>(LIMITS);
        for _ in 0..5 {
            ours.send(files(2).into_iter().fold(Message::new(b"queued"), Message::with)).unwrap();
        }
        let mut theirs = Some(theirs);
        let mut kept = Vec::new();
        while let Some(message) = theirs.as_mut().and_then(|channel| channel.try_receive().unwrap()) {
            kept.push(message);
            if kept.len() == 2 {
                theirs = None;
            }
        }
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().all(|message| message.payload() == b"queued"));
        let refused = ours.send(Message::new(b"late").with(files(1).remove(0))).unwrap_err();
        assert!(matches!(refused.error, Error::PeerGone { .. }), "{refused}");
        assert_eq!(refused.messages.len(), 1);
    }
    let ledger = Ledger::open();
    dropped::<Libcamera>();
    dropped::<Packet>();
    ledger.close();
}

/// Shut down from another thread while a receive waits: what is queued comes first, then the end.
fn shut_down_while_reading<P: Profile<Declared: Send> + Send + 'static>() {
    let [mut ours, mut theirs] = both::<P>(LIMITS);
    for _ in 0..3 {
        ours.send(Message::new(b"queued").with(files(1).remove(0))).unwrap();
    }
    let closer = theirs.closer();
    closer.shutdown();
    for _ in 0..3 {
        assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), 1);
    }
    for _ in 0..3 {
        assert_eq!(theirs.receive_by(soon()).unwrap_err(), Error::Closed);
        assert_eq!(theirs.try_receive().unwrap_err(), Error::Closed);
    }
    drop((ours, theirs));
    // And one that already waits wakes up.
    let [ours, mut theirs] = both::<P>(LIMITS);
    let closer = theirs.closer();
    let begun = Instant::now();
    let reader = thread::spawn(move || theirs.receive_by(soon()).unwrap_err());
    thread::sleep(Duration::from_millis(50));
    closer.shutdown();
    assert_eq!(reader.join().unwrap(), Error::Closed);
    assert!(begun.elapsed() < Duration::from_secs(8), "woke after {:?}", begun.elapsed());
    closer.shutdown(); // the channel is gone: nothing happens
    drop(ours);
}

#[test] // P3; case 20
fn libcamera_shut_down_while_reading() {
    let ledger = Ledger::open();
    shut_down_while_reading::<Libcamera>();
    ledger.close();
}

#[test] // P3; case 20
fn packet_shut_down_while_reading() {
    let ledger = Ledger::open();
    shut_down_while_reading::<Packet>();
    ledger.close();
}

#[test] // P3; cases 14, 20
fn shut_down_between_header_and_payload() {
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    raw_send(&peer, &header(3, 0), &[]);
    assert!(channel.try_receive().unwrap().is_none());
    channel.shutdown();
    // It was this side that ended it: nobody is to blame.
    for _ in 0..2 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
    }
    assert_eq!(channel.stats().violation, None);
    drop((channel, peer));
    // A peer that was blamed before stays so, whatever is shut down afterwards.
    let limits = LIMITS.assembly_timeout(Duration::ZERO);
    let (mut channel, peer) = Channel::<Libcamera>::pair(limits).unwrap();
    raw_send(&peer, &header(3, 0), &[]);
    let expected = Error::Violation(Violation::PayloadMissing { expected: 3, received: 0 });
    assert_eq!(channel.receive_by(soon()).unwrap_err(), expected);
    channel.shutdown();
    assert_eq!(channel.receive_by(soon()).unwrap_err(), expected);
    drop((channel, peer));
    ledger.close();
}

#[test] // P1, P2, P6; case 21
fn a_flood_keeps_its_order() {
    const MESSAGES: u32 = 25_000;
    fn flood<P: Profile<Declared: Send> + Send + 'static>() {
        let [mut ours, mut theirs] = both::<P>(LIMITS);
        let sender = thread::spawn(move || {
            for number in 0..MESSAGES {
                let mut message = Message::new(number.to_ne_bytes());
                if number % 100 == 0 {
                    message = message.with(files(1).remove(0));
                }
                ours.send(message).unwrap();
            }
            ours
        });
        for number in 0..MESSAGES {
            let message = theirs.receive_by(soon()).unwrap();
            assert_eq!(message.payload(), number.to_ne_bytes());
            assert_eq!(message.descriptor_count(), usize::from(number % 100 == 0));
        }
        let ours = sender.join().unwrap();
        assert_eq!(ours.stats().sent.messages, MESSAGES.into());
        assert_eq!(theirs.stats().received.messages, MESSAGES.into());
        assert_eq!(theirs.stats().received.descriptors, u64::from(MESSAGES / 100));
    }
    let ledger = Ledger::open();
    flood::<Libcamera>();
    flood::<Packet>();
    ledger.close();
}

#[test] // P2; case 37
fn a_receiver_that_never_reads_holds_nothing_after_its_end() {
    fn unread<P: Profile>() {
        let [mut ours, theirs] = both::<P>(LIMITS);
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut sent = 0;
        loop {
            let message = Message::new([b'x'; 100]).with(write.try_clone().unwrap());
            match ours.try_send(message) {
                Ok(Sent::Complete) => sent += 1,
                Ok(_) => break,
                Err(refused) => {
                    assert_eq!((refused.error, refused.messages.len()), (Error::WouldBlock, 1));
                    break;
                }
            }
        }
        assert!(sent > 10, "{sent} fitted");
        // In flight they are nobody's; they close with the socket that never read them.
        drop((ours, theirs, write));
        assert_eq!(File::from(read).read(&mut [0; 1]).unwrap(), 0, "no writer is left");
    }
    let ledger = Ledger::open();
    unread::<Libcamera>();
    unread::<Packet>();
    ledger.close();
}

/// Everything that a peer queued before it went away is delivered.
fn queued_then_gone<P: Profile>(last: impl Fn(&mut Channel<P>)) {
    let [mut ours, mut theirs] = both::<P>(LIMITS);
    let sent: Vec<OwnedFd> = files(3);
    let names: Vec<_> = sent.iter().map(identity).collect();
    for descriptor in sent {
        // Handing over closes our own at once.
        ours.send(Message::new(b"queued").with(descriptor)).unwrap();
    }
    drop(ours);
    for name in names {
        let mut message = theirs.receive_by(soon()).unwrap();
        assert_eq!(message.payload(), b"queued");
        assert_eq!(identity(&message.take(0).unwrap()), name);
    }
    last(&mut theirs);
}

#[test] // P1, P2; cases 36, 38
fn queued_then_disconnected() {
    let ledger = Ledger::open();
    queued_then_gone::<Packet>(|channel| {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
    });
    // A datagram socket's peer dies in silence.
    queued_then_gone::<Libcamera>(|channel| {
        assert!(channel.try_receive().unwrap().is_none());
    });
    // The peer closes with our message unread: ECONNRESET, and what it sent is still there.
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    channel.send(Message::new(b"never read").with(files(1).remove(0))).unwrap();
    raw_send(&peer, &[&packet_header(4, 1)[..], b"last"].concat(), &files(1));
    drop(peer);
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"last");
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Closed);
    drop(channel);
    ledger.close();
}
