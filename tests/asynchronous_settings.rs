//! What a channel in a reactor, its halves and a listener pass on: each setting has its effect, each
//! question its answer. And a half that sends while the kernel is short of something.

#[path = "support/meeting.rs"]
mod meeting;
#[path = "support/ordinary.rs"]
mod ordinary;
#[path = "support/runtime.rs"]
mod runtime;
mod support;

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fdpost::{
    Accept, AsyncChannel, AsyncListener, Error, Libcamera, Limits, Listener, Message, Packet, Policy,
    Profile, Reaper, Stream, Violation,
};
use ordinary::as_an_ordinary_user;
use runtime::{on_both, poll_once};
use support::{Ledger, files, libcamera_header, packet_header, raw_send};

const LIMITS: Limits = Limits::new().descriptors(2);

fn pair<P: Profile>() -> (AsyncChannel<P>, OwnedFd) {
    AsyncChannel::pair(LIMITS).unwrap()
}

fn grave() -> (impl Reaper + 'static, Receiver<OwnedFd>) {
    let (grave, refused) = channel();
    (move |descriptor| grave.send(descriptor).unwrap(), refused)
}

/// A header that announces one descriptor, and a payload with two.
fn violate(theirs: &OwnedFd) -> Error {
    raw_send(theirs, &libcamera_header(2, 1), &[]);
    raw_send(theirs, b"no", &files(2));
    Violation::DescriptorCount { declared: 1, received: 2 }.into()
}

#[test] // P3
fn a_reaper_gets_what_is_refused() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, theirs) = pair::<Libcamera>();
        let (reaper, refused) = grave();
        ours.set_reaper(reaper);
        let expected = violate(&theirs);
        assert_eq!(ours.receive().await.unwrap_err(), expected);
        assert_eq!(refused.try_iter().count(), 2);

        let (ours, theirs) = pair::<Libcamera>();
        let (_sending, mut receiving) = ours.split();
        let (reaper, refused) = grave();
        receiving.set_reaper(reaper);
        let expected = violate(&theirs);
        assert_eq!(receiving.receive().await.unwrap_err(), expected);
        assert_eq!(refused.try_iter().count(), 2);
    });
    ledger.close();
}

#[test] // P9
fn a_policy_is_kept_to() {
    let ledger = Ledger::open();
    on_both(async || {
        let policy = || Policy::new().every(Accept::pipe());
        let is_refused = |error: Error| matches!(error, Error::Violation(Violation::DescriptorKind { .. }));
        let (mut ours, theirs) = pair::<Packet>();
        ours.set_policy(policy());
        raw_send(&theirs, &packet_header(0, 1), &files(1));
        assert!(is_refused(ours.receive().await.unwrap_err()));

        let (ours, theirs) = pair::<Packet>();
        let (_sending, mut receiving) = ours.split();
        receiving.set_policy(policy());
        raw_send(&theirs, &packet_header(0, 1), &files(1));
        assert!(is_refused(receiving.receive().await.unwrap_err()));
    });
    ledger.close();
}

/// Three messages of two parts each.
fn three(theirs: &OwnedFd) {
    for payload in [b"1", b"2", b"3"] {
        raw_send(theirs, &libcamera_header(1, 0), &[]);
        raw_send(theirs, payload, &[]);
    }
}

#[test] // P4
fn a_batch_is_read_at_once() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, theirs) = pair::<Libcamera>();
        ours.set_batch(16);
        three(&theirs);
        assert_eq!(ours.receive().await.unwrap().payload(), b"1");
        assert_eq!(support::queued(&ours), 0, "all was read");
        assert_eq!(ours.into_inner().timeout(), Some(Duration::ZERO), "more was read than received");

        let (ours, theirs) = pair::<Libcamera>();
        let (_sending, mut receiving) = ours.split();
        receiving.set_batch(16);
        three(&theirs);
        assert_eq!(receiving.receive().await.unwrap().payload(), b"1");
        assert_eq!(support::queued(&receiving), 0, "all was read");
        for payload in [b"2", b"3"] {
            assert_eq!(receiving.try_receive().unwrap().unwrap().payload(), payload);
        }
        assert!(receiving.try_receive().unwrap().is_none());
        assert_eq!(receiving.stats().received.messages, 3);
    });
    ledger.close();
}

#[test] // P5
fn a_shutdown_wakes_who_waits() {
    let ledger = Ledger::open();
    on_both(async || {
        let (ours, _theirs) = pair::<Stream>();
        let (sending, mut receiving) = ours.split();
        let mut receive = Box::pin(receiving.receive());
        assert!(poll_once(receive.as_mut()).await.is_pending());
        sending.shutdown();
        assert_eq!(receive.await.unwrap_err(), Error::Closed);

        let listener = Listener::<Packet>::bind(meeting::abstract_name(), LIMITS).unwrap();
        let listener = AsyncListener::new(listener).unwrap();
        let mut accept = Box::pin(listener.accept());
        assert!(poll_once(accept.as_mut()).await.is_pending());
        listener.shutdown();
        assert_eq!(accept.await.unwrap_err(), Error::Closed);
    });
    ledger.close();
}

/// Descriptors per message, and the limit that four of them reach.
const EACH: usize = 8;
const MOST: nix::libc::rlim_t = 32;

/// The socket stays writable while the kernel is short: a sender tries again by time.
#[test] // P5, P6; case 43
fn a_half_sends_once_the_kernel_is_short_no_more() {
    if !as_an_ordinary_user("a_half_sends_once_the_kernel_is_short_no_more", MOST) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(runtime::in_time(async {
        let limits = Limits::new().descriptors(EACH as u8);
        let (ours, mut theirs) = runtime::ends::<Packet>(limits);
        let (sending, receiving) = ours.split();
        let full = || files(EACH).into_iter().fold(Message::new(b"in flight"), Message::with);
        let mut left = 0;
        while sending.try_send(full()).unwrap() == fdpost::Sent::Complete {
            left += 1;
            assert!(left < 100, "the kernel lets nobody have 800 descriptors in flight");
        }
        assert!(sending.has_pending());
        let mut flush = Box::pin(sending.flush());
        assert!(poll_once(flush.as_mut()).await.is_pending());
        // The peer makes room, and nothing on our socket says so.
        for _ in 0..left {
            assert_eq!(theirs.receive().await.unwrap().descriptor_count(), EACH);
        }
        flush.await.unwrap();
        assert_eq!(theirs.receive().await.unwrap().descriptor_count(), EACH);
        drop(receiving);
    }));
}
