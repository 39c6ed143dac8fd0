//! `Sending::send_all`: a burst in one call, and what of it comes back (P6, P7).

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::path::PathBuf;
use std::thread;

use driver::{Wire, after, set_option, soon, until_asleep};
use fdpost::outbox::Bounds;
use fdpost::{
    Channel, Error, Libcamera, Limits, Message, Misuse, Packet, Profile, Receiving, Sending, Sent, Stream,
};
use nix::sys::socket::{setsockopt, sockopt};
use support::{Ledger, files, identity};

const LIMITS: Limits = Limits::new().descriptors(2);

/// linux/include/uapi/asm-generic/socket.h, since Linux 6.16.
const SO_PASSRIGHTS: i32 = 83;

fn split<P: Wire>(bounds: Bounds) -> (Sending<P>, Receiving<P>, Channel<P>) {
    let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    // The least that the kernel grants: a socket that is soon full.
    setsockopt(&ours, sockopt::SndBuf, &4608).unwrap();
    let (sending, receiving) = ours.split_within(bounds);
    (sending, receiving, Channel::from_fd(theirs, LIMITS).unwrap())
}

/// So many numbered messages with a descriptor each, and what these refer to.
fn burst(count: u32) -> (Vec<Message>, Vec<PathBuf>) {
    let files = files(count as usize);
    let names = files.iter().map(identity).collect();
    let numbered = (0..count).zip(files);
    (numbered.map(|(number, file)| Message::new(number.to_le_bytes()).with(file)).collect(), names)
}

/// The messages are those of the burst from `first` on, each with its own descriptor.
#[track_caller]
fn assert_are(messages: &[Message], names: &[PathBuf], first: usize) {
    let came: Vec<_> = messages.iter().map(|message| message.payload().to_vec()).collect();
    let numbers: Vec<_> =
        (first..first + messages.len()).map(|number| (number as u32).to_le_bytes()).collect();
    assert_eq!(came, numbers);
    for (message, name) in messages.iter().zip(&names[first..]) {
        assert_eq!(identity(message.descriptor(0).unwrap()), *name);
    }
}

/// Sends until nothing more is accepted: how many were.
fn fill<P: Profile>(sending: &Sending<P>) -> u32 {
    let tries = || sending.try_send(Message::new(vec![9; 1000]));
    (0..).find(|_| tries().is_err_and(|error| error.error == Error::WouldBlock)).unwrap()
}

fn in_order<P: Wire>() {
    let ledger = Ledger::open();
    let (sending, receiving, mut peer) = split::<P>(Bounds::new().messages(7));
    // More than the queue and the socket hold, while another sender comes in between.
    let (mut messages, names) = burst(150);
    thread::scope(|scope| {
        scope.spawn(|| sending.send_all(&mut messages).unwrap());
        scope.spawn(|| {
            for _ in 0..50 {
                sending.send(Message::new([0; 9])).unwrap();
            }
        });
        let came: Vec<_> = (0..200).map(|_| peer.receive_by(soon()).unwrap()).collect();
        let (ours, others): (Vec<_>, Vec<_>) =
            came.into_iter().partition(|message| message.payload().len() == 4);
        assert_are(&ours, &names, 0);
        assert_eq!((ours.len(), others.len()), (150, 50));
    });
    assert_eq!((messages.len(), sending.sent().messages, sending.lost().messages), (0, 200, 0));
    assert_eq!(sending.send_all_by(&mut messages, soon()).unwrap(), Sent::Complete, "of nothing");
    drop((sending, receiving, peer));
    ledger.close();
}

#[test] // P2 P7
fn a_burst_larger_than_the_queue_keeps_its_order() {
    in_order::<Packet>();
    in_order::<Libcamera>();
    in_order::<Stream>();
}

#[test] // P6
fn a_message_that_is_never_sent_stays_with_those_behind_it() {
    let ledger = Ledger::open();
    let (sending, receiving, mut peer) = split::<Packet>(Bounds::new());
    let (mut messages, names) = burst(5);
    messages.insert(3, Message::new(vec![0; 1 << 20]));
    let error = sending.send_all(&mut messages).unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::PayloadTooLarge { bytes: 1_048_576, .. })), "{error:?}");
    assert_eq!((messages.len(), messages.remove(0).payload().len()), (3, 1 << 20), "the first is at fault");
    assert_are(&messages, &names, 3);
    assert!(!sending.has_pending());
    assert_eq!(sending.send_all_by(&mut messages, soon()).unwrap(), Sent::Complete);
    let came: Vec<_> = (0..5).map(|_| peer.receive_by(soon()).unwrap()).collect();
    assert_are(&came, &names, 0);
    drop((sending, receiving, peer, came));
    ledger.close();
}

