//! Whether descriptors are of the kinds that a [`Policy`] accepts.
//!
//! Each question takes as few system calls as decide it, and none of them asks the server of the
//! descriptor's file, which may be the peer: fcntl(2), getsockopt(2), waitid(2), statx(2) without
//! synchronisation. What came is looked at closely only once it is refused.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};

use super::error::Error;
use super::sys::{self, Status};
use crate::accept::{Accept, Domain, Found, Kind, Policy, Seals, SocketType, Wanted};
use crate::error::Violation;
use crate::message::Message;

/// The largest block of a memfd that is certainly not of huge pages.
const ORDINARY: u64 = 4096;

impl Policy {
    /// Judges the descriptors of a message that are still in it, as a channel with this policy does:
    /// for those who drive the machine by hand.
    ///
    /// # Errors
    /// [`Violation::DescriptorKind`] of the first that is not accepted. [`Error::Io`] where this
    /// process cannot find out: a security module, a seccomp filter or an old kernel says no to a
    /// question that decides. That is not the peer's fault.
    pub fn check(&self, message: &Message<OwnedFd>) -> Result<(), Error> {
        let held = message.descriptors.iter().enumerate();
        held.filter_map(|(slot, descriptor)| Some((slot, descriptor.as_ref()?)))
            .try_for_each(|(slot, descriptor)| self.check_one(slot, descriptor.as_fd()))
    }

    pub(super) fn check_one(&self, slot: usize, descriptor: BorrowedFd<'_>) -> Result<(), Error> {
        let mut unknown = None;
        for accept in self.alternatives(slot) {
            match accepts(accept, descriptor) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => unknown = unknown.or(Some(error)),
            }
        }
        if let Some(error) = unknown {
            return Err(error);
        }
        let found = look(descriptor);
        let (required, slot) = (self.closest(slot, &found), u32::try_from(slot).unwrap_or(u32::MAX));
        Err(Violation::DescriptorKind { slot, required, found }.into())
    }
}

/// Whether the descriptor is what is demanded.
fn accepts(accept: &Accept, descriptor: BorrowedFd<'_>) -> Result<bool, Error> {
    let of_kind = match accept.wanted {
        Wanted::Nothing => false,
        Wanted::Any => true,
        // The seals first: only the one against shrinking keeps the size that is found.
        Wanted::Memfd { seals, bytes } => match seals_of(descriptor)? {
            Some(has) if has.contains(seals) => bytes == 0 || has_bytes(descriptor, bytes)?,
            _ => false,
        },
        Wanted::File => flags(descriptor)?.is_some() && is_file(&status(descriptor)?, descriptor)?,
        Wanted::Socket(None) => option(descriptor, libc::SO_TYPE)?.is_some(),
        Wanted::Socket(Some((domain, kind))) => {
            option(descriptor, libc::SO_TYPE)?.map(type_of) == Some(kind)
                && option(descriptor, libc::SO_DOMAIN)?.map(domain_of) == Some(domain)
        }
        Wanted::Pipe => is_pipe(descriptor)?,
        Wanted::Pidfd => sys::is_pidfd(descriptor).map_err(|errno| Error::io("waitid", errno))?,
    };
    if !of_kind || !(accept.readable || accept.writable) {
        return Ok(of_kind);
    }
    let (readable, writable) = flags(descriptor)?.map_or((false, false), access);
    Ok((readable || !accept.readable) && (writable || !accept.writable))
}

/// All about a descriptor that can be found out.
fn look(descriptor: BorrowedFd<'_>) -> Found {
    let (readable, writable) = flags(descriptor).ok().flatten().map_or((false, false), access);
    Found { kind: kind(descriptor).unwrap_or(Kind::Other), readable, writable }
}

fn kind(descriptor: BorrowedFd<'_>) -> Result<Kind, Error> {
    if flags(descriptor)?.is_none() {
        return Ok(Kind::Path);
    }
    if let Some(seals) = seals_of(descriptor)? {
        let Status { bytes, .. } = status(descriptor)?;
        return Ok(Kind::Memfd { seals, bytes, huge: is_huge(descriptor)? });
    }
    if let (Some(domain), Some(kind)) =
        (option(descriptor, libc::SO_DOMAIN)?, option(descriptor, libc::SO_TYPE)?)
    {
        return Ok(Kind::Socket { domain: domain_of(domain), kind: type_of(kind) });
    }
    if is_pipe(descriptor)? {
        return Ok(Kind::Pipe);
    }
    // A kernel that cannot say so has none to speak of.
    if sys::is_pidfd(descriptor) == Ok(true) {
        return Ok(Kind::Pidfd);
    }
    Ok(match status(descriptor)?.mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFCHR | libc::S_IFBLK => Kind::Device,
        _ => Kind::Other,
    })
}

/// The file status flags; `None` for what was opened with O_PATH, and cannot be used.
fn flags(descriptor: BorrowedFd<'_>) -> Result<Option<OFlag>, Error> {
    let bits = fcntl(descriptor, FcntlArg::F_GETFL).map_err(|errno| Error::io("fcntl", errno))?;
    Ok(Some(OFlag::from_bits_retain(bits)).filter(|flags| !flags.contains(OFlag::O_PATH)))
}

