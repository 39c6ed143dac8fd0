//! The classic two bytes over every type of connected socket, rule by rule (`docs/PROTOCOL.md`).
//! Datagram sockets without one peer stand in `send_fd_from.rs`, a process at its limits in
//! `send_fd_process.rs`.

mod support;

use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use fdpost::driver::{FdReply, receive_fd, receive_fd_within, send_error, send_fd};
use fdpost::{Deadline, Error, Limits, Misuse, Violation};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
use support::{Ledger, files, identity, is_shut_down, queued, raw_send, soon, try_raw_send};

const TYPES: [SockType; 3] = [SockType::Stream, SockType::SeqPacket, SockType::Datagram];
const PACKETS: [SockType; 2] = [SockType::SeqPacket, SockType::Datagram];

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

fn after(millis: u64) -> Deadline {
    Deadline::after(Duration::from_millis(millis))
}

#[track_caller]
fn descriptor(reply: FdReply) -> OwnedFd {
    match reply {
        FdReply::Descriptor(descriptor) => descriptor,
        FdReply::Error { status, text } => panic!("status {status}: {}", text.escape_ascii()),
    }
}

#[track_caller]
fn error(reply: FdReply) -> (u8, Vec<u8>) {
    match reply {
        FdReply::Error { status, text } => (status, text),
        FdReply::Descriptor(descriptor) => panic!("{descriptor:?}"),
    }
}

/// Raw sends of (bytes, number of descriptors) are refused with `expected`, and the socket is shut
/// down both ways. Ends with the ledger.
#[track_caller]
fn assert_refused(kind: SockType, limits: Limits, sends: &[(&[u8], usize)], expected: Violation) {
    let ledger = Ledger::open();
    let (ours, theirs) = pair(kind);
    for (bytes, count) in sends {
        raw_send(&theirs, bytes, &files(*count));
    }
    let refused = receive_fd_within(&ours, &limits, soon()).unwrap_err();
    assert_eq!(refused, Error::Violation(expected), "{kind:?}");
    assert!(is_shut_down(&ours), "{kind:?}");
    assert!(try_raw_send(&theirs, b"late", &[]).is_err(), "{kind:?}");
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1, P2; cases 22, 23, 28
fn sf_1_status_0_has_one_descriptor() {
    for kind in TYPES {
        let ledger = Ledger::open();
        let (ours, theirs) = pair(kind);
        let sent = files(1).remove(0);
        for _ in 0..3 {
            send_fd(&theirs, &sent).unwrap();
            let came = descriptor(receive_fd(&ours, soon()).unwrap());
            assert_eq!(identity(&came), identity(&sent), "{kind:?}");
            assert_ne!(came.as_raw_fd(), sent.as_raw_fd());
            assert!(came.as_raw_fd() >= 3);
        }
        // The bytes of the classic: two zeros and nothing else.
        send_fd(&theirs, &sent).unwrap();
        let mut bytes = [0xaa; 8];
        assert_eq!(recv(ours.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT), Ok(2));
        assert_eq!(bytes[..3], [0, 0, 0xaa]);
        drop((ours, theirs, sent));
        ledger.close();

        let count = |received| Violation::DescriptorCount { declared: 1, received };
        assert_refused(kind, Limits::new(), &[(&[0, 0], 0)], count(0));
        assert_refused(kind, Limits::new(), &[(b"text\0\0", 0)], count(0));
        // Room is for one more than belongs: beyond that read "at least".
        for more in [2, 3, 253] {
            assert_refused(kind, Limits::new(), &[(&[0, 0], more)], count(2));
        }
    }
    // On a stream each byte may bring one.
    let count = Violation::DescriptorCount { declared: 1, received: 2 };
    assert_refused(SockType::Stream, Limits::new(), &[(&[0], 1), (&[0], 1)], count);
}

#[test] // P1, P2
fn sf_2_an_error_has_none() {
    for kind in TYPES {
        let ledger = Ledger::open();
        let (ours, theirs) = pair(kind);
        for status in 1..=255 {
            let text = format!("no room for {status}");
            send_error(&theirs, status, &text).unwrap();
            assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (status, text.into_bytes()));
        }
        // The text need be neither there nor UTF-8.
        for text in [&b""[..], &[0xff, 0xfe], &[1; 500]] {
            send_error(&theirs, 7, text).unwrap();
            assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (7, text.to_vec()), "{kind:?}");
        }
        drop((ours, theirs));
        ledger.close();
        for count in [1, 2, 253] {
            let received = count.min(2) as u32;
            let expected = Violation::DescriptorUnexpected { received };
            assert_refused(kind, Limits::new(), &[(b"text\0\x05", count)], expected);
            assert_refused(kind, Limits::new(), &[(b"\0\xff", count)], expected);
        }
    }
    let expected = Violation::DescriptorUnexpected { received: 1 };
    assert_refused(SockType::Stream, Limits::new(), &[(b"text\0", 0), (b"\x05", 1)], expected);
}