#[test] // P5 P6
fn a_deadline_gives_back_what_found_no_room() {
    let ledger = Ledger::open();
    let (sending, receiving, mut peer) = split::<Packet>(Bounds::new().messages(3));
    let before = fill(&sending);
    for _ in 0..before {
        peer.receive_by(soon()).unwrap();
        let _flushes = sending.flush_by(after(0));
    }
    let (mut messages, names) = burst(200);
    assert_eq!(sending.send_all_by(&mut messages, after(20)).unwrap_err(), Error::TimedOut);
    let accepted = 200 - messages.len();
    assert!((3..200).contains(&accepted), "{accepted} found room");
    assert_are(&messages, &names, accepted);
    for number in 0..accepted {
        let came = peer.receive_by(soon()).unwrap();
        assert_are(&[came], &names, number);
        let _flushes = sending.flush_by(after(0));
    }
    drop((sending, receiving, peer, messages));
    ledger.close();
}

#[test] // P6: SO_SNDBUF was lowered behind the channel's back
fn what_is_too_large_for_the_socket_now_is_the_callers_mistake_and_not_the_kernels() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut peer = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
    let (sending, receiving) = ours.split();
    setsockopt(&sending, sockopt::SndBuf, &4608).unwrap();
    let too_large = Misuse::PayloadTooLarge { bytes: 40_000, limit: 2 * 4608 - 32 - 16 };
    let error = sending.send(Message::new(vec![0; 40_000])).unwrap_err();
    assert_eq!((error.error, error.messages[0].payload().len()), (too_large.into(), 40_000));
    let mut messages = vec![Message::new(b"before"), Message::new(vec![0; 40_000]), Message::new(b"behind")];
    assert_eq!(sending.send_all(&mut messages).unwrap_err(), too_large.into());
    assert_eq!(messages.remove(0).payload().len(), 40_000);
    assert_eq!(sending.send_all_by(&mut messages, soon()).unwrap(), Sent::Complete);
    for expected in [&b"before"[..], b"behind"] {
        assert_eq!(peer.receive_by(soon()).unwrap().payload(), expected);
    }
    drop((sending, receiving, peer));
    ledger.close();
}

/// The peer dies beside a full socket while the burst waits, in the queue or for room in it.
fn all_comes_back<P: Wire>(fill: impl Fn(&Sending<P>)) {
    let ledger = Ledger::open();
    let (sending, receiving, peer) = split::<P>(Bounds::new().messages(20));
    fill(&sending);
    let (mut messages, names) = burst(10);
    let error = thread::scope(|scope| {
        let waits = thread::Builder::new().name("burst".into());
        let waits = waits.spawn_scoped(scope, || sending.send_all(&mut messages).unwrap_err()).unwrap();
        until_asleep("burst");
        drop(peer);
        waits.join().unwrap()
    });
    assert!(matches!(error, Error::PeerGone { .. }), "{error:?}");
    assert_are(&messages, &names, 0);
    assert_eq!(messages.len(), 10);
    drop((sending, receiving, messages));
    ledger.close();
}

#[test] // P2 P6
fn a_dead_peer_gives_back_all_of_a_burst() {
    fn both<P: Wire>() {
        all_comes_back::<P>(|sending| assert!(fill(sending) > 0));
        // Into the queue, behind the one that found the socket full.
        all_comes_back::<P>(|sending| {
            while sending.try_send(Message::new(vec![9; 1000])).unwrap() == Sent::Complete {}
        });
    }
    both::<Packet>();
    both::<Libcamera>();
    both::<Stream>();
}

#[test] // P6 P9
fn what_the_kernel_refuses_of_a_burst_comes_back_and_the_direction_lives() {
    let ledger = Ledger::open();
    let (sending, receiving, mut peer) = split::<Packet>(Bounds::new());
    if let Err(errno) = set_option(&peer, SO_PASSRIGHTS, 0) {
        eprintln!("skipped: this kernel has no SO_PASSRIGHTS ({errno}), so it refuses no message");
        return;
    }
    let (mut messages, names) = burst(3);
    messages.insert(1, Message::new(b"without"));
    let error = sending.send_all(&mut messages).unwrap_err();
    assert!(!matches!(error, Error::PeerGone { .. } | Error::Closed), "{error:?}");
    assert_eq!(sending.lost().messages, 3);
    // All were in the queue by then: the one without descriptors left.
    assert_are(&messages, &names, 0);
    assert_eq!(messages.len(), 3);
    assert_eq!(peer.receive_by(soon()).unwrap().payload(), b"without");
    sending.send(Message::new(b"lives")).unwrap();
    assert_eq!(peer.receive_by(soon()).unwrap().payload(), b"lives");
    drop((sending, receiving, peer, messages));
    ledger.close();
}
