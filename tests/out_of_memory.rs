//! Allocation failure at the n-th allocation (case 47): an error that says so, or success; nothing
//! is lost, and the same call may be tried again.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use std::time::Duration;

use fdpost::{
    Channel, Deadline, Error, Exhausted, Libcamera, Limits, Message, Packet, Profile, Sent, Stream,
};
use support::{Ledger, files, identity};

thread_local! {
    /// How many allocations of this thread succeed before one fails; negative: all do.
    static LEFT: Cell<i64> = const { Cell::new(-1) };
}

struct Failing;

/// Whether this allocation is the one.
fn fails() -> bool {
    let left = LEFT.get();
    LEFT.set(if left >= 0 { left - 1 } else { left });
    left == 0
}

#[allow(unsafe_code, reason = "an allocator is unsafe by nature; this one only says no once")]
// SAFETY: every call is passed on to the system's allocator, or answered with null.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        if fails() { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promised.
        if fails() { std::ptr::null_mut() } else { unsafe { System.realloc(pointer, layout, size) } }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Two messages with two descriptors each come whole, whichever allocation fails on the way.
fn every_allocation<P: Profile>() {
    let limits = Limits::new().descriptors(2);
    for number in 0.. {
        let (mut ours, theirs) = Channel::<P>::pair(limits).unwrap();
        let mut theirs = Channel::<P>::from_fd(theirs, limits).unwrap();
        let mut names = Vec::new();
        for byte in [1, 2] {
            let [one, two] = <[_; 2]>::try_from(files(2)).unwrap();
            names.push([identity(&one), identity(&two)]);
            theirs.send(Message::new(vec![byte; 5000]).with(one).with(two)).unwrap();
        }
        LEFT.set(number);
        let (mut came, mut failed) = ([None, None], None);
        while came[1].is_none() {
            match ours.try_receive() {
                Ok(message) => {
                    let message = message.expect("both are queued");
                    *came.iter_mut().find(|place| place.is_none()).unwrap() = Some(message);
                }
                Err(error) => assert_eq!(failed.replace(error), None, "one allocation failed"),
            }
        }
        let reached = LEFT.replace(-1) < 0;
        for ((message, names), byte) in came.into_iter().zip(names).zip([1, 2]) {
            let mut message = message.unwrap();
            assert_eq!(message.payload(), [byte; 5000]);
            assert_eq!(message.take_all().map(|came| identity(&came)).collect::<Vec<_>>(), names);
        }
        match failed {
            None if !reached => return assert!(number > 3, "{}: no allocation was made to fail", P::NAME),
            Some(Error::Exhausted(Exhausted::OutOfMemory { bytes })) => assert!(bytes > 0),
            // The buffer for control data.
            Some(error) => assert_eq!(error, Error::Io { call: "recvmsg", errno: nix::libc::ENOMEM }),
            None => {}
        }
    }
}

#[test] // P1, P2, P4; case 47
fn libcamera_when_the_nth_allocation_fails() {
    let ledger = Ledger::open();
    every_allocation::<Libcamera>();
    ledger.close();
}

#[test] // P1, P2, P4; case 47
fn packet_when_the_nth_allocation_fails() {
    let ledger = Ledger::open();
    every_allocation::<Packet>();
    ledger.close();
}

/// The n-th allocation of a sender beside others fails: the message comes back, or leaves.
fn every_allocation_beside_others<P: Profile>() {
    for number in 0..40 {
        let (ours, theirs) = Channel::<P>::pair(Limits::new().descriptors(2)).unwrap();
        let mut theirs = Channel::<P>::from_fd(theirs, Limits::new().descriptors(2)).unwrap();
        let (sending, receiving) = ours.split();
        // Something is with the sender already, so that the next ones come behind it.
        let mut accepted = 1;
        while sending.try_send(Message::new([7; 2000])).unwrap() == Sent::Complete {
            accepted += 1;
        }
        let mut messages: Vec<_> =
            files(6).into_iter().map(|file| Message::new([8; 20]).with(file)).collect();
        let single = messages.pop().unwrap();
        LEFT.set(number);
        let one = sending.try_send(single).is_ok();
        let burst = sending.send_all_by(&mut messages, Deadline::after(Duration::ZERO));
        LEFT.set(-1);
        let short = |error| matches!(error, Error::Exhausted(Exhausted::OutOfMemory { .. }));
        assert_eq!(burst.is_ok(), messages.is_empty());
        assert!(burst.err().is_none_or(short), "{burst:?}");
        accepted += usize::from(one) + 5 - messages.len();
        while accepted > 0 {
            if theirs.try_receive().unwrap().is_some() {
                accepted -= 1;
            }
            let _flushes = sending.flush_by(Deadline::after(Duration::ZERO));
        }
        assert!(theirs.try_receive().unwrap().is_none() && !sending.has_pending());
        assert_eq!(sending.lost().messages, 0);
        drop((receiving, messages));
    }
}

#[test] // P4 P6; case 47
fn a_sender_beside_others_survives_every_failed_allocation() {
    let ledger = Ledger::open();
    every_allocation_beside_others::<Packet>();
    every_allocation_beside_others::<Libcamera>();
    every_allocation_beside_others::<Stream>();
    ledger.close();
}
