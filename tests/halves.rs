//! What the halves of a channel pass on to it: each setting has its effect, each question its answer.

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use driver::{after, ends, message, set_option, soon, until_asleep};
use fdpost::{
    Accept, Channel, Error, Libcamera, Limits, Message, Packet, Policy, Profile, Receiving, SendError,
    Sending, Sent, Stream, Violation,
};
use nix::libc;
use support::{Ledger, files, libcamera_header, packet_header, raw_send};

const LIMITS: Limits = Limits::new().descriptors(2);

fn split<P: Profile<Declared: Send>>() -> (Sending<P>, Receiving<P>, Channel<P>) {
    let (ours, theirs) = ends::<P>(LIMITS);
    let (sending, receiving) = ours.split();
    (sending, receiving, theirs)
}

#[test] // P4
fn a_receiving_half_reads_in_batches_and_counts() {
    let ledger = Ledger::open();
    let (sending, mut receiving, mut theirs) = split::<Libcamera>();
    receiving.set_batch(16);
    receiving.set_spin(Duration::from_micros(20));
    assert_eq!(receiving.timeout(), None, "nothing is overdue, and nothing was read");
    for payload in [b"1", b"2", b"3"] {
        theirs.send(Message::new(payload)).unwrap();
    }
    let mut came = message(b"before", files(1));
    receiving.receive_into(&mut came, soon()).unwrap();
    assert_eq!((came.payload(), came.descriptor_count()), (&b"1"[..], 0));
    assert_eq!(receiving.timeout(), Some(Duration::ZERO), "more was read than was received");
    assert_eq!(receiving.try_receive().unwrap().unwrap().payload(), b"2");
    assert_eq!(receiving.receive().unwrap().payload(), b"3");
    sending.send(Message::new(b"four")).unwrap();
    assert_eq!((receiving.stats().received.messages, receiving.stats().sent.bytes), (3, 4));
    drop((sending, receiving, theirs, came));
    ledger.close();
}

#[test] // P3
fn a_receiving_half_gives_its_reaper_what_it_refuses() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let (sending, mut receiving) = ours.split();
    let (grave, refused) = mpsc::channel();
    receiving.set_reaper(move |descriptor| grave.send(descriptor).unwrap());
    raw_send(&theirs, &libcamera_header(2, 1), &[]);
    raw_send(&theirs, b"no", &files(2));
    let expected = Violation::DescriptorCount { declared: 1, received: 2 };
    assert_eq!(receiving.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    assert_eq!(refused.try_iter().count(), 2);
    drop((sending, receiving, theirs));
    ledger.close();
}

#[test] // P9
fn a_receiving_half_keeps_to_its_policy() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let (sending, mut receiving) = ours.split();
    receiving.set_policy(Policy::new().every(Accept::pipe()));
    raw_send(&theirs, &packet_header(0, 1), &files(1));
    let error = receiving.receive_by(soon()).unwrap_err();
    assert!(matches!(error, Error::Violation(Violation::DescriptorKind { .. })), "{error:?}");
    drop((sending, receiving, theirs));
    ledger.close();
}

#[test] // P5
fn each_half_ends_both() {
    let ledger = Ledger::open();
    let (sending, mut receiving, theirs) = split::<Stream>();
    sending.shutdown();
    assert_eq!(receiving.receive_by(soon()).unwrap_err(), Error::Closed);
    let (other, mut same, peer) = split::<Stream>();
    same.shutdown();
    assert_eq!(same.receive_by(soon()).unwrap_err(), Error::Closed);
    assert_eq!(other.send(Message::new(b"x")).unwrap_err().error, Error::Closed);
    drop((sending, receiving, theirs, other, same, peer));
    ledger.close();
}

fn set_buffer<P: Profile>(sending: &Sending<P>, bytes: i32) {
    set_option(sending, libc::SO_SNDBUF, bytes).unwrap();
}

