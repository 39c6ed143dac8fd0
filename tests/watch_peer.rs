//! A peer's death, where its socket does not show it.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/meeting.rs"]
mod meeting;
mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use driver::{Wire, ends, fill, fill_until_pending, soon};
use fdpost::{
    Accept, Channel, Deadline, Error, Libcamera, Limits, Message, Misuse, Packet, Policy, Stream, Violation,
};
use meeting::says;
use support::{Ledger, child_value, files, libcamera_header, pidfd, raw_send};

const LIMITS: Limits = Limits::new().descriptors(2);

/// A process that does nothing until it is killed, or its standard input ends.
fn idle() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Our channel, watching a process; the other end stays here, as if others held it too.
fn watching<P: Wire>() -> (Channel<P>, Channel<P>, Child) {
    let (mut ours, theirs) = ends::<P>(LIMITS);
    let child = idle();
    ours.watch_peer(pidfd(child.id())).unwrap();
    (ours, theirs, child)
}

/// What was sent before the death is delivered, then the end comes, for ever.
fn is_a_clean_end<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, child) = watching::<P>();
    theirs.send(Message::new(b"one")).unwrap();
    theirs.send(Message::new(b"two").with(files(1).remove(0))).unwrap();
    end(child);
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"one");
    assert_eq!(ours.receive().unwrap().descriptor_count(), 1);
    for _ in 0..3 {
        assert_eq!(ours.receive().unwrap_err(), Error::Closed, "{}", P::NAME);
        assert_eq!(ours.try_receive().unwrap_err(), Error::Closed);
        assert_eq!(ours.receive_by(Deadline::after(Duration::ZERO)).unwrap_err(), Error::Closed);
    }
    drop((ours, theirs));
    ledger.close();
}

#[test]
fn a_death_is_a_clean_end_behind_what_is_queued() {
    is_a_clean_end::<Libcamera>();
    is_a_clean_end::<Packet>();
    is_a_clean_end::<Stream>();
}

/// It is seen by who only looks.
fn is_seen_without_waiting<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, child) = watching::<P>();
    theirs.send(Message::new(b"one")).unwrap();
    end(child);
    assert_eq!(ours.try_receive().unwrap().unwrap().payload(), b"one");
    assert_eq!(ours.try_receive().unwrap_err(), Error::Closed, "{}", P::NAME);
    drop((ours, theirs));
    ledger.close();
}

#[test]
fn a_death_is_seen_by_a_look_that_does_not_wait() {
    is_seen_without_waiting::<Libcamera>();
    is_seen_without_waiting::<Packet>();
    is_seen_without_waiting::<Stream>();
}

/// It is seen by who waits already.
fn wakes<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, theirs, child) = watching::<P>();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ours.receive());
        // Most often it waits by then; it must not matter.
        thread::sleep(Duration::from_millis(20));
        end(child);
        assert_eq!(waiting.join().unwrap().unwrap_err(), Error::Closed, "{}", P::NAME);
    });
    drop((ours, theirs));
    ledger.close();
}

#[test] // P5
fn a_death_wakes_a_receiver_that_waits() {
    wakes::<Libcamera>();
    wakes::<Packet>();
    wakes::<Stream>();
}

/// Nobody reads what is sent to it, though its end is open: a sender does not wait for room.
fn ends_a_sender<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, theirs, child) = watching::<P>();
    fill(&mut ours);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ours.send(Message::new([7; 1000])));
        thread::sleep(Duration::from_millis(20));
        end(child);
        let failed = waiting.join().unwrap().unwrap_err();
        assert!(matches!(failed.error, Error::PeerGone { .. }), "{}: {failed:?}", P::NAME);
    });
    let failed = ours.try_send(Message::new(b"late")).unwrap_err();
    assert!(matches!(failed.error, Error::PeerGone { .. }));
    drop((ours, theirs));
    ledger.close();
}

#[test] // P5
fn a_death_ends_a_sender_that_waits_for_room() {
    ends_a_sender::<Libcamera>();
    ends_a_sender::<Packet>();
    ends_a_sender::<Stream>();
}

