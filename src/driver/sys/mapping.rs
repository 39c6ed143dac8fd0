//! Mapping sealed memfds.
#![allow(unsafe_code, reason = "mmap and munmap have no safe form")]

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};

use super::look::status;
use crate::driver::error::Error;
use crate::error::Misuse;

/// A read-only mapping of a file that cannot shrink.
#[derive(Debug)]
pub(in crate::driver) struct Mapping {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

// SAFETY: the memory is mapped read-only, and its file is sealed against writing; any thread may
// read it and unmap it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes of `file`, once it is certain that they stay as they are.
    pub(in crate::driver) fn of_sealed(file: BorrowedFd<'_>, length: usize) -> Result<Self, Error> {
        // F_GET_SEALS first: it asks nobody but the kernel, and fails on what is no memfd.
        let found = fcntl(file, FcntlArg::F_GET_SEALS).map_err(|errno| Error::io("fcntl", errno))?;
        // Without the one a read could be SIGBUS, without the other `&[u8]` would be a lie.
        let needed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE;
        if !SealFlag::from_bits_truncate(found).contains(needed) {
            let (found, needed) = (found.unsigned_abs(), needed.bits().unsigned_abs());
            return Err(Misuse::SealsMissing { found, needed }.into());
        }
        // Huge pages are mapped and unmapped in other units, and taken from a pool that is not ours.
        let kind = fstatfs(file).map_err(|errno| Error::io("fstatfs", errno))?.filesystem_type();
        if kind == HUGETLBFS_MAGIC {
            return Err(Misuse::HugePages.into());
        }
        let found = status(file).map_err(|errno| Error::io("statx", errno))?.bytes;
        let Some(length) = NonZeroUsize::new(length).filter(|length| length.get() as u64 <= found) else {
            return Err(Misuse::FileTooSmall { found, needed: length.max(1) as u64 }.into());
        };
        // MAP_PRIVATE, because before Linux 6.7 a shared mapping of a write-sealed file is EPERM even
        // to read it (mm/mmap.c, mapping_map_writable).
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0) }
            .map_err(|errno| Error::io("mmap", errno))?;
        Ok(Self { start, length })
    }

    pub(in crate::driver) const fn bytes(&self) -> &[u8] {
        // SAFETY: `of_sealed` mapped `length` bytes here, and seals keep them as they are.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.length.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `of_sealed` made exactly this mapping, and nothing borrows from it any more.
        let result = unsafe { munmap(self.start, self.length.get()) };
        debug_assert!(result.is_ok(), "munmap of our own mapping");
    }
}
