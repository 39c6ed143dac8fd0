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
    wait_or_hear(socket, events, None, until).map(|(seen, _)| seen)
}

/// As [`wait`], or until `bell` can be read: whether it can.
pub(super) fn wait_or_hear(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    bell: Option<BorrowedFd<'_>>,
    until: Deadline,
) -> Result<(PollFlags, bool), Error> {
    let second = PollFd::new(bell.unwrap_or(socket), PollFlags::POLLIN);
    let mut both = [PollFd::new(socket, events), second];
    let waited_for = if bell.is_some() { &mut both[..] } else { &mut both[..1] };
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
        match poll(waited_for, timeout) {
            Ok(_) => {
                // `nix` says `None` where a bit is set that it has no name for: that is RDHUP.
                let rings = bell.is_some() && both[1].any().unwrap_or(true);
                return Ok((both[0].revents().unwrap_or(RDHUP), rings));
            }
            Err(Errno::EINTR) if !until.has_passed() => {}
            Err(Errno::EINTR) => return Ok((PollFlags::empty(), false)),
            Err(errno) => return Err(Error::io("poll", errno)),
        }
    }
}
