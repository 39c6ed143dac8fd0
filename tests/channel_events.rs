//! A channel inside an event loop: nothing waits, `timeout` says when to look again. And what
//! the counters say.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Wire, after, ends, message, soon, twin};
use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Profile, SendError, Violation};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use support::{Ledger, files, libcamera_header, packet_header, raw_send};

/// poll(2) on the channel, at most until its own timeout; what it saw.
fn turn<P: Profile>(channel: &Channel<P>, most: Duration) -> PollFlags {
    let mut events = PollFlags::POLLIN;
    events.set(PollFlags::POLLOUT, channel.wants_write());
    let mut sockets = [PollFd::new(channel.as_fd(), events)];
    let wait = channel.timeout().unwrap_or(most).min(most);
    poll(&mut sockets, PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap()).unwrap();
    sockets[0].revents().unwrap()
}

#[test] // P5; case 11
fn timeout_leads_to_the_missing_payload() {
    let ledger = Ledger::open();
    let patience = Duration::from_secs(2);
    let (mut ours, theirs) = ends::<Libcamera>(Limits::new().assembly_timeout(patience));
    assert_eq!(ours.timeout(), None);
    assert!(ours.try_receive().unwrap().is_none());
    assert_eq!(ours.timeout(), None, "between messages no deadline runs");
    let socket = twin(&theirs);
    raw_send(&socket, &libcamera_header(5, 0), &[]);
    assert_eq!(turn(&ours, patience), PollFlags::POLLIN);
    let began = Instant::now();
    assert!(ours.try_receive().unwrap().is_none());
    let left = ours.timeout().unwrap();
    assert!(left <= patience && left > patience / 2, "{left:?}");
    // A message that is whole ends it.
    raw_send(&socket, b"whole", &[]);
    assert_eq!(ours.try_receive().unwrap().unwrap().payload(), b"whole");
    assert_eq!(ours.timeout(), None);

    raw_send(&socket, &libcamera_header(5, 0), &[]);
    assert!(ours.try_receive().unwrap().is_none());
    let began_again = began.max(Instant::now() - Duration::from_millis(1));
    let mut turns = 0;
    let error = loop {
        assert_eq!(turn(&ours, soon().instant().unwrap() - Instant::now()), PollFlags::empty());
        turns += 1;
        match ours.try_receive() {
            Ok(message) => assert!(message.is_none()),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Violation::PayloadMissing { expected: 5, received: 0 }.into());
    let took = began_again.elapsed();
    assert!(took >= patience && took < patience + Duration::from_secs(10), "{took:?}");
    assert!(turns <= 2, "{turns} turns for one timeout");
    assert_eq!(ours.timeout(), None);
    assert_eq!(ours.try_receive().unwrap_err(), error);
    drop((socket, ours, theirs));
    ledger.close();
}

#[test] // P5; case 59
fn a_late_reader_does_not_blame_an_honest_peer() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<Libcamera>(Limits::new().assembly_timeout(Duration::from_secs(1)));
    let socket = twin(&theirs);
    raw_send(&socket, &libcamera_header(4, 0), &[]);
    assert!(ours.try_receive().unwrap().is_none());
    raw_send(&socket, b"here", &[]);
    std::thread::sleep(Duration::from_millis(1060));
    assert_eq!(ours.timeout(), Some(Duration::ZERO));
    assert_eq!(ours.receive_by(after(0)).unwrap().payload(), b"here");
    drop((socket, ours, theirs));
    ledger.close();
}

/// Two loops of one thread, 3,000 messages each way with descriptors, nothing ever waits for
/// longer than poll(2).
fn two_loops<P: Wire>() {
    const COUNT: u32 = 3000;
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(1).assembly_timeout(Duration::from_secs(10));
    let (ours, theirs) = ends::<P>(limits);
    let mut loops = [(ours, 0, 0), (theirs, 0, 0)];
    let deadline = soon();
    while loops.iter().any(|(_, sent, came)| *sent < COUNT || *came < COUNT) {
        assert!(!deadline.has_passed(), "{}: {loops:?}", P::NAME);
        for (channel, sent, came) in &mut loops {
            while *sent < COUNT {
                let mut next = Message::new(sent.to_le_bytes());
                if *sent % 100 == 0 {
                    next = next.with(files(1).remove(0));
                }
                match channel.try_send(next) {
                    Ok(_) => *sent += 1,
                    Err(SendError { error: Error::WouldBlock, .. }) => break,
                    Err(error) => panic!("{}: {error:?}", P::NAME),
                }
            }
            turn(channel, Duration::from_millis(1));
            // Not all at once, so that sockets stay full.
            for _ in 0..50 {
                let Some(next) = channel.try_receive().unwrap() else { break };
                assert_eq!(driver::number(&next), *came, "{}", P::NAME);
                assert_eq!(next.descriptor_count(), usize::from(*came % 100 == 0));
                *came += 1;
            }
        }
    }
    for (channel, ..) in &loops {
        let stats = channel.stats();
        let (count, bytes, descriptors) = (COUNT.into(), u64::from(COUNT) * 4, u64::from(COUNT) / 100);
        let Stats3 { received, sent } = Stats3::of(&stats);
        assert_eq!((received, sent), ((count, bytes, descriptors), (count, bytes, descriptors)));
        assert!(!channel.wants_write());
    }
    drop(loops);
    ledger.close();
}

