//! Closing where that may block.

use std::os::fd::OwnedFd;

/// Takes the descriptors of refused messages instead of their being closed on the spot: `close`
/// can block for as long as the *peer* likes (a TCP socket with SO_LINGER, a FUSE file), so a
/// thread that must not wait hands them on.
///
/// Any `FnMut(OwnedFd)` is one:
///
/// ```
/// # use fdpost::{Channel, Libcamera, Limits};
/// # use std::os::fd::OwnedFd;
/// let (mut channel, _theirs) = Channel::<Libcamera>::pair(Limits::new())?;
/// let (grave, refused) = std::sync::mpsc::channel::<OwnedFd>();
/// std::thread::spawn(move || refused.into_iter().for_each(drop));
/// channel.set_reaper(move |descriptor| drop(grave.send(descriptor)));
/// # Ok::<(), fdpost::Error>(())
/// ```
pub trait Reaper: Send {
    /// Owns `descriptor` from here on.
    fn reap(&mut self, descriptor: OwnedFd);
}

impl<C: FnMut(OwnedFd) + Send> Reaper for C {
    fn reap(&mut self, descriptor: OwnedFd) {
        self(descriptor);
    }
}
