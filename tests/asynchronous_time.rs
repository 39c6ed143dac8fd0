//! What no event tells of, and the reactor's timers do: overdue messages, a kernel short of something, a
//! readiness that never ends.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/ordinary.rs"]
mod ordinary;
#[path = "support/runtime.rs"]
mod runtime;
mod support;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use driver::{Wire, message, processor_time, returned};
use fdpost::{AsyncChannel, Channel, Error, Libcamera, Limits, Message, Packet, Sent, Stream, Violation};
use nix::libc;
use ordinary::as_an_ordinary_user;
use runtime::{in_time, on_both, poll_once, runtimes};
use support::{Ledger, files, raw_send};

const TIMEOUT: Duration = Duration::from_millis(150);

/// A part of a message, and then silence.
fn overdue<P: Wire>(begins: &[u8], split: bool) {
    let ledger = Ledger::open();
    on_both(async || {
        let limits = Limits::new().assembly_timeout(TIMEOUT);
        let (ours, theirs) = AsyncChannel::<P>::pair(limits).unwrap();
        raw_send(&theirs, begins, &[]);
        let began = Instant::now();
        let error = if split {
            let (sending, mut receiving) = ours.split();
            let error = receiving.receive().await.unwrap_err();
            assert_eq!(returned(sending.send(Message::new(b"late")).await).0, error);
            error
        } else {
            let mut ours = ours;
            ours.receive().await.unwrap_err()
        };
        assert!(
            matches!(error, Error::Violation(Violation::PayloadMissing { .. })),
            "{}: {error:?}",
            P::NAME
        );
        assert!(began.elapsed() >= TIMEOUT);
        assert!(support::try_raw_send(&theirs, begins, &[]).is_err(), "the socket is shut down");
    });
    ledger.close();
}

#[test] // P3, P5; case 11
fn libcamera_overdue() {
    overdue::<Libcamera>(&support::libcamera_header(5, 0), false);
    overdue::<Libcamera>(&support::libcamera_header(5, 0), true);
}

#[test] // P3, P5; case 11
fn stream_overdue() {
    overdue::<Stream>(&[0, 0, 0], false);
    overdue::<Stream>(&[0, 0, 0], true);
}

/// The deadline is the message's: futures that come and go do not move it.
#[test] // P5; case 11
fn overdue_although_each_receive_is_given_up() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, theirs) =
            AsyncChannel::<Stream>::pair(Limits::new().assembly_timeout(TIMEOUT)).unwrap();
        raw_send(&theirs, &[0, 0, 0], &[]);
        let error = loop {
            match tokio::time::timeout(TIMEOUT / 10, ours.receive()).await {
                Err(_given_up) => {}
                Ok(result) => break result.unwrap_err(),
            }
        };
        assert!(matches!(error, Error::Violation(Violation::PayloadMissing { .. })), "{error:?}");
    });
    ledger.close();
}

/// The whole message was there in time; whoever comes late blames nobody.
#[test] // P5; case 59
fn a_late_reader() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, theirs) =
            AsyncChannel::<Libcamera>::pair(Limits::new().assembly_timeout(TIMEOUT)).unwrap();
        raw_send(&theirs, &support::libcamera_header(5, 0), &[]);
        runtime::others().await;
        assert!(poll_once(std::pin::pin!(ours.receive())).await.is_pending());
        raw_send(&theirs, b"whole", &[]);
        std::thread::sleep(TIMEOUT * 2);
        assert_eq!(ours.receive().await.unwrap().payload(), b"whole");
    });
    ledger.close();
}

/// Runs the future, which is to sleep most of its time: on one thread, whose processor time counts.
fn asleep<T>(runtime: &tokio::runtime::Runtime, future: impl Future<Output = T>) -> T {
    let (began, used) = (Instant::now(), processor_time());
    let result = runtime.block_on(in_time(future));
    let (took, used) = (began.elapsed(), processor_time() - used);
    assert!(took >= Duration::from_millis(400), "{took:?}: too short to tell");
    assert!(used < took / 4, "{used:?} of processor time in {took:?}: it spins");
    result
}

