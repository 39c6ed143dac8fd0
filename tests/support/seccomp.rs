//! System calls of one thread that fail, or stop until somebody has looked (seccomp(2)).
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::kinds::own;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It fails.
    Fails(Errno),
    /// It waits until [`Listener::next`] lets it go on.
    Waits,
}

/// Stopped calls of the filtered thread.
pub struct Listener(OwnedFd);

const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: libc::c_ulong = 1 << 3;
const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;
const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
const SECCOMP_RET_USER_NOTIF: u32 = 0x7fc0_0000;
const SECCOMP_USER_NOTIF_FLAG_CONTINUE: u32 = 1;
/// `_IOWR('!', 0, struct seccomp_notif)`, `_IOWR('!', 1, struct seccomp_notif_resp)`.
const SECCOMP_IOCTL_NOTIF_RECV: u32 = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: u32 = 0xc018_2101;

/// `struct seccomp_notif`: id, pid, flags, and `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Notice {
    id: u64,
    pid: u32,
    flags: u32,
    data: [u64; 8],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const fn step(code: u32, value: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: yes, jf: no, k: value }
}

/// From now on `call` of this thread, with its second argument equal to `second` where that is
/// said, meets its fate. For ever: so on a thread of its own.
///
/// # Errors
/// Where the system has no seccomp(2), or forbids it: a test is skipped then.
pub fn filter(call: libc::c_long, second: Option<u32>, fate: Fate) -> io::Result<Option<Listener>> {
    filter_by(call, second.map(|value| (1, value)), fate)
}

/// As [`filter`], where the argument of that number, from 0, has the value.
///
/// # Errors
/// As [`filter`].
#[allow(unsafe_code, clippy::multiple_unsafe_ops_per_block, reason = "prctl and seccomp have no safe form")]
pub fn filter_by(
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    fate: Fate,
) -> io::Result<Option<Listener>> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let (flags, verdict) = match fate {
        Fate::Fails(errno) => (0, SECCOMP_RET_ERRNO | errno as u32),
        Fate::Waits => (SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_RET_USER_NOTIF),
    };
    // The lower half of an argument: they begin at offset 16.
    let low = |place: u32| 16 + 8 * place + if cfg!(target_endian = "big") { 4 } else { 0 };
    let mut program =
        vec![step(LOAD, 0, 0, 0), step(EQUAL, call as u32, 0, if argument.is_some() { 3 } else { 1 })];
    if let Some((place, value)) = argument {
        program.extend([step(LOAD, low(place), 0, 0), step(EQUAL, value, 0, 1)]);
    }
    program.extend([step(RETURN, verdict, 0, 0), step(RETURN, SECCOMP_RET_ALLOW, 0, 0)]);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS touches no memory; the filter's program lives through the call.
    let result = unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
    };
    match (result, fate) {
        (..0, _) => Err(io::Error::last_os_error()),
        (_, Fate::Fails(_)) => Ok(None),
        (number, Fate::Waits) => Ok(Some(Listener(own(number)))),
    }
}

/// Runs `judge` on a thread for which `call`, where its argument of that number has the value, fails;
/// `None`, said in words, where that cannot be.
pub fn under<T: Send>(
    call: libc::c_long,
    argument: Option<(u32, u32)>,
    errno: Errno,
    judge: impl FnOnce() -> T + Send,
) -> Option<T> {
    let result = thread::scope(|scope| {
        let judged = scope.spawn(move || filter_by(call, argument, Fate::Fails(errno)).map(|_| judge()));
        judged.join().unwrap()
    });
    result.inspect_err(|error| println!("skipped: a filter of system calls: {error}")).ok()
}

impl Listener {
    /// Waits for the thread's next such call, does `meanwhile`, and lets the call go on.
    #[allow(unsafe_code, reason = "ioctls that have no safe form")]
    pub fn next(&self, meanwhile: impl FnOnce()) -> io::Result<()> {
        // A thread that ends without the call is no reason to wait for ever.
        let mut sockets = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut sockets, PollTimeout::from(60_000_u16))?;
        if !sockets[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLIN)) {
            return Err(io::Error::other("the thread does not make that call"));
        }
        let mut notice = Notice { id: 0, pid: 0, flags: 0, data: [0; 8] };
        // SAFETY: the structure is as large as the number of the request says, and all zeros.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut notice) };
        Errno::result(result)?;
        meanwhile();
        let answer = Answer { id: notice.id, value: 0, error: 0, flags: SECCOMP_USER_NOTIF_FLAG_CONTINUE };
        // SAFETY: as above.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND as _, &raw const answer) };
        Errno::result(result)?;
        Ok(())
    }
}
