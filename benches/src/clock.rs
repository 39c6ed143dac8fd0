//! Clocks, and where threads run.

use std::time::{Duration, Instant};

/// What a slice costs.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// CPU time of this thread, which does both sides' work.
    Cpu,
    /// CPU time of all threads.
    Process,
    /// Time that passes, for what several threads do.
    Wall,
}

impl Clock {
    /// The time that `work` takes.
    pub fn time(self, work: impl FnOnce()) -> Duration {
        match self {
            Self::Cpu => Self::cpu(libc::CLOCK_THREAD_CPUTIME_ID, work),
            Self::Process => Self::cpu(libc::CLOCK_PROCESS_CPUTIME_ID, work),
            Self::Wall => {
                let begin = Instant::now();
                work();
                begin.elapsed()
            }
        }
    }

    fn cpu(clock: libc::clockid_t, work: impl FnOnce()) -> Duration {
        let begin = cpu(clock);
        work();
        cpu(clock).saturating_sub(begin)
    }
}

/// CPU time, user and system.
fn cpu(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` that is alive during the call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "clock_gettime: {}", std::io::Error::last_os_error());
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Cores that this process may use.
#[derive(Clone)]
pub struct Cores(libc::cpu_set_t);

impl Cores {
    /// Those that it was given.
    pub fn allowed() -> Self {
        // SAFETY: all zeros is a valid `cpu_set_t`: no core.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a set of the size given, alive during the call.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
        assert_eq!(result, 0, "sched_getaffinity: {}", std::io::Error::last_os_error());
        Self(set)
    }

    pub fn numbers(&self) -> Vec<usize> {
        // SAFETY: CPU_ISSET reads the set, and numbers below CPU_SETSIZE lie within it.
        (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &self.0) }).collect()
    }

    fn only(core: usize) -> Self {
        // SAFETY: all zeros is a valid `cpu_set_t`: no core.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: CPU_SET writes within the set; `core` came from `numbers`.
        unsafe { libc::CPU_SET(core, &mut set) };
        Self(set)
    }

    /// Keeps this thread, and those that it starts, on these cores.
    pub fn apply(&self) {
        // SAFETY: the pointer is to a set of the size given, alive during the call.
        let result = unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) };
        assert_eq!(result, 0, "sched_setaffinity: {}", std::io::Error::last_os_error());
    }
}

/// Where the two ends of a conversation run. Left to itself the scheduler puts a pair of threads
/// on one core or on two as it likes, and the difference is larger than any between ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    OneCore,
    TwoCores,
}

impl Placement {
    pub const fn words(self) -> &'static str {
        match self {
            Self::OneCore => "both ends on one core",
            Self::TwoCores => "each end on a core of its own",
        }
    }

    /// Cores of this end and of the other; `None` where there are not as many.
    pub fn cores(self) -> Option<(Cores, Cores)> {
        let numbers = Cores::allowed().numbers();
        let first = *numbers.first()?;
        let second = match self {
            Self::OneCore => first,
            Self::TwoCores => *numbers.get(1)?,
        };
        Some((Cores::only(first), Cores::only(second)))
    }
}

/// Runs `work` with this thread on `cores`, and puts it back.
pub fn on<T>(cores: &Cores, work: impl FnOnce() -> T) -> T {
    let before = Cores::allowed();
    cores.apply();
    let result = work();
    before.apply();
    result
}
