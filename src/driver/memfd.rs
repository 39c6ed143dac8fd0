//! Shared memory that cannot change under its reader's hands (memfd_create(2)).

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::error::Error;
use super::sys::{self, Mapping};
use crate::accept::Seals;
use crate::error::Misuse;

/// Bytes of the longest name (mm/memfd.c, MFD_NAME_MAX_LEN; a longer one is EINVAL).
const NAME_MOST: usize = 249;

/// MFD_NOEXEC_SEAL (memfd_create(2), Linux 6.3): no mode bit to execute it, and a seal that keeps it
/// so. Where the sysctl vm.memfd_noexec is 2, no memfd is made without it.
const NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x8);

/// Making and mapping sealed memfds. What is made here cannot be executed, and from Linux 6.3 on has
/// the seal that says so ([`Seals::EXEC`]) from the start.
#[derive(Clone, Copy, Debug)]
pub struct Memfd;

impl Memfd {
    /// A memfd of these bytes, sealed against growing, shrinking, writing and further seals
    /// ([`Seals::ALL`]).
    /// `name` is for people who look into `/proc/PID/fd`; a NUL byte ends it.
    ///
    /// # Errors
    /// [`Error::Io`] of memfd_create(2), write(2) or fcntl(2).
    pub fn sealed(name: &str, bytes: &[u8]) -> Result<OwnedFd, Error> {
        let mut file = File::from(make(name)?);
        file.write_all(bytes).map_err(|error| Error::of_io("write", &error))?;
        Self::seal(&file, Seals::ALL)?;
        Ok(file.into())
    }

    /// A memfd of `size` zero bytes that may be written to and resized: to be filled, then [`seal`](Self::seal)ed and
    /// sent. Memory is taken as it is written to.
    ///
    /// ```
    /// use fdpost::{Memfd, Seals};
    /// use std::os::unix::fs::FileExt;
    ///
    /// let file = std::fs::File::from(Memfd::create("frame", 4096)?);
    /// file.write_all_at(b"pixels", 100)?;
    /// Memfd::seal(&file, Seals::ALL)?;
    /// assert_eq!(&Memfd::map(&file, 4096)?[100..106], b"pixels");
    /// assert!(file.write_all_at(b"late", 0).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] of memfd_create(2), fcntl(2) or ftruncate(2).
    pub fn create(name: &str, size: u64) -> Result<OwnedFd, Error> {
        let memfd = make(name)?;
        if size > 0 {
            resize(memfd.as_fd(), size)?;
        }
        Ok(memfd)
    }

    /// Makes a memfd larger, to `size` bytes; what is new is zero. It is never made smaller: whoever
    /// has mapped it would meet SIGBUS.
    ///
    /// # Errors
    /// [`Misuse::FileTooLarge`](crate::Misuse::FileTooLarge) where it has more than `size` bytes;
    /// [`Error::Io`] of statx(2) or ftruncate(2), with EPERM where it is sealed against growing.
    pub fn grow(memfd: impl AsFd, size: u64) -> Result<(), Error> {
        let memfd = memfd.as_fd();
        let found = sys::status(memfd).map_err(|errno| Error::io("statx", errno))?.bytes;
        if found > size {
            return Err(Misuse::FileTooLarge { found, most: size }.into());
        }
        resize(memfd, size)
    }

    /// Adds seals: from now on nobody can do these things to the memfd, whoever holds it.
    ///
    /// # Errors
    /// [`Error::Io`] of fcntl(2): EBUSY for [`Seals::WRITE`] while it is mapped to be written to; EPERM
    /// where it is sealed against further seals, or not open for writing; EINVAL for what is no memfd,
    /// and for a seal that this kernel does not know.
    pub fn seal(memfd: impl AsFd, seals: Seals) -> Result<(), Error> {
        let seals = SealFlag::from_bits_retain(seals.bits() as i32);
        fcntl(memfd, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| Error::io("fcntl", errno))?;
        Ok(())
    }

    /// The seals that it has.
    ///
    /// # Errors
    /// [`Error::Io`] of fcntl(2), with EINVAL for what is no memfd.
    pub fn seals(memfd: impl AsFd) -> Result<Seals, Error> {
        let bits = fcntl(memfd, FcntlArg::F_GET_SEALS).map_err(|errno| Error::io("fcntl", errno))?;
        Ok(Seals::from_bits(bits.unsigned_abs()))
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

/// Close-on-exec, above the standard descriptors, and open to seals.
fn make(name: &str) -> Result<OwnedFd, Error> {
    let mut bytes = [0; NAME_MOST + 1];
    let given = bytes.iter_mut().zip(name.bytes().take_while(|byte| *byte != 0));
    given.for_each(|(place, byte)| *place = byte);
    // Where it is too long the zero that ends it is not there.
    let name = CStr::from_bytes_until_nul(&bytes).map_err(|_| Error::io("memfd_create", Errno::EINVAL))?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memfd = match memfd_create(name, flags | NOEXEC_SEAL) {
        // Before Linux 6.3.
        Err(Errno::EINVAL) => memfd_create(name, flags),
        made => made,
    };
    let memfd = memfd.map_err(|errno| Error::io("memfd_create", errno))?;
    sys::raised(memfd).map_err(|errno| Error::io("fcntl", errno))
}

fn resize(memfd: BorrowedFd<'_>, size: u64) -> Result<(), Error> {
    // EFBIG is what the kernel says of a size that is beyond its own largest.
    let size = size.try_into().map_err(|_| Error::io("ftruncate", Errno::EFBIG))?;
    ftruncate(memfd, size).map_err(|errno| Error::io("ftruncate", errno))
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
