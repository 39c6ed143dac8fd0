//! A kernel that is short of something while it calls the socket writable (case 43, 46):
//! ETOOMANYREFS as an ordinary user, in a process of its own.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/ordinary.rs"]
mod ordinary;
mod support;

use driver::{Wire, after, ends, message, processor_time, returned, soon, twin};
use fdpost::machine::{Failure, Sender};
use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Sent};
use nix::errno::Errno;
use ordinary::{as_an_ordinary_user, open};
use std::time::{Duration, Instant};
use support::{files, libcamera_header, raw_send};

/// Descriptors per message, and the limit that four of them reach and the sixth exceeds.
const EACH: usize = 8;
const MOST: nix::libc::rlim_t = 32;

const PRESSURE: Error = Error::Pressure { errno: Errno::ETOOMANYREFS as i32 };

/// Sends until the user's descriptors in flight exceed the limit; what that send said.
fn press<P: Wire>(ours: &mut Channel<P>) -> (u32, Result<Sent, (Error, Message)>) {
    for sent in 0..100 {
        match ours.try_send(message(b"in flight", files(EACH))) {
            Ok(Sent::Complete) => {}
            Ok(pending) => return (sent, Ok(pending)),
            error => return (sent, Err(returned(error))),
        }
    }
    panic!("the kernel lets nobody have 800 descriptors in flight")
}

/// Runs `call`, which waits for `millis`, and checks that it waits asleep.
#[track_caller]
fn asleep<T>(millis: u64, call: impl FnOnce() -> T) -> T {
    let (began, used) = (Instant::now(), processor_time());
    let result = call();
    let (took, used) = (began.elapsed(), processor_time() - used);
    assert!(took >= Duration::from_millis(millis), "{took:?}: early");
    assert!(took < Duration::from_millis(millis + 10_000), "{took:?}: late");
    assert!(used < Duration::from_millis(millis / 5), "{used:?} of processor time in {took:?}: it spins");
    result
}

#[test] // P2, P5, P6; case 43
fn packet_too_many_descriptors_in_flight() {
    if !as_an_ordinary_user("packet_too_many_descriptors_in_flight", MOST) {
        return;
    }
    let before = open(MOST);
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(EACH as u8));
    let (sent, refused) = press(&mut ours);
    let (error, back) = refused.unwrap_err();
    assert_eq!((error, back.descriptor_count()), (PRESSURE, EACH), "after {sent} messages");
    assert!(!ours.wants_write());

    let (error, back) = returned(asleep(400, || ours.send_by(back, after(400))));
    assert_eq!((error, back.descriptor_count()), (Error::TimedOut, EACH));
    assert!(!ours.wants_write());

    // The peer makes room: not dead, never was.
    assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), EACH);
    assert_eq!(ours.send_by(back, soon()).unwrap(), Sent::Complete);
    for _ in 0..sent {
        assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), EACH);
    }
    drop((ours, theirs));
    assert_eq!(open(MOST), before);
}

#[test] // P5; case 43
fn packet_pressure_that_is_over_leaves_nothing_to_wait_for() {
    if !as_an_ordinary_user("packet_pressure_that_is_over_leaves_nothing_to_wait_for", MOST) {
        return;
    }
    let (mut ours, theirs) = ends::<Packet>(Limits::new().descriptors(EACH as u8));
    assert!(press(&mut ours).1.is_err());
    assert_eq!(ours.timeout(), None, "the message went back to the caller");
    assert_eq!(asleep(400, || ours.receive_by(after(400))).unwrap_err(), Error::TimedOut);
    drop(theirs);
}

#[test] // P5, P6; cases 15, 43
fn libcamera_too_many_descriptors_in_flight() {
    if !as_an_ordinary_user("libcamera_too_many_descriptors_in_flight", MOST) {
        return;
    }
    let before = open(MOST);
    let limits = Limits::new().descriptors(EACH as u8).assembly_timeout(Duration::from_secs(10));
    let (mut ours, mut theirs) = ends::<Libcamera>(limits);
    let (sent, pending) = press(&mut ours);
    assert_eq!(pending.unwrap(), Sent::Pending, "the header left");
    assert!(!ours.wants_write(), "the socket is writable all the while");
    assert!(ours.timeout().unwrap() <= Duration::from_millis(64));
    let flushed = asleep(400, || ours.flush_by(after(400))).unwrap_err();
    assert_eq!((flushed.error, flushed.messages.len()), (Error::TimedOut, 0));
    assert_eq!(asleep(400, || ours.receive_by(after(400))).unwrap_err(), Error::TimedOut);
    assert!(!ours.wants_write());

    assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), EACH);
    ours.flush_by(soon()).unwrap();
    assert_eq!(ours.timeout(), None);
    for _ in 0..sent {
        assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), EACH);
    }
    drop((ours, theirs));
    assert_eq!(open(MOST), before);
}

