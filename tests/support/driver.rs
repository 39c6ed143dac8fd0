//! What the driver's tests share: both wires, socket options, signals, processor time.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fdpost::{Channel, Deadline, Error, Limits, Message, Profile, SendError, Sent};
use nix::libc;

/// A wire whose channels may be moved to another thread.
pub trait Wire: Profile<Declared: Send> + Send + 'static {}
impl<P: Profile<Declared: Send> + Send + 'static> Wire for P {}

/// Long enough that only a call which hangs misses it.
pub fn soon() -> Deadline {
    after(10_000)
}

/// So many milliseconds from now.
pub fn after(millis: u64) -> Deadline {
    Deadline::after(Duration::from_millis(millis))
}

/// Two channels that are each other's peer.
pub fn ends<P: Profile>(limits: Limits) -> (Channel<P>, Channel<P>) {
    let (ours, theirs) = Channel::<P>::pair(limits).unwrap();
    (ours, Channel::from_fd(theirs, limits).unwrap())
}

/// A message with these descriptors.
pub fn message(payload: &[u8], descriptors: Vec<OwnedFd>) -> Message {
    descriptors.into_iter().fold(Message::new(payload), Message::with)
}

/// A duplicate of the channel's socket: for options, and to look at it from outside.
pub fn twin<P: Profile>(channel: &Channel<P>) -> OwnedFd {
    channel.as_fd().try_clone_to_owned().unwrap()
}

/// The one message of a refused send, and why.
#[track_caller]
pub fn returned<T: std::fmt::Debug>(result: Result<T, SendError>) -> (Error, Message) {
    let SendError { error, mut messages } = result.unwrap_err();
    assert_eq!(messages.len(), 1, "messages handed back with {error:?}");
    (error, messages.remove(0))
}

/// Sends numbered messages until one is begun and not finished; its number, which is the last.
/// Where the socket fills between two messages instead, starts again behind a first message of
/// another size: the kernel counts what a datagram takes, not its bytes.
#[track_caller]
pub fn fill_until_pending<P: Profile>(
    ours: &mut Channel<P>,
    theirs: &mut Channel<P>,
    mut send: impl FnMut(&mut Channel<P>, Message) -> Result<Sent, SendError>,
) -> u32 {
    for first in [4, 1000, 2500, 5000, 9000, 17_000] {
        for number in 0_u32.. {
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(if number == 0 { first } else { 4 }, 0);
            match send(ours, Message::new(payload)) {
                Ok(Sent::Complete) => {}
                Ok(_) => return number,
                Err(_) => break,
            }
        }
        while theirs.try_receive().unwrap().is_some() {}
    }
    panic!("no first size made the socket full between two datagrams");
}

/// The number that [`fill_until_pending`] wrote.
#[track_caller]
pub fn number(message: &Message) -> u32 {
    u32::from_le_bytes(message.payload()[..4].try_into().unwrap())
}

/// Sends until the socket is full; how many left.
pub fn fill<P: Profile>(channel: &mut Channel<P>) -> u32 {
    let mut count = 0;
    loop {
        match channel.try_send(Message::new([7; 1000])) {
            Ok(Sent::Complete) => count += 1,
            Ok(_) => return count,
            Err(SendError { error: Error::WouldBlock, .. }) => return count,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// setsockopt(2) of level SOL_SOCKET with options that `nix` does not name.
#[allow(unsafe_code, reason = "SO_PASSRIGHTS and its kin have no safe wrapper")]
pub fn set_option(socket: &impl AsFd, name: i32, value: i32) -> nix::Result<()> {
    let (pointer, length) = ((&raw const value).cast(), size_of_val(&value) as libc::socklen_t);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer is to `length` bytes that live through the call.
    let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, name, pointer, length) };
    nix::errno::Errno::result(result).map(drop)
}

/// What this thread used of a processor.
#[allow(unsafe_code, reason = "nix has getrusage only with features that the crate does not enable")]
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` that lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// Waits until this process's thread of that name (15 bytes at most) sleeps, as far as /proc
/// tells: what comes behind must hold without it too.
#[track_caller]
pub fn until_asleep(name: &str) {
    let sleeps = |task: std::fs::DirEntry| {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        // proc_pid_stat(5): the state stands behind the name in parentheses.
        read("comm").trim_end() == name
            && read("stat").rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    };
    let (mut in_a_row, give_up) = (0, soon());
    while in_a_row < 10 {
        assert!(!give_up.has_passed(), "{name} does not sleep");
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        in_a_row = if tasks.filter_map(Result::ok).any(sleeps) { in_a_row + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A TCP socket whose last close blocks for `seconds`: unsent data and SO_LINGER. And its peer.
pub fn lingering(seconds: i32) -> (OwnedFd, std::net::TcpStream) {
    use std::io::Write;

    use nix::sys::socket::{setsockopt, sockopt};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let peer = listener.accept().unwrap().0;
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 1 << 16]).is_ok() {}
    // On a non-blocking socket close(2) does not linger.
    stream.set_nonblocking(false).unwrap();
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: seconds }).unwrap();
    (stream.into(), peer)
}

/// Interrupts the thread that made it with SIGUSR1, without SA_RESTART, until dropped.
pub struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

static SEEN: AtomicU64 = AtomicU64::new(0);

impl Storm {
    /// One signal per this many microseconds.
    #[allow(unsafe_code, reason = "a handler and a signal for one thread have no safe form")]
    pub fn new(micros: u64) -> Self {
        extern "C" fn count(_: i32) {
            SEEN.fetch_add(1, Ordering::Relaxed);
        }
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does one atomic addition, which is async-signal-safe.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        // SAFETY: has no preconditions.
        // As a number: musl makes it a pointer, which is not Send.
        let target = unsafe { libc::pthread_self() } as usize;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // SAFETY: the target thread lives: it owns the `Storm`, whose drop joins this.
                unsafe { libc::pthread_kill(target as _, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(micros));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    /// Signals seen so far, of all storms.
    pub fn seen() -> u64 {
        SEEN.load(Ordering::Relaxed)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}
