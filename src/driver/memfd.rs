//! Shared memory that cannot change under its reader's hands (memfd_create(2)).

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::error::Error;
use super::sys::{self, Mapping};

/// Making and mapping sealed memfds.
#[derive(Clone, Copy, Debug)]
pub struct Memfd;

impl Memfd {
    /// A memfd of these bytes, sealed against growing, shrinking, writing and further seals.
    /// `name` is for people who look into `/proc/PID/fd`; a NUL byte ends it.
    ///
    /// # Errors
    /// [`Error::Io`] of memfd_create(2), write(2) or fcntl(2).
    pub fn sealed(name: &str, bytes: &[u8]) -> Result<OwnedFd, Error> {
        let name: Vec<u8> = name.bytes().take_while(|byte| *byte != 0).collect();
        let name = CString::new(name).unwrap_or_default();
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memfd = memfd_create(name.as_c_str(), flags).map_err(|errno| Error::io("memfd_create", errno))?;
        let memfd = sys::raised(memfd).map_err(|errno| Error::io("fcntl", errno))?;
        let mut file = File::from(memfd);
        file.write_all(bytes)
            .map_err(|error| Error::Io { call: "write", errno: error.raw_os_error().unwrap_or(0) })?;
        let seals =
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| Error::io("fcntl", errno))?;
        Ok(file.into())
    }

    /// Maps the first `length` bytes of a memfd, read-only, once it is certain that they stay: it
    /// is sealed against shrinking and writing, and large enough. So no peer can raise SIGBUS
    /// here or change what was checked. Reading holes of the file takes memory on the reader's
    /// account, so map no more than you would allocate.
    ///
    /// # Errors
    /// [`Misuse::SealsMissing`](crate::Misuse::SealsMissing),
    /// [`Misuse::HugePages`](crate::Misuse::HugePages),
    /// [`Misuse::FileTooSmall`](crate::Misuse::FileTooSmall) (also for a `length` of 0), and
    /// [`Error::Io`], with EINVAL for what is no memfd.
    pub fn map(memfd: impl AsFd, length: usize) -> Result<Mapped, Error> {
        Ok(Mapped { mapping: Mapping::of_sealed(memfd.as_fd(), length)? })
    }
}

/// Bytes of a sealed memfd, unmapped on drop.
#[derive(Debug)]
pub struct Mapped {
    mapping: Mapping,
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.bytes()
    }
}
