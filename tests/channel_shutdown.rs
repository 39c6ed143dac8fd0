//! Shutdown from any thread, and what it leaves deliverable.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Wire, ends, fill, message, returned, soon};
use fdpost::{Channel, Closer, Error, Libcamera, Limits, Message, Packet, SendError};
use nix::errno::Errno;
use std::time::{Duration, Instant};
use support::{Ledger, descriptors, files, identity, is_shut_down};

const GONE: Error = Error::PeerGone { errno: Errno::EPIPE as i32 };

fn limits() -> Limits {
    Limits::new().descriptors(1).assembly_timeout(Duration::from_secs(10))
}

/// Shuts down from another thread when the caller has had time to fall asleep.
fn later(closer: Closer) -> std::thread::JoinHandle<Instant> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        let now = Instant::now();
        closer.shutdown();
        now
    })
}

#[track_caller]
fn woken(thread: std::thread::JoinHandle<Instant>) {
    let since = Instant::now().checked_duration_since(thread.join().unwrap());
    let since = since.expect("it came back before the shutdown");
    assert!(since < Duration::from_secs(5), "woken only after {since:?}");
}

fn wakes_receive<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<P>(limits());
    let thread = later(ours.closer());
    assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed, "{}", P::NAME);
    woken(thread);
    for _ in 0..3 {
        assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
        assert_eq!(ours.try_receive().unwrap_err(), Error::Closed);
    }
    assert_eq!(returned(ours.try_send(Message::new(b"late"))).0, Error::Closed);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P5; case 20
fn shutdown_wakes_a_receive() {
    wakes_receive::<Libcamera>();
    wakes_receive::<Packet>();
}

fn wakes_send<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<P>(limits());
    fill(&mut ours);
    let thread = later(ours.closer());
    let SendError { error, messages } = ours.send_by(message(b"waits", files(1)), soon()).unwrap_err();
    woken(thread);
    assert_eq!(error, Error::Closed, "{}", P::NAME);
    let last = messages.last().unwrap();
    assert_eq!((last.payload(), last.descriptor_count()), (&b"waits"[..], 1));
    assert_eq!(returned(ours.send(Message::new(b"late"))).0, Error::Closed);
    drop((ours, theirs, messages));
    ledger.close();
}

#[test] // P5, P6; case 57
fn shutdown_wakes_a_send_into_a_full_socket() {
    wakes_send::<Libcamera>();
    wakes_send::<Packet>();
}

fn queued_first<P: Wire>(wait: bool) {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(limits());
    theirs.send(message(b"one", files(1))).unwrap();
    theirs.send(Message::new(b"two")).unwrap();
    ours.shutdown();
    let mut next = || if wait { ours.receive_by(soon()).map(Some) } else { ours.try_receive() };
    let one = next().unwrap().unwrap();
    assert_eq!((one.payload(), one.descriptor_count()), (&b"one"[..], 1), "{}", P::NAME);
    assert_eq!(next().unwrap().unwrap().payload(), b"two");
    (0..3).for_each(|_| assert_eq!(next().unwrap_err(), Error::Closed, "{}", P::NAME));
    let late = theirs.try_send(Message::new(b"three")).unwrap_err();
    assert_eq!(late.error, GONE, "{}: nothing more comes in", P::NAME);
    drop((one, ours, theirs));
    ledger.close();
}

#[test] // P1; cases 20, 38
fn what_is_queued_is_delivered_before_the_end() {
    for wait in [true, false] {
        queued_first::<Libcamera>(wait);
        queued_first::<Packet>(wait);
    }
}

/// Messages fly while another thread shuts the socket down.
fn races<P: Wire>() {
    let ledger = Ledger::open();
    for round in 0..if P::NAME == "packet" { 50 } else { 20_u64 } {
        let (mut ours, mut theirs) = ends::<P>(limits());
        let closer = ours.closer();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(50 * round));
            closer.shutdown();
        });
        let reader = std::thread::spawn(move || {
            let mut count = 0_u64;
            // A datagram socket does not tell of a peer's shutdown.
            let patience = if P::NAME == "packet" { soon() } else { driver::after(100) };
            let end = loop {
                let message = match theirs.receive_by(patience) {
                    Ok(message) => message,
                    Err(end) => break end,
                };
                assert_eq!((driver::number(&message), message.descriptor_count()), (count as u32, 1));
                count += 1;
                if count % 7 == 0 {
                    let _refused = theirs.try_send(Message::new(b"back"));
                }
            };
            assert_eq!(end, if P::NAME == "packet" { Error::Closed } else { Error::TimedOut });
            (theirs, count)
        });
        let mut number = 0_u32;
        let failed = loop {
            match ours.send_by(message(&number.to_le_bytes(), files(1)), soon()) {
                Ok(_) => number += 1,
                Err(failed) => break failed,
            }
        };
        assert_eq!(failed.error, Error::Closed, "{}", P::NAME);
        assert_eq!(driver::number(failed.messages.last().unwrap()), number);
        assert!(failed.messages.iter().all(|message| message.descriptor_count() == 1));
        thread.join().unwrap();
        if P::NAME == "packet" {
            let (theirs, count) = reader.join().unwrap();
            assert_eq!(count, ours.stats().sent.messages, "all that left is delivered");
            assert_eq!(theirs.stats().violation, None);
        } else {
            // Both parts of a datagram message left, or the direction is dead: never a mixture.
            drop((ours, failed));
            let (theirs, count) = reader.join().unwrap();
            assert!(count <= number.into());
            drop(theirs);
            continue;
        }
        drop((ours, failed));
    }
    ledger.close();
}

