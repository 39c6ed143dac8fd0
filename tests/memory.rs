//! What a channel allocates, counted by the allocator (P4).

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Wire, after, ends, message, soon, twin};
use fdpost::machine::{Hunk, Receiver};
use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Profile, Sent, Stream};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::OwnedFd;
use support::{Ledger, files, libcamera_header, packet_header, raw_send};

/// The system's allocator, counting per thread, so that the test harness does not count.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn note(difference: isize) {
    LIVE.set(LIVE.get() + difference);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait; this one only counts")]
// SAFETY: every call goes to `System` as it came; counting allocates nothing, since the cells are
// const-initialised and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: the pointer came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both exist for a moment where the memory moves.
        note(size as isize);
        note(-(layout.size() as isize));
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the pointer came from `System` with this layout, and the caller checked the size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What a call came to, the bytes that live on behind it, and its highest water.
fn measured<T>(call: impl FnOnce() -> T) -> (T, isize, isize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = call();
    (result, LIVE.get() - before, PEAK.get() - before)
}

/// How often a call allocates.
fn allocations(call: impl FnOnce()) -> usize {
    let before = CALLS.get();
    call();
    CALLS.get() - before
}

#[test] // P4
fn the_allocator_counts() {
    let (kept, lives, peak) = measured(|| {
        drop(vec![0_u8; 5000]);
        vec![0_u8; 1000]
    });
    assert_eq!((lives, peak), (1000, 5000));
    assert_eq!(allocations(|| drop(vec![kept; 1])), 1);
}

/// The most that the refusal of this header allocates, and what is left of it.
fn refusal<P: Wire>(header: &[u8], rule: &str) -> (isize, isize) {
    let (mut ours, theirs) = ends::<P>(Limits::new());
    raw_send(&twin(&theirs), header, &[]);
    let (error, left, peak) = measured(|| ours.receive_by(soon()).unwrap_err());
    assert_eq!(error.violation().unwrap().rule(), rule);
    (peak, left)
}

#[test] // P4; case 3
fn a_header_that_claims_4_gib_allocates_nothing() {
    let ledger = Ledger::open();
    let ordinary = refusal::<Libcamera>(&libcamera_header(0, 0), "empty-message");
    for size in [u32::MAX, u32::MAX - 7, 1 << 31, 65_537] {
        let claimed = refusal::<Libcamera>(&libcamera_header(size, 0), "payload-too-large");
        assert_eq!(claimed, ordinary, "{size} bytes claimed");
    }
    assert!(ordinary.0 < 2048, "{ordinary:?}");
    let mut version = packet_header(0, 0);
    version[0] = 9;
    let ordinary = refusal::<Packet>(&version, "header-version");
    for size in [u32::MAX, u32::MAX - 15, 1 << 31, 65_537] {
        let claimed = refusal::<Packet>(&packet_header(size, 0), "payload-too-large");
        assert_eq!(claimed, ordinary, "{size} bytes claimed");
    }
    // Its window is the largest packet that may come; it is gone after the refusal.
    assert!(ordinary.0 < 70_000 && ordinary.1 < 2048, "{ordinary:?}");
    ledger.close();
}

/// The most that an idle channel may hold.
const IDLE: isize = 8 * 1024;

fn idle<P: Wire>(limits: Limits) {
    let ledger = Ledger::open();
    let before = LIVE.get();
    let (mut ours, theirs) = Channel::<P>::pair(limits).unwrap();
    let holds = || LIVE.get() - before;
    assert!(holds() < 1024, "{}: {} bytes without any traffic", P::NAME, holds());
    let mut theirs = Channel::<P>::from_fd(theirs, limits).unwrap();
    let made = holds();
    assert!(ours.try_receive().unwrap().is_none());
    assert!(holds() - made <= IDLE, "{}: {} bytes after looking once", P::NAME, holds() - made);

    let descriptors = usize::from(limits.descriptors);
    let mut reused = Message::new(Vec::with_capacity(100_000));
    for bytes in [65_536, 4096, 1, 4095, 65_536, 4096] {
        theirs.send(message(&vec![1; bytes], files(descriptors))).unwrap();
        ours.receive_into(&mut reused, soon()).unwrap();
        assert_eq!((reused.payload().len(), reused.descriptor_count()), (bytes, descriptors));
        reused = Message::default();
        ours.send(message(&vec![2; bytes], files(descriptors))).unwrap();
        drop(theirs.receive_by(soon()).unwrap());
        assert!(theirs.try_receive().unwrap().is_none());
        assert!(ours.try_receive().unwrap().is_none());
        let both = holds();
        assert!(both <= 2 * IDLE, "{}: two channels hold {both} bytes after {bytes}", P::NAME);
    }
    for (count, bytes) in [(64, 1000), (16, 4000), (64, 40), (2, 30_000)] {
        let mut burst: Vec<_> = (0..count).map(|_| message(&vec![3; bytes], files(0))).collect();
        theirs.send_all(&mut burst).unwrap();
        drop(burst);
        for _ in 0..count {
            ours.receive_into(&mut reused, soon()).unwrap();
        }
        assert!(ours.try_receive().unwrap().is_none());
        reused = Message::default();
        let both = holds();
        assert!(both <= 2 * IDLE, "{}: two channels hold {both} bytes after a burst of {bytes}", P::NAME);
    }
    drop(theirs);
    let alone = holds();
    assert!(alone <= IDLE, "{}: {alone} bytes after traffic", P::NAME);
    drop((ours, reused));
    assert_eq!(holds(), 0, "{}: nothing leaks", P::NAME);
    ledger.close();
}

