//! The peer is killed (SIGKILL) at every entry to and every return from a system call of its
//! messages, one after the other: the survivor ends with whole messages and then a clean end, its
//! own deadline, or one typed error; and nothing stays open.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/peer.rs"]
mod peer;
mod support;
#[path = "support/traced.rs"]
mod traced;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use driver::{Wire, after, soon};
use fdpost::{Channel, Deadline, Error, Libcamera, Limits, Message, Packet, SendError, Stream, Violation};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{pipe, read};
use peer::{Peer, own_end};
use support::{Ledger, child_value, files};
use traced::{Traced, walked};

/// What the peer sends. Their sizes are such that its socket is full in between, on Linux 6.18 also
/// between a header and its payload.
const SIZES: [usize; 4] = [300, 300, 4000, 20];

/// Patience with a message that was begun.
const LIMITS: Limits = Limits::new().descriptors(2).assembly_timeout(Duration::from_millis(300));

/// Patience with one that may never come: on a datagram socket a death does not show.
const QUIET: Duration = Duration::from_millis(60);

fn payload(number: usize) -> Vec<u8> {
    (0..SIZES[number]).map(|place| (place * 7 + number) as u8).collect()
}

/// The message of this number, with two files that say whose they are.
fn numbered(number: usize) -> Message {
    let files = files(2);
    for (place, file) in files.iter().enumerate() {
        pwrite(file, &[number as u8, place as u8], 0).unwrap();
    }
    driver::message(&payload(number), files)
}

/// Whole, and with its own descriptors in their order (P1).
#[track_caller]
fn assert_whole(message: &Message, number: usize) {
    assert_eq!(message.payload(), payload(number), "message {number}");
    assert_eq!(message.descriptor_count(), 2);
    for place in 0..2 {
        let mut says = [9; 3];
        let length = pread(message.descriptor(place).unwrap(), &mut says, 0).unwrap();
        assert_eq!(says[..length], [number as u8, place as u8]);
    }
}

/// How the walk of a role over a wire ended, by what the survivor was told.
type Ends = BTreeMap<String, usize>;

/// Kills at each stop in turn; `None` where tracing is not permitted.
fn walk(mut killed_at: impl FnMut(usize) -> nix::Result<Option<String>>) -> Option<Ends> {
    let mut ends = Ends::new();
    for stop in 1.. {
        match killed_at(stop) {
            Ok(Some(end)) => *ends.entry(end).or_default() += 1,
            Ok(None) => break,
            Err(errno) => {
                eprintln!("skipped: this machine does not let one process trace another ({errno})");
                return None;
            }
        }
    }
    let stops: usize = ends.values().sum();
    assert!(stops >= 8, "hardly a message's system calls: {ends:?}");
    Some(ends)
}

/// The name of the end; panics at one that is none.
#[track_caller]
fn end_of<P: Wire>(error: Error) -> String {
    match error {
        Error::Closed => "a clean end".into(),
        Error::Violation(violation) => violation.rule().into(),
        Error::PeerGone { .. } => "the peer is gone".into(),
        Error::TimedOut if P::NAME == "libcamera" => "its own deadline".into(),
        error => panic!("{}: {error:?}", P::NAME),
    }
}

/// The peer sends all four.
fn sends<P: Wire>() {
    let mut channel = Channel::<P>::from_fd(own_end(), LIMITS).unwrap();
    let messages: Vec<_> = (0..SIZES.len()).map(numbered).collect();
    // On a machine that stalls its peer may lose its patience with it.
    walked(|| messages.into_iter().for_each(|message| drop(channel.send(message))));
}

