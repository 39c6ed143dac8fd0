//! Refused descriptors: to the reaper, each once, or closed before the error returns.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Wire, ends, lingering, message, set_option, soon, twin};
use fdpost::{Channel, Error, Libcamera, Limits, Packet, Profile, Violation};
use nix::libc;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use support::{Ledger, files, identity, libcamera_header, packet_header, raw_send, unguarded_pair};

fn reaped<P: Profile>(ours: &mut Channel<P>) -> Receiver<OwnedFd> {
    let (grave, refused) = channel();
    ours.set_reaper(move |descriptor| grave.send(descriptor).unwrap());
    refused
}

/// Both may be sent descriptors whatever they accept.
fn unguarded_ends<P: Profile>(limits: Limits) -> (Channel<P>, Channel<P>) {
    let (ours, theirs) = unguarded_pair::<P>(limits);
    (ours, Channel::from_fd(theirs, limits).unwrap())
}

/// Header and payload datagram or packet, with `sent` descriptors where `declared` are said.
fn lies<P: Profile>(peer: &OwnedFd, declared: u8, sent: &[OwnedFd]) {
    if P::NAME == "packet" {
        raw_send(peer, &[&packet_header(4, declared)[..], b"lies"].concat(), sent);
    } else {
        raw_send(peer, &libcamera_header(4, declared), &[]);
        raw_send(peer, b"lies", sent);
    }
}

/// The violation, and what a packet's frame claimed before its end showed that some were left.
fn refusal<P: Profile>(ours: &mut Channel<P>) -> (Error, Vec<OwnedFd>) {
    let mut delivered = Vec::new();
    loop {
        match ours.receive_by(soon()) {
            Ok(mut whole) => delivered.extend(whole.take_all()),
            Err(error) => return (error, delivered),
        }
    }
}

fn each_once<P: Wire>(limit: u8, declared: u8, sent: usize) {
    let case = format!("{}: limit {limit}, {declared} declared, {sent} sent", P::NAME);
    for with_reaper in [true, false] {
        let ledger = Ledger::open();
        let (mut ours, theirs) = unguarded_ends::<P>(Limits::new().descriptors(limit));
        let refused = with_reaper.then(|| reaped(&mut ours));
        let socket = twin(&theirs);
        let given = files(sent);
        let names: Vec<PathBuf> = given.iter().map(identity).collect();
        lies::<P>(&socket, declared, &given);
        drop(given);
        let (error, delivered) = refusal(&mut ours);
        assert!(error.violation().is_some(), "{case}: {error:?}");
        let (first, open) = (delivered.len(), ledger.more() - 3);
        if let Some(refused) = refused {
            let came: Vec<PathBuf> = refused.try_iter().map(|descriptor| identity(&descriptor)).collect();
            // One above the limit is what a channel makes room for; the kernel drops the others.
            // A datagram is not even read when its header is refused.
            let unread = P::NAME == "libcamera" && declared > limit;
            assert_eq!(open, if unread { 0 } else { sent.min(room::<P>(limit)) }, "{case}: none closed");
            assert_eq!(came, names[first..open], "{case}: each once, in order");
            assert_eq!(ours.receive_by(soon()).unwrap_err(), error, "{case}");
            assert_eq!(refused.try_iter().count(), 0, "{case}: not again");
        } else {
            assert_eq!(open, first, "{case}: closed before the error returned");
        }
        drop((socket, ours, theirs, delivered));
        ledger.close();
    }
}

fn room<P: Profile>(limit: u8) -> usize {
    let most = if P::NAME == "packet" && limit > 0 { limit.max(16) } else { limit };
    usize::from(most) + 1
}

#[test] // P2; cases 23, 31
fn refused_descriptors_go_to_the_reaper() {
    for (limit, declared, sent) in
        [(0, 0, 1), (0, 0, 3), (2, 1, 2), (2, 1, 3), (2, 2, 1), (4, 5, 5), (4, 0, 4)]
    {
        each_once::<Libcamera>(limit, declared, sent);
        each_once::<Packet>(limit, declared, sent);
    }
}

#[test] // P2: only what was refused
fn delivered_descriptors_do_not_go_to_the_reaper() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<Packet>(Limits::new().descriptors(4));
    let refused = reaped(&mut ours);
    let given = files(4);
    let names: Vec<PathBuf> = given.iter().map(identity).collect();
    // One frame that claims the first, one that claims two and runs over the packet's end.
    let frames = [&packet_header(2, 1)[..], b"ok", &packet_header(9, 2), b"short"].concat();
    let socket = twin(&theirs);
    raw_send(&socket, &frames, &given);
    drop(given);
    let mut whole = ours.receive_by(soon()).unwrap();
    assert_eq!(identity(&whole.take(0).unwrap()), names[0]);
    assert_eq!(refused.try_iter().count(), 0);
    let overrun = Violation::FrameOverrun { declared: 9, remaining: 5 };
    assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Violation(overrun));
    assert_eq!(refused.try_iter().map(|refused| identity(&refused)).collect::<Vec<_>>(), names[1..]);
    drop((whole, socket, ours, theirs));
    ledger.close();
}