#[test] // P5; cases 11, 43
fn libcamera_waiting_out_pressure_while_a_message_to_us_is_overdue() {
    if !as_an_ordinary_user("libcamera_waiting_out_pressure_while_a_message_to_us_is_overdue", MOST) {
        return;
    }
    let limits = Limits::new().descriptors(EACH as u8).assembly_timeout(Duration::from_secs(1));
    let (mut ours, theirs) = ends::<Libcamera>(limits);
    raw_send(&twin(&theirs), &libcamera_header(5, 0), &[]);
    assert!(ours.try_receive().unwrap().is_none(), "its header came");
    assert_eq!(press(&mut ours).1.unwrap(), Sent::Pending);
    std::thread::sleep(Duration::from_millis(1020));
    assert_eq!(ours.timeout(), Some(Duration::ZERO), "the next receive finds it overdue");
    let flushed = asleep(400, || ours.flush_by(after(400))).unwrap_err();
    assert_eq!(flushed.error, Error::TimedOut);
    assert_eq!(ours.receive_by(soon()).unwrap_err().violation().unwrap().rule(), "payload-missing");
}

#[test] // P5
fn a_back_off_ends_with_its_cause() {
    let now = Duration::from_secs(1);
    let sender = || {
        let mut sender = Sender::<Packet, ()>::new();
        sender.push(fdpost::message::Message::new(b"word")).unwrap();
        drop(sender.failed(now, Failure::Pressure));
        assert_eq!(sender.deadline(), Some(now + Duration::from_millis(1)));
        sender
    };
    let mut full = sender();
    drop(full.failed(now, Failure::WouldBlock));
    assert_eq!(full.deadline(), None, "poll(2) tells when there is room: no time to wait for");
    let mut recalled = sender();
    assert!(recalled.recall().is_some());
    assert_eq!(recalled.deadline(), None, "nothing is left to send");
    let mut refused = sender();
    drop(refused.failed(now, Failure::Refused));
    assert_eq!(refused.deadline(), None, "nothing is left to send");
    let mut gone = sender();
    drop(gone.failed(now, Failure::Gone));
    assert_eq!(gone.deadline(), None);
}

#[test] // P5
fn a_back_off_doubles_up_to_64_ms_and_starts_anew_after_success() {
    let mut sender = Sender::<Packet, ()>::new();
    sender.push(fdpost::message::Message::new(b"word")).unwrap();
    for millis in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
        drop(sender.failed(Duration::ZERO, Failure::Pressure));
        assert_eq!(sender.deadline(), Some(Duration::from_millis(millis)));
    }
    sender.transmitted(1);
    assert_eq!(sender.deadline(), None);
    sender.push(fdpost::message::Message::new(b"word")).unwrap();
    drop(sender.failed(Duration::ZERO, Failure::Pressure));
    assert_eq!(sender.deadline(), Some(Duration::from_millis(1)));
}

#[test] // P5, P7; case 43
fn packet_a_split_sender_says_when_to_try_again() {
    if !as_an_ordinary_user("packet_a_split_sender_says_when_to_try_again", MOST) {
        return;
    }
    let (ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(EACH as u8));
    let (sending, receiving) = ours.split();
    assert_eq!(sending.timeout(), None);
    let mut sent = 0;
    while sending.try_send(message(b"in flight", files(EACH))).unwrap() == Sent::Complete {
        sent += 1;
        assert_eq!(sending.timeout(), None);
    }
    // The last one is queued, and the socket will not tell when it can leave.
    let (again, also) = (sending.timeout().unwrap(), receiving.timeout().unwrap());
    assert!(!sending.wants_write() && sending.has_pending());
    assert!(again < Duration::from_secs(1) && also <= again, "{again:?}, {also:?}");
    for _ in 0..sent {
        assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), EACH);
    }
    sending.flush_by(soon()).unwrap();
    assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), EACH);
    assert_eq!(sending.timeout(), None);
}
