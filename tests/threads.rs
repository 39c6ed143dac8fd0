//! Many threads on one channel, over real sockets (P7).

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use driver::{soon, until_asleep};
use fdpost::outbox::Bounds;
use fdpost::{
    Channel, Deadline, Error, Libcamera, Limits, Message, Packet, Profile, Receiving, SendError, Sending,
    Sent, Stream, Violation,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Ledger, assert_child, child, child_value, files, is_shut_down, raw_send};

const LIMITS: Limits = Limits::new().descriptors(2);

fn split<P: Profile<Declared: Send>>(bounds: Bounds) -> (Sending<P>, Receiving<P>, Channel<P>) {
    let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    let (sending, receiving) = ours.split_within(bounds);
    (sending, receiving, Channel::from_fd(theirs, LIMITS).unwrap())
}

/// Fills the socket and the queue, and says how many messages that took.
fn fill<P: Profile>(sending: &Sending<P>) -> usize {
    let fills = || sending.try_send(Message::new(vec![9; 3000]));
    let mut count = 0;
    let error = loop {
        match fills() {
            Ok(_) => count += 1,
            Err(SendError { error, messages }) => {
                assert_eq!(messages.len(), 1);
                break error;
            }
        }
    };
    assert_eq!(error, Error::WouldBlock);
    count
}

fn nothing_mixes<P: Profile<Declared: Send> + 'static>() {
    const THREADS: u8 = 8;
    const EACH: u32 = 2000;
    let ledger = Ledger::open();
    let owned = files(1).remove(0);
    let file = &owned;
    let (sending, receiving, mut peer) = split::<P>(Bounds::new().tenure(3));
    thread::scope(|scope| {
        for who in 0..THREADS {
            let sending = sending.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    // Each length is another, so that a mixed-up header shows.
                    let mut payload = vec![who; 5 + (number % 300) as usize];
                    payload[1..5].copy_from_slice(&number.to_le_bytes());
                    let mut message = Message::new(payload);
                    if number % 10 == 0 {
                        message = message.with(file.try_clone().unwrap());
                    }
                    sending.send(message).unwrap();
                }
                sending.flush_by(soon()).unwrap();
            });
        }
        let mut next = [0; THREADS as usize];
        for _ in 0..u32::from(THREADS) * EACH {
            let message = peer.receive_by(soon()).unwrap();
            let payload = message.payload();
            let (who, number) = (payload[0], u32::from_le_bytes(payload[1..5].try_into().unwrap()));
            assert_eq!(number, next[usize::from(who)]);
            next[usize::from(who)] += 1;
            assert_eq!(payload.len(), 5 + (number % 300) as usize);
            assert!(payload[5..].iter().all(|byte| *byte == who));
            assert_eq!(message.descriptor_count(), usize::from(number % 10 == 0));
        }
    });
    assert_eq!(peer.try_receive().map(drop), Ok(()));
    assert_eq!((sending.sent().messages, sending.lost().messages), (16_000, 0));
    assert!(!sending.has_pending());
    drop((sending, receiving, peer));
    drop(owned);
    ledger.close();
}

#[test] // P2 P7
fn eight_threads_mix_nothing() {
    nothing_mixes::<Packet>();
    nothing_mixes::<Libcamera>();
    nothing_mixes::<Stream>();
}

