//! A wire chosen at run time: everything through `Box<dyn Transport>`.

mod support;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fdpost::{
    Accept, Channel, Deadline, Error, Libcamera, Limits, Message, Misuse, Packet, Policy, Profile, Reaper,
    SendError, Sent, Stream, Transport,
};
use support::{Ledger, files, identity, raw_send, soon};

const LIMITS: Limits = Limits::new().descriptors(3).assembly_timeout(Duration::from_millis(50));
const WIRES: [&str; 3] = ["libcamera", "packet", "stream"];

fn made<P: Profile<Declared: Send> + Send + 'static>() -> (Box<dyn Transport>, OwnedFd) {
    let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    (Box::new(ours), theirs)
}

fn over<P: Profile<Declared: Send> + Send + 'static>(socket: OwnedFd) -> Box<dyn Transport> {
    Box::new(Channel::<P>::from_fd(socket, LIMITS).unwrap())
}

/// One end, and the other's bare socket.
fn open(wire: &str) -> (Box<dyn Transport>, OwnedFd) {
    match wire {
        "libcamera" => made::<Libcamera>(),
        "packet" => made::<Packet>(),
        _ => made::<Stream>(),
    }
}

fn both(wire: &str) -> [Box<dyn Transport>; 2] {
    let (ours, theirs) = open(wire);
    let theirs = match wire {
        "libcamera" => over::<Libcamera>(theirs),
        "packet" => over::<Packet>(theirs),
        _ => over::<Stream>(theirs),
    };
    [ours, theirs]
}

/// Code that does not care which wire it speaks: every form of send and receive, to and fro.
fn converse(ours: &mut dyn Transport, theirs: &mut dyn Transport) {
    let mut reused = Message::default();
    for round in 0..4_u8 {
        let sent = files(usize::from(round));
        let names: Vec<_> = sent.iter().map(identity).collect();
        let message = sent.into_iter().fold(Message::new([round; 9]), Message::with);
        let complete = match round {
            0 => ours.send(message).map(|()| Sent::Complete),
            1 => ours.send_by(message, soon()),
            _ => ours.try_send(message),
        };
        assert_eq!(complete.unwrap(), Sent::Complete);
        match round {
            0 => reused = theirs.receive().unwrap(),
            1 => reused = theirs.receive_by(soon()).unwrap(),
            2 => reused = theirs.try_receive().unwrap().unwrap(),
            _ => theirs.receive_into(&mut reused, soon()).unwrap(),
        }
        assert_eq!(reused.payload(), [round; 9]);
        let came: Vec<_> = reused.take_all().map(|file| identity(&file)).collect();
        assert_eq!(came, names);
    }
    assert!(theirs.try_receive().unwrap().is_none());
    let begun = Instant::now();
    assert_eq!(theirs.receive_by(Deadline::after(Duration::from_millis(10))).unwrap_err(), Error::TimedOut);
    assert!(begun.elapsed() >= Duration::from_millis(10));
    ours.flush_by(soon()).unwrap();
    assert!(!ours.wants_write() && ours.timeout().is_none());
    let (sent, received) = (ours.stats().sent, theirs.stats().received);
    assert_eq!((sent.messages, sent.descriptors), (4, 6));
    assert_eq!((received.messages, received.descriptors), (4, 6));
}

#[test] // P1, P2
fn every_wire_converses() {
    for wire in WIRES {
        let ledger = Ledger::open();
        let [mut ours, mut theirs] = both(wire);
        assert_eq!((ours.wire(), theirs.wire()), (wire, wire));
        assert_ne!(ours.as_fd().as_raw_fd(), theirs.as_fd().as_raw_fd());
        converse(&mut *ours, &mut *theirs);
        converse_back(&mut *theirs, &mut *ours);
        drop((ours, theirs));
        ledger.close();
    }
}

/// The other direction, from another thread: a boxed transport moves.
fn converse_back(theirs: &mut dyn Transport, ours: &mut dyn Transport) {
    thread::scope(|scope| {
        let waits = scope.spawn(|| ours.receive().unwrap().into_payload());
        theirs.send(Message::new(b"back")).unwrap();
        assert_eq!(waits.join().unwrap(), b"back");
    });
}

#[test] // P6
fn a_refused_message_comes_back() {
    let ledger = Ledger::open();
    for wire in WIRES {
        let [mut ours, _theirs] = both(wire);
        // Each wire has a head that it cannot carry.
        let mut message = Message::new(b"kept").with(files(1).remove(0));
        message = match wire {
            "libcamera" => message.with_kind(1),
            _ => message.with_head(fdpost::Head { flags: 0x80, ..fdpost::Head::default() }),
        };
        let SendError { error, messages } = ours.send(message).unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::HeadUnsupported { .. })), "{wire}: {error:?}");
        assert_eq!((messages.len(), messages[0].payload()), (1, &b"kept"[..]));
    }
    ledger.close();
}

