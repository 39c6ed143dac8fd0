//! What Tokio's reactor watches, kept open for as long as it does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::driver::channel::Socket;

/// An owner and the number of the descriptor that it keeps open and never exchanges.
#[derive(Debug)]
pub(in crate::driver) struct Registered {
    number: RawFd,
    _owner: Arc<Socket>,
}

impl AsRawFd for Registered {
    fn as_raw_fd(&self) -> RawFd {
        self.number
    }
}

/// Has the reactor of the current runtime watch the pidfd of the socket's [watched](Socket::watched)
/// peer, which the socket keeps too; `None` without one.
///
/// # Panics
/// As [`register`].
pub(in crate::driver) fn register_peer(socket: &Arc<Socket>) -> io::Result<Option<AsyncFd<Registered>>> {
    let Some(pidfd) = socket.watched() else { return Ok(None) };
    let registered = Registered { number: pidfd.as_raw_fd(), _owner: Arc::clone(socket) };
    // SAFETY: as for the socket itself: its pidfd is set once, closed when `Socket` is dropped, and
    // given to nobody.
    Ok(Some(unsafe { AsyncFd::register_with_interest(registered, Interest::READABLE) }?))
}

/// Has the reactor of the current runtime watch the socket, both ways.
///
/// # Panics
/// Outside a Tokio runtime, and in one without `enable_io`.
pub(in crate::driver) fn register(socket: Arc<Socket>) -> io::Result<AsyncFd<Registered>> {
    let registered = Registered { number: socket.as_fd().as_raw_fd(), _owner: socket };
    // SAFETY: the number is that of an open descriptor, is fixed, and stays open: `Socket` closes its
    // descriptor when it is dropped and gives it to nobody, and this owns a share of it.
    Ok(unsafe { AsyncFd::register(registered) }?)
}
