//! The handshake of the `stream` wire (`docs/PROTOCOL.md`, ST-12 to ST-14).

mod support;

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use fdpost::{Channel, Error, Limits, Message, Stream, Violation};
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use support::{Ledger, assert_final, files, raw_send, soon, unguarded_pair};

const LIMITS: Limits = Limits::new().descriptors(1);

/// The creating side expects 0xf1, the other 0x1f.
type Side = (u8, fn(&mut Channel<Stream>) -> Result<(), Error>);
const SIDES: [Side; 2] = [(0xf1, Channel::greet), (0x1f, Channel::welcome)];

/// A header, and what follows it.
fn said(payload: &[u8], fds: u8) -> Vec<u8> {
    [&[0; 4][..], &(payload.len() as u32).to_ne_bytes(), &[fds, 0, 0, 0], payload].concat()
}

fn put(peer: &OwnedFd, bytes: &[u8], descriptors: usize) {
    assert_eq!(raw_send(peer, bytes, &files(descriptors)), bytes.len());
}

/// `handshake` of `bytes`, for ever, on either side of a pair whose peer does `peer`.
#[track_caller]
fn assert_refused(limits: Limits, bytes: u64, peer: impl Fn(u8, &OwnedFd)) {
    for (expected, side) in SIDES {
        let ledger = Ledger::open();
        let (mut channel, theirs) = unguarded_pair::<Stream>(limits);
        peer(expected, &theirs);
        let violation = Violation::Handshake { expected, bytes };
        assert_eq!(side(&mut channel), Err(Error::Violation(violation)), "{expected:#x}");
        assert_eq!(side(&mut channel), Err(Error::Violation(violation)), "{expected:#x}, again");
        assert_final(&mut channel, &theirs, violation);
        drop((channel, theirs));
        ledger.close();
    }
}

#[test] // P3
fn st_12_another_first_message() {
    for byte in [0, 0x1e, 0xf0, 0xf2, 0x77, 255] {
        assert_refused(LIMITS, 1, |_, peer| put(peer, &said(&[byte], 0), 0));
    }
    // The other side's byte: two creators, or two others.
    assert_refused(LIMITS, 1, |expected, peer| {
        put(peer, &said(&[expected.rotate_left(4)], 0), 0);
    });
    // No byte, the right one twice, the right one and more.
    assert_refused(LIMITS, 0, |_, peer| put(peer, &said(&[], 0), 0));
    assert_refused(LIMITS, 2, |expected, peer| put(peer, &said(&[expected; 2], 0), 0));
    assert_refused(LIMITS, 9, |expected, peer| {
        put(peer, &said(&[expected, 0, 0, 0, 0, 0, 0, 0, 0], 0), 0);
    });
    // The right one with a descriptor: where one is allowed, and where it is not.
    assert_refused(LIMITS, 1, |expected, peer| {
        put(peer, &said(&[expected], 1), 0);
        put(peer, &[0x77], 1);
    });
    assert_refused(Limits::new(), 0, |expected, peer| {
        put(peer, &said(&[expected], 1), 0);
        put(peer, &[0x77], 1);
    });
    // What no conversation would accept is no handshake either.
    assert_refused(LIMITS, 0, |expected, peer| put(peer, &said(&[expected], 0), 1));
    assert_refused(LIMITS, 0, |_, peer| {
        put(peer, &[[0; 4], u32::MAX.to_ne_bytes(), [0; 4]].concat(), 0);
    });
}