#[test] // P5 P7
fn a_shutdown_ends_every_sender_and_what_is_queued_is_closed_once() {
    let ledger = Ledger::open();
    let (sending, receiving, peer) = split::<Packet>(Bounds::new().messages(4));
    fill(&sending);
    thread::scope(|scope| {
        let senders: Vec<_> = files(4)
            .into_iter()
            .map(|file| {
                let sending = sending.clone();
                scope.spawn(move || {
                    sending.send(Message::new(b"waits").with(file)).map_err(|error| error.error)
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        assert!(senders.iter().all(|sender| !sender.is_finished()), "all wait for room");
        sending.closer().shutdown();
        let ends: Vec<_> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        assert!(ends.iter().all(|end| *end == Err(Error::Closed)), "{ends:?}");
    });
    assert_eq!(sending.send(Message::new(b"x")).unwrap_err().error, Error::Closed);
    assert_eq!(sending.flush_by(soon()), Err(Error::Closed));
    assert_eq!(sending.lost().messages, 4, "what the queue held");
    drop((sending, receiving, peer));
    ledger.close();
}

#[test] // P3 P7
fn a_violation_is_every_senders_answer() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let (sending, mut receiving) = ours.split();
    raw_send(&theirs, b"no header", &[]);
    let violation = Error::Violation(Violation::HeaderLength { expected: 16, received: 9 });
    assert_eq!(receiving.receive_by(soon()).unwrap_err(), violation);
    assert!(is_shut_down(&theirs));
    for _ in 0..2 {
        let SendError { error, messages } = sending.send(Message::new(b"late")).unwrap_err();
        assert_eq!((error, messages.len()), (violation, 1));
    }
    drop((sending, receiving, theirs));
    ledger.close();
}

#[test] // P6 P7
fn what_a_try_send_leaves_behind_a_waiting_receive_sends() {
    let ledger = Ledger::open();
    let (sending, mut receiving, mut peer) = split::<Libcamera>(Bounds::new().messages(8));
    let count = fill(&sending);
    assert!(sending.wants_write() && sending.has_pending());
    let reader = thread::spawn(move || {
        let mut seen = 0;
        while seen < count {
            peer.receive_by(soon()).unwrap();
            seen += 1;
        }
        peer.send(Message::new(b"all here")).unwrap();
        peer
    });
    assert_eq!(receiving.receive_by(soon()).unwrap().payload(), b"all here");
    assert!(!sending.wants_write() && !sending.has_pending());
    drop((sending, receiving, reader.join().unwrap()));
    ledger.close();
}

/// The receiver sleeps before anything is left to it.
fn a_receiver_is_woken<P: Profile<Declared: Send> + 'static>() {
    let ledger = Ledger::open();
    let (sending, mut receiving, mut peer) = split::<P>(Bounds::new().messages(8));
    let receiver = thread::Builder::new().name("receiver".into());
    let receiver = receiver.spawn(move || receiving.receive_by(soon()).unwrap()).unwrap();
    until_asleep("receiver");
    let count = fill(&sending);
    assert!(sending.has_pending());
    for _ in 0..count {
        peer.receive_by(soon()).unwrap();
    }
    peer.send(Message::new(b"all here")).unwrap();
    assert_eq!(receiver.join().unwrap().payload(), b"all here");
    assert!(!sending.has_pending());
    drop((sending, peer));
    ledger.close();
}

#[test] // P6 P7
fn what_a_try_send_leaves_behind_wakes_a_receiver_to_send_it() {
    a_receiver_is_woken::<Packet>();
    a_receiver_is_woken::<Libcamera>();
    a_receiver_is_woken::<Stream>();
}

#[test] // P6 P7: so it does where no descriptor is free to wake it with.
fn a_receiver_without_a_bell_looks_by_itself() {
    if child_value().is_none() {
        let ledger = Ledger::open();
        assert_child(&child("a_receiver_without_a_bell_looks_by_itself", "yes"));
        return ledger.close();
    }
    let (sending, mut receiving, mut peer) = split::<Packet>(Bounds::new().messages(8));
    let receiver = thread::Builder::new().name("receiver".into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // All numbers below the lowest that is free are taken.
    let free = files(1).remove(0).as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, free.try_into().unwrap(), hard).unwrap();
    let receiver = receiver.spawn(move || receiving.receive_by(soon()).unwrap()).unwrap();
    thread::sleep(Duration::from_millis(50));
    let count = fill(&sending);
    (0..count).for_each(|_| drop(peer.receive_by(soon()).unwrap()));
    peer.send(Message::new(b"all here")).unwrap();
    assert_eq!(receiver.join().unwrap().payload(), b"all here");
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

/// How many messages more are accepted behind the one that finds the socket full.
fn accepted_behind(bounds: Bounds, message: impl Fn() -> Message) -> usize {
    let (sending, _receiving, _peer) = split::<Packet>(bounds);
    while sending.try_send(Message::new([9; 900])).unwrap() == Sent::Complete {}
    let accepted = (0..).find(|_| sending.try_send(message()).is_err_and(|e| e.error == Error::WouldBlock));
    assert_eq!(sending.lost().messages, 0);
    accepted.unwrap()
}

#[test] // P4: the one that is in flight counts.
fn the_queue_is_bounded_by_messages_bytes_and_descriptors() {
    let ledger = Ledger::open();
    assert_eq!(accepted_behind(Bounds::new().messages(5), || Message::new([1; 900])), 4);
    assert_eq!(accepted_behind(Bounds::new().bytes(4500), || Message::new([1; 900])), 4);
    assert_eq!(accepted_behind(Bounds::new().bytes(4499), || Message::new([1; 900])), 3);
    let with_file = || Message::new(b"x").with(files(1).remove(0));
    assert_eq!(accepted_behind(Bounds::new().descriptors(3), with_file), 3);
    // One that exceeds a bound by itself waits until nothing else is queued, and is taken then.
    let (sending, receiving, mut peer) = split::<Packet>(Bounds::new().bytes(10).descriptors(0));
    assert_eq!(sending.try_send(with_file()).unwrap(), Sent::Complete);
    assert_eq!(peer.receive_by(soon()).unwrap().descriptor_count(), 1);
    drop((sending, receiving, peer));
    ledger.close();
}

#[test] // P5 P7: poll(2) says EINVAL where RLIMIT_NOFILE is below one; the flusher stays all the same.
fn a_flusher_that_cannot_poll_waits_by_time() {
    if child_value().is_none() {
        let ledger = Ledger::open();
        assert_child(&child("a_flusher_that_cannot_poll_waits_by_time", "yes"));
        return ledger.close();
    }
    let (sending, _receiving, mut peer) = split::<Packet>(Bounds::new().messages(8));
    let count = fill(&sending);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let short = sending.flush_by(Deadline::after(Duration::from_millis(20)));
    assert_eq!(short, Err(Error::TimedOut));
    thread::scope(|scope| {
        let sender = scope.spawn(|| sending.send(Message::new(b"stays")).unwrap());
        let mut left = count + 1;
        let give_up = soon();
        while left > 0 {
            assert!(!give_up.has_passed(), "{left} are still to come");
            left -= usize::from(peer.try_receive().unwrap().is_some());
        }
        sender.join().unwrap();
    });
    assert!(!sending.has_pending());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
}

#[test] // P5
fn a_deadline_gives_the_message_back_where_there_never_was_room() {
    let ledger = Ledger::open();
    let (sending, receiving, mut peer) = split::<Packet>(Bounds::new().messages(3));
    let count = fill(&sending);
    let short = || Deadline::after(Duration::from_millis(20));
    let message = Message::new(b"no room").with(files(1).remove(0));
    let SendError { error, messages } = sending.send_by(message, short()).unwrap_err();
    assert_eq!((error, messages[0].descriptor_count()), (Error::TimedOut, 1));
    assert_eq!(sending.flush_by(short()), Err(Error::TimedOut));
    for _ in 0..count {
        peer.receive_by(soon()).unwrap();
        let _flushes = sending.flush_by(short());
    }
    assert_eq!(sending.send_by(Message::new(b"room"), soon()).unwrap(), Sent::Complete);
    assert_eq!(peer.receive_by(soon()).unwrap().payload(), b"room");
    drop((sending, receiving, peer, messages));
    ledger.close();
}

#[test] // P2
fn the_last_handle_closes_the_queue_or_lingers() {
    let ledger = Ledger::open();
    let (sending, receiving, mut peer) = split::<Packet>(Bounds::new().messages(3));
    let count = fill(&sending);
    let clone = sending.clone();
    drop(sending);
    assert!(clone.has_pending(), "not the last");
    drop(clone);
    for _ in 0..count - 3 {
        peer.receive_by(soon()).unwrap();
    }
    assert_eq!(peer.receive_by(soon()).unwrap_err(), Error::Closed, "the queue is gone");
    drop((receiving, peer));

    let (sending, receiving, mut peer) = split::<Packet>(Bounds::new().messages(3));
    let count = fill(&sending);
    sending.set_linger(Duration::from_secs(10));
    let dropping = thread::spawn(move || drop(sending));
    for _ in 0..count {
        peer.receive_by(soon()).unwrap();
    }
    assert_eq!(peer.receive_by(soon()).unwrap_err(), Error::Closed);
    dropping.join().unwrap();
    drop((receiving, peer));
    ledger.close();
}

#[test]
fn what_was_pending_before_the_split_goes_first() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let mut theirs = Channel::<Libcamera>::from_fd(theirs, LIMITS).unwrap();
    let mut count = 0;
    while matches!(ours.try_send(Message::new(b"before")), Ok(Sent::Complete)) {
        count += 1;
    }
    let pending = usize::from(ours.has_pending());
    let (sending, receiving) = ours.split();
    assert_eq!(sending.has_pending(), pending == 1);
    assert_eq!(sending.try_send(Message::new(b"behind")).unwrap(), Sent::Pending);
    for _ in 0..count + pending {
        assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"before");
        let _flushes = sending.flush_by(Deadline::after(Duration::ZERO));
    }
    assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"behind");
    assert_eq!(sending.sent().messages, (count + pending + 1) as u64);
    drop((sending, receiving, theirs));
    ledger.close();
}