#[test] // P6: what has begun to leave waits for room, and says so.
fn a_part_that_waits_wants_the_socket_writable() {
    let ledger = Ledger::open();
    let limits = Limits::new().payload(8 << 20);
    let (mut theirs, socket) = Channel::<Stream>::pair(limits).unwrap();
    let mut ours: Box<dyn Transport> = Box::new(Channel::<Stream>::from_fd(socket, limits).unwrap());
    assert!(!ours.wants_write() && !ours.has_pending());
    assert_eq!(ours.try_send(Message::new(vec![3; 8 << 20])).unwrap(), Sent::Pending);
    assert!(ours.wants_write() && ours.has_pending());
    thread::scope(|scope| {
        let reads = scope.spawn(|| theirs.receive_by(soon()).unwrap().into_payload().len());
        ours.flush_by(soon()).unwrap();
        assert_eq!(reads.join().unwrap(), 8 << 20);
    });
    assert!(!ours.wants_write() && !ours.has_pending());
    drop((ours, theirs));
    ledger.close();
}

/// Keeps what it is given.
struct Keeps(Arc<Mutex<Vec<OwnedFd>>>);

impl Reaper for Keeps {
    fn reap(&mut self, descriptor: OwnedFd) {
        self.0.lock().unwrap().push(descriptor);
    }
}

#[test] // P2, P3, P5
fn a_violation_is_final_and_the_reaper_gets_what_was_refused() {
    for wire in WIRES {
        let ledger = Ledger::open();
        let (mut ours, peer) = open(wire);
        let kept = Arc::new(Mutex::new(Vec::new()));
        ours.set_reaper(Box::new(Keeps(kept.clone())));
        // One descriptor in front of everything: no wire has that.
        raw_send(&peer, &[0; 8], &files(1));
        let error = ours.receive_by(soon()).unwrap_err();
        assert!(error.violation().is_some(), "{wire}: {error:?}");
        for _ in 0..2 {
            assert_eq!(ours.try_receive().unwrap_err(), error, "{wire}");
            assert_eq!(ours.receive().unwrap_err(), error, "{wire}");
            assert_eq!(ours.try_send(Message::new(b"x")).unwrap_err().error, error, "{wire}");
        }
        assert_eq!(ours.stats().violation, error.violation());
        assert_eq!(kept.lock().unwrap().len(), 1, "{wire}");
        drop((ours, peer, kept));
        ledger.close();
    }
}

#[test] // P9
fn a_policy_is_kept_to() {
    let ledger = Ledger::open();
    for wire in WIRES {
        let [mut ours, mut theirs] = both(wire);
        ours.set_policy(Policy::new().every(Accept::pipe()));
        let sent = theirs.send_by(Message::new(b"").with(files(1).remove(0)), soon());
        assert_eq!(sent.unwrap(), Sent::Complete, "{wire}");
        let error = ours.receive_by(soon()).unwrap_err();
        assert_eq!(error.violation().unwrap().rule(), "descriptor-kind", "{wire}: {error:?}");
    }
    ledger.close();
}

#[test] // P5
fn the_timeout_is_that_of_the_message_begun() {
    let ledger = Ledger::open();
    for (wire, begun) in [("libcamera", &[9, 0, 0, 0, 0, 0, 0, 0][..]), ("stream", &[0; 5])] {
        let (mut ours, peer) = open(wire);
        // It runs from the message's first byte, not from the channel's beginning.
        thread::sleep(Duration::from_millis(60));
        raw_send(&peer, begun, &[]);
        assert!(ours.try_receive().unwrap().is_none());
        let timeout = ours.timeout().unwrap();
        assert!(timeout <= Duration::from_millis(52), "{wire}: {timeout:?}");
        assert_eq!(ours.receive().unwrap_err().violation().unwrap().rule(), "payload-missing", "{wire}");
        assert_eq!(ours.timeout(), None, "{wire}");
    }
    ledger.close();
}

#[test] // P5
fn shutdown_wakes_whoever_waits() {
    for wire in WIRES {
        let ledger = Ledger::open();
        let [mut ours, mut theirs] = both(wire);
        let closer = ours.closer();
        let waits = thread::spawn(move || (ours.receive().unwrap_err(), ours));
        thread::sleep(Duration::from_millis(20));
        closer.shutdown();
        let (error, ours) = waits.join().unwrap();
        assert_eq!(error, Error::Closed, "{wire}");
        theirs.shutdown();
        assert_eq!(theirs.receive().unwrap_err(), Error::Closed, "{wire}");
        drop((ours, theirs));
        ledger.close();
    }
}
