//! The core as a C program would link it: every wire, receiving and sending, nothing of std.
//!
//! A conversation is one opaque object a wire. What is exported is what makes the whole of the
//! receiver and the sender reachable, so that the linker can leave nothing out.
#![no_std]

extern crate alloc;

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::panic::PanicInfo;
use core::time::Duration;

use fdpost::machine::{Failure, Outcome, Receiver, Sender};
use fdpost::message::Message;
use fdpost::{Libcamera, Limits, Packet, Profile, Stream};

unsafe extern "C" {
    fn malloc(bytes: usize) -> *mut c_void;
    fn free(pointer: *mut c_void);
    fn abort() -> !;
}

/// C's allocator. Every type of the core is aligned as malloc aligns.
struct C;

// SAFETY: malloc gives memory of the size asked for, aligned for any scalar, or null; free takes it.
unsafe impl GlobalAlloc for C {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: malloc takes any size.
        unsafe { malloc(layout.size()).cast() }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        // SAFETY: it came from malloc.
        unsafe { free(pointer.cast()) }
    }
}

#[global_allocator]
static ALLOCATOR: C = C;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: abort has no conditions.
    unsafe { abort() }
}

/// Both directions of a conversation.
struct Conversation<P: Profile> {
    receiver: Receiver<P, i32>,
    sender: Sender<P, i32>,
}

/// Feeds bytes and numbers of descriptors in, sends every message back, and says how many bytes
/// would leave; 0 after a violation.
fn turn<P: Profile>(
    conversation: &mut Conversation<P>,
    bytes: &[u8],
    descriptors: &[i32],
    now: u64,
) -> usize {
    let Conversation { receiver, sender } = conversation;
    let now = Duration::from_micros(now);
    match receiver.windows() {
        Ok(Some([hunk, ..])) => hunk.fill(bytes, descriptors.iter().copied()),
        _ => return 0,
    }
    receiver.handle(now, 1);
    while let Ok(Some(message)) = receiver.poll() {
        let message = Message::new(message.into_payload());
        if sender.push(message).is_err() {
            return 0;
        }
    }
    sender.pack();
    let (parts, bytes) =
        sender.transmits().fold((0, 0), |(parts, bytes), transmit| (parts + 1, bytes + transmit.bytes()));
    if bytes % 2 == 0 {
        sender.transmitted(parts);
    } else if let Outcome::Closed(_) = sender.failed(now, Failure::WouldBlock) {
        return 0;
    }
    bytes + receiver.deadline().map_or(0, |deadline| deadline.as_micros() as usize)
}

macro_rules! wire {
    ($wire:ty, $new:ident, $turn:ident, $drop:ident) => {
        /// A conversation; null where limits make no sense.
        #[unsafe(no_mangle)]
        pub extern "C" fn $new(payload: u32, descriptors: u8) -> *mut c_void {
            let limits = Limits::new().payload(payload).descriptors(descriptors);
            match Receiver::<$wire, i32>::new(limits) {
                Ok(receiver) => {
                    Box::into_raw(Box::new(Conversation { receiver, sender: Sender::new() })).cast()
                }
                Err(_) => core::ptr::null_mut(),
            }
        }

        /// See `turn`.
        ///
        /// # Safety
        /// The conversation is of this wire; the pointers are to as many bytes and descriptors.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $turn(
            conversation: *mut c_void,
            bytes: *const u8,
            length: usize,
            descriptors: *const i32,
            count: usize,
            now: u64,
        ) -> usize {
            // SAFETY: as this function's own conditions.
            let (conversation, bytes, descriptors) = unsafe {
                (
                    &mut *conversation.cast::<Conversation<$wire>>(),
                    core::slice::from_raw_parts(bytes, length),
                    core::slice::from_raw_parts(descriptors, count),
                )
            };
            turn(conversation, bytes, descriptors, now)
        }

        /// Ends a conversation.
        ///
        /// # Safety
        /// It is of this wire and not used any more.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $drop(conversation: *mut c_void) {
            // SAFETY: it was made by `Box::into_raw`.
            drop(unsafe { Box::from_raw(conversation.cast::<Conversation<$wire>>()) });
        }
    };
}

wire!(Packet, fdpost_packet_new, fdpost_packet_turn, fdpost_packet_drop);
wire!(Libcamera, fdpost_libcamera_new, fdpost_libcamera_turn, fdpost_libcamera_drop);
wire!(Stream, fdpost_stream_new, fdpost_stream_turn, fdpost_stream_drop);
