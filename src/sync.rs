//! Locks: std's, or loom's when its models run (`--cfg fdpost_loom`). The only place that knows
//! which.

use std::sync::PoisonError;
use std::time::Instant;

#[cfg(fdpost_loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(fdpost_loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

/// A panic elsewhere is no reason to fail here: no lock is held while foreign code runs, so what
/// it guards is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until notified, or until the moment: `false` if that has passed.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    until: Option<Instant>,
) -> (MutexGuard<'a, T>, bool) {
    let Some(until) = until else {
        return (condvar.wait(guard).unwrap_or_else(PoisonError::into_inner), true);
    };
    let left = until.saturating_duration_since(Instant::now());
    let (guard, timeout) = condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
    (guard, !timeout.timed_out())
}

/// Whether a planted defect is on. Only the models of `loom-tests` know any; in every other build
/// this is `false` before the optimiser begins.
#[cfg(fdpost_loom)]
pub(crate) fn broken(defect: &str) -> bool {
    static DEFECT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    DEFECT.get_or_init(|| std::env::var("FDPOST_DEFECT").ok()).as_deref() == Some(defect)
}

#[cfg(not(fdpost_loom))]
pub(crate) const fn broken(_: &str) -> bool {
    false
}
