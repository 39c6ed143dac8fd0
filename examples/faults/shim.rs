//! System calls, and allocations, of one thread that fail at the n-th time.
//!
//! Why a shim and no ptrace(2): the fault is to hit one party of several in a process whose
//! descriptors can be counted when it ends, thousands of times in a minute. The program defines the
//! C library's functions itself, the linker prefers its own, and what is not to fail goes on to the
//! library's. Real processes are for strace, in `processes.rs`.
#![allow(unsafe_code, unreachable_pub, reason = "functions of the C library are replaced by their name")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::ffi::CStr;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;

/// What is to fail: which call, at its how many-th time from 1, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) call: &'static str,
    pub(crate) number: u32,
    pub(crate) errno: Errno,
}

thread_local! {
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static STRUCK: Cell<bool> = const { Cell::new(false) };
}

/// From now on a call of this thread is to fail.
pub(crate) fn arm(fault: Fault) {
    FAULT.set(Some(fault));
}

/// No call fails any more; whether one did.
pub(crate) fn disarm() -> bool {
    FAULT.set(None);
    STRUCK.get()
}

fn strikes(call: &str) -> bool {
    let Some(fault) = FAULT.get().filter(|fault| fault.call == call) else { return false };
    CALLS.set(CALLS.get() + 1);
    if CALLS.get() != fault.number {
        return false;
    }
    STRUCK.set(true);
    fault.errno.set();
    true
}

/// Where an allocation that fails stands is said on standard error (it takes long to find out).
pub(crate) static SAYS_WHERE: AtomicBool = AtomicBool::new(false);

/// The name that allocations have among the calls.
pub(crate) const ALLOCATION: &str = "allocation";

struct Failing;

/// Whether this one is to fail.
fn no_memory() -> bool {
    let strikes = strikes(ALLOCATION);
    if strikes && SAYS_WHERE.load(Ordering::Relaxed) {
        // What this allocates is not the n-th any more.
        eprintln!("{}", Backtrace::force_capture());
    }
    strikes
}

// SAFETY: every call is passed on to the system's allocator as it came, or answered with null.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promised.
        if no_memory() { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promised.
        if no_memory() { std::ptr::null_mut() } else { unsafe { System.realloc(pointer, layout, size) } }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

/// What the kernel says is true. Where it says that the peer is gone, the socket is at its end from
/// now on; and behind the peer's end it never says "would block".
fn may_be(socket: usize) -> bool {
    let (errno, socket) = (Errno::last(), socket as i32);
    if matches!(errno, Errno::ECONNRESET | Errno::EPIPE) {
        // SAFETY: shutdown(2) touches no memory.
        let _no_socket = unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
    }
    let mut seen = libc::pollfd { fd: socket, events: libc::POLLRDHUP, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    if errno == Errno::EAGAIN {
        // SAFETY: one structure, and a time, both alive during the call.
        let _nothing_seen = unsafe { libc::ppoll(&raw mut seen, 1, &raw const now, std::ptr::null()) };
    }
    errno.set();
    seen.revents == 0
}

/// The C library's function of this name.
fn real(place: &AtomicUsize, name: &CStr) -> usize {
    let known = place.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: the name is a string that ends in a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
    place.store(found, Ordering::Relaxed);
    found
}

type SixWords = extern "C" fn(usize, usize, usize, usize, usize, usize) -> isize;

fn six_words(function: usize) -> SixWords {
    assert_ne!(function, 0);
    // SAFETY: the function exists, and takes at most these six words.
    unsafe { mem::transmute::<usize, SixWords>(function) }
}

/// Machine words pass through, whatever they mean: on the 64-bit machines that this is built for all
/// arguments of these functions stand in registers, of a variadic one too.
macro_rules! fails_as {
    ($($function:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub extern "C" fn $function(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
            static REAL: AtomicUsize = AtomicUsize::new(0);
            if strikes(stringify!($function)) && may_be(a) {
                return -1;
            }
            let name = match CStr::from_bytes_with_nul(concat!(stringify!($function), "\0").as_bytes()) {
                Ok(name) => real(&REAL, name),
                Err(_) => 0,
            };
            six_words(name)(a, b, c, d, e, f)
        }
    )* };
}

fails_as! {
    recvmsg recvmmsg sendmsg sendmmsg send poll fcntl socketpair socket bind listen accept4 connect
    getsockopt setsockopt epoll_wait epoll_ctl memfd_create
}

/// statx(2), which the library calls by its number; other numbers pass.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments, reason = "as many as syscall(2) has")]
pub extern "C" fn syscall(
    number: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    if number == libc::SYS_statx as usize && strikes("statx") {
        return -1;
    }
    let function = real(&REAL, c"syscall");
    assert_ne!(function, 0);
    // SAFETY: syscall(2) takes a number and at most six words.
    let function: extern "C" fn(usize, usize, usize, usize, usize, usize, usize) -> isize =
        unsafe { mem::transmute(function) };
    function(number, a, b, c, d, e, f)
}

/// The calls, and the errors that their manual pages, or a filter, have for them.
pub(crate) const CALLS_AND_ERRORS: [(&str, &[Errno]); 20] = {
    use Errno::{
        EAGAIN, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINTR, EIO, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC,
        ENOSYS, EPERM, EPIPE, ETOOMANYREFS,
    };
    const RECEIVE: &[Errno] = &[EINTR, EAGAIN, ENOMEM, ENOBUFS, ECONNRESET, EIO];
    const SEND: &[Errno] = &[EINTR, EAGAIN, ENOMEM, ENOBUFS, ETOOMANYREFS, EPERM, ECONNRESET, EPIPE, EIO];
    [
        ("recvmsg", RECEIVE),
        ("recvmmsg", RECEIVE),
        ("sendmsg", SEND),
        ("sendmmsg", SEND),
        ("send", SEND),
        ("poll", &[EINTR, ENOMEM]),
        ("fcntl", &[EMFILE, EPERM, EIO]),
        ("statx", &[ENOMEM, EPERM, EIO, ENOSYS]),
        ("socketpair", &[EMFILE, ENFILE, ENOMEM]),
        ("socket", &[EMFILE, ENFILE, ENOMEM]),
        ("accept4", &[EINTR, EAGAIN, ECONNABORTED, EMFILE, ENFILE, ENOMEM, ENOBUFS, EPERM]),
        ("connect", &[EINTR, EAGAIN, ECONNREFUSED, EPERM, ENOMEM]),
        ("bind", &[ENOMEM, EPERM]),
        ("listen", &[EPERM]),
        ("getsockopt", &[EMFILE, ENOBUFS, EPERM]),
        ("setsockopt", &[ENOMEM, EPERM]),
        ("epoll_wait", &[EINTR]),
        ("epoll_ctl", &[ENOMEM, ENOSPC]),
        ("memfd_create", &[EMFILE, ENOMEM]),
        (ALLOCATION, &[ENOMEM]),
    ]
};