/// A peer of a datagram pair that connects its end to nowhere: the kernel says so by an error alone, which
/// is neither readable nor writable.
#[test] // P5; cases 51, 58
fn a_peer_that_turns_away() {
    let ledger = Ledger::open();
    let [runtime, _] = runtimes();
    let (mut ours, theirs) =
        runtime.block_on(async { AsyncChannel::<Libcamera>::pair(Limits::new()).unwrap() });
    while let Ok(Sent::Complete) = ours.try_send(Message::new([1; 1000])) {}
    disconnect(&theirs);
    asleep(&runtime, async {
        // Whatever the kernel makes of it, an answer or none: it is waited for asleep.
        // No byte came and none went: it is an error alone that wakes the reader.
        assert_eq!(ours.receive().await.unwrap_err(), Error::Closed);
        // Whatever the kernel makes of this one, it is waited for asleep.
        let _full =
            tokio::time::timeout(Duration::from_millis(250), ours.send(Message::new([1; 1000]))).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    });
    drop((ours, theirs, runtime));
    ledger.close();
}

/// connect(2) to AF_UNSPEC.
#[allow(unsafe_code, reason = "nix does not connect to nowhere")]
fn disconnect(socket: &OwnedFd) {
    let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let length = size_of_val(&nowhere) as libc::socklen_t;
    // SAFETY: the pointer is to an address of `length` bytes that lives through the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// ETOOMANYREFS as an ordinary user, in a process of its own: the socket is writable all the while.
const EACH: usize = 8;
const MOST: libc::rlim_t = 40;

/// As many as the kernel lets this user have in flight.
fn press<P: Wire>(ours: &mut Channel<P>) -> (usize, Message) {
    for sent in 0..100 {
        match ours.try_send(message(b"in flight", files(EACH))) {
            Ok(Sent::Complete) => {}
            Ok(_) => panic!("the wire has no parts"),
            Err(mut error) => return (sent, error.messages.remove(0)),
        }
    }
    panic!("the kernel lets nobody have 800 descriptors in flight")
}

#[test] // P2, P5, P6; case 43
fn too_many_descriptors_in_flight() {
    if !as_an_ordinary_user("too_many_descriptors_in_flight", MOST) {
        return;
    }
    let [runtime, _] = runtimes();
    let (mut ours, mut theirs) = driver::ends::<Packet>(Limits::new().descriptors(EACH as u8));
    let (sent, back) = press(&mut ours);
    let mut ours = {
        let _inside = runtime.enter();
        AsyncChannel::new(ours).unwrap()
    };
    // Waits by time, and is given up.
    let waits = async {
        let mut send = Box::pin(ours.send(back));
        tokio::time::timeout(Duration::from_millis(500), send.as_mut()).await.unwrap_err();
    };
    asleep(&runtime, waits);
    // So do the halves, and both go on when the peer makes room.
    let (sending, mut receiving) = ours.split();
    let mut parked = Box::pin(sending.send(message(b"in flight", files(EACH))));
    asleep(&runtime, async {
        tokio::time::timeout(Duration::from_millis(250), parked.as_mut()).await.unwrap_err();
        // Kept and not polled: who receives waits by time for it.
        tokio::time::timeout(Duration::from_millis(250), receiving.receive()).await.unwrap_err();
    });
    for _ in 0..=sent {
        let came = runtime.block_on(in_time(async {
            let mut receive = Box::pin(receiving.receive());
            loop {
                if let Some(message) = theirs.try_receive().unwrap() {
                    break message;
                }
                assert!(poll_once(receive.as_mut()).await.is_pending());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }));
        assert_eq!(came.descriptor_count(), EACH);
    }
    runtime.block_on(in_time(parked)).unwrap();
    assert!(!sending.has_pending() && receiving.as_fd().as_raw_fd() > 2);
}