/// What is larger than the socket took when the channel was split, and takes now.
#[test] // P6
fn a_raised_buffer_is_noticed_by_one_send_and_by_many() {
    const SMALL: i32 = 8 * 1024;
    const LARGE: usize = 60_000;
    fn raised<P: Profile<Declared: Send>>() {
        let ledger = Ledger::open();
        let (mut theirs, ours) = Channel::<P>::pair(LIMITS).unwrap();
        set_option(&ours, libc::SO_SNDBUF, SMALL).unwrap();
        let (sending, receiving) = Channel::<P>::from_fd(ours, LIMITS).unwrap().split();
        let large = || Message::new(vec![5; LARGE]);
        let SendError { error, messages } = sending.try_send(large()).unwrap_err();
        assert!(matches!(error, Error::Misuse(fdpost::Misuse::PayloadTooLarge { .. })), "{error:?}");
        assert_eq!(messages[0].payload().len(), LARGE);
        let mut all = vec![large()];
        assert!(matches!(sending.send_all_by(&mut all, soon()), Err(Error::Misuse(_))));
        assert_eq!(all.len(), 1);
        set_buffer(&sending, 200 * 1024);
        assert_eq!(sending.send_all_by(&mut all, soon()).unwrap(), Sent::Complete);
        assert!(all.is_empty());
        assert_eq!(theirs.receive_by(soon()).unwrap().payload().len(), LARGE);
        assert_eq!(sending.send_by(large(), soon()).unwrap(), Sent::Complete);
        assert_eq!(theirs.receive_by(soon()).unwrap().payload().len(), LARGE);
        drop((sending, receiving, theirs));
        ledger.close();
    }
    raised::<Libcamera>();
    raised::<Packet>();
}

/// What the socket took when the channel was split, and takes no longer: it comes back before its first
/// byte has left, and the direction lives.
#[test] // P6
fn a_lowered_buffer_is_noticed_before_the_first_byte_leaves() {
    fn lowered<P: Profile<Declared: Send>>() {
        let ledger = Ledger::open();
        let (sending, receiving, mut theirs) = split::<P>();
        set_buffer(&sending, 4096);
        let SendError { error, messages } =
            sending.send_by(Message::new(vec![5; 60_000]), soon()).unwrap_err();
        assert!(matches!(error, Error::Misuse(fdpost::Misuse::PayloadTooLarge { .. })), "{error:?}");
        assert_eq!(messages[0].payload().len(), 60_000);
        assert_eq!(sending.send_by(Message::new(b"small"), soon()).unwrap(), Sent::Complete);
        assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"small");
        drop((sending, receiving, theirs));
        ledger.close();
    }
    lowered::<Libcamera>();
    lowered::<Packet>();
}

/// The eventfds of this process: the flags of each, and how often it rang (proc_pid_fdinfo(5), octal and
/// hexadecimal).
fn bells() -> Vec<(i32, u64)> {
    let all = support::descriptors().into_iter();
    let eventfds = all.filter(|(_, name)| name.to_string_lossy().contains("eventfd"));
    eventfds
        .map(|(number, _)| {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            let field = |name| info.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            let flags = i32::from_str_radix(field("flags:"), 8).unwrap();
            (flags, u64::from_str_radix(field("eventfd-count:"), 16).unwrap())
        })
        .collect()
}

#[test] // P5: a receiver that has waited has a bell, which blocks nobody and crosses no exec.
fn a_receiver_that_waits_has_a_bell() {
    let ledger = Ledger::open();
    let (sending, mut receiving, theirs) = split::<Packet>();
    assert_eq!(bells(), [], "nobody has waited yet");
    assert_eq!(receiving.receive_by(after(1)).unwrap_err(), Error::TimedOut);
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    assert_eq!(bells().into_iter().map(|(bell, _)| bell & flags).collect::<Vec<_>>(), [flags]);
    drop((sending, receiving, theirs));
    ledger.close();
}

#[test] // P5: once it has looked, a bell that rang keeps no receiver awake.
fn a_bell_that_rang_is_silenced() {
    let ledger = Ledger::open();
    let (sending, mut receiving, theirs) = split::<Packet>();
    thread::scope(|scope| {
        let waits = thread::Builder::new().name("hears".into());
        let waits = waits.spawn_scoped(scope, || receiving.receive_by(after(1000)).unwrap_err()).unwrap();
        until_asleep("hears");
        // Full, so that something is left behind: the bell rings, and there is nothing to be done.
        while sending.try_send(Message::new([9; 3000])).unwrap() == Sent::Complete {}
        assert_eq!(waits.join().unwrap(), Error::TimedOut);
        assert_eq!(bells().into_iter().map(|(_, rang)| rang).collect::<Vec<_>>(), [0], "it spins");
    });
    drop((sending, receiving, theirs));
    ledger.close();
}

#[test] // P3: without a linger nothing leaves after the last handle, although there is room by then.
fn what_is_queued_is_closed_with_the_last_handle() {
    let ledger = Ledger::open();
    let (sending, receiving, mut theirs) = split::<Packet>();
    let mut left = 0;
    while sending.try_send(Message::new([9; 3000])).unwrap() == Sent::Complete {
        left += 1;
    }
    for _ in 0..left {
        assert_eq!(theirs.receive_by(soon()).unwrap().payload().len(), 3000);
    }
    assert!(sending.has_pending());
    drop(sending);
    assert_eq!(theirs.receive_by(soon()).unwrap_err(), Error::Closed);
    drop((receiving, theirs));
    ledger.close();
}