fn access(flags: OFlag) -> (bool, bool) {
    match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => (true, false),
        OFlag::O_WRONLY => (false, true),
        OFlag::O_RDWR => (true, true),
        // open(2): access mode 3 is for ioctl(2) alone.
        _ => (false, false),
    }
}

/// The seals of a memfd; of no other file but those on tmpfs and hugetlbfs, which are the same to
/// the kernel (mm/memfd.c, memfd_file_seals_ptr).
fn seals_of(descriptor: BorrowedFd<'_>) -> Result<Option<Seals>, Error> {
    match fcntl(descriptor, FcntlArg::F_GET_SEALS) {
        Ok(bits) => Ok(Some(Seals::from_bits(bits.unsigned_abs()))),
        // EBADF: of an O_PATH descriptor nothing may be asked but its flags.
        Err(Errno::EINVAL | Errno::EBADF) => Ok(None),
        Err(errno) => Err(Error::io("fcntl", errno)),
    }
}

/// Of what has seals: its pages are in the kernel's hands, and no server is asked.
fn has_bytes(memfd: BorrowedFd<'_>, least: u64) -> Result<bool, Error> {
    let Status { bytes, block, .. } = status(memfd)?;
    // Reading from a huge page can be SIGBUS, whatever the size: there may be none left.
    Ok(bytes >= least && (block <= ORDINARY || !is_huge(memfd)?))
}

fn is_huge(memfd: BorrowedFd<'_>) -> Result<bool, Error> {
    let system = fstatfs(memfd).map_err(|errno| Error::io("fstatfs", errno))?;
    Ok(system.filesystem_type() == HUGETLBFS_MAGIC)
}

/// F_GETPIPE_SZ is answered by pipes alone (fs/pipe.c, get_pipe_info).
fn is_pipe(descriptor: BorrowedFd<'_>) -> Result<bool, Error> {
    match fcntl(descriptor, FcntlArg::F_GETPIPE_SZ) {
        Ok(_) => Ok(true),
        Err(Errno::EBADF) => Ok(false),
        Err(errno) => Err(Error::io("fcntl", errno)),
    }
}

/// An option that every socket has; `None` for what is none.
fn option(descriptor: BorrowedFd<'_>, name: i32) -> Result<Option<i32>, Error> {
    match sys::socket_option(descriptor, name) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENOTSOCK | Errno::EBADF) => Ok(None),
        Err(errno) => Err(Error::io("getsockopt", errno)),
    }
}

const fn domain_of(number: i32) -> Domain {
    match number {
        libc::AF_UNIX => Domain::Unix,
        libc::AF_INET => Domain::Inet,
        libc::AF_INET6 => Domain::Inet6,
        other => Domain::Other(other),
    }
}

const fn type_of(number: i32) -> SocketType {
    match number {
        libc::SOCK_STREAM => SocketType::Stream,
        libc::SOCK_DGRAM => SocketType::Datagram,
        libc::SOCK_SEQPACKET => SocketType::SeqPacket,
        other => SocketType::Other(other),
    }
}

fn status(descriptor: BorrowedFd<'_>) -> Result<Status, Error> {
    sys::status(descriptor).map_err(|errno| Error::io("statx", errno))
}

/// A regular file, and not a pidfd: from Linux 6.9 to 6.15 that is one of no bytes (fs/libfs.c,
/// prepare_anon_dentry).
fn is_file(status: &Status, descriptor: BorrowedFd<'_>) -> Result<bool, Error> {
    let regular = status.mode & libc::S_IFMT == libc::S_IFREG;
    if !regular || status.bytes > 0 {
        return Ok(regular);
    }
    match sys::is_pidfd(descriptor) {
        Ok(is_pidfd) => Ok(!is_pidfd),
        // Linux before 5.4 has no pidfd that this could be (kernel/exit.c).
        Err(Errno::EINVAL) => Ok(true),
        Err(errno) => Err(Error::io("waitid", errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // P9
    fn a_pidfd_that_looks_like_a_file_is_none() {
        // As statx(2) of Linux 6.9 says it of a pidfd.
        let empty = Status { mode: libc::S_IFREG | 0o700, bytes: 0, block: 4096 };
        // A pidfd of this process: who made the pair.
        let (one, _two) = std::os::unix::net::UnixStream::pair().expect("a pair");
        match sys::peer_pidfd(one.as_fd()) {
            Ok(pidfd) => {
                assert_eq!(is_file(&empty, pidfd.as_fd()), Ok(false));
                assert_eq!(kind(pidfd.as_fd()), Ok(Kind::Pidfd));
            }
            Err(errno) => println!("skipped: no SO_PEERPIDFD (Linux 6.5): {errno}"),
        }
        let file = std::fs::File::open("/proc/self/cmdline").expect("a file");
        let found = status(file.as_fd()).expect("its status");
        assert_eq!((found.bytes, is_file(&found, file.as_fd())), (0, Ok(true)));
        assert_eq!(is_file(&empty, file.as_fd()), Ok(true));
        let directory = std::fs::File::open("/").expect("a directory");
        assert_eq!(is_file(&status(directory.as_fd()).expect("its status"), directory.as_fd()), Ok(false));
    }
}