#[test] // P1, P4; case 4
fn sf_3_a_text_beyond_the_limit() {
    for kind in TYPES {
        for limit in [0_u32, 1, 2, 100, 4096] {
            let ledger = Ledger::open();
            let limits = Limits::new().payload(limit);
            let (ours, theirs) = pair(kind);
            let text = vec![b'x'; limit as usize];
            send_error(&theirs, 9, &text).unwrap();
            assert_eq!(error(receive_fd_within(&ours, &limits, soon()).unwrap()), (9, text.clone()));
            drop((ours, theirs));
            ledger.close();
            let beyond = [&text[..], b"x\0\x09"].concat();
            let refused = Violation::PayloadTooLarge { declared: u64::from(limit) + 1, limit: limit.into() };
            assert_refused(kind, limits, &[(&beyond, 0)], refused);
        }
    }
    // Without being told, 64 KiB; and a text without an end is not read to its end.
    for kind in TYPES {
        let ledger = Ledger::open();
        let (ours, theirs) = pair(kind);
        raw_send(&theirs, &[b'x'; 80_000], &[]);
        let refused = receive_fd(&ours, soon()).unwrap_err().violation();
        let Some(Violation::PayloadTooLarge { declared: 65_537..65_540, limit: 65_536 }) = refused else {
            panic!("{kind:?}: {refused:?}")
        };
        drop((ours, theirs));
        ledger.close();
    }
}

#[test] // P6
fn sf_4_what_cannot_be_sent() {
    let ledger = Ledger::open();
    for kind in TYPES {
        let (ours, theirs) = pair(kind);
        for (text, index) in [(&b"\0"[..], 0), (b"ab\0cd", 2), (b"abc\0", 3)] {
            assert_eq!(send_error(&theirs, 1, text), Err(Misuse::ZeroInText { index }.into()));
        }
        assert_eq!(send_error(&theirs, 0, "text"), Err(Misuse::StatusZero.into()));
        assert_eq!(receive_fd(&ours, after(0)).unwrap_err(), Error::TimedOut, "nothing left");
        // A packet beyond SO_SNDBUF is refused whole.
        if kind != SockType::Stream {
            let refused = send_error(&theirs, 1, vec![b'x'; 8 << 20]).unwrap_err();
            assert!(matches!(refused, Error::Io { .. } | Error::Pressure { .. }), "{refused:?}");
            assert_eq!(receive_fd(&ours, after(0)).unwrap_err(), Error::TimedOut, "nothing left");
        }
        drop(ours);
        let gone = send_error(&theirs, 1, "late").unwrap_err();
        assert!(matches!(gone, Error::PeerGone { .. }), "{gone:?}");
    }
    ledger.close();
}

