//! A peer that is held at its system calls (ptrace(2)) and killed at one of them.
#![allow(unreachable_pub, reason = "a module of a test file")]

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

use crate::peer::{Peer, await_word, say};

/// Marks where what is walked begins and ends. Who is not traced ignores it.
const MARK: Signal = Signal::SIGWINCH;

/// A peer in whose calls nobody moves for so long waits for us.
const IDLE: Duration = Duration::from_millis(8);

/// Longer than any walk; a test that waits so long has failed.
const GIVE_UP: Duration = Duration::from_secs(60);

pub struct Traced {
    peer: Peer,
    thread: Pid,
}

impl Traced {
    /// Takes hold of a peer that is about to call [`walked`].
    ///
    /// # Errors
    /// The machine does not let one process trace another.
    pub fn seize(mut peer: Peer) -> nix::Result<Self> {
        let thread = Pid::from_raw(peer.hear().parse().unwrap());
        ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)?;
        ptrace::interrupt(thread)?;
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL))?;
        assert!(matches!(stopped, WaitStatus::PtraceEvent(..)), "{stopped:?}");
        ptrace::syscall(thread, None)?;
        peer.go();
        Ok(Self { peer, thread })
    }

    /// Lets it go on up to its `stop`th entry to or return from a system call, from 1; `false`: the
    /// walk is over before that. `idle` does our part whenever it waits.
    pub fn reaches(&mut self, stop: usize, mut idle: impl FnMut()) -> bool {
        let (began, mut moved) = (Instant::now(), Instant::now());
        let (mut begun, mut stops) = (false, 0);
        loop {
            assert!(began.elapsed() < GIVE_UP, "the peer hangs, {stops} stops behind its start");
            let signal = match waitpid(self.thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)).unwrap()
            {
                WaitStatus::StillAlive => {
                    if moved.elapsed() >= IDLE {
                        idle();
                        moved = Instant::now();
                    }
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                WaitStatus::PtraceSyscall(_) => {
                    stops += usize::from(begun);
                    if begun && stops == stop {
                        return true;
                    }
                    None
                }
                WaitStatus::Stopped(_, MARK) if begun => return false,
                WaitStatus::Stopped(_, MARK) => {
                    begun = true;
                    None
                }
                WaitStatus::Stopped(_, signal) => Some(signal),
                WaitStatus::PtraceEvent(..) => None,
                ended => panic!("the peer ended by itself: {ended:?}"),
            };
            moved = Instant::now();
            ptrace::syscall(self.thread, signal).unwrap();
        }
    }

    /// Kills it where it is held.
    pub fn kill(mut self) {
        nix::sys::signal::kill(self.peer.pid(), Signal::SIGKILL).unwrap();
        // Its other threads are not reaped before this one is, by who traces it.
        while !matches!(
            waitpid(self.thread, Some(WaitPidFlag::__WALL)),
            Ok(WaitStatus::Signaled(..) | WaitStatus::Exited(..)) | Err(Errno::ECHILD)
        ) {}
        self.peer.kill();
    }
}

/// In the peer: what is walked.
pub fn walked(walk: impl FnOnce()) {
    say(&gettid().to_string());
    await_word();
    raise(MARK).unwrap();
    walk();
    raise(MARK).unwrap();
}
