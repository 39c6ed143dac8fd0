//! A peer that closes, resets, or refuses descriptors, as a sender and a receiver meet it.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Wire, ends, message, returned, set_option, soon, twin};
use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Sent};
use nix::errno::Errno;
use support::{Ledger, files, identity};

/// `errno` is the first one, and stays: the kernel would say others later.
fn gone_for_ever<P: Wire>(read: bool, errno: Errno) {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().descriptors(2));
    ours.send(message(b"before", files(2))).unwrap();
    if read {
        theirs.receive_by(soon()).unwrap();
    }
    drop(theirs);
    let gone = Error::PeerGone { errno: errno as i32 };
    let given = files(2);
    let names: Vec<_> = given.iter().map(identity).collect();
    let mut back = message(b"late", given);
    for round in 0..4 {
        let sent = match round {
            0 | 3 => ours.try_send(back),
            1 => ours.send_by(back, soon()),
            _ => ours.send(back).map(|()| Sent::Complete),
        };
        let error;
        (error, back) = returned(sent);
        assert_eq!(error, gone, "{}, round {round}", P::NAME);
        assert_eq!([0, 1].map(|index| identity(back.descriptor(index).unwrap())).as_slice(), names);
    }
    assert_eq!(ours.flush_by(soon()).unwrap_err().error, gone);
    assert_eq!(ours.stats().sent.messages, 1);
    drop((ours, back));
    ledger.close();
}

#[test] // P2, P6
fn libcamera_every_send_to_a_closed_peer_comes_back() {
    gone_for_ever::<Libcamera>(true, Errno::ECONNREFUSED);
    gone_for_ever::<Libcamera>(false, Errno::ECONNREFUSED);
}

#[test] // P2, P6
fn packet_every_send_to_a_closed_peer_comes_back() {
    gone_for_ever::<Packet>(true, Errno::EPIPE);
    gone_for_ever::<Packet>(false, Errno::ECONNRESET);
}

#[test] // P6; case 57
fn a_send_that_waits_learns_of_the_peers_death() {
    fn waits<P: Wire>(errno: Errno) {
        let ledger = Ledger::open();
        let (mut ours, theirs) = ends::<P>(Limits::new());
        driver::fill(&mut ours);
        let closing = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            drop(theirs);
        });
        let error = ours.send_by(message(b"patient", files(1)), soon()).unwrap_err();
        assert_eq!(error.error, Error::PeerGone { errno: errno as i32 }, "{}", P::NAME);
        assert_eq!(error.messages.last().unwrap().descriptor_count(), 1);
        closing.join().unwrap();
        drop((ours, error));
        ledger.close();
    }
    waits::<Libcamera>(Errno::ECONNREFUSED);
    waits::<Packet>(Errno::ECONNRESET);
}

#[test] // P1, P3; cases 20, 38
fn what_a_peer_sent_before_it_reset_the_connection_is_delivered() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(1));
    ours.send(Message::new(b"never read")).unwrap();
    theirs.send(message(b"one", files(1))).unwrap();
    theirs.send(message(b"two", files(1))).unwrap();
    drop(theirs); // with unread data: ECONNRESET, before what is queued
    for expected in [&b"one"[..], b"two"] {
        let message = ours.receive_by(soon()).unwrap();
        assert_eq!((message.payload(), message.descriptor_count()), (expected, 1));
    }
    for _ in 0..3 {
        assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
        assert_eq!(ours.try_receive().unwrap_err(), Error::Closed);
    }
    drop(ours);
    ledger.close();
}

#[test] // P1; case 36
fn the_sender_closes_right_after_sending() {
    fn closes<P: Wire>() {
        let ledger = Ledger::open();
        let (mut ours, mut theirs) = ends::<P>(Limits::new().descriptors(2));
        theirs.send(message(b"last words", files(2))).unwrap();
        drop(theirs);
        assert_eq!(ours.receive_by(soon()).unwrap().descriptor_count(), 2, "{}", P::NAME);
        drop(ours);
        ledger.close();
    }
    closes::<Libcamera>();
    closes::<Packet>();
}

#[test] // P2; case 37
fn a_receiver_that_never_reads() {
    fn unread<P: Wire>() {
        let ledger = Ledger::open();
        let (mut ours, theirs) = ends::<P>(Limits::new().descriptors(8));
        for _ in 0..10 {
            ours.send(message(b"unread", files(8))).unwrap();
        }
        assert_eq!(ledger.more(), 2, "{}: what left is the kernel's", P::NAME);
        drop((ours, theirs));
        ledger.close();
    }
    unread::<Libcamera>();
    unread::<Packet>();
}

/// Turns SO_PASSRIGHTS (Linux 6.16) off at `channel`'s socket; says so where there is none.
fn refuses_descriptors<P: Wire>(channel: &Channel<P>) -> bool {
    const SO_PASSRIGHTS: i32 = 83;
    match set_option(&twin(channel), SO_PASSRIGHTS, 0) {
        Ok(()) => true,
        Err(Errno::ENOPROTOOPT) => {
            println!("skipped: this kernel has no SO_PASSRIGHTS (Linux 6.16)");
            false
        }
        Err(errno) => panic!("{errno}"),
    }
}

#[test] // P6
fn packet_a_peer_that_takes_no_descriptors() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(1));
    if refuses_descriptors(&theirs) {
        for _ in 0..2 {
            let (error, back) = returned(ours.send_by(message(b"with", files(1)), soon()));
            assert_eq!((error, back.descriptor_count()), (Error::DescriptorsRefused, 1));
        }
        // A packet is all or nothing, so the direction lives.
        ours.send(Message::new(b"without")).unwrap();
        assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"without");
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; case 15
fn libcamera_a_payload_refused_after_its_header_poisons_the_direction() {
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(1).assembly_timeout(std::time::Duration::from_millis(50));
    let (mut ours, mut theirs) = ends::<Libcamera>(limits);
    if refuses_descriptors(&theirs) {
        ours.send(Message::new(b"before")).unwrap();
        let (error, back) = returned(ours.send_by(message(b"with", files(1)), soon()));
        assert_eq!(
            (error, back.descriptor_count(), back.payload()),
            (Error::DescriptorsRefused, 1, &b"with"[..])
        );
        for _ in 0..2 {
            // What follows a lone header would be misread as its payload.
            let (error, back) = returned(ours.try_send(Message::new(b"without")));
            assert_eq!((error, back.payload()), (Error::DescriptorsRefused, &b"without"[..]));
        }
        assert!(!ours.wants_write());
        assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"before");
        let rule = theirs.receive_by(soon()).unwrap_err().violation().map(|broken| broken.rule());
        assert_eq!(rule, Some("payload-missing"));
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; case 15
fn libcamera_a_message_behind_one_that_died_half_way_comes_back_too() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(Limits::new().descriptors(1));
    let last = driver::fill_until_pending(&mut ours, &mut theirs, |ours, message| {
        ours.try_send(message.with(files(1).remove(0)))
    });
    if refuses_descriptors(&theirs) {
        while theirs.try_receive().unwrap().is_some() {}
        let failed = ours.send_by(Message::new(b"behind"), soon()).unwrap_err();
        assert_eq!(failed.error, Error::DescriptorsRefused);
        let texts: Vec<&[u8]> = failed.messages.iter().map(Message::payload).collect();
        assert_eq!(texts, [&last.to_le_bytes()[..], b"behind"]);
        assert_eq!(failed.messages[0].descriptor_count(), 1);
    }
    drop((ours, theirs));
    ledger.close();
}
