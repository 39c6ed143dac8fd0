//! Bad days with a real process at the other end: cycles of sockets, a peer that never reads, one
//! without standard descriptors, and descriptors whose close blocks.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/peer.rs"]
mod peer;
mod support;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use driver::{Wire, after, fill, lingering, message, soon, twin};
use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, SendError, Stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{close, pipe, read};
use peer::{Peer, await_word, own_end, say};
use support::{Ledger, child_value, files, identity};

const LIMITS: Limits = Limits::new().descriptors(2);

/// In the other process: its channel. `None` in the one that runs the test.
fn other_end<P: Wire>() -> Option<Channel<P>> {
    child_value().filter(|wire| wire == P::NAME).map(|_| Channel::from_fd(own_end(), LIMITS).unwrap())
}

/// Our channel, and the process that has the other end.
fn start<P: Wire>(test: &str) -> (Channel<P>, Peer) {
    let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    (ours, Peer::start(test, P::NAME, theirs))
}

/// A pipe's end that reads the end of file when nobody holds the other any more.
#[track_caller]
fn assert_let_go(watch: &OwnedFd) {
    // The kernel collects cycles when some AF_UNIX socket is closed, in a work queue, and a round
    // that is going on by then may have passed ours (net/unix/garbage.c): so sockets are closed
    // until one comes later.
    let mut polled = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    let let_go = (0..300).any(|_| {
        drop(std::os::unix::net::UnixStream::pair().unwrap());
        poll(&mut polled, PollTimeout::from(100_u16)).unwrap() != 0
    });
    assert!(let_go, "somebody holds it");
    assert_eq!(read(watch, &mut [0]), Ok(0));
}

/// Each end lies unread in the other's queue, and a pipe with it; then all who held them are gone.
fn sockets_in_each_other<P: Wire>(reads: bool) {
    const TEST: &str = "cycles_of_sockets_are_collected";
    if let Some(mut channel) = other_end::<P>() {
        let held = channel.receive_by(soon()).unwrap().take(0).unwrap();
        let itself = twin(&channel);
        channel.send(message(b"myself", vec![itself, held])).unwrap();
        say("sent");
        return await_word();
    }
    if child_value().is_some() {
        return;
    }
    let ledger = Ledger::open();
    let (mut ours, mut peer) = start::<P>(TEST);
    let (watch, held) = pipe().unwrap();
    ours.send(message(b"hold this", vec![held])).unwrap();
    assert_eq!(peer.hear(), "sent");
    let itself = twin(&ours);
    ours.send(message(b"myself", vec![itself])).unwrap();
    if reads {
        let came = ours.receive_by(soon()).unwrap();
        assert_eq!((came.payload(), came.descriptor_count()), (&b"myself"[..], 2));
    }
    peer.kill();
    drop(ours);
    assert_let_go(&watch);
    drop((watch, peer));
    ledger.close();
}

#[test] // P2; case 30
fn cycles_of_sockets_are_collected() {
    for reads in [false, true] {
        sockets_in_each_other::<Packet>(reads);
        sockets_in_each_other::<Libcamera>(reads);
        sockets_in_each_other::<Stream>(reads);
    }
}

/// The peer reads nothing; then it is gone.
fn unread<P: Wire>() {
    const TEST: &str = "a_peer_that_never_reads";
    if let Some(_channel) = other_end::<P>() {
        return await_word();
    }
    if child_value().is_some() {
        return;
    }
    let ledger = Ledger::open();
    let (mut ours, mut peer) = start::<P>(TEST);
    assert!(fill(&mut ours) > 0);
    let file = files(1);
    let name = identity(&file[0]);
    let SendError { error, mut messages } = ours.send_by(message(b"mine", file), after(30)).unwrap_err();
    assert_eq!((error, messages.len()), (Error::TimedOut, 1));
    assert!(ours.try_receive().unwrap().is_none(), "and says nothing");
    peer.kill();
    let mine = messages.remove(0);
    assert_eq!(identity(mine.descriptor(0).unwrap()), name);
    let SendError { error, messages } = ours.send_by(mine, soon()).unwrap_err();
    assert!(matches!(error, Error::PeerGone { .. }), "{error:?}");
    // One that had begun may stand before it.
    let mine = messages.last().unwrap();
    assert_eq!((mine.payload(), identity(mine.descriptor(0).unwrap())), (&b"mine"[..], name));
    drop((ours, peer, messages));
    ledger.close();
}

