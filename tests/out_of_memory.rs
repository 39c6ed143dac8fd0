//! Allocation failure at the n-th allocation (case 47): an error that says so, or success; nothing
//! is lost, and the same call may be tried again.

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use std::time::Duration;

use fdpost::driver::{FdReply, receive_fd, send_error, send_fd};
use fdpost::machine::{Failure, Outcome, Sender};
use fdpost::{
    Address, Channel, Deadline, Error, Exhausted, Fault, Libcamera, Limits, Listener, Message, Packet,
    Profile, Sent, Stream,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use support::{Ledger, files, identity};

thread_local! {
    /// How many allocations of this thread succeed before one fails; negative: all do.
    static LEFT: Cell<i64> = const { Cell::new(-1) };
    /// The next allocation of so many bytes fails.
    static SIZE: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Failing;

/// Whether this allocation is the one.
fn fails(bytes: usize) -> bool {
    if SIZE.get() == bytes {
        SIZE.set(usize::MAX);
        return true;
    }
    let left = LEFT.get();
    LEFT.set(if left >= 0 { left - 1 } else { left });
    left == 0
}

#[allow(unsafe_code, reason = "an allocator is unsafe by nature; this one only says no once")]
// SAFETY: every call is passed on to the system's allocator, or answered with null.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        if fails(layout.size()) { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promised.
        if fails(size) { std::ptr::null_mut() } else { unsafe { System.realloc(pointer, layout, size) } }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// Two messages with two descriptors each come whole, whichever allocation fails on the way.
fn every_allocation<P: Profile>(batch: u16) {
    let limits = Limits::new().descriptors(2);
    for number in 0.. {
        let (mut ours, theirs) = Channel::<P>::pair(limits).unwrap();
        ours.set_batch(batch);
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
        // Giving memory back is no reason to fail either.
        match ours.try_receive() {
            Ok(nothing) => assert!(nothing.is_none()),
            Err(error) => assert_eq!(failed.replace(error), None, "one allocation failed"),
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
    every_allocation::<Libcamera>(1);
    every_allocation::<Libcamera>(4);
    ledger.close();
}

#[test] // P1, P2, P4; case 47
fn packet_when_the_nth_allocation_fails() {
    let ledger = Ledger::open();
    every_allocation::<Packet>(1);
    every_allocation::<Packet>(4);
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

/// The queue needs memory for one message more.
#[test] // P4, P6; case 47
fn a_sender_without_memory_gives_the_message_back() {
    let mut sender = Sender::<Packet, u8>::new();
    let message = fdpost::message::Message::new(*b"kept").with(7);
    LEFT.set(0);
    let refused = sender.push(message);
    LEFT.set(-1);
    let (fault, message) = refused.unwrap_err();
    assert!(matches!(fault, Fault::Exhausted(Exhausted::OutOfMemory { bytes }) if bytes > 0), "{fault:?}");
    assert_eq!((message.payload(), message.descriptor(0)), (&b"kept"[..], Some(&7)));
    sender.push(message).unwrap();
    assert_eq!(sender.queued().messages, 1);
}

/// What did not leave comes back without memory: on an error's path there may be none.
#[test] // P4, P6; case 47
fn a_direction_that_closes_takes_no_memory() {
    let mut sender = Sender::<Packet, ()>::new();
    for number in 0..100 {
        sender.push(fdpost::message::Message::new([number])).unwrap();
    }
    LEFT.set(0);
    let outcome = sender.failed(Duration::ZERO, Failure::Gone);
    let (mut count, mut in_order) = (0, true);
    if let Outcome::Closed(leftover) = outcome {
        for message in leftover {
            in_order &= message.payload() == [count];
            count += 1;
        }
    }
    let asked = LEFT.replace(-1) < 0;
    assert!((count, in_order, asked) == (100, true, false), "{count} {in_order} {asked}");
}

/// The peer goes away with many messages queued, and one allocation fails on the way to say so.
#[test] // P2, P4, P5, P6; case 47
fn a_direction_dies_for_many_senders() {
    let ledger = Ledger::open();
    for number in 0..20 {
        let (ours, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(1)).unwrap();
        let (sending, receiving) = ours.split();
        while sending.try_send(Message::new([7; 2000])).unwrap() == Sent::Complete {}
        let mut accepted = 0;
        for file in files(50) {
            assert_eq!(sending.try_send(Message::new([8]).with(file)).unwrap(), Sent::Pending);
            accepted += 1;
        }
        drop(theirs);
        LEFT.set(number);
        let mut flushed = sending.flush_by(Deadline::after(Duration::ZERO));
        if flushed == Err(Error::TimedOut) {
            // The way to the kernel had no memory, as the kernel may have none: a moment later it has.
            flushed = sending.flush_by(Deadline::after(Duration::from_secs(30)));
        }
        LEFT.set(-1);
        assert!(matches!(flushed, Err(Error::PeerGone { .. })), "{flushed:?}");
        assert_eq!((sending.lost().descriptors, sending.has_pending()), (accepted, false));
        drop((sending, receiving));
    }
    ledger.close();
}

/// A channel whose pending message comes back, together with the one that is sent.
#[test] // P2, P4, P6; case 47
fn a_pending_message_comes_back_whichever_allocation_fails() {
    let ledger = Ledger::open();
    // The first allocation is the list's; behind it stands the one message that a send may return.
    for number in [0, 100] {
        let (mut ours, theirs) = Channel::<Libcamera>::pair(Limits::new().descriptors(1)).unwrap();
        let mut theirs = Channel::<Libcamera>::from_fd(theirs, Limits::new().descriptors(1)).unwrap();
        let sent = driver::fill_until_pending(&mut ours, &mut theirs, |channel, message| {
            let file = files(1).remove(0);
            channel.try_send(message.with(file))
        });
        drop(theirs);
        let late = Message::new(b"late").with(files(1).remove(0));
        let mut back = Vec::with_capacity(8);
        LEFT.set(number);
        let flushed = ours.flush_by(Deadline::after(Duration::ZERO));
        LEFT.set(-1);
        let error = flushed.map_err(|error| {
            back.extend(error.messages);
            error.error
        });
        assert!(matches!(error, Err(Error::PeerGone { .. })), "{error:?}");
        let error = ours.send(late).unwrap_err();
        assert!(matches!(error.error, Error::PeerGone { .. }));
        back.extend(error.messages);
        let [pending, late] = <[Message; 2]>::try_from(back).unwrap();
        assert_eq!((driver::number(&pending), late.payload()), (sent, &b"late"[..]));
        assert_eq!((pending.descriptor_count(), late.descriptor_count()), (1, 1));
        drop((pending, late, ours));
    }
    ledger.close();
}

/// The text of an error is as long as the peer likes, within the limit.
#[test] // P1, P2, P4; case 47
fn send_fd_when_the_nth_allocation_fails() {
    let ledger = Ledger::open();
    for kind in [SockType::SeqPacket, SockType::Datagram, SockType::Stream] {
        for number in 0.. {
            let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
            let file = files(1).remove(0);
            send_error(&theirs, 9, [b'x'; 300]).unwrap();
            send_fd(&theirs, &file).unwrap();
            let soon = Deadline::after(Duration::from_secs(30));
            LEFT.set(number);
            let first = receive_fd(&ours, soon);
            let reached = LEFT.replace(-1) < 0;
            let first = match first {
                Err(error) => {
                    let short = matches!(error, Error::Exhausted(Exhausted::OutOfMemory { .. }));
                    assert!(short || error == Error::Io { call: "recvmsg", errno: nix::libc::ENOMEM });
                    receive_fd(&ours, soon)
                }
                first => {
                    assert!(!reached, "{kind:?}: {number} failed and nobody was told");
                    first
                }
            };
            match first {
                Ok(FdReply::Error { status: 9, text }) => assert_eq!(text, [b'x'; 300]),
                // A part of it had been read, and what is behind it would be misread.
                Err(Error::Closed) if kind == SockType::Stream && reached => continue,
                other => panic!("{kind:?}, {number}: {other:?}"),
            }
            match receive_fd(&ours, soon) {
                Ok(FdReply::Descriptor(came)) => assert_eq!(identity(&came), identity(&file)),
                other => panic!("{kind:?}, {number}: {other:?}"),
            }
            if !reached {
                break;
            }
        }
    }
    ledger.close();
}

/// What cannot be handed out for want of memory is still to be accepted.
#[test] // P2, P4; case 47
fn a_listener_without_memory_loses_nobody() {
    let ledger = Ledger::open();
    let address = Address::abstract_name(format!("fdpost-memory-{}", std::process::id()));
    let listener = Listener::<Packet>::bind(&address, Limits::new()).unwrap();
    let mut client = Channel::<Packet>::connect(&address, Limits::new()).unwrap();
    LEFT.set(0);
    let refused = listener.try_accept();
    LEFT.set(-1);
    assert_eq!(refused.map(drop).unwrap_err(), Error::Pressure { errno: nix::libc::ENOMEM });
    let mut served = listener.try_accept().unwrap().unwrap();
    served.send(Message::new(b"well met")).unwrap();
    assert_eq!(client.receive().unwrap().payload(), b"well met");
    drop((listener, client, served));
    ledger.close();
}

/// A request that had left the socket when there was no memory for it: nothing tells of it but the broker
/// itself.
#[cfg(feature = "broker")]
#[test] // P4, P5; case 47
fn a_broker_comes_back_to_what_it_had_read() {
    use fdpost::Broker;
    use fdpost::broker::{Name, Quotas, Request};
    let ledger = Ledger::open();
    let address = Address::abstract_name(format!("fdpost-memory-broker-{}", std::process::id()));
    let mut broker = Broker::bind(&address, Quotas::new()).unwrap();
    let mut service = Channel::<Packet>::connect(&address, Limits::new()).unwrap();
    broker.turn(Deadline::after(Duration::from_secs(30))).unwrap();
    let name = Name::new(&"n".repeat(61)).unwrap();
    let request = Request::Withdraw(name);
    let message = request.message(1, true);
    let size = message.payload().len();
    service.send(message).unwrap();
    SIZE.set(size);
    let deadline = Deadline::after(Duration::from_secs(30));
    let answer = loop {
        broker.turn(deadline).unwrap();
        match service.try_receive().unwrap() {
            Some(answer) => break answer,
            None => assert!(!deadline.has_passed(), "the request was forgotten"),
        }
    };
    assert!(SIZE.replace(usize::MAX) == usize::MAX, "no allocation was made to fail");
    assert_eq!((answer.head().kind, answer.head().correlation), (request.kind(), 1));
    drop((service, broker));
    ledger.close();
}