/// Messages, bytes and descriptors each way.
struct Stats3 {
    received: (u64, u64, u64),
    sent: (u64, u64, u64),
}

impl Stats3 {
    fn of(stats: &fdpost::Stats) -> Self {
        let (came, went) = (stats.received, stats.sent);
        Self {
            received: (came.messages, came.bytes, came.descriptors),
            sent: (went.messages, went.bytes, went.descriptors),
        }
    }
}

#[test] // P6; cases 21, 45, 51
fn libcamera_two_event_loops() {
    two_loops::<Libcamera>();
}

#[test] // P6; cases 21, 51
fn packet_two_event_loops() {
    two_loops::<Packet>();
}

fn counters<P: Wire>(broken: &[u8]) {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().descriptors(4));
    assert_eq!(Stats3::of(&ours.stats()).received, (0, 0, 0));
    for (bytes, descriptors) in [(10, 0), (1, 1), (1000, 4), (65_536, 2)] {
        theirs.send(message(&vec![1; bytes], files(descriptors))).unwrap();
    }
    assert_eq!(Stats3::of(&theirs.stats()).sent, (4, 66_547, 7));
    assert_eq!(Stats3::of(&theirs.stats()).received, (0, 0, 0));
    for count in 1..=4 {
        ours.receive_by(soon()).unwrap();
        assert_eq!(ours.stats().received.messages, count);
    }
    let stats = ours.stats();
    assert_eq!((Stats3::of(&stats).received, Stats3::of(&stats).sent), ((4, 66_547, 7), (0, 0, 0)));
    assert_eq!((stats.violation, stats.held.descriptors), (None, 0), "{}", P::NAME);
    assert!(stats.held_most.bytes >= 65_536, "{}: {:?}", P::NAME, stats.held_most);
    let most =
        fdpost::machine::Receiver::<P, std::os::fd::OwnedFd>::most_held(&Limits::new().descriptors(4), 1);
    assert!(stats.held_most.bytes <= most.bytes, "{}: {:?}, formula {most:?}", P::NAME, stats.held_most);

    raw_send(&twin(&theirs), broken, &[]);
    let error = ours.receive_by(soon()).unwrap_err();
    assert_eq!(ours.stats().violation, error.violation());
    assert!(error.violation().is_some());
    assert_eq!(Stats3::of(&ours.stats()).received, (4, 66_547, 7), "a refused message is not delivered");
    drop((ours, theirs));
    ledger.close();
}

#[test] // P4
fn the_counters_are_exact() {
    counters::<Libcamera>(&libcamera_header(0, 0));
    counters::<Packet>(&packet_header(1, 0));
}

fn descriptors_alone<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().descriptors(4));
    for count in [1, 4] {
        theirs.send(message(b"", files(count))).unwrap();
        let came = ours.receive_by(soon());
        let came = came.unwrap_or_else(|error| panic!("{}: {count} and no bytes: {error:?}", P::NAME));
        assert_eq!((came.payload(), came.descriptor_count()), (&b""[..], count));
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1
fn libcamera_descriptors_without_bytes() {
    descriptors_alone::<Libcamera>();
}

#[test] // P1
fn packet_descriptors_without_bytes() {
    descriptors_alone::<Packet>();
}

#[test] // P5: an observer's clock is the reader's, and it is told too where nothing was there.
fn an_observer_is_told_what_came_and_when() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Libcamera>::pair(Limits::new()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    ours.set_observer(move |when, hunk| {
        tell.send((when, hunk.map(|hunk| hunk.stored_bytes().len()))).unwrap()
    });
    // So that the clock's distance from the channel's beginning shows.
    std::thread::sleep(Duration::from_millis(20));
    let before = Instant::now();
    raw_send(&theirs, &libcamera_header(3, 0), &[]);
    raw_send(&theirs, b"abc", &[]);
    assert_eq!(ours.try_receive().unwrap().unwrap().payload(), b"abc");
    assert!(ours.try_receive().unwrap().is_none());
    let after = Instant::now();
    let (moments, seen): (Vec<_>, Vec<_>) = told.try_iter().unzip();
    assert_eq!(seen, [Some(8), Some(3), None]);
    assert!(
        moments.is_sorted() && before <= moments[0] && moments[2] <= after,
        "{before:?} {moments:?} {after:?}"
    );
    drop((ours, theirs));
    ledger.close();
}
