//! A name in the file system: taken once, with its mode, and given back.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};

use crate::driver::address::Address;
use crate::driver::deadline::Deadline;
use crate::driver::error::Error;

/// For the lock that another starter holds. It does so for a few system calls.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(2);

/// The file that was made, to be removed if it is still this one. While the socket is open its
/// inode exists, so that no other file can have its number.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    file: (u64, u64),
    /// A process that was forked off has no business with the file.
    process: u32,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // By the path, and not by descriptors: none may be free.
        if self.process == std::process::id() && identity(&self.path).ok() == Some(self.file) {
            let _replaced_meanwhile = fs::remove_file(&self.path);
        }
    }
}

/// Gives the socket its name. `None`: an abstract one, which leaves no file.
pub(super) fn bind(socket: &OwnedFd, address: &Address, mode: u32) -> Result<Option<Bound>, Error> {
    let name = address.kernel_form()?;
    let Some(given) = address.path() else {
        return match try_bind(socket, &name)? {
            true => Ok(None),
            false => Err(Error::AddressInUse),
        };
    };
    // To find it again, wherever the process has gone by then.
    let path = std::path::absolute(given).map_err(|error| Error::of_io("getcwd", &error))?;
    let mode = Mode::from_bits_truncate(mode);
    // The file's mode is the socket's, less the umask (net/unix/af_unix.c, unix_bind_bsd): it is
    // never wider than asked for, not for a moment.
    fchmod(socket, mode).map_err(|errno| Error::io("fchmod", errno))?;
    if !try_bind(socket, &name)? {
        replace(socket, &name, given, &path)?;
    }
    let file = identity(&path).map_err(|error| Error::of_io("lstat", &error))?;
    let bound = Bound { path, file, process: std::process::id() };
    widen(&bound, mode)?;
    Ok(Some(bound))
}

/// What the umask took away is given back, before anybody can connect. Never through a symbolic
/// link, which somebody may have put there.
fn widen(bound: &Bound, mode: Mode) -> Result<(), Error> {
    let found = fs::symlink_metadata(&bound.path).map_err(|error| Error::of_io("lstat", &error))?;
    if found.mode() & 0o777 == mode.bits() {
        return Ok(());
    }
    fchmodat(AT_FDCWD, &bound.path, mode, FchmodatFlags::NoFollowSymlink)
        .map_err(|errno| Error::io("fchmodat", errno))
}

/// `false`: the name is taken.
fn try_bind(socket: &OwnedFd, name: &UnixAddr) -> Result<bool, Error> {
    match socket::bind(socket.as_raw_fd(), name) {
        Ok(()) => Ok(true),
        Err(Errno::EADDRINUSE) => Ok(false),
        Err(errno) => Err(Error::io("bind", errno)),
    }
}

/// Takes the place of a socket's file that nobody serves.
fn replace(socket: &OwnedFd, name: &UnixAddr, given: &Path, path: &Path) -> Result<(), Error> {
    let deadline = Deadline::after(PATIENCE);
    // Held from the look to the bind: else two could find it stale, and the second remove what the
    // first has just made.
    let _lock = loop {
        // Where it is served by now there is nothing to wait for.
        is_stale(name, given)?;
        match Lock::take(path)? {
            Some(lock) => break lock,
            None if deadline.has_passed() => return Err(Error::TimedOut),
            None => sleep(PAUSE),
        }
    };
    if is_stale(name, given)? {
        match fs::remove_file(given) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::of_io("unlink", &error));
            }
            _ => {}
        }
    }
    // Who found the place free needed no lock.
    if try_bind(socket, name)? { Ok(()) } else { Err(Error::AddressInUse) }
}

/// Whether the file is a socket's that no process has open. `false`: there is none any more.
///
/// A datagram socket asks: connect(2) of another type than the one found says EPROTOTYPE where
/// any socket is bound, before it does anything to that one, and ECONNREFUSED where none is
/// (net/unix/af_unix.c, unix_find_bsd). So a server sees no client that is none, and one between
/// bind and listen is not taken for dead.
fn is_stale(name: &UnixAddr, path: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(Error::NotASocket),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::of_io("lstat", &error)),
    }
    let probe = socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Error::io("socket", errno))?;
    match socket::connect(probe.as_raw_fd(), name) {
        Err(Errno::ECONNREFUSED) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        // A datagram socket, which took the connection or has a peer of its own (EPERM).
        Ok(()) | Err(Errno::EPROTOTYPE | Errno::EPERM) => Err(Error::AddressInUse),
        Err(errno) => Err(Error::io("connect", errno)),
    }
}

/// A file beside the path, locked; removed while it is held.
struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    /// `None`: another starter has it, or had it a moment ago.
    fn take(beside: &Path) -> Result<Option<Self>, Error> {
        let path = lock_path(beside);
        // O_NOFOLLOW: nobody makes this process create a file elsewhere.
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let file = options.open(&path).map_err(|error| Error::of_io("open", &error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Who gets a lock that was removed with its file holds nothing.
            Ok(file) => Ok(is_at(&file, &path).then(|| Self { path, _file: file })),
            Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => Ok(None),
            Err((_, errno)) => Err(Error::io("flock", errno)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held: who waits for it finds it gone, and looks for a new one.
        let _replaced_meanwhile = fs::remove_file(&self.path);
    }
}

/// `.NAME.fdpost-lock` in the same directory: a name that is no other program's.
fn lock_path(beside: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(beside.file_name().unwrap_or_default());
    name.push(".fdpost-lock");
    beside.with_file_name(name)
}

/// Device and inode, not of what a symbolic link points to.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

fn is_at(file: &File, path: &Path) -> bool {
    let found = file.metadata().map(|file| (file.dev(), file.ino())).ok();
    found.is_some() && found == identity(path).ok()
}
