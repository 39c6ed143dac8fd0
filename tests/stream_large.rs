//! 64 MiB over the `stream` wire, with the allocator counting what that takes (P4).

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::thread;
use std::time::Duration;

use fdpost::{Channel, Deadline, Limits, Message, Stream, Violation};
use support::{Ledger, assert_refused, files, identity};

/// The system's allocator, counting per thread: each end of the pair has its own.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
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
        // SAFETY: the pointer came from `System` with this layout, and the caller checked the size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What a call takes at its highest, above what there was.
fn peak<T>(call: impl FnOnce() -> T) -> (T, isize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = call();
    (result, PEAK.get() - before)
}

const SIZE: u32 = 64 * 1024 * 1024;
/// What the window, the control buffer and the message's bookkeeping may take beside a payload.
const SMALL: isize = 192 * 1024;

fn patience() -> Deadline {
    Deadline::after(Duration::from_secs(120))
}

fn byte(index: usize) -> u8 {
    (index % 251) as u8
}

#[test] // P1, P2, P4, P6
fn st_10_64_mib_both_ways() {
    let limits = Limits::new().payload(SIZE).descriptors(2).assembly_timeout(Duration::from_secs(60));
    // One byte beyond the limits is refused by its header.
    let header = [[0; 4], (SIZE + 1).to_ne_bytes(), [0; 4]].concat();
    let expected = Violation::PayloadTooLarge { declared: u64::from(SIZE) + 1, limit: SIZE.into() };
    assert_refused::<Stream>(limits, &[(&header, 0)], 0, expected);

    let ledger = Ledger::open();
    let (mut one, theirs) = Channel::<Stream>::pair(limits).unwrap();
    let mut two = Channel::<Stream>::from_fd(theirs, limits).unwrap();
    let mut payload: Vec<u8> = (0..SIZE as usize).map(byte).collect();
    for _ in 0..2 {
        let sent = files(2);
        let names: Vec<_> = sent.iter().map(identity).collect();
        let sender = thread::spawn(move || {
            let message = sent.into_iter().fold(Message::new(payload), Message::with);
            let (result, most) = peak(|| one.send_by(message, patience()));
            let _complete = result.unwrap();
            assert!(most < SMALL, "sending took {most} bytes beside the payload");
            one
        });
        let (message, most) = peak(|| two.receive_by(patience()));
        let mut message = message.unwrap();
        // Gathered where the message keeps it: a second copy of any part of it would show.
        assert!(most < SIZE as isize + SMALL, "receiving took {most} bytes");
        assert!(message.payload().iter().enumerate().all(|(index, got)| *got == byte(index)));
        assert_eq!(message.payload().len(), SIZE as usize);
        assert_eq!(message.take_all().map(|file| identity(&file)).collect::<Vec<_>>(), names);
        payload = message.into_payload();
        [one, two] = [two, sender.join().unwrap()];
    }
    drop((one, two, payload));
    ledger.close();
}
