//! P6 on `libcamera`: the socket has room for a header and not for its payload.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{after, ends, fill_until_pending, message, number, returned, soon, twin};
use fdpost::{Channel, Error, Libcamera, Limits, Message, SendError, Sent};
use nix::errno::Errno;
use std::time::Duration;
use support::{Ledger, files, identity};

type Pair = (Channel<Libcamera>, Channel<Libcamera>);

fn limits() -> Limits {
    Limits::new().descriptors(2).assembly_timeout(Duration::from_secs(10))
}

/// A pair whose `ours` has begun message `last` and not finished it.
fn begun() -> (Channel<Libcamera>, Channel<Libcamera>, u32) {
    let (mut ours, mut theirs): Pair = ends(limits());
    let last = fill_until_pending(&mut ours, &mut theirs, Channel::try_send);
    assert!(ours.wants_write());
    (ours, theirs, last)
}

/// The peer takes all that is there: whole messages, in order, up to but not including `end`.
#[track_caller]
fn drain(theirs: &mut Channel<Libcamera>, end: u32) {
    for expected in 0..end {
        let message = theirs.try_receive().unwrap().unwrap_or_else(|| panic!("message {expected} of {end}"));
        assert_eq!(number(&message), expected);
    }
    assert!(theirs.try_receive().unwrap().is_none(), "message {end} is not whole");
    assert!(theirs.timeout().is_some(), "its header came");
}

#[track_caller]
fn next(theirs: &mut Channel<Libcamera>) -> u32 {
    number(&theirs.receive_by(soon()).unwrap())
}

#[test] // P6; cases 45, 51
fn flush_sends_the_rest() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, last) = begun();
    let flushed = ours.flush_by(after(50)).unwrap_err();
    assert_eq!((flushed.error, flushed.messages.len()), (Error::TimedOut, 0), "it is kept");
    assert!(ours.wants_write());
    drain(&mut theirs, last);
    ours.flush_by(soon()).unwrap();
    assert!(!ours.wants_write());
    assert_eq!(next(&mut theirs), last);
    ours.flush_by(after(0)).unwrap();
    assert_eq!(ours.stats().sent.messages, theirs.stats().received.messages);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; cases 45, 51
fn a_waiting_receive_sends_the_rest() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, last) = begun();
    let reader = std::thread::spawn(move || {
        (0..=last).for_each(|expected| assert_eq!(next(&mut theirs), expected));
        theirs.send(Message::new(b"thanks")).unwrap();
        theirs
    });
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"thanks");
    assert!(!ours.wants_write());
    drop((ours, reader.join().unwrap()));
    ledger.close();
}

#[test] // P6: `wants_write` promises it of "any receive, when the socket is writable"
fn a_receive_that_does_not_wait_sends_the_rest() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, last) = begun();
    drain(&mut theirs, last);
    assert!(ours.try_receive().unwrap().is_none());
    assert!(!ours.wants_write(), "the socket is writable and nothing was sent");
    assert_eq!(next(&mut theirs), last);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; cases 45, 51
fn the_next_send_sends_the_rest_first() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, last) = begun();
    drain(&mut theirs, last);
    let sent = ours.try_send(Message::new((last + 1).to_le_bytes())).unwrap();
    assert_eq!(sent, Sent::Complete);
    assert_eq!([next(&mut theirs), next(&mut theirs)], [last, last + 1]);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P2, P6; case 57
fn what_was_not_begun_comes_back_with_its_descriptors() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, last) = begun();
    let given = files(2);
    let names: Vec<_> = given.iter().map(identity).collect();
    let (error, back) = returned(ours.try_send(message(b"again", given)));
    assert_eq!((error, back.payload()), (Error::WouldBlock, &b"again"[..]));
    let (error, back) = returned(ours.send_by(back, after(50)));
    assert_eq!((error, back.payload()), (Error::TimedOut, &b"again"[..]));
    assert_eq!([0, 1].map(|index| identity(back.descriptor(index).unwrap())).as_slice(), names);
    assert!(ours.wants_write(), "the begun one is kept");

    drain(&mut theirs, last);
    assert_eq!(ours.send_by(back, soon()).unwrap(), Sent::Complete);
    assert_eq!(next(&mut theirs), last);
    let mut came = theirs.receive_by(soon()).unwrap();
    assert_eq!(came.take_all().map(|file| identity(&file)).collect::<Vec<_>>(), names);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; case 57
