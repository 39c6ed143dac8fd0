//! Two threads write one number without a lock. That is wrong, on purpose: `make tsan` shows with
//! it that a race is reported before it calls the stress run free of them.
#![allow(unsafe_code, reason = "safe code has no data race to report")]

use std::cell::UnsafeCell;
use std::sync::Barrier;
use std::thread;

struct Number(UnsafeCell<u64>);

// SAFETY: none; this is the planted defect. Run alone it counts wrong, and no more.
unsafe impl Sync for Number {}

static NUMBER: Number = Number(UnsafeCell::new(0));

fn main() {
    // Both at once: a thread that comes after the other has ended may be taken for its successor.
    let both = Barrier::new(2);
    let count = || {
        both.wait();
        for _ in 0..1000 {
            // SAFETY: none; see above. Seen by the black box each time, so that the compiler
            // leaves the race in.
            unsafe { *std::hint::black_box(NUMBER.0.get()) += 1 };
        }
    };
    thread::scope(|scope| {
        scope.spawn(count);
        scope.spawn(count);
    });
    // SAFETY: the threads have ended.
    println!("{} of 2000", unsafe { *NUMBER.0.get() });
}
