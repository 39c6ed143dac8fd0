//! Accepting where descriptors are short.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/meeting.rs"]
mod meeting;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use driver::{after, processor_time, soon};
use fdpost::{Channel, Deadline, Error, Limits, Listener, Listening, Message, Packet, PeerRule};
use meeting::{abstract_name, take_all_descriptors};
use nix::errno::Errno;
use nix::libc;
use seccomp::under;
use support::{Ledger, assert_child, child, child_value};

const LIMITS: Limits = Limits::new();
const NONE_LEFT: Error = Error::Pressure { errno: Errno::EMFILE as i32 };

/// Runs `test` in a process of its own, whose limits it may ruin.
fn alone(name: &str, test: impl FnOnce()) {
    match child_value() {
        Some(_) => test(),
        None => {
            // A process that is started has pipes, which another test's ledger would see.
            let ledger = Ledger::open();
            assert_child(&child(name, "run"));
            ledger.close();
        }
    }
}

/// A client that has said a word and is still to be accepted.
fn waiting(listening: Listening) -> (Listener<Packet>, Channel<Packet>) {
    let address = abstract_name();
    let listener = Listener::<Packet>::bind_with(&address, LIMITS, listening).unwrap();
    let mut client = Channel::<Packet>::connect(&address, LIMITS).unwrap();
    client.send(Message::new(b"hello")).unwrap();
    (listener, client)
}

#[track_caller]
fn serve(listener: &Listener<Packet>, client: &mut Channel<Packet>) {
    let mut served = listener.accept_by(soon()).unwrap();
    assert!(served.as_fd().as_raw_fd() > 2, "one of the standard descriptors was handed out");
    assert_eq!(served.receive_by(soon()).unwrap().payload(), b"hello");
    served.send(Message::new(b"well met")).unwrap();
    assert_eq!(client.receive_by(soon()).unwrap().payload(), b"well met");
}

#[test] // P5
fn accept_without_a_free_descriptor_pauses_and_recovers() {
    alone("accept_without_a_free_descriptor_pauses_and_recovers", || {
        let (listener, mut client) = waiting(Listening::new());
        let mut hoard = take_all_descriptors();
        assert_eq!(listener.try_accept().unwrap_err(), NONE_LEFT);
        let before = processor_time();
        assert_eq!(listener.accept_by(after(500)).unwrap_err(), NONE_LEFT);
        // Of the 500 ms; who spins uses nearly all of it.
        let used = processor_time() - before;
        assert!(used < Duration::from_millis(100), "it spun: {used:?}");
        // It recovers by itself, in the middle of a wait.
        thread::scope(|scope| {
            let freed = scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                hoard.truncate(hoard.len() - 4);
            });
            serve(&listener, &mut client);
            freed.join().unwrap();
        });
        drop(hoard);
    });
}

#[test] // P2
fn a_connection_that_got_a_standard_number_is_kept_until_another_is_free() {
    alone("a_connection_that_got_a_standard_number_is_kept_until_another_is_free", || {
        let (listener, mut client) = waiting(Listening::new());
        let mut hoard = take_all_descriptors();
        // The only number that is free is that of standard input.
        close_standard_input();
        for _ in 0..3 {
            assert_eq!(listener.try_accept().unwrap_err(), NONE_LEFT);
            assert_eq!(listener.accept_by(after(10)).unwrap_err(), NONE_LEFT);
        }
        assert!(client.try_receive().unwrap().is_none(), "the connection was lost");
        drop(hoard.pop());
        serve(&listener, &mut client);
        drop(hoard);
    });
}

#[test] // P9
fn a_rule_that_needs_a_descriptor_waits_for_one() {
    alone("a_rule_that_needs_a_descriptor_waits_for_one", || {
        let pidfd = support::pidfd(std::process::id());
        let (listener, mut client) = waiting(Listening::new().rule(PeerRule::new().process(pidfd)));
        let mut hoard = take_all_descriptors();
        drop(hoard.pop());
        // One for the connection, none for the look at its process.
        assert_eq!(listener.try_accept().unwrap_err(), NONE_LEFT);
        drop(hoard.pop());
        serve(&listener, &mut client);
        drop(hoard);
    });
}

#[test]
fn a_shutdown_wakes_who_waits_for_a_descriptor() {
    alone("a_shutdown_wakes_who_waits_for_a_descriptor", || {
        let (listener, client) = waiting(Listening::new());
        let hoard = take_all_descriptors();
        thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept_by(Deadline::NEVER));
            thread::sleep(Duration::from_millis(50));
            listener.shutdown();
            assert_eq!(accepting.join().unwrap().unwrap_err(), NONE_LEFT);
        });
        // The connection that waits is still to be served, once that is possible.
        drop(hoard);
        drop(listener.accept().unwrap());
        assert_eq!(listener.accept().unwrap_err(), Error::Closed);
        drop(client);
    });
}