fn a_deadline_after_the_first_part_left_says_pending() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs): Pair = ends(limits());
    let last = fill_until_pending(&mut ours, &mut theirs, |ours, message| ours.send_by(message, after(50)));
    assert!(ours.wants_write());
    drain(&mut theirs, last);
    ours.flush_by(soon()).unwrap();
    assert_eq!(next(&mut theirs), last);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; cases 21, 51
fn a_flood_keeps_its_order() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs): Pair = ends(limits());
    let reader = std::thread::spawn(move || {
        for expected in 0..25_000 {
            assert_eq!(next(&mut theirs), expected);
        }
        theirs
    });
    let mut pending = 0;
    for number in 0_u32..25_000 {
        let mut message = Message::new(number.to_le_bytes());
        // Some wait, some do not: what is pending goes first either way.
        loop {
            let sent = if number % 3 == 0 { ours.send_by(message, after(1)) } else { ours.try_send(message) };
            message = match sent {
                Ok(sent) => {
                    pending += u32::from(sent == Sent::Pending);
                    break;
                }
                error => returned(error).1,
            };
        }
    }
    ours.flush_by(soon()).unwrap();
    println!("{pending} of 25000 messages were pending at first");
    drop((ours, reader.join().unwrap()));
    ledger.close();
}

const REFUSED: Error = Error::PeerGone { errno: Errno::ECONNREFUSED as i32 };

fn texts(messages: &[Message]) -> Vec<&[u8]> {
    messages.iter().map(Message::payload).collect()
}

#[test] // P2, P6; cases 14, 15
fn a_peer_that_dies_between_the_two_hands_both_back_in_order() {
    let ledger = Ledger::open();
    let (mut ours, theirs, last) = begun();
    drop(theirs);
    let SendError { error, messages } = ours.try_send(message(b"new", files(2))).unwrap_err();
    assert_eq!(error, REFUSED);
    assert_eq!(texts(&messages), [&last.to_le_bytes()[..], b"new"]);
    assert_eq!(messages[1].descriptor_count(), 2);
    for _ in 0..3 {
        let (error, back) = returned(ours.send_by(Message::new(b"more"), soon()));
        assert_eq!((error, back.payload()), (REFUSED, &b"more"[..]), "for ever");
        let flushed = ours.flush_by(soon()).unwrap_err();
        assert_eq!((flushed.error, flushed.messages.len()), (REFUSED, 0));
    }
    assert!(!ours.wants_write());
    drop((ours, messages));
    ledger.close();
}

#[test] // P6: what a receive finds out, the next sender hears
fn a_death_that_a_receive_finds_is_told_to_the_next_sender() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, last) = begun();
    theirs.send(Message::new(b"words")).unwrap();
    drop(theirs);
    // What it had said is not lost by that, and then there is nothing to wait for.
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"words");
    assert_eq!(ours.receive().unwrap_err(), Error::Closed);
    assert!(!ours.wants_write());
    let SendError { error, messages } = ours.try_send(Message::new(b"new")).unwrap_err();
    assert_eq!(error, REFUSED);
    assert_eq!(texts(&messages), [&last.to_le_bytes()[..], b"new"]);
    assert_eq!(returned(ours.try_send(Message::new(b"more"))).0, REFUSED);
    drop(ours);
    ledger.close();
}

#[test] // P3, P6
fn a_violation_hands_back_what_is_pending() {
    let ledger = Ledger::open();
    let (mut ours, theirs, last) = begun();
    support::raw_send(&twin(&theirs), b"too short", &[]);
    let violation = ours.receive_by(soon()).unwrap_err();
    assert_eq!(violation.violation().unwrap().rule(), "header-length");
    let SendError { error, messages } = ours.flush_by(soon()).unwrap_err();
    assert_eq!((error, texts(&messages)), (violation, vec![&last.to_le_bytes()[..]]));
    assert!(!ours.wants_write());
    assert_eq!(returned(ours.try_send(Message::new(b"more"))).0, violation);
    drop((ours, theirs));
    ledger.close();
}
