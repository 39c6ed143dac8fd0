//! What the socket tests share: the descriptor ledger, a raw peer, children.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fdpost::profile::{Framing, Profile};
use fdpost::{Channel, Deadline, Error, Limits, Message, Violation};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};

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

/// `count` descriptors, each of another file, told apart by [`identity`] in all of a process.
pub fn files(count: usize) -> Vec<OwnedFd> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    (0..count)
        .map(|_| {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            nix::sys::memfd::memfd_create(
                format!("file-{number}").as_str(),
                nix::sys::memfd::MFdFlags::MFD_CLOEXEC,
            )
            .unwrap()
        })
        .collect()
}

/// A pidfd of a process.
pub fn pidfd(process: u32) -> OwnedFd {
    try_pidfd(process).unwrap()
}

/// A pidfd of a process that may be gone (pidfd_open(2)).
#[allow(unsafe_code, reason = "nix has no pidfd_open")]
pub fn try_pidfd(process: u32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes two numbers and returns a new descriptor.
    let number = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, process, 0) };
    let number = Errno::result(number)?;
    // SAFETY: it was just made, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
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

/// A channel and its peer's end, as [`Channel::pair`], over sockets that somebody else made: so nobody
/// switched SO_PASSRIGHTS off where the channel accepts no descriptors, and the kernel lets the peer
/// send them.
pub fn unguarded_pair<P: Profile>(limits: Limits) -> (Channel<P>, OwnedFd) {
    let kind = match P::FRAMING {
        Framing::PartPerDatagram => SockType::Datagram,
        Framing::MessagesPerPacket(_) => SockType::SeqPacket,
        _ => SockType::Stream,
    };
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (Channel::from_fd(ours, limits).unwrap(), theirs)
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

/// Long enough for any honest peer; a test that waits so long has failed.
pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// Queued behind what is refused: it must still be there afterwards.
const UNREAD: &[u8] = b"behind the violation";

/// The wire `P`, spoken to by raw sends of (bytes, number of descriptors): `whole` messages are
/// delivered, then `expected` for ever, as [`assert_final`] says, and the rest stays unread. Ends
/// with the ledger.
#[track_caller]
pub fn assert_refused<P: Profile>(
    limits: Limits,
    sends: &[(&[u8], usize)],
    whole: usize,
    expected: Violation,
) {
    let ledger = Ledger::open();
    let (mut channel, peer) = unguarded_pair::<P>(limits);
    for (bytes, descriptors) in sends {
        raw_send(&peer, bytes, &files(*descriptors));
    }
    // A stream has no boundary that keeps what follows out of the same read.
    let bounded = !matches!(P::FRAMING, Framing::Stream { .. });
    if bounded {
        raw_send(&peer, UNREAD, &files(1));
    }
    for _ in 0..whole {
        drop(channel.receive_by(soon()).unwrap());
    }
    assert_final(&mut channel, &peer, expected);
    if bounded {
        assert_unread(&channel, UNREAD);
    }
    drop((channel, peer));
    ledger.close();
}

/// The next packet in the channel's queue is this one: nobody read it.
#[track_caller]
pub fn assert_unread(channel: &impl AsFd, expected: &[u8]) {
    let mut bytes = [0; 64];
    let length = recv(channel.as_fd().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap();
    assert_eq!(bytes[..length], *expected);
}

/// Rule CO-11, P3: the violation is returned for ever, by receive and by send, which hands the
/// message back; nothing of what was refused is held; the socket is shut down both ways.
#[track_caller]
pub fn assert_final<P: Profile>(channel: &mut Channel<P>, peer: &OwnedFd, expected: Violation) {
    let error = Error::Violation(expected);
    for _ in 0..3 {
        assert_eq!(channel.receive_by(soon()).unwrap_err(), error);
        assert_eq!(channel.try_receive().unwrap_err(), error);
    }
    for attempt in 0..3 {
        let descriptor = files(1).remove(0);
        let name = identity(&descriptor);
        let message = Message::new(b"kept").with(descriptor);
        let refused = match attempt {
            0 => channel.send(message).unwrap_err(),
            1 => channel.try_send(message).unwrap_err(),
            _ => channel.send_by(message, soon()).unwrap_err(),
        };
        assert_eq!(refused.error, error);
        let [back] = &refused.messages[..] else { panic!("handed back: {:?}", refused.messages) };
        assert_eq!((back.payload(), identity(back.descriptor(0).unwrap())), (&b"kept"[..], name));
    }
    assert_eq!(channel.flush_by(soon()).unwrap_err().error, error);
    let stats = channel.stats();
    assert_eq!((stats.violation, stats.held.descriptors), (Some(expected), 0));
    assert!(is_shut_down(channel), "ours is open");
    // A datagram socket does not show its peer that it was shut down, but refuses what is sent.
    assert!(matches!(P::FRAMING, Framing::PartPerDatagram) || is_shut_down(peer), "theirs is open");
    assert_eq!(try_raw_send(peer, b"late", &[]), Err(Errno::EPIPE));
}

/// Bytes that wait in a stream socket's queue, looked at by a plain MSG_PEEK.
pub fn queued(socket: &impl AsFd) -> usize {
    let mut bytes = [0; 4096];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
    recv(socket.as_fd().as_raw_fd(), &mut bytes, flags).unwrap_or(0)
}

/// Numbers that look random and are the same at every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}
