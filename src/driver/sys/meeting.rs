//! What accept and SO_PEERPIDFD return are numbers.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::{raised, socket_option};

/// SO_PEERPIDFD (Linux 6.5).
const SO_PEERPIDFD: i32 = 77;

/// accept4(2), of a listener that is O_NONBLOCK. The kernel reserves the number before it takes the
/// connection out of the queue (net/socket.c, __sys_accept4_file): under EMFILE nothing is lost.
/// Not raised above the standard descriptors: where that fails, the caller must keep it.
pub(in crate::driver) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC);
    loop {
        // SAFETY: null pointers ask for no address.
        let number = unsafe { libc::accept4(listener.as_raw_fd(), none, none.cast(), flags) };
        match Errno::result(number) {
            // SAFETY: accept4 just made it, and nobody else knows of it.
            Ok(number) => return Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A pidfd of who connected or listened. ENOPROTOOPT before Linux 6.5.
pub(in crate::driver) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let number = socket_option(socket, SO_PEERPIDFD)?;
    // SAFETY: getsockopt just installed it (net/core/sock.c, sk_getsockopt), close-on-exec, and
    // nobody else knows of it.
    raised(unsafe { OwnedFd::from_raw_fd(number) })
}

/// FD_CLOEXEC on a descriptor that is known by its number.
pub(in crate::driver) fn set_close_on_exec(number: i32) -> Result<(), Errno> {
    // SAFETY: F_SETFD touches no memory; of a number that is not open it says EBADF.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(result).map(drop)
}