#[test] // P4
fn libcamera_an_idle_channel_is_small() {
    idle::<Libcamera>(Limits::new());
    idle::<Libcamera>(Limits::new().descriptors(253));
}

#[test] // P4
fn packet_an_idle_channel_is_small() {
    idle::<Packet>(Limits::new());
    idle::<Packet>(Limits::new().descriptors(253));
}

/// A burst of many passes through a split channel: what it holds behind that.
fn idle_behind_a_burst<P: Wire>() {
    let ledger = Ledger::open();
    let (ours, mut theirs) = ends::<P>(Limits::new().descriptors(16));
    let (sending, mut receiving) = ours.split();
    for round in 0..3 {
        let mut burst: Vec<_> = (0..700).map(|_| Message::new([round; 64])).collect();
        let _packed_or_pending = sending.send_all_by(&mut burst, after(0)).unwrap();
        for _ in 0..700 {
            theirs.receive_by(soon()).unwrap();
            let _flushes = sending.flush_by(after(0));
        }
    }
    theirs.send(Message::new(b"back")).unwrap();
    drop(receiving.receive_by(soon()).unwrap());
    assert!(receiving.try_receive().unwrap().is_none() && !sending.has_pending());
    let ((), freed, _) = measured(|| drop((sending, receiving)));
    println!("{}: an idle split channel held {} bytes", P::NAME, -freed);
    assert!(-freed <= 8192, "{}: {} bytes were held", P::NAME, -freed);
    drop(theirs);
    ledger.close();
}

#[test] // P4
fn an_idle_split_channel_is_small_behind_a_burst() {
    idle_behind_a_burst::<Packet>();
    idle_behind_a_burst::<Stream>();
    idle_behind_a_burst::<Libcamera>();
}

#[test] // P4, P6: a burst that stopped in the middle of a message, whose rest leaves later
fn a_channel_is_small_again_behind_a_burst_cut_short() {
    let ledger = Ledger::open();
    let patient = Limits::new().assembly_timeout(std::time::Duration::from_secs(20));
    let (mut ours, mut theirs) = ends::<Libcamera>(patient);
    // As `fill_until_pending`: the first message's size decides where the socket is full.
    let pending = [4, 1000, 2500, 5000, 9000, 17_000].into_iter().any(|first| {
        let sizes = std::iter::once(first).chain(std::iter::repeat_n(4, 5000));
        let mut burst: Vec<_> = sizes.map(|bytes| Message::new(vec![0; bytes])).collect();
        assert_eq!(ours.send_all_by(&mut burst, after(0)).unwrap_err(), Error::TimedOut);
        while theirs.try_receive().unwrap().is_some() {}
        ours.has_pending()
    });
    assert!(pending, "no first size made the socket full between two datagrams");
    ours.flush_by(soon()).unwrap();
    theirs.receive_by(soon()).unwrap();
    assert!(ours.try_receive().unwrap().is_none());
    let ((), freed, _) = measured(|| drop(ours));
    assert!(-freed <= IDLE, "{} bytes were held", -freed);
    drop(theirs);
    ledger.close();
}

/// Many descriptors in many messages, sent and read in as few calls as may be.
fn idle_behind_descriptors<P: Wire>() {
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(253).held_descriptors(10_000).held_bytes(1 << 24);
    let (mut ours, mut theirs) = ends::<P>(limits);
    ours.set_batch(16);
    theirs.set_batch(16);
    for _ in 0..2 {
        let mut burst: Vec<_> = (0..15).map(|_| Message::new(b"without")).collect();
        burst.insert(3, message(b"with", files(253)));
        ours.send_all(&mut burst).unwrap();
        for _ in 0..16 {
            theirs.receive_by(soon()).unwrap();
        }
        assert!(theirs.try_receive().unwrap().is_none() && ours.try_receive().unwrap().is_none());
    }
    for (side, channel) in [("sender", ours), ("receiver", theirs)] {
        let ((), freed, _) = measured(|| drop(channel));
        assert!(-freed <= IDLE, "{}: the {side} held {} bytes", P::NAME, -freed);
    }
    ledger.close();
}

