//! Wakes a receiver out of poll(2) when something is left behind for it to send.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{read, write};

use super::sys;

/// An eventfd(2), made when a receiver first sleeps: who never receives on a split channel pays
/// no descriptor for it.
#[derive(Debug, Default)]
pub(super) struct Bell(OnceLock<OwnedFd>);

impl Bell {
    /// What becomes readable when it rings; `None` where no descriptor is to be had.
    pub(super) fn hear(&self) -> Option<BorrowedFd<'_>> {
        if self.0.get().is_none() {
            let made = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
            // Not under the number of a standard stream, which others close or write to unseen.
            let made = sys::raised(made.into()).ok()?;
            // Had another thread made one, that one would stay.
            let _made_before = self.0.set(made);
        }
        self.0.get().map(AsFd::as_fd)
    }

    /// Nothing, if nobody ever listened: then nobody sleeps.
    pub(super) fn ring(&self) {
        if let Some(event) = self.0.get() {
            // EAGAIN: it has rung so often that the counter is full, and rings still.
            let _rings = write(event, &1_u64.to_ne_bytes());
        }
    }

    /// Silences it.
    pub(super) fn hush(&self) {
        if let Some(event) = self.0.get() {
            // EAGAIN: it was silent.
            let _was_silent = read(event, &mut [0; 8]);
        }
    }
}