#[test] // P1, P2, P6; case 19
fn packet_writes_racing_a_shutdown() {
    races::<Packet>();
}

#[test] // P1, P2, P6; case 19
fn libcamera_writes_racing_a_shutdown() {
    races::<Libcamera>();
}

fn closers<P: Wire>() {
    let ledger = Ledger::open();
    let (ours, theirs) = ends::<P>(limits());
    let socket = identity(&std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&ours)));
    let closer = ours.closer();
    drop(ours);
    assert!(!descriptors().values().any(|open| *open == socket), "{}: a closer keeps no socket", P::NAME);
    let number_reused = files(2);
    closer.shutdown();
    closer.clone().shutdown();
    drop((theirs, number_reused, closer));
    ledger.close();
}

#[test] // P2
fn a_closer_outlives_its_channel_and_does_nothing() {
    closers::<Libcamera>();
    closers::<Packet>();
}

#[test] // P2
fn a_peer_sees_the_end_of_a_channel_whose_closer_lives() {
    let ledger = Ledger::open();
    let (ours, mut theirs) = ends::<Packet>(limits());
    let closer = ours.closer();
    drop(ours);
    assert_eq!(theirs.receive_by(soon()).unwrap_err(), Error::Closed);
    let (ours, mut theirs) = (ends::<Libcamera>(limits()), theirs);
    let (ours, mut theirs_too) = (ours.0, ours.1);
    let closer_too = ours.closer();
    drop(ours);
    let refused = Error::PeerGone { errno: Errno::ECONNREFUSED as i32 };
    assert_eq!(returned(theirs_too.try_send(Message::new(b"late"))).0, refused);
    assert_eq!(theirs.try_receive().unwrap_err(), Error::Closed);
    drop((theirs, theirs_too, closer, closer_too));
    ledger.close();
}

#[test] // P1, P2; case 18
fn a_channel_dropped_from_inside_a_receive_loop() {
    fn dropped<P: Wire>() {
        let ledger = Ledger::open();
        let (ours, mut theirs) = ends::<P>(limits());
        for _ in 0..5 {
            theirs.send(message(b"queued", files(1))).unwrap();
        }
        let mut ours = Some(ours);
        let mut kept = None;
        while let Some(mut channel) = ours.take() {
            let message = channel.receive_by(soon()).unwrap();
            match kept.replace(message) {
                None => ours = Some(channel),
                Some(_) => drop(channel),
            }
        }
        assert_eq!(kept.as_ref().map(Message::descriptor_count), Some(1), "{}", P::NAME);
        drop((kept, theirs));
        ledger.close();
    }
    dropped::<Libcamera>();
    dropped::<Packet>();
}

fn both_ways<P: Wire>(channel: &mut Channel<P>) {
    assert!(is_shut_down(channel), "{}", P::NAME);
    assert!(matches!(channel.try_receive().unwrap_err(), Error::Violation(_)));
}

#[test] // P3
fn a_violation_shuts_the_socket_down_and_wakes_the_peer() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(limits());
    support::raw_send(&driver::twin(&theirs), b"short", &[]);
    assert_eq!(ours.receive_by(soon()).unwrap_err().violation().unwrap().rule(), "header-length");
    both_ways(&mut ours);
    assert_eq!(theirs.receive_by(soon()).unwrap_err(), Error::Closed);

    let (mut ours_too, mut theirs_too) = ends::<Libcamera>(limits());
    support::raw_send(&driver::twin(&theirs_too), b"short", &[]);
    assert_eq!(ours_too.receive_by(soon()).unwrap_err().violation().unwrap().rule(), "header-length");
    both_ways(&mut ours_too);
    assert_eq!(returned(theirs_too.try_send(Message::new(b"more"))).0, GONE);
    drop((ours, theirs, ours_too, theirs_too));
    ledger.close();
}

#[test] // P5; case 20: a datagram socket shows its shutdown in poll(2) alone
fn a_receive_that_does_not_wait_sees_the_shutdown_too() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<Libcamera>(limits());
    ours.shutdown();
    let passed = fdpost::Deadline::after(Duration::ZERO);
    assert_eq!(ours.receive_by(passed).unwrap_err(), Error::Closed);
    drop((ours, theirs));
    ledger.close();
}
