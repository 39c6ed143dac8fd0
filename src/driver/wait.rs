//! Waiting for a socket.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::deadline::Deadline;
use super::error::Error;

/// The end of input, also where only one direction was shut down. `nix` has no name for it.
pub(super) const RDHUP: PollFlags = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);

/// poll(2), until the deadline whatever signals arrive (P5).
pub(super) fn wait(socket: BorrowedFd<'_>, events: PollFlags, until: Deadline) -> Result<PollFlags, Error> {
    let mut sockets = [PollFd::new(socket, events)];
    loop {
        let timeout = match until.instant() {
            None => PollTimeout::NONE,
            Some(instant) => {
                let left = instant.saturating_duration_since(Instant::now());
                // Rounded up: waking a little late is better than spinning a little early.
                let millis = left.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(millis.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut sockets, timeout) {
            Ok(_) => {
                // `nix` says `None` where a bit is set that it has no name for: that is RDHUP.
                return Ok(sockets[0].revents().unwrap_or(RDHUP));
            }
            Err(Errno::EINTR) if !until.has_passed() => {}
            Err(Errno::EINTR) => return Ok(PollFlags::empty()),
            Err(errno) => return Err(Error::io("poll", errno)),
        }
    }
}