#[test] // P4
fn an_idle_channel_is_small_behind_many_descriptors() {
    idle_behind_descriptors::<Packet>();
    idle_behind_descriptors::<Libcamera>();
    idle_behind_descriptors::<Stream>();
}

fn steady<P: Wire>(bytes: usize, descriptors: usize) {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().descriptors(4));
    let mut reused = Message::default();
    for _ in 0..8 {
        assert_eq!(theirs.try_send(message(&vec![1; bytes], files(descriptors))).unwrap(), Sent::Complete);
    }
    for _ in 0..3 {
        ours.receive_into(&mut reused, soon()).unwrap();
    }
    let count = allocations(|| {
        for _ in 3..8 {
            ours.receive_into(&mut reused, soon()).unwrap();
            assert_eq!((reused.payload().len(), reused.descriptor_count()), (bytes, descriptors));
        }
    });
    assert_eq!(count, 0, "{}: 5 messages of {bytes} bytes, {descriptors} descriptors", P::NAME);
    drop((ours, theirs, reused));
    ledger.close();
}

#[test] // P4
fn a_reused_message_costs_no_allocation() {
    for (bytes, descriptors) in [(64, 0), (1, 4), (5000, 1), (9000, 0)] {
        steady::<Libcamera>(bytes, descriptors);
        steady::<Packet>(bytes, descriptors);
    }
}

/// Fills a hunk as recvmsg(2) would with a vector for what may be stored apart.
fn bring(hunk: &mut Hunk<OwnedFd>, read: &[u8]) {
    let (apart, rest) = read.split_at(hunk.head_room());
    hunk.set_head(apart);
    hunk.fill(rest, []);
}

/// The core alone, with hunks refilled as the kernel would.
fn core<P: Profile>(limits: Limits, reads: &[&[u8]], bytes: usize) {
    for batch in [1, 4] {
        let mut receiver = Receiver::<P, OwnedFd>::new(limits).unwrap().batch(batch);
        let mut reused = fdpost::message::Message::default();
        let mut round = |receiver: &mut Receiver<P, OwnedFd>| {
            for read in reads {
                bring(&mut receiver.windows().unwrap().unwrap()[0], read);
                receiver.handle(std::time::Duration::ZERO, 1);
                while receiver.poll_into(&mut reused).unwrap() {
                    assert_eq!(reused.payload().len(), bytes);
                }
            }
        };
        (0..3).for_each(|_| round(&mut receiver));
        let count = allocations(|| (0..100).for_each(|_| round(&mut receiver)));
        assert_eq!(count, 0, "{}, batch {batch}", P::NAME);
    }
}

#[test] // P4
fn the_core_alone_costs_no_allocation() {
    core::<Libcamera>(Limits::new(), &[&libcamera_header(600, 0), &[1; 600]], 600);
    let frame = [&packet_header(600, 0)[..], &[1; 600]].concat();
    core::<Packet>(Limits::new(), &[&frame], 600);
    core::<Packet>(Limits::new(), &[&frame.repeat(64)], 600);
}

#[test] // P4
fn a_packet_that_is_mostly_payload_becomes_it() {
    let mut receiver = Receiver::<Packet, OwnedFd>::new(Limits::new()).unwrap();
    let mut reused = fdpost::message::Message::default();
    // The first tells that large ones come; the others need no buffer beside the window.
    let sizes = [65_536, 40_000, 65_536, 32_777, 65_536];
    for (number, bytes) in sizes.into_iter().enumerate() {
        let hunk = &mut receiver.windows().unwrap().unwrap()[0];
        assert_eq!(hunk.head_room(), if number == 0 { 0 } else { 16 });
        let read = [&packet_header(bytes as u32, 0)[..], &vec![number as u8; bytes]].concat();
        bring(hunk, &read);
        let window = hunk.buffer().as_ptr();
        receiver.handle(std::time::Duration::ZERO, 1);
        assert!(receiver.poll_into(&mut reused).unwrap());
        assert_eq!(reused.payload(), vec![number as u8; bytes]);
        assert_eq!(reused.payload().as_ptr() == window, number > 0, "{bytes} bytes");
        assert!(receiver.poll().unwrap().is_none());
        assert!(receiver.held().bytes < 70_000, "{:?} beside the message's own", receiver.held());
    }
}

#[test] // P4
fn large_packets_cost_no_allocation() {
    for (limit, bytes) in [(65_536, 65_536), (40_000, 39_000), (65_536, 32_777), (32_769, 32_769)] {
        let frame = [&packet_header(bytes, 0)[..], &vec![1; bytes as usize]].concat();
        core::<Packet>(Limits::new().payload(limit), &[&frame], bytes as usize);
    }
}
