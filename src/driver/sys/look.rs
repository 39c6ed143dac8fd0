//! Looking at a descriptor without asking whoever serves its file.
#![allow(
    unsafe_code,
    reason = "statx, and waitid of a pidfd whose process is no child of ours, have no safe form"
)]

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::fstat;

/// What statx(2) says of a file.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) struct Status {
    /// The file's type and permissions.
    pub(in crate::driver) mode: u32,
    pub(in crate::driver) bytes: u64,
    /// Bytes of a block.
    pub(in crate::driver) block: u64,
}

/// `struct statx` (include/uapi/linux/stat.h), the same on every architecture: libc has it for some
/// only.
#[repr(C)]
struct Statx {
    mask: u32,
    block: u32,
    attributes: u64,
    links: u32,
    owners: [u32; 2],
    mode: u16,
    spare: u16,
    inode: u64,
    bytes: u64,
    rest: [u64; 26],
}

/// Of include/uapi/linux/stat.h and fcntl.h.
const STATX_TYPE: u32 = 0x1;
const STATX_SIZE: u32 = 0x200;
const AT_EMPTY_PATH: i32 = 0x1000;
const AT_STATX_DONT_SYNC: i32 = 0x4000;

/// The file's type and size as the kernel has them now: AT_STATX_DONT_SYNC keeps a FUSE or network
/// file system from asking its server, which may let us wait as long as it likes.
///
/// Where there is no statx(2) (before Linux 4.11), or a container's filter forbids it (old ones say
/// EPERM), fstat(2) takes its place, and that does ask. (A 32-bit C library may have no fstat(2) but by
/// statx(2): there EPERM stays.)
pub(in crate::driver) fn status(file: BorrowedFd<'_>) -> Result<Status, Errno> {
    let flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
    let mask = STATX_TYPE | STATX_SIZE;
    // SAFETY: all zeros is a valid `Statx`: it has only integers.
    let mut statx: Statx = unsafe { mem::zeroed() };
    let (path, place) = (c"".as_ptr(), &raw mut statx);
    // SAFETY: the path is a string that ends in a zero byte, and `place` has the 256 bytes that the
    // kernel writes.
    let result = unsafe { libc::syscall(libc::SYS_statx, file.as_raw_fd(), path, flags, mask, place) };
    match Errno::result(result) {
        Ok(_) => Ok(Status { mode: statx.mode.into(), bytes: statx.bytes, block: statx.block.into() }),
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let stat = fstat(file)?;
            // As wide as the machine's words, or not.
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            let block = u64::try_from(stat.st_blksize).unwrap_or(0);
            Ok(Status { mode: stat.st_mode, bytes, block })
        }
        Err(errno) => Err(errno),
    }
}

/// Whether `descriptor` is a pidfd: waitid(2) says EBADF of what is none (kernel/exit.c,
/// kernel_waitid_prepare). Nothing is waited for, and a child that has ended stays to be waited for
/// (WNOHANG, WNOWAIT). fstat(2) would not do: its answer for a pidfd was another in Linux 6.8, 6.9
/// and 6.16.
pub(in crate::driver) fn is_pidfd(descriptor: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    let id = descriptor.as_raw_fd().unsigned_abs();
    // SAFETY: a null pointer means that nothing is to be written (waitid(2)).
    let result = unsafe { libc::waitid(libc::P_PIDFD, id, ptr::null_mut(), flags) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ECHILD) => Ok(true),
        Err(Errno::EBADF) => Ok(false),
        Err(errno) => Err(errno),
    }
}