#[test] // P1, P3
fn sf_5_a_packet_is_one_message() {
    let cases: [(&[u8], u64); 8] = [
        (b"x", 0),
        (b"text without an end", 0),
        (b"\0", 1),
        (b"text\0", 1),
        (b"\0\0\0", 3),
        (b"text\0\x05more", 1),
        (b"text\0\x05next\0\x05", 2),
        (b"\0\0\0\0", 4),
    ];
    for kind in PACKETS {
        for (packet, zeros) in cases {
            let expected = Violation::Status { bytes: packet.len() as u64, zeros };
            for count in [0, 1, 2] {
                assert_refused(kind, Limits::new(), &[(packet, count)], expected);
            }
        }
    }
    // What follows a text of the largest size is seen too, and not cut off in silence.
    for packet in [&b"text\0\x05m"[..], b"text\0\x05more"] {
        let expected = Violation::Status { bytes: 7, zeros: 1 };
        for kind in PACKETS {
            assert_refused(kind, Limits::new().payload(4), &[(packet, 0)], expected);
        }
    }
    // A datagram may be empty, which is no end: its sender said nothing.
    let expected = Violation::Status { bytes: 0, zeros: 0 };
    assert_refused(SockType::Datagram, Limits::new(), &[(b"", 0)], expected);
    assert_refused(SockType::Datagram, Limits::new(), &[(b"", 1)], expected);
}

#[test] // P1, P2; cases 8, 55
fn sf_6_two_messages_in_one_segment() {
    let ledger = Ledger::open();
    let (ours, theirs) = pair(SockType::Stream);
    raw_send(&theirs, b"one\0\x01two\0\x02\0\x03", &[]);
    assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (1, b"one".to_vec()));
    assert_eq!(queued(&ours), 7, "what follows is left where another call finds it");
    assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (2, b"two".to_vec()));
    assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (3, vec![]));
    // Descriptors of the next message are the next message's, whatever is joined.
    let sent = files(2);
    raw_send(&theirs, b"odd\0\x01", &[]);
    raw_send(&theirs, b"\0\0", &sent[..1]);
    raw_send(&theirs, b"\0\0", &sent[1..]);
    raw_send(&theirs, b"even\0\x02", &[]);
    assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (1, b"odd".to_vec()));
    for file in &sent {
        assert_eq!(identity(&descriptor(receive_fd(&ours, soon()).unwrap())), identity(file));
    }
    assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (2, b"even".to_vec()));
    assert_eq!(receive_fd(&ours, after(0)).unwrap_err(), Error::TimedOut);
    drop((ours, theirs, sent));
    ledger.close();
}

#[test] // P1; case 8
fn a_message_split_at_every_byte() {
    let ledger = Ledger::open();
    for message in
        [&b"some words\0\x2a"[..], b"even words!\0\x2a", b"\0\x2a", b"\0\0", b"odd\0\0", b"even\0\0"]
    {
        let has_one = message.ends_with(&[0]);
        for cut in 1..message.len() {
            let (ours, theirs) = pair(SockType::Stream);
            let (head, tail) = message.split_at(cut);
            // On the first piece or on the last: any byte of the message will do.
            for on in [0, 1] {
                let sent = files(usize::from(has_one));
                let names: Vec<_> = sent.iter().map(identity).collect();
                raw_send(&theirs, head, if on == 0 { &sent } else { &[] });
                let waits = thread::spawn({
                    let ours = ours.try_clone().unwrap();
                    move || receive_fd(&ours, soon()).unwrap()
                });
                thread::yield_now();
                raw_send(&theirs, tail, if on == 1 { &sent } else { &[] });
                match waits.join().unwrap() {
                    FdReply::Descriptor(came) => assert_eq!([identity(&came)], names[..]),
                    reply => {
                        let text = message[..message.len() - 2].to_vec();
                        assert_eq!((error(reply), has_one), ((0x2a, text), false));
                    }
                }
            }
        }
    }
    ledger.close();
}

#[test] // P3, P5; cases 11, 14
fn sf_7_begun_and_not_finished() {
    let message = b"text\0";
    for cut in 1..=message.len() {
        let ledger = Ledger::open();
        let needed = if cut == message.len() { 1 } else { 2 };
        let expected = Error::Violation(Violation::PayloadMissing {
            expected: cut as u64 + needed,
            received: cut as u64,
        });
        for count in [0, 1] {
            // At the deadline, ...
            let (ours, theirs) = pair(SockType::Stream);
            raw_send(&theirs, &message[..cut], &files(count));
            let begun = Instant::now();
            assert_eq!(receive_fd(&ours, after(20)).unwrap_err(), expected, "{cut}");
            assert!(begun.elapsed() >= Duration::from_millis(20));
            assert!(begun.elapsed() < Duration::from_secs(20));
            assert!(is_shut_down(&theirs));
            drop((ours, theirs));
            // ... and at the end.
            let (ours, theirs) = pair(SockType::Stream);
            raw_send(&theirs, &message[..cut], &files(count));
            drop(theirs);
            assert_eq!(receive_fd(&ours, soon()).unwrap_err(), expected, "{cut}");
            drop(ours);
        }
        ledger.close();
    }
}