fn both_halves<P: Wire>() {
    let ledger = Ledger::open();
    let (ours, mut theirs, child) = watching::<P>();
    let (sending, mut receiving) = ours.split();
    theirs.send(Message::new(b"last")).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| (receiving.receive(), receiving.receive()));
        let sender = scope.spawn(|| {
            loop {
                if let Err(failed) = sending.send(Message::new([7; 1000])) {
                    return failed.error;
                }
            }
        });
        thread::sleep(Duration::from_millis(20));
        end(child);
        let (first, second) = waiting.join().unwrap();
        assert_eq!(first.unwrap().payload(), b"last");
        assert_eq!(second.unwrap_err(), Error::Closed, "{}", P::NAME);
        let error = sender.join().unwrap();
        assert!(matches!(error, Error::PeerGone { .. } | Error::Closed), "{error:?}");
    });
    drop((sending, receiving, theirs));
    ledger.close();
}

#[test] // P5, P7
fn both_halves_see_a_death() {
    both_halves::<Libcamera>();
    both_halves::<Packet>();
    both_halves::<Stream>();
}

#[test]
fn a_message_cut_off_by_a_death_is_not_a_clean_end() {
    let ledger = Ledger::open();
    let (mut ours, end_of_peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let child = idle();
    ours.watch_peer(pidfd(child.id())).unwrap();
    raw_send(&end_of_peer, &libcamera_header(4, 0), &[]);
    end(child);
    let error = ours.receive_by(soon()).unwrap_err();
    assert_eq!(error, Error::Violation(Violation::PayloadMissing { expected: 4, received: 0 }));
    drop((ours, end_of_peer));
    ledger.close();
}

/// The child of the test below: its end is standard input; `answers` replies to the first message,
/// closes, and lives on until it is killed.
fn answer_and_close(answers: u32) {
    let end = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut channel = Channel::<Libcamera>::from_fd(end, LIMITS).unwrap();
    assert_eq!(channel.receive_by(soon()).unwrap().payload(), b"question");
    for number in 0..answers {
        channel.send(Message::new(number.to_le_bytes()).with(files(1).remove(0))).unwrap();
    }
    drop(channel);
    close_standard_input();
    println!("closed");
    thread::sleep(Duration::from_secs(60));
}

/// A peer that answers into our queue and is gone: unread answers survive our next sends.
fn answers_survive(kill: bool) {
    const NAME: &str = "what_a_dead_peer_had_said_survives_our_next_send";
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env("FDPOST_CHILD", "20")
        .stdin(theirs)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    ours.watch_peer(pidfd(child.id())).unwrap();
    ours.send(Message::new(b"question")).unwrap();
    says(&mut child, &["closed"]);
    if kill {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // Its socket is gone, and no sign but a send's failure shows it.
    for _ in 0..3 {
        let failed = ours.send_by(Message::new(b"next"), soon()).unwrap_err();
        assert!(matches!(failed.error, Error::PeerGone { .. }), "{failed:?}");
        assert_eq!(failed.messages[0].payload(), b"next");
    }
    if !kill {
        assert_eq!(ours.timeout(), Some(Duration::ZERO), "an event loop would sleep");
    }
    for number in 0..20_u32 {
        let answer = ours.receive_by(soon()).unwrap();
        assert_eq!((driver::number(&answer), answer.descriptor_count()), (number, 1));
    }
    if !kill {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
    assert_eq!(ours.stats().held.descriptors, 0);
    drop((ours, child));
    ledger.close();
}

#[test] // P1, P2
fn what_a_dead_peer_had_said_survives_our_next_send() {
    if let Some(answers) = child_value() {
        return answer_and_close(answers.parse().unwrap());
    }
    answers_survive(true);
    answers_survive(false);
}

/// The same, where the send is only the rest of one that had begun.
#[test] // P1, P2
fn what_a_dead_peer_had_said_survives_a_flush() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs, child) = watching::<Libcamera>();
    fill_until_pending(&mut ours, &mut theirs, Channel::try_send);
    theirs.send(Message::new(b"last words")).unwrap();
    drop(theirs);
    let failed = ours.flush_by(soon()).unwrap_err();
    assert!(matches!(failed.error, Error::PeerGone { .. }), "{failed:?}");
    end(child);
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"last words");
    assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
    drop(ours);
    ledger.close();
}