#[test] // P3, P5; cases 11, 14
fn st_13_no_handshake_in_time() {
    for sent in [0, 5, 12] {
        for (expected, side) in SIDES {
            let ledger = Ledger::open();
            let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
            if sent > 0 {
                raw_send(&peer, &said(&[expected], 0)[..sent], &[]);
            }
            let begun = Instant::now();
            let violation = Violation::Handshake { expected, bytes: 0 };
            assert_eq!(side(&mut channel), Err(Error::Violation(violation)), "{sent} bytes");
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(500), "blamed after {took:?}");
            assert!(took < Duration::from_secs(8), "blamed after {took:?}");
            assert_final(&mut channel, &peer, violation);
            drop((channel, peer));
            ledger.close();
        }
    }
    // A message that is overdue before that, or cut off by the end, is none either.
    let impatient = LIMITS.assembly_timeout(Duration::from_millis(10));
    assert_refused(impatient, 0, |expected, peer| put(peer, &said(&[expected], 0)[..5], 0));
    let ledger = Ledger::open();
    for sent in [0, 5] {
        let quick = |_| {
            let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
            if sent > 0 {
                raw_send(&peer, &said(&[0x1f], 0)[..sent], &[]);
            }
            drop(peer);
            let begun = Instant::now();
            let violation = Violation::Handshake { expected: 0x1f, bytes: 0 };
            assert_eq!(channel.welcome(), Err(Error::Violation(violation)));
            assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(violation));
            begun.elapsed() < Duration::from_millis(500)
        };
        // A busy machine may explain some of them, and not all.
        assert!((0..20).any(quick), "a closed end needs no waiting");
    }
    ledger.close();
}

#[test] // P1
fn st_14_messages_behind_the_handshake() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Stream>::pair(LIMITS).unwrap();
    let other = thread::spawn(move || {
        let mut theirs = Channel::<Stream>::from_fd(theirs, LIMITS).unwrap();
        theirs.welcome().unwrap();
        theirs.send(Message::new(b"from the other")).unwrap();
        let message = theirs.receive_by(soon()).unwrap();
        (theirs, message.into_payload())
    });
    ours.greet().unwrap();
    ours.send(Message::new(b"from the creator")).unwrap();
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"from the other");
    let (theirs, heard) = other.join().unwrap();
    assert_eq!(heard, b"from the creator");
    drop((ours, theirs));

    // Byte for byte; what stands behind the peer's first message in the same read is kept, and
    // its kind is its own business.
    for (expected, side) in SIDES {
        let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
        let mut first = said(&[expected], 0);
        first[0] = 9;
        raw_send(&peer, &[first, said(b"next", 0)].concat(), &[]);
        side(&mut channel).unwrap();
        assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"next");
        let mut bytes = [0; 32];
        let length = recv(peer.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!(bytes[..length], said(&[expected.rotate_left(4)], 0));
    }
    ledger.close();
}

#[test] // P1, P5
fn a_handshake_may_be_cut_anywhere() {
    for (expected, side) in SIDES {
        let said = [said(&[expected], 0), said(b"next", 0)].concat();
        let handshake = 13;
        for cut in 1..said.len() {
            let ledger = Ledger::open();
            let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    raw_send(&peer, &said[..cut], &[]);
                    thread::sleep(Duration::from_millis(2));
                    raw_send(&peer, &said[cut..], &[]);
                });
                side(&mut channel).unwrap();
                assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"next", "cut at {cut}");
            });
            drop((channel, peer));
            // The peer says no more instead.
            let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
            raw_send(&peer, &said[..cut], &[]);
            shutdown(peer.as_raw_fd(), Shutdown::Write).unwrap();
            let answer = side(&mut channel);
            if cut < handshake {
                let violation = Violation::Handshake { expected, bytes: 0 };
                assert_eq!(answer, Err(Error::Violation(violation)), "ended at {cut}");
            } else {
                assert_eq!(answer, Ok(()), "ended at {cut}");
                let met = channel.receive_by(soon()).unwrap_err();
                assert_eq!(met == Error::Closed, cut == handshake, "ended at {cut}: {met}");
            }
            drop((channel, peer));
            ledger.close();
        }
    }
}

#[test] // P5: a shutdown of our own is nobody's violation.
fn our_own_shutdown_is_no_handshake() {
    for (_, side) in SIDES {
        let ledger = Ledger::open();
        let (mut channel, theirs) = unguarded_pair::<Stream>(LIMITS);
        channel.shutdown();
        assert_eq!((side(&mut channel), side(&mut channel)), (Err(Error::Closed), Err(Error::Closed)));
        assert_eq!(channel.stats().violation, None);
        drop((channel, theirs));
        ledger.close();
    }
}
