//! What the socket tests share: the descriptor ledger, a raw peer, children.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Descriptors are a process-wide matter: tests that count them run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What was open before a test, by identity (P2).
pub struct Ledger {
    before: BTreeMap<RawFd, PathBuf>,
    _alone: MutexGuard<'static, ()>,
}

impl Ledger {
    /// Takes the process for this test alone and notes what is open.
    pub fn open() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self { before: descriptors(), _alone: alone }
    }

    /// What is open now must be what was open then.
    #[track_caller]
    pub fn close(self) {
        assert_eq!(descriptors(), self.before, "descriptors open now and before the test");
    }

    /// How many descriptors more are open than before.
    pub fn more(&self) -> usize {
        descriptors().len().saturating_sub(self.before.len())
    }
}

/// Every open descriptor and what it refers to (`socket:[inode]`, a path, ...).
pub fn descriptors() -> BTreeMap<RawFd, PathBuf> {
    let directory = fs::read_dir("/proc/self/fd").unwrap();
    let mut open: BTreeMap<RawFd, PathBuf> = directory
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    // The directory that was just read is gone again.
    open.retain(|_, path| !path.starts_with("/proc"));
    open
}

/// What a descriptor refers to, to be compared across processes and duplicates.
pub fn identity(descriptor: &impl AsRawFd) -> PathBuf {
    fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).unwrap()
}

/// `count` descriptors, each of another file.
pub fn files(count: usize) -> Vec<OwnedFd> {
    (0..count)
        .map(|index| {
            nix::sys::memfd::memfd_create(
                format!("file-{index}").as_str(),
                nix::sys::memfd::MFdFlags::MFD_CLOEXEC,
            )
            .unwrap()
        })
        .collect()
}

/// Sends bytes and descriptors as they are: what no honest peer would do.
#[track_caller]
pub fn raw_send(socket: &impl AsRawFd, bytes: &[u8], descriptors: &[OwnedFd]) -> usize {
    try_raw_send(socket, bytes, descriptors).unwrap()
}

/// As [`raw_send`], for sends that may fail.
pub fn try_raw_send(socket: &impl AsRawFd, bytes: &[u8], descriptors: &[OwnedFd]) -> nix::Result<usize> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)
}

/// The header of the `libcamera` wire.
pub fn libcamera_header(data: u32, fds: u8) -> [u8; 8] {
    let [a, b, c, d] = data.to_ne_bytes();
    [a, b, c, d, fds, 0, 0, 0]
}

/// A frame header of the `packet` wire, without flags and correlation.
pub fn packet_header(length: u32, descriptors: u8) -> [u8; 16] {
    let [a, b, c, d] = length.to_le_bytes();
    [1, 0, descriptors, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Whether the peer sees that the other side shut the socket down, both ways.
pub fn is_shut_down(peer: &impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut sockets = [PollFd::new(peer.as_fd(), PollFlags::POLLIN)];
    poll(&mut sockets, PollTimeout::ZERO).unwrap();
    sockets[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
}

/// Runs one test of this binary again in a process of its own, with `FDPOST_CHILD` set to
/// `value`: for limits and descriptors that are a whole process's.
pub fn child(test: &str, value: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("FDPOST_CHILD", value)
        .output()
        .unwrap()
}

/// The value that [`child`] set, in the child.
pub fn child_value() -> Option<String> {
    std::env::var("FDPOST_CHILD").ok()
}

/// Fails with the child's output unless it succeeded and ran a test.
#[track_caller]
pub fn assert_child(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{:?}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
