//! Processes that live dangerously: killed, or halted for a moment, whenever it pleases.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::Random;

/// The longest halt. Far below what anybody waits for.
const HALT: usize = 40;

struct Actor {
    child: Child,
    killed: bool,
}

/// Somebody's place on the stage; empty between two.
#[derive(Default)]
pub(crate) struct Place(Mutex<Option<Actor>>);

impl Place {
    fn lock(&self) -> MutexGuard<'_, Option<Actor>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts this program in a role; `socket` becomes its standard input. Its number and a pidfd.
    pub(crate) fn start(&self, words: &[String], socket: Stdio) -> std::io::Result<(u32, OwnedFd)> {
        // Nobody waits for it before the lock is let go, so its number is its own, dead or alive.
        let mut place = self.lock();
        let mut command = Command::new("/proc/self/exe");
        let child = command.args(words).stdin(socket).stdout(Stdio::null()).spawn()?;
        let process = child.id();
        *place = Some(Actor { child, killed: false });
        Ok((process, crate::support::pidfd(process)))
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.lock().as_ref().is_some_and(|actor| actor.killed)
    }

    /// Whether it is gone, however.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().as_mut().is_none_or(|actor| !matches!(actor.child.try_wait(), Ok(None)))
    }

    /// Kills it, as the director does.
    pub(crate) fn kill(&self) {
        if let Some(actor) = self.lock().as_mut() {
            actor.killed = true;
            let _gone = actor.child.kill();
        }
    }

    /// Waits for its end; whether it was killed before.
    pub(crate) fn end(&self) -> std::io::Result<(ExitStatus, bool)> {
        loop {
            if let Some(actor) = self.lock().as_mut() {
                // The lock is let go between two looks: halts and kills go on.
                if let Some(status) = actor.child.try_wait()? {
                    let killed = actor.killed;
                    break Ok((status, killed));
                }
            }
            sleep(Duration::from_millis(1));
        }
        .inspect(|_| *self.lock() = None)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut actor) = self.lock().take() {
            let _ended_by_itself = actor.child.kill();
            let _reaped_before = actor.child.wait();
        }
    }
}

/// Who kills and halts.
pub(crate) struct Director {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(crate) kills: Arc<AtomicU64>,
    pub(crate) halts: Arc<AtomicU64>,
}

impl Director {
    /// Something about every `pace` milliseconds, to one of those in these places.
    pub(crate) fn start(places: Vec<Arc<Place>>, seed: u64, pace: usize) -> Self {
        let (stop, kills, halts) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (told, killed, halted) = (stop.clone(), kills.clone(), halts.clone());
        let thread = std::thread::spawn(move || {
            let mut random = Random(seed);
            while !told.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(1 + random.below(2 * pace) as u64));
                let mut place = places[random.below(places.len())].lock();
                let Some(actor) = place.as_mut() else { continue };
                if !matches!(actor.child.try_wait(), Ok(None)) {
                    continue;
                }
                if random.below(3) == 0 {
                    actor.killed = true;
                    let _gone = actor.child.kill();
                    killed.fetch_add(1, Ordering::Relaxed);
                } else {
                    // While the lock is held nobody waits for it: its number stays its own.
                    let process = Pid::from_raw(actor.child.id() as i32);
                    let _gone = kill(process, Signal::SIGSTOP);
                    sleep(Duration::from_millis(random.below(HALT) as u64));
                    let _gone = kill(process, Signal::SIGCONT);
                    halted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, thread: Some(thread), kills, halts }
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
