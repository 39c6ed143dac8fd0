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
    wait_for(socket, events, [None; 2], until).map(|(seen, _)| seen)
}

/// As [`wait`], or until one of `others` can be read: which of them can.
pub(super) fn wait_for(
    socket: BorrowedFd<'_>,
    events: PollFlags,
    others: [Option<BorrowedFd<'_>>; 2],
    until: Deadline,
) -> Result<(PollFlags, [bool; 2]), Error> {
    let mut all = [(); 3].map(|()| PollFd::new(socket, events));
    let mut count = 1;
    for other in others.into_iter().flatten() {
        if let Some(place) = all.get_mut(count) {
            *place = PollFd::new(other, PollFlags::POLLIN);
            count += 1;
        }
    }
    let waited_for = all.get_mut(..count).unwrap_or_default();
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
            Ok(_) => break,
            Err(Errno::EINTR) if !until.has_passed() => {}
            Err(Errno::EINTR) => return Ok((PollFlags::empty(), [false; 2])),
            Err(errno) => return Err(Error::io("poll", errno)),
        }
    }
    let mut seen = waited_for.iter();
    // `nix` says `None` where a bit is set that it has no name for: that is RDHUP.
    let first = seen.next().map_or(PollFlags::empty(), |one| one.revents().unwrap_or(RDHUP));
    let readable =
        others.map(|other| other.is_some() && seen.next().is_some_and(|one| one.any().unwrap_or(true)));
    Ok((first, readable))
}