/// A rule that needs a pidfd, under which the first connection finds no descriptor for it: `asleep`
/// tells that another thread may go to sleep, which has a moment for it.
fn short_at_the_look(hoard: Arc<Mutex<Vec<OwnedFd>>>, asleep: mpsc::Sender<()>) -> PeerRule {
    let first = AtomicBool::new(true);
    let asleep = Mutex::new(asleep);
    PeerRule::new().process(support::pidfd(std::process::id())).test(move |_| {
        if first.swap(false, Ordering::SeqCst) {
            asleep.lock().unwrap().send(()).unwrap();
            thread::sleep(Duration::from_millis(300));
            hoard.lock().unwrap().extend(take_all_descriptors());
        }
        true
    })
}

#[test] // P5: the one that parked it gives up; whoever sleeps already has nobody to wake it
fn a_parked_connection_is_found_by_another_thread_that_waits() {
    alone("a_parked_connection_is_found_by_another_thread_that_waits", || {
        let hoard = Arc::new(Mutex::new(Vec::new()));
        let (asleep, go) = mpsc::channel();
        let rule = short_at_the_look(hoard.clone(), asleep);
        let (listener, mut client) = waiting(Listening::new().rule(rule));
        thread::scope(|scope| {
            let listener = &listener;
            let other = scope.spawn(move || {
                go.recv().unwrap();
                listener.accept_by(soon())
            });
            assert_eq!(listener.accept_by(after(100)).unwrap_err(), NONE_LEFT);
            hoard.lock().unwrap().clear();
            let begun = Instant::now();
            let mut served = other.join().unwrap().expect("a connection waits, and nothing is short");
            // Not only when its own deadline makes it look.
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            served.send(Message::new(b"well met")).unwrap();
            assert_eq!(client.receive_by(soon()).unwrap().payload(), b"well met");
        });
    });
}

#[cfg(feature = "tokio")]
#[test] // P5: as above; the task that parked it is cancelled
fn a_parked_connection_is_found_by_another_task_that_waits() {
    alone("a_parked_connection_is_found_by_another_task_that_waits", || {
        let hoard = Arc::new(Mutex::new(Vec::new()));
        let (asleep, go) = mpsc::channel();
        let rule = short_at_the_look(hoard.clone(), asleep);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (listener, client) = waiting(Listening::new().rule(rule));
        let listener = {
            let _inside = runtime.enter();
            Arc::new(fdpost::AsyncListener::new(listener).unwrap())
        };
        let accept = |millis| {
            let listener = listener.clone();
            let waited =
                async move { tokio::time::timeout(Duration::from_millis(millis), listener.accept()).await };
            runtime.spawn(waited)
        };
        let cancelled = accept(100);
        go.recv().unwrap();
        let other = accept(5000);
        assert!(runtime.block_on(cancelled).unwrap().is_err(), "it had no descriptor");
        hoard.lock().unwrap().clear();
        let served = runtime.block_on(other).unwrap().expect("a connection waits, and nothing is short");
        drop((served.unwrap(), client));
    });
}

/// What accepting says [`under`] that failure.
fn accepted_without(
    listener: &Listener<Packet>,
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    errno: Errno,
) -> Option<Error> {
    if cfg!(target_pointer_width = "32") {
        println!("skipped: a 32-bit C library makes it by socketcall(2), which a filter cannot look into");
        return None;
    }
    under(call, argument, errno, || listener.accept_by(soon()).unwrap_err())
}

#[test] // P5: what time does not mend is said at once, and says which call failed
fn what_is_no_shortage_is_not_waited_for() {
    let ledger = Ledger::open();
    let (listener, mut client) = waiting(Listening::new());
    // A firewall's, as accept(2) has it.
    if let Some(error) = accepted_without(&listener, libc::SYS_accept4, None, Errno::EPERM) {
        assert_eq!(error, Error::Io { call: "accept4", errno: Errno::EPERM as i32 });
    }
    // Nothing came out of the queue.
    serve(&listener, &mut client);
    drop((client, listener));
    ledger.close();
}

#[test] // P2, P9: whoever cannot be looked at is not let in, and not kept
fn a_peer_that_cannot_be_looked_at_is_turned_away() {
    let ledger = Ledger::open();
    let (listener, mut client) = waiting(Listening::new().rule(PeerRule::new().uid(0)));
    let credentials = Some((2, libc::SO_PEERCRED as u32));
    if let Some(error) = accepted_without(&listener, libc::SYS_getsockopt, credentials, Errno::EINVAL) {
        assert_eq!(error, Error::Io { call: "getsockopt", errno: Errno::EINVAL as i32 });
        assert_eq!(client.receive_by(soon()).unwrap_err(), Error::Closed);
        assert!(listener.try_accept().unwrap().is_none(), "it came once more");
        assert_eq!(listener.refused(), 0, "no rule refused it");
    }
    drop((client, listener));
    ledger.close();
}

#[allow(unsafe_code, reason = "a number has no other form")]
fn close_standard_input() {
    // SAFETY: nothing in this process uses it, and it is closed once.
    drop(unsafe { OwnedFd::from_raw_fd(0) });
}
