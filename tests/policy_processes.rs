//! Kinds of descriptors and handed-over channels, with a real process at the other end.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/peer.rs"]
mod peer;
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use driver::{message, soon};
use fdpost::accept::{Domain, SocketType};
use fdpost::{Accept, Channel, Error, Limits, Memfd, Message, Packet, Policy, Seals};
use kinds::memfd;
use peer::{Peer, await_word, own_end, say};
use support::{Ledger, child_value, identity, pidfd};

const ONE: Limits = Limits::new().descriptors(1);
const BYTES: u64 = 1 << 20;

/// The peer's files shrink, grow and change as fast as it can make them, before they are sealed and
/// after. Whatever is accepted stays readable (SIGBUS would end this process) and as it was.
#[test] // P4, P9
fn a_peer_whose_files_shrink_under_the_reader() {
    const TEST: &str = "a_peer_whose_files_shrink_under_the_reader";
    if child_value().is_some() {
        return shrink_and_send();
    }
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Packet>::pair(ONE).unwrap();
    ours.set_policy(Policy::new().every(Accept::memfd_of(BYTES, Seals::STEADY)));
    let mut peer = Peer::start(TEST, "peer", theirs);
    for round in 0..40 {
        let mut came = ours.receive_by(soon()).unwrap();
        let mapped = Memfd::map(came.take(0).unwrap(), BYTES as usize).unwrap();
        // The peer is at it all the while: what is read twice is the same.
        for _ in 0..3 {
            let sum: u64 = mapped.chunks(4096).map(|page| u64::from(page[0])).sum();
            assert_eq!(sum, BYTES / 4096 * round);
        }
        ours.send(Message::new(b"next")).unwrap();
    }
    // The last one is not sealed.
    let error = ours.receive_by(soon()).unwrap_err();
    assert_eq!(error.violation().map(|violation| violation.rule()), Some("descriptor-kind"), "{error:?}");
    assert_eq!(peer.hear(), "refused");
    peer.finish();
    drop(ours);
    ledger.close();
}

/// In the other process.
fn shrink_and_send() {
    let mut channel = Channel::<Packet>::from_fd(own_end(), Limits::new()).unwrap();
    for round in 0..40_u8 {
        let file = File::from(Memfd::create("shrinks", 0).unwrap());
        for _ in 0..5 {
            file.set_len(BYTES).unwrap();
            file.set_len(1).unwrap();
        }
        file.write_all_at(&vec![round; BYTES as usize], 0).unwrap();
        Memfd::seal(&file, Seals::STEADY).unwrap();
        channel.send(message(b"sealed", vec![file.try_clone().unwrap().into()])).unwrap();
        // Until the other side has read enough.
        while channel.try_receive().unwrap().is_none() {
            assert!(file.set_len(0).is_err() && file.set_len(BYTES - 1).is_err());
            assert!(file.write_all_at(&[0xff], 0).is_err());
        }
    }
    channel.send(message(b"bare", vec![memfd(BYTES, Seals::NONE)])).unwrap();
    let error = channel.receive_by(soon()).unwrap_err();
    assert!(matches!(error, Error::Closed), "{error:?}");
    say("refused");
}

/// A channel goes to another process, which talks over it to whoever kept the other end; and goes
/// on when the conversation that carried it is over.
#[test] // P1, P2
fn a_channel_that_another_process_goes_on_with() {
    const TEST: &str = "a_channel_that_another_process_goes_on_with";
    if child_value().is_some() {
        let mut carrier = Channel::<Packet>::from_fd(own_end(), ONE).unwrap();
        let channels = Accept::socket_of(Domain::Unix, SocketType::SeqPacket);
        carrier.set_policy(Policy::new().every(channels));
        let taken = carrier.receive_by(soon()).unwrap().take_channel::<Packet>(0, ONE);
        let mut channel = taken.unwrap();
        carrier.shutdown();
        say("taken");
        // Its first message was queued before it was ours.
        loop {
            match channel.receive_by(soon()) {
                Ok(message) => channel.send(message).unwrap(),
                Err(Error::Closed) => return say("closed"),
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Packet>::pair(ONE).unwrap();
    let mut peer = Peer::start(TEST, "peer", theirs);
    let (mut here, there) = driver::ends::<Packet>(ONE);
    here.send(Message::new(b"before")).unwrap();
    let mut carrier = Message::new(b"");
    carrier.attach_channel(there).unwrap();
    ours.send(carrier).unwrap();
    assert_eq!(peer.hear(), "taken");
    assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
    drop(ours);
    assert_eq!(here.receive_by(soon()).unwrap().payload(), b"before");
    let file = memfd(5, Seals::NONE);
    let name = identity(&file);
    here.send(message(b"a file", vec![file])).unwrap();
    let back = here.receive_by(soon()).unwrap();
    assert_eq!((back.payload(), identity(back.descriptor(0).unwrap())), (&b"a file"[..], name));
    drop((here, back));
    assert_eq!(peer.hear(), "closed");
    peer.finish();
    ledger.close();
}

/// A pidfd names a process whether it lives or not, and no other kind passes for one.
#[test] // P9
fn a_pidfd_of_a_process_that_lives_and_dies() {
    const TEST: &str = "a_pidfd_of_a_process_that_lives_and_dies";
    if child_value().is_some() {
        let mut channel = Channel::<Packet>::from_fd(own_end(), Limits::new()).unwrap();
        channel.send(message(b"me", vec![pidfd(std::process::id())])).unwrap();
        await_word();
        return;
    }
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Packet>::pair(ONE).unwrap();
    let policy = Policy::new().every(Accept::pidfd());
    ours.set_policy(policy.clone());
    let mut peer = Peer::start(TEST, "peer", theirs);
    let alive = ours.receive_by(soon()).unwrap();
    assert_eq!(policy.check(&alive), Ok(()));
    peer.kill();
    assert_eq!(policy.check(&alive), Ok(()), "it has ended");
    drop((ours, alive, peer));
    ledger.close();
}