#[test] // P5 P6; cases 37, 57
fn a_peer_that_never_reads() {
    unread::<Packet>();
    unread::<Libcamera>();
    unread::<Stream>();
}

/// Descriptors arrive in a process that has closed 0, 1 and 2.
fn without_standard_descriptors<P: Wire>() {
    const TEST: &str = "a_process_without_standard_descriptors";
    if let Some(mut channel) = other_end::<P>() {
        (0..3).for_each(|number| close(number).unwrap());
        for _ in 0..2 {
            let came = channel.receive_by(soon()).unwrap();
            let mut answer = Vec::new();
            for place in 0..2 {
                let descriptor = came.descriptor(place).unwrap();
                let mut says = [0];
                pread(descriptor, &mut says, 0).unwrap();
                answer.extend([u8::try_from(descriptor.as_raw_fd()).unwrap(), says[0]]);
            }
            channel.send(Message::new(answer)).unwrap();
        }
        // Before the test harness finds out that it has nowhere to write to.
        std::process::exit(0);
    }
    if child_value().is_some() {
        return;
    }
    let ledger = Ledger::open();
    let (mut ours, peer) = start::<P>(TEST);
    for says in [10, 20] {
        let files = files(2);
        files.iter().zip(says..).for_each(|(file, says)| assert_eq!(pwrite(file, &[says], 0), Ok(1)));
        ours.send(message(b"two", files)).unwrap();
        let answer = ours.receive_by(soon()).unwrap();
        let &[one, first, two, second] = answer.payload() else { panic!("{answer:?}") };
        assert!(one >= 3 && two >= 3 && one != two, "{}: numbers {one} and {two}", P::NAME);
        assert_eq!((first, second), (says, says + 1));
    }
    peer.finish();
    drop(ours);
    ledger.close();
}

#[test] // P2; case 40
fn a_process_without_standard_descriptors() {
    without_standard_descriptors::<Packet>();
    without_standard_descriptors::<Libcamera>();
    without_standard_descriptors::<Stream>();
}

/// The peer sends more descriptors than are accepted, and the close of one blocks.
fn slow_close(with_reaper: bool) {
    const TEST: &str = "a_descriptor_whose_close_blocks";
    if let Some(mut channel) = other_end::<Packet>() {
        let seconds = channel.receive_by(soon()).unwrap().payload()[0];
        let (slow, reader) = lingering(seconds.into());
        let mut sent = files(2);
        sent.push(slow);
        channel.send(message(b"three", sent)).unwrap();
        // By now it is closed here, and theirs is the last close.
        say("sent");
        await_word();
        return drop(reader);
    }
    let ledger = Ledger::open();
    let (mut ours, mut peer) = start::<Packet>(TEST);
    let (grave, refused) = mpsc::channel();
    if with_reaper {
        ours.set_reaper(move |descriptor| grave.send(descriptor).unwrap());
    }
    ours.send(Message::new([if with_reaper { 120 } else { 1 }])).unwrap();
    assert_eq!(peer.hear(), "sent");
    let began = Instant::now();
    let error = ours.receive_by(soon()).unwrap_err();
    let took = began.elapsed();
    assert!(matches!(error, Error::Violation(_)), "{error:?}");
    if with_reaper {
        assert!(took < Duration::from_secs(60), "{took:?}: half of what it lingers");
        let refused: Vec<_> = refused.try_iter().collect();
        assert_eq!(refused.len(), 3, "each once");
        peer.go();
        peer.finish();
        // Reset by its reader's end, so that nothing is left to linger for.
        drop(refused);
    } else {
        assert!(took >= Duration::from_millis(900), "{took:?}: it was to block for a second");
        drop(peer);
    }
    drop(ours);
    ledger.close();
}

#[test] // P2; case 52
fn a_descriptor_whose_close_blocks() {
    slow_close(true);
    if child_value().is_none() {
        slow_close(false);
    }
}