/// SO_PASSPIDFD's own control message is written behind the descriptors, so its room is theirs
/// when a peer sends too many.
fn beside_a_pidfd<P: Wire>() {
    let ledger = Ledger::open();
    let (ours, theirs) = unguarded_pair::<P>(Limits::new());
    let (end, socket) = (twin(&ours), theirs);
    drop(ours);
    if set_option(&end, 76, 1).is_err() {
        println!("skipped: this kernel has no SO_PASSPIDFD (Linux 6.5)");
        return;
    }
    let mut ours = Channel::<P>::from_fd(end, Limits::new().descriptors(1)).unwrap();
    let refused = reaped(&mut ours);
    lies::<P>(&socket, 1, &files(60));
    let (error, delivered) = refusal(&mut ours);
    assert!(error.violation().is_some());
    let came = refused.try_iter().chain(delivered).collect::<Vec<_>>();
    assert_eq!(ledger.more(), 2 + came.len());
    assert_eq!(came.len(), installed(&ours), "{}: some were closed on the spot", P::NAME);
    drop((socket, ours, came));
    ledger.close();
}

/// What the kernel installs of 60 into the room that a limit of 1 and a pidfd make: the numbers
/// in CMSG_SPACE(4 x room) + CMSG_LEN(4) less one header (net/core/scm.c, scm_max_fds).
fn installed<P: Profile>(_: &Channel<P>) -> usize {
    let header = size_of::<libc::cmsghdr>();
    let word = size_of::<usize>();
    let space = (4 * room::<P>(1)).div_ceil(word) * word;
    (header + space + header + 4 - header) / 4
}

#[test] // P2; cases 48, 52
fn a_pidfds_room_does_not_close_descriptors_on_the_spot() {
    beside_a_pidfd::<Libcamera>();
    beside_a_pidfd::<Packet>();
}

fn blocking_close<P: Wire>(with_reaper: bool) -> Duration {
    let ledger = Ledger::open();
    let (mut ours, theirs) = unguarded_ends::<P>(Limits::new());
    let refused = with_reaper.then(|| reaped(&mut ours));
    let socket = twin(&theirs);
    let (slow, reader) = lingering(if with_reaper { 120 } else { 1 });
    lies::<P>(&socket, 0, &[slow]);
    let began = Instant::now();
    let unexpected = Violation::DescriptorUnexpected { received: 1 };
    assert_eq!(refusal(&mut ours).0, Error::Violation(unexpected));
    let took = began.elapsed();
    // Reset, so that nothing is left to linger for.
    drop(reader);
    drop((refused, socket, ours, theirs));
    ledger.close();
    took
}

#[test] // P2; case 52
fn a_close_that_blocks_does_not_block_a_receive_with_a_reaper() {
    for took in [blocking_close::<Libcamera>(true), blocking_close::<Packet>(true)] {
        assert!(took < Duration::from_secs(60), "{took:?}: half of what it lingers");
    }
    // The socket is what it is said to be: without a reaper it does block.
    let took = blocking_close::<Packet>(false);
    assert!(took > Duration::from_millis(800), "{took:?}");
}

#[test] // P2
fn a_reaper_that_panics_leaks_nothing() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<Packet>(Limits::new().descriptors(1));
    ours.set_reaper(|_: OwnedFd| panic!("the user's code"));
    let socket = twin(&theirs);
    lies::<Packet>(&socket, 1, &files(3));
    drop(ours.receive_by(soon()).unwrap()); // the frame took one; two are left at the packet's end
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ours.receive_by(soon())));
    assert!(panicked.is_err());
    let error = ours.receive_by(soon()).unwrap_err();
    assert_eq!(error, Error::Violation(Violation::DescriptorCount { declared: 1, received: 3 }));
    assert!(support::is_shut_down(&ours));
    drop((socket, ours, theirs));
    ledger.close();
}

#[test] // P2; case 32
fn what_the_user_leaves_in_a_message_closes_with_it() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(Limits::new().descriptors(3));
    let refused = reaped(&mut ours);
    theirs.send(message(b"three", files(3))).unwrap();
    let mut came = ours.receive_by(soon()).unwrap();
    let kept = came.take(1).unwrap();
    drop(came);
    assert_eq!((ledger.more(), refused.try_iter().count()), (3, 0));
    drop((kept, ours, theirs));
    ledger.close();
}

#[test] // P2: what was read with the end, and lies behind it, is nobody's message
fn what_lies_behind_the_end_goes_to_the_reaper() {
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(1).payload(1024).held_descriptors(4000).held_bytes(8 << 20);
    let (mut ours, theirs) = unguarded_pair::<Packet>(limits);
    ours.set_batch(16);
    let refused = reaped(&mut ours);
    let given = files(1);
    let name = identity(&given[0]);
    // An empty packet is the end; one read brings both.
    raw_send(&theirs, b"", &[]);
    raw_send(&theirs, &packet_header(0, 1), &given);
    drop(given);
    for _ in 0..2 {
        assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
    }
    assert_eq!(refused.try_iter().map(|descriptor| identity(&descriptor)).collect::<Vec<_>>(), [name]);
    let held = ours.stats().held;
    assert_eq!(held.descriptors, 0);
    assert!(held.bytes < 8192, "{held:?} for nothing that will come");
    drop((ours, theirs));
    ledger.close();
}

#[test] // P4
fn a_channel_that_ended_holds_little() {
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(253).payload(1024).held_descriptors(65_535).held_bytes(8 << 20);
    let (mut ours, theirs) = Channel::<Packet>::pair(limits).unwrap();
    ours.set_batch(16);
    drop(theirs);
    assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
    assert!(ours.stats().held.bytes < 8192, "{:?}", ours.stats().held);
    drop(ours);
    ledger.close();
}
