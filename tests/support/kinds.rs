//! One descriptor of each kind.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs::{File, OpenOptions};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use fdpost::accept::{Domain, Kind, SocketType};
use fdpost::{Memfd, Seals};
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;

use crate::support::pidfd;

/// A descriptor, and what is to be found out about it.
pub struct Sample {
    pub name: &'static str,
    pub descriptor: OwnedFd,
    pub kind: Kind,
    /// Readable, writable.
    pub access: (bool, bool),
}

const READ: (bool, bool) = (true, false);
const WRITE: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);

/// A memfd of so many bytes with these seals, and no other: ours have one from the start.
pub fn memfd(bytes: u64, seals: Seals) -> OwnedFd {
    let memfd = memfd_create("sample", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    nix::unistd::ftruncate(&memfd, bytes.try_into().unwrap()).unwrap();
    Memfd::seal(&memfd, seals).unwrap();
    memfd
}

/// A directory of the test's own, removed when dropped. On the file system of the built tests, since
/// temporary directories are often a tmpfs, whose files are to the kernel what memfds are.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let built = std::env::current_exe().unwrap();
        let path = built.with_file_name(format!("fdpost-kinds-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _nobody_needs_it = std::fs::remove_dir_all(&self.0);
    }
}

/// The descriptor that a system call returned.
#[track_caller]
#[allow(unsafe_code, reason = "a number of which only the kernel knows that it is ours")]
pub fn own(number: impl TryInto<i32>) -> OwnedFd {
    let number = number.try_into().ok().filter(|number| *number >= 0);
    let number = number.unwrap_or_else(|| panic!("{}", std::io::Error::last_os_error()));
    // SAFETY: the caller's system call made it just now, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

#[allow(
    unsafe_code,
    clippy::multiple_unsafe_ops_per_block,
    reason = "system calls that have no safe form here"
)]
fn raw() -> [OwnedFd; 5] {
    // SAFETY: these calls touch no memory, or a zeroed set of signals that lives through the call.
    unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        [
            own(libc::eventfd(0, libc::EFD_CLOEXEC)),
            own(libc::epoll_create1(libc::EPOLL_CLOEXEC)),
            own(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)),
            own(libc::signalfd(-1, &raw const empty, libc::SFD_CLOEXEC)),
            own(libc::inotify_init1(libc::IN_CLOEXEC)),
        ]
    }
}

/// io_uring_setup(2) of one entry; `None` where the system has it not, or forbids it.
#[allow(unsafe_code, reason = "no safe form")]
fn io_uring() -> Option<OwnedFd> {
    let mut parameters = [0_u8; 120];
    // SAFETY: `struct io_uring_params` has 120 bytes, and zeros are its defaults.
    let number = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    (number >= 0).then(|| own(number))
}

/// One of each.
pub fn samples() -> Vec<Sample> {
    let directory = Directory::new();
    let path = |name: &str| directory.0.join(name);
    let mut all = Vec::new();
    let mut add = |name, descriptor: OwnedFd, kind, access| {
        all.push(Sample { name, descriptor, kind, access });
    };
    let shared = |seals, bytes| Kind::Memfd { seals, bytes, huge: false };

    add("memfd", memfd(100, Seals::NONE), shared(Seals::NONE, 100), BOTH);
    add("memfd-steady", memfd(100, Seals::STEADY), shared(Seals::STEADY, 100), BOTH);
    add("memfd-all", memfd(100, Seals::ALL), shared(Seals::ALL, 100), BOTH);
    let whole = memfd(5, Seals::NONE);
    let again = File::open(format!("/proc/self/fd/{}", whole.as_raw_fd())).unwrap();
    add("memfd-read", again.into(), shared(Seals::NONE, 5), READ);
    let bare = memfd_create("bare", MFdFlags::MFD_CLOEXEC).unwrap();
    add("memfd-bare", bare, shared(Seals::SEAL, 0), BOTH);

    std::fs::write(path("file"), b"content").unwrap();
    add("file-read", File::open(path("file")).unwrap().into(), Kind::File, READ);
    let mut options = OpenOptions::new();
    add("file-write", options.write(true).open(path("file")).unwrap().into(), Kind::File, WRITE);
    add("file-both", options.read(true).open(path("file")).unwrap().into(), Kind::File, BOTH);
    std::fs::write(path("deleted"), b"content").unwrap();
    let deleted = File::open(path("deleted")).unwrap();
    std::fs::remove_file(path("deleted")).unwrap();
    add("deleted", deleted.into(), Kind::File, READ);
    add("namespace", File::open("/proc/self/ns/net").unwrap().into(), Kind::File, READ);
    add("directory", File::open(&directory.0).unwrap().into(), Kind::Directory, READ);
    add("process-directory", File::open("/proc/self/").unwrap().into(), Kind::Directory, READ);
    add("device", File::open("/dev/null").unwrap().into(), Kind::Device, READ);
    let mut place_only = OpenOptions::new();
    place_only.read(true).custom_flags(libc::O_PATH);
    add("path", place_only.open(path("file")).unwrap().into(), Kind::Path, (false, false));

    let pair = |domain, kind| socketpair(domain, kind, None, SockFlag::SOCK_CLOEXEC).unwrap().0;
    let unix = |kind| Kind::Socket { domain: Domain::Unix, kind };
    let stream = pair(AddressFamily::Unix, SockType::Stream);
    add("unix-stream", stream, unix(SocketType::Stream), BOTH);
    let datagram = pair(AddressFamily::Unix, SockType::Datagram);
    add("unix-datagram", datagram, unix(SocketType::Datagram), BOTH);
    let packet = pair(AddressFamily::Unix, SockType::SeqPacket);
    add("unix-seqpacket", packet, unix(SocketType::SeqPacket), BOTH);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    add("tcp", tcp.into(), Kind::Socket { domain: Domain::Inet, kind: SocketType::Stream }, BOTH);
    match UdpSocket::bind("[::1]:0") {
        Ok(udp) => {
            let kind = Kind::Socket { domain: Domain::Inet6, kind: SocketType::Datagram };
            add("udp6", udp.into(), kind, BOTH);
        }
        Err(error) => println!("skipped: a socket of IPv6: {error}"),
    }

    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    add("pipe-read", read, Kind::Pipe, READ);
    add("pipe-write", write, Kind::Pipe, WRITE);
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = OpenOptions::new().read(true).write(true).open(path("fifo")).unwrap();
    add("fifo", fifo.into(), Kind::Pipe, BOTH);

    add("pidfd", pidfd(std::process::id()), Kind::Pidfd, BOTH);
    let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    let dead = pidfd(child.id());
    child.wait().unwrap();
    add("pidfd-dead", dead, Kind::Pidfd, BOTH);

    let names = ["eventfd", "epoll", "timerfd", "signalfd", "inotify"];
    for (name, descriptor) in names.into_iter().zip(raw()) {
        // inotify(7) is for reading alone.
        add(name, descriptor, Kind::Other, if name == "inotify" { READ } else { BOTH });
    }
    match io_uring() {
        Some(ring) => add("io_uring", ring, Kind::Other, BOTH),
        None => println!("skipped: io_uring, which this system does not have or forbids"),
    }
    all
}