#[test] // P4
fn what_is_read_ahead_is_bounded() {
    let ledger = Ledger::open();
    let limits = Limits::new().payload(1000).held_bytes(3000).descriptors(1).held_descriptors(2);
    let (mut ours, mut theirs) = ends::<Libcamera>(limits);
    let child = idle();
    ours.watch_peer(pidfd(child.id())).unwrap();
    for _ in 0..10 {
        theirs.send(Message::new([7; 1000])).unwrap();
    }
    ours.send(Message::new(b"x")).unwrap();
    let held = ours.stats().held;
    for _ in 0..10 {
        assert_eq!(ours.receive_by(soon()).unwrap().payload().len(), 1000);
    }
    assert!((3000..4000 + 9000).contains(&held.bytes), "{held:?}");
    for _ in 0..10 {
        theirs.send(Message::new([7; 10]).with(files(1).remove(0))).unwrap();
    }
    ours.send(Message::new(b"x")).unwrap();
    assert_eq!(ours.stats().held.descriptors, 2);
    let most = ours.stats().held_most;
    assert!(most.bytes >= held.bytes && most.descriptors == 2, "{most:?}, {held:?}");
    for _ in 0..10 {
        assert_eq!(ours.receive_by(soon()).unwrap().descriptor_count(), 1);
    }
    end(child);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P2, P3
fn what_was_read_ahead_behind_a_refused_message_goes_with_it() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(LIMITS);
    let child = idle();
    ours.watch_peer(pidfd(child.id())).unwrap();
    ours.set_policy(Policy::new().every(Accept::pipe()));
    let (grave, reaped) = mpsc::channel();
    ours.set_reaper(move |descriptor: OwnedFd| grave.send(descriptor).unwrap());
    theirs.send(Message::new(b"fine")).unwrap();
    for _ in 0..3 {
        theirs.send(Message::new(b"a file").with(files(1).remove(0))).unwrap();
    }
    ours.send(Message::new(b"x")).unwrap();
    assert_eq!(ours.stats().held.descriptors, 3, "all were read ahead");
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"fine");
    for _ in 0..2 {
        let error = ours.receive_by(soon()).unwrap_err();
        assert_eq!(error.violation().map(|violation| violation.rule()), Some("descriptor-kind"));
    }
    assert_eq!(ours.timeout(), None, "an event loop would spin");
    let stats = ours.stats();
    assert_eq!((stats.received.messages, stats.held.descriptors), (1, 0));
    assert_eq!(reaped.try_iter().count(), 3);
    end(child);
    drop((ours, theirs));
    ledger.close();
}

#[test]
fn only_a_pidfd_is_watched_and_only_one() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<Libcamera>(LIMITS);
    assert!(ours.watched_peer().is_none());
    let misuse = ours.watch_peer(files(1).remove(0)).unwrap_err();
    assert_eq!(misuse, Error::Misuse(Misuse::NoPidfd));
    ours.watch_peer(pidfd(std::process::id())).unwrap();
    assert!(ours.watched_peer().is_some());
    let misuse = ours.watch_peer(pidfd(std::process::id())).unwrap_err();
    assert_eq!(misuse, Error::Misuse(Misuse::PeerWatched));
    // A peer that lives does not end anything.
    assert!(ours.try_receive().unwrap().is_none());
    drop((ours, theirs));
    ledger.close();
}

#[allow(unsafe_code, reason = "a number has no other form")]
fn close_standard_input() {
    use std::os::fd::FromRawFd;
    // SAFETY: nothing in this process uses it, and it is closed once.
    drop(unsafe { OwnedFd::from_raw_fd(0) });
}

#[test] // P4: what is read ahead so that a send does not lose it is bounded, however slowly it comes
fn no_more_is_read_ahead_than_255_messages() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(Limits::new().payload(64));
    let mut peer = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    ours.watch_peer(pidfd(peer.id())).unwrap();
    let told = (0..1000)
        .take_while(|_| {
            let told = matches!(theirs.try_send(Message::new(b"x")), Ok(fdpost::Sent::Complete));
            // Before each of ours, what waits is read.
            ours.send(Message::new(b"y")).unwrap();
            assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"y");
            told
        })
        .count();
    assert!((256..1000).contains(&told), "the socket never filled: {told} left");
    let full = ours.stats().held.bytes;
    let came = std::iter::from_fn(|| ours.try_receive().unwrap()).count();
    assert_eq!(came, told);
    assert_eq!(full - ours.stats().held.bytes, 255, "bytes of messages of one byte that were held");
    peer.kill().unwrap();
    peer.wait().unwrap();
    drop((peer, ours, theirs));
    ledger.close();
}
