//! A receive that waits: asleep in the kernel, or trying for a moment first.

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use driver::{Wire, after, ends, soon, twin};
use fdpost::{Channel, Deadline, Error, Libcamera, Limits, Message, Packet, Stream};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use support::Ledger;

const SPIN: Duration = Duration::from_micros(20);

/// Calls in a thread of its own; panics if it does not come back.
fn ends_soon<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, over) = mpsc::channel();
    let thread = thread::spawn(move || drop(done.send(call())));
    let result = over.recv_timeout(Duration::from_secs(20)).expect("the call does not end");
    thread.join().unwrap();
    result
}

/// Messages to and fro, each awaited; then the peer closes.
fn to_and_fro<P: Wire>(spin: Duration, deadline: fn() -> Deadline) {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new());
    ours.set_spin(spin);
    theirs.set_spin(spin);
    let echo = thread::spawn(move || {
        let mut reused = Message::default();
        for _ in 0..200 {
            theirs.receive_into(&mut reused, deadline()).unwrap();
            theirs.send(Message::new(reused.payload())).unwrap();
        }
    });
    let error = ends_soon(move || {
        for number in 0..200_u32 {
            ours.send(Message::new(number.to_le_bytes())).unwrap();
            assert_eq!(ours.receive_by(deadline()).unwrap().payload(), number.to_le_bytes());
        }
        echo.join().unwrap();
        // The end, which a datagram socket does not show (unix(7)).
        let late = if P::NAME == "libcamera" { after(50) } else { deadline() };
        ours.receive_by(late).unwrap_err()
    });
    let expected = if P::NAME == "libcamera" { Error::TimedOut } else { Error::Closed };
    assert_eq!(error, expected, "{}", P::NAME);
    ledger.close();
}

#[test] // P5
fn every_wire_waits_with_and_without_a_spin() {
    for spin in [Duration::ZERO, SPIN] {
        for deadline in [|| Deadline::NEVER, soon] {
            to_and_fro::<Packet>(spin, deadline);
            to_and_fro::<Stream>(spin, deadline);
            to_and_fro::<Libcamera>(spin, deadline);
        }
    }
}

/// A shutdown from another thread wakes a receive, however it waits.
fn shut_down_while_asleep<P: Wire>(spin: Duration) {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<P>(Limits::new());
    ours.set_spin(spin);
    let closer = ours.closer();
    let (begins, begun) = mpsc::channel();
    let closing = thread::spawn(move || {
        begun.recv().unwrap();
        thread::sleep(Duration::from_millis(300));
        closer.shutdown();
    });
    let error = ends_soon(move || {
        begins.send(()).unwrap();
        let error = ours.receive().unwrap_err();
        assert_eq!(ours.receive().unwrap_err(), error);
        error
    });
    assert_eq!(error, Error::Closed, "{}", P::NAME);
    closing.join().unwrap();
    drop(theirs);
    ledger.close();
}

#[test] // P5; case 20
fn a_shutdown_wakes_who_sleeps() {
    for spin in [Duration::ZERO, SPIN] {
        shut_down_while_asleep::<Packet>(spin);
        shut_down_while_asleep::<Stream>(spin);
        shut_down_while_asleep::<Libcamera>(spin);
    }
}

#[test] // P5: somebody else who holds the socket made it non-blocking
fn a_socket_that_does_not_block_is_waited_for_all_the_same() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new());
    fcntl(twin(&ours), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let (begins, begun) = mpsc::channel();
    let sending = thread::spawn(move || {
        begun.recv().unwrap();
        thread::sleep(Duration::from_millis(300));
        theirs.send(Message::new(b"late")).unwrap();
        theirs
    });
    let before = driver::processor_time();
    begins.send(()).unwrap();
    assert_eq!(ours.receive().unwrap().payload(), b"late");
    assert!(driver::processor_time() - before < Duration::from_millis(150), "it slept");
    drop((ours, sending.join().unwrap()));
    ledger.close();
}

#[test] // P6: what another call left behind leaves while a receive waits
fn what_is_pending_leaves_while_a_receive_waits() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(Limits::new());
    let last = driver::fill_until_pending(&mut ours, &mut theirs, Channel::try_send);
    let answers = thread::spawn(move || {
        while driver::number(&theirs.receive().unwrap()) != last {}
        theirs.send(Message::new(b"all came")).unwrap();
        theirs
    });
    let (ours, answer) = ends_soon(move || {
        let answer = ours.receive().unwrap();
        (ours, answer)
    });
    assert_eq!(answer.payload(), b"all came");
    drop((ours, answers.join().unwrap(), answer));
    ledger.close();
}