fn sender_killed_at<P: Wire>(test: &str, stop: usize) -> nix::Result<Option<String>> {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    // The least that the kernel grants.
    setsockopt(&theirs, sockopt::SndBuf, &2304).unwrap();
    let mut peer = Traced::seize(Peer::start(test, "sends", theirs))?;
    let (mut next, mut early) = (0, None);
    let reached = peer.reaches(stop, || match ours.try_receive() {
        Ok(Some(message)) => {
            assert_whole(&message, next);
            next += 1;
        }
        Ok(None) => {}
        Err(error) => early = Some(error),
    });
    peer.kill();
    if let Some(error) = early {
        // The machine stalled in the middle of a message: that was no kill.
        assert!(matches!(error, Error::Violation(Violation::PayloadMissing { .. })), "{error:?}");
        drop(ours);
        ledger.close();
        return sender_killed_at::<P>(test, stop);
    }
    let began = Instant::now();
    let error = loop {
        let invisible = P::NAME == "libcamera" && ours.timeout().is_none();
        match ours.receive_by(if invisible { Deadline::after(QUIET) } else { soon() }) {
            Ok(message) => {
                assert_whole(&message, next);
                next += 1;
            }
            // Its header had not been read when this call began.
            Err(Error::TimedOut) if ours.timeout().is_some() => {}
            Err(error) => break error,
        }
    };
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    // For ever the same, except that a deadline is the caller's.
    assert_eq!(ours.receive_by(after(1)).unwrap_err(), error);
    assert!(next <= SIZES.len());
    drop(ours);
    ledger.close();
    Ok(reached.then(|| end_of::<P>(error)))
}

/// The peer receives two: one that is there, and one that it waits for.
fn receives<P: Wire>() {
    let mut channel = Channel::<P>::from_fd(own_end(), LIMITS).unwrap();
    walked(|| (0..2).for_each(|_| drop(channel.receive_by(soon()).unwrap())));
}

/// A message with the writing end of a pipe, whose reading end says when nobody holds it.
fn watched(watches: &mut Vec<OwnedFd>) -> Message {
    let (watch, held) = pipe().unwrap();
    watches.push(watch);
    Message::new(vec![7; 1000]).with(held)
}

fn receiver_killed_at<P: Wire>(test: &str, stop: usize) -> nix::Result<Option<String>> {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    let mut watches = Vec::new();
    ours.send(watched(&mut watches)).unwrap();
    let mut peer = Traced::seize(Peer::start(test, "receives", theirs))?;
    let mut second = Some(watched(&mut watches));
    let reached =
        peer.reaches(stop, || second.take().into_iter().for_each(|second| ours.send(second).unwrap()));
    peer.kill();
    drop(second);
    let began = Instant::now();
    // Its memory is gone and its end closed: nobody takes this one.
    let SendError { error, messages } = ours.send_by(watched(&mut watches), soon()).unwrap_err();
    assert!(matches!(error, Error::PeerGone { .. }), "{error:?}");
    assert_eq!(messages.len(), 1, "it comes back");
    drop(messages);
    let error = ours.receive_by(Deadline::after(QUIET)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    drop(ours);
    for watch in watches {
        // What was on its way to the dead is closed too (P2).
        let mut polled = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        assert_ne!(poll(&mut polled, PollTimeout::from(10_000_u16)).unwrap(), 0, "somebody holds it");
        assert_eq!(read(&watch, &mut [0]), Ok(0));
    }
    ledger.close();
    Ok(reached.then(|| end_of::<P>(error)))
}

fn both_roles<P: Wire>(test: &str) {
    match child_value().as_deref() {
        Some("sends") => return sends::<P>(),
        Some(_) => return receives::<P>(),
        None => {}
    }
    let Some(ends) = walk(|stop| sender_killed_at::<P>(test, stop)) else { return };
    println!("{}: a sender was killed, and its peer saw {ends:?}", P::NAME);
    let ends = walk(|stop| receiver_killed_at::<P>(test, stop));
    println!("{}: a receiver was killed, and its peer saw {ends:?}", P::NAME);
}

#[test] // P1 P2 P5
fn packet_a_peer_killed_between_any_two_system_calls() {
    both_roles::<Packet>("packet_a_peer_killed_between_any_two_system_calls");
}

#[test] // P1 P2 P5
fn libcamera_a_peer_killed_between_any_two_system_calls() {
    both_roles::<Libcamera>("libcamera_a_peer_killed_between_any_two_system_calls");
}

#[test] // P1 P2 P5
fn stream_a_peer_killed_between_any_two_system_calls() {
    both_roles::<Stream>("stream_a_peer_killed_between_any_two_system_calls");
}
