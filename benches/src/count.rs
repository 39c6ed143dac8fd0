//! An allocator that counts, while it is asked to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The system's allocator. What counting costs while nobody counts is one relaxed load, and meets
/// all ways alike.
pub struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note(allocations: u64, bytes: i64) {
    if ON.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(allocations, Ordering::Relaxed);
        HELD.fetch_add(bytes, Ordering::Relaxed);
    }
}

// SAFETY: each call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What was allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub allocations: u64,
    /// Bytes allocated and not given back.
    pub held: i64,
}

/// Counts while `work` runs. For a process in which nothing else runs meanwhile.
pub fn counted<T>(work: impl FnOnce() -> T) -> (T, Count) {
    let before = (ALLOCATIONS.load(Ordering::Relaxed), HELD.load(Ordering::Relaxed));
    ON.store(true, Ordering::Relaxed);
    let result = work();
    ON.store(false, Ordering::Relaxed);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before.0;
    (result, Count { allocations, held: HELD.load(Ordering::Relaxed) - before.1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests of this package that run beside it may allocate too, so only lower ends are certain.
    #[test]
    fn what_is_allocated_is_counted() {
        let (kept, count) = counted(|| (std::hint::black_box(vec![0_u8; 1 << 20]), drop(vec![0_u8; 64])));
        assert!(count.allocations >= 1 && count.held >= 1 << 19, "{count:?}");
        drop(kept);
    }
}