#[test] // P1, P5; cases 37, 59
fn sf_8_nothing_begun() {
    let ledger = Ledger::open();
    for kind in TYPES {
        let (ours, theirs) = pair(kind);
        let begun = Instant::now();
        assert_eq!(receive_fd(&ours, after(20)).unwrap_err(), Error::TimedOut);
        assert!((20..4000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        // Nothing is lost by that, and what is there is taken however late the reader.
        send_error(&theirs, 1, "late").unwrap();
        assert_eq!(error(receive_fd(&ours, after(0)).unwrap()), (1, b"late".to_vec()), "{kind:?}");
        if kind != SockType::Datagram {
            send_error(&theirs, 2, "last").unwrap();
            drop(theirs);
            assert_eq!(error(receive_fd(&ours, soon()).unwrap()), (2, b"last".to_vec()));
            assert_eq!(receive_fd(&ours, soon()).unwrap_err(), Error::Closed, "{kind:?}");
        }
    }
    // A peer that closes without having read what was sent to it is as gone.
    let (ours, theirs) = pair(SockType::Stream);
    send_error(&ours, 1, "unread").unwrap();
    drop(theirs);
    assert_eq!(receive_fd(&ours, soon()).unwrap_err(), Error::Closed);
    drop(ours);
    // A datagram socket shows no hang-up but its own shutdown.
    let (ours, theirs) = pair(SockType::Datagram);
    nix::sys::socket::shutdown(ours.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    assert_eq!(receive_fd(&ours, soon()).unwrap_err(), Error::Closed);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P2, P3; cases 34, 53
fn sf_9_an_empty_packet_with_a_descriptor() {
    for count in [1, 2] {
        let expected = Violation::EmptyPacket { descriptors: count as u32 };
        assert_refused(SockType::SeqPacket, Limits::new(), &[(b"", count)], expected);
    }
    let ledger = Ledger::open();
    let (ours, theirs) = pair(SockType::SeqPacket);
    raw_send(&theirs, b"", &[]);
    assert_eq!(receive_fd(&ours, soon()).unwrap_err(), Error::Closed);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; cases 45, 51
fn a_long_text_goes_in_pieces() {
    let ledger = Ledger::open();
    let (ours, theirs) = pair(SockType::Stream);
    let text: Vec<u8> = (0..400_000).map(|index| 1 + (index % 255) as u8).collect();
    let copy = text.clone();
    let sender = thread::spawn(move || send_error(&theirs, 3, copy).map(|()| theirs));
    let limits = Limits::new().payload(400_000);
    let begun = Instant::now();
    let came = error(receive_fd_within(&ours, &limits, Deadline::NEVER).unwrap());
    assert!(came == (3, text), "another text");
    // Looked at again for every two bytes, a text of this size took a minute.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop((ours, sender.join().unwrap().unwrap()));
    ledger.close();
}

#[test] // P3
fn what_is_queued_behind_a_violation_is_no_message() {
    let ledger = Ledger::open();
    for kind in TYPES {
        let (ours, theirs) = pair(kind);
        // A text beyond the limit; on a stream its rest would begin the next message.
        raw_send(&theirs, b"too long\0\x01", &[]);
        // Where there are packets, one of no bytes hides what is behind it from whoever takes it for the end.
        raw_send(&theirs, b"", &[]);
        raw_send(&theirs, b"text\0\x01", &[]);
        raw_send(&theirs, b"\0\0", &files(1));
        let refused = receive_fd_within(&ours, &Limits::new().payload(4), soon()).unwrap_err();
        assert!(matches!(refused, Error::Violation(_)), "{kind:?}: {refused:?}");
        for _ in 0..3 {
            assert!(receive_fd(&ours, after(10)).is_err(), "{kind:?}");
        }
    }
    ledger.close();
}
