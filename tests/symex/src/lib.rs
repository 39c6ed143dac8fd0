//! What `control.py` executes symbolically: the control decoder as the compiler made it.
#![no_std]

use core::alloc::{GlobalAlloc, Layout as Memory};
use core::panic::PanicInfo;
use core::ptr;

use fdpost::error::Malformed;
use fdpost::wire::control::{Item, Layout, items};

/// What a walk over control data named, item by item.
#[repr(C)]
pub struct Found {
    items: usize,
    /// 1 where the item of this place is a descriptor.
    named: [u32; 64],
    /// Its number; of an item without a number 0.
    numbers: [i32; 64],
}

/// Walks `length` bytes, and notes the descriptors that they name.
///
/// Whether a number is a descriptor is noted, not asked: a question would double the paths at every
/// number, and up to eight of them fit in 48 bytes.
///
/// # Safety
/// There are `length` bytes, and a `Found`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symex_control(bytes: *const u8, length: usize, found: *mut Found) {
    // SAFETY: the caller says so.
    let bytes = unsafe { core::slice::from_raw_parts(bytes, length) };
    // SAFETY: as above.
    let found = unsafe { &mut *found };
    for item in items(bytes, Layout::GLIBC_64) {
        let (named, number) = match item {
            Item::Descriptor(number) => (1, number),
            Item::Malformed(Malformed::NegativeDescriptor { value }) => (0, value),
            _ => (0, 0),
        };
        if let (Some(flag), Some(place)) =
            (found.named.get_mut(found.items), found.numbers.get_mut(found.items))
        {
            *flag = named;
            *place = number;
        }
        found.items += 1;
    }
}

/// What libcamera's IPC hands out where a descriptor is missing: 0, and here in place of each that
/// came. The search has to find that no input says so.
///
/// # Safety
/// There are `length` bytes, and a `Found`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symex_made_up(bytes: *const u8, length: usize, found: *mut Found) {
    // SAFETY: the caller says so.
    unsafe {
        symex_control(bytes, length, found);
        (*found).numbers = [0; 64];
    }
}

/// A decoder that panics where its fourth byte is 42: the search has to find that.
///
/// # Safety
/// There are `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn symex_planted(bytes: *const u8, length: usize, _: *mut Found) {
    // SAFETY: the caller says so.
    let bytes = unsafe { core::slice::from_raw_parts(bytes, length) };
    assert!(bytes.get(3) != Some(&42));
}

/// Where every panic leads.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn symex_panicked() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    symex_panicked()
}

/// The decoder takes no memory; the crate that it is in would.
struct Nothing;

// SAFETY: null is what an allocator without memory answers.
unsafe impl GlobalAlloc for Nothing {
    unsafe fn alloc(&self, _: Memory) -> *mut u8 {
        ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Memory) {}
}

#[global_allocator]
static NOTHING: Nothing = Nothing;
