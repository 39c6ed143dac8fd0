//! Where tests meet: directories and names that are theirs alone.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fdpost::Address;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A name that nobody has.
pub fn unique() -> String {
    format!("fdpost-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// An abstract name that nobody has.
pub fn abstract_name() -> Address {
    Address::abstract_name(unique())
}

/// A new directory, removed with all that is in it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        // /tmp whatever TMPDIR says: a socket's path must be short.
        let template = Path::new("/tmp").join("fdpost-XXXXXX");
        Self(nix::unistd::mkdtemp(&template).unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// The lock's name beside a path that ends with `socket`.
pub const LOCK: &str = ".socket.fdpost-lock";

/// A socket's file that nobody serves: what a killed server leaves behind.
pub fn stale(path: &Path, kind: SockType) {
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
}

/// Every descriptor that this process may open, under a soft RLIMIT_NOFILE of 256.
pub fn take_all_descriptors() -> Vec<OwnedFd> {
    limit_descriptors(256);
    let mut hoard = Vec::new();
    while let Ok(one) = memfd_create("hoard", MFdFlags::MFD_CLOEXEC) {
        hoard.push(one);
    }
    hoard
}

/// Lowers the soft RLIMIT_NOFILE, for the rest of the process.
pub fn limit_descriptors(most: rlim_t) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, hard).unwrap();
}

/// Starts one test of this binary again in a process of its own, with `FDPOST_CHILD` set to `value`
/// and pipes for standard input and output.
pub fn start(test: &str, value: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("FDPOST_CHILD", value)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The first line of a child's that is one of `words`.
#[track_caller]
pub fn says<'a>(child: &mut Child, words: &[&'a str]) -> &'a str {
    let out = child.stdout.as_mut().unwrap();
    let (mut line, mut byte) = (Vec::new(), [0]);
    // Byte by byte: nothing of the next line may be lost in a buffer.
    while out.read(&mut byte).unwrap() == 1 {
        if byte != *b"\n" {
            line.push(byte[0]);
            continue;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        // The test harness writes its own words before the first of a test's.
        if let Some(word) = words.iter().find(|word| text.ends_with(*word)) {
            return word;
        }
        line.clear();
    }
    panic!("the child ended without one of {words:?}");
}

/// Waits until a child has ended by itself.
#[track_caller]
pub fn finish(child: &mut Child, patience: Duration) -> ExitStatus {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None => assert!(Instant::now() < deadline, "the child does not end"),
        }
        sleep(Duration::from_millis(2));
    }
}
