//! Waiting for many sockets at once (epoll(7), level-triggered).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::broker::Id;
use crate::driver::deadline::Deadline;
use crate::driver::error::Error;

/// Events of one wait. More come with the next: the kernel puts what it reported behind the rest.
const EVENTS: usize = 64;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Listener,
    Line(Id),
    /// The process behind a service.
    Process(Id),
}

impl Token {
    const fn number(self) -> u64 {
        match self {
            Self::Listener => 0,
            Self::Line(Id(id)) => (id << 1).wrapping_add(2),
            Self::Process(Id(id)) => (id << 1).wrapping_add(3),
        }
    }

    const fn of(number: u64) -> Self {
        let id = Id((number >> 1).wrapping_sub(1));
        match number {
            0 => Self::Listener,
            _ if number % 2 == 0 => Self::Line(id),
            _ => Self::Process(id),
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Nothing, for a while. Of a hang-up, which epoll reports whatever is asked for, it says so
    /// once (EPOLLONESHOT; fs/eventpoll.c, ep_send_events): again and again would be a spin.
    Nothing,
    Reading,
    Writing,
}

impl Interest {
    const fn flags(self) -> EpollFlags {
        match self {
            Self::Nothing => EpollFlags::EPOLLONESHOT,
            Self::Reading => EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP),
            Self::Writing => EpollFlags::EPOLLOUT,
        }
    }
}

pub(super) struct Watch(Epoll);

impl Watch {
    pub(super) fn new(listener: &impl AsFd) -> Result<Self, Error> {
        let epoll =
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| Error::io("epoll_create", errno))?;
        let watch = Self(epoll);
        watch.add(listener, Token::Listener, Interest::Reading)?;
        Ok(watch)
    }

    pub(super) fn add(&self, what: &impl AsFd, token: Token, interest: Interest) -> Result<(), Error> {
        let event = EpollEvent::new(interest.flags(), token.number());
        self.0.add(what, event).map_err(|errno| Error::io("epoll_ctl", errno))
    }

    pub(super) fn change(&self, what: &impl AsFd, token: Token, interest: Interest) -> Result<(), Error> {
        let mut event = EpollEvent::new(interest.flags(), token.number());
        self.0.modify(what, &mut event).map_err(|errno| Error::io("epoll_ctl", errno))
    }

    /// A descriptor of which another copy lives on is watched until it is removed.
    pub(super) fn remove(&self, what: &impl AsFd) {
        let _was_watched = self.0.delete(what);
    }

    /// What is ready at the deadline at the latest, or nothing.
    pub(super) fn wait(
        &self,
        until: Deadline,
    ) -> Result<impl Iterator<Item = (Token, EpollFlags)> + use<>, Error> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = loop {
            let timeout = until.instant().map_or(EpollTimeout::NONE, |instant| {
                let left = instant.saturating_duration_since(Instant::now());
                // Rounded up: waking a little late is better than spinning a little early.
                let millis = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
                EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::MAX)
            });
            match self.0.wait(&mut events, timeout) {
                Ok(count) => break count,
                Err(Errno::EINTR) if !until.has_passed() => {}
                Err(Errno::EINTR) => break 0,
                Err(errno) => return Err(Error::io("epoll_wait", errno)),
            }
        };
        Ok(events.into_iter().take(count).map(|event| (Token::of(event.data()), event.events())))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_as_numbers() {
        for token in [Token::Listener, Token::Line(Id(0)), Token::Process(Id(0)), Token::Line(Id(77))] {
            assert_eq!(Token::of(token.number()), token);
        }
    }
}
