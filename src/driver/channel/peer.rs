//! Who is at the other end, and whether it still lives.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Channel, Origin};
use crate::driver::credentials::{Credentials, PeerRule};
use crate::driver::error::Error;
use crate::driver::{socket, sys};
use crate::error::Misuse;
use crate::limits::Limits;
use crate::profile::Profile;

impl<P: Profile> Channel<P> {
    /// A channel over a socket that somebody else accepted, as an inetd or socket activation with
    /// `Accept=yes` hands it over, if its peer passes the rule.
    ///
    /// That it was accepted is the caller's word: of what came from a stranger, neither its names
    /// nor anything else can tell whether it is an end of a pair, whose credentials name who
    /// made it. Only what has no name at all is certainly a pair, and refused.
    ///
    /// # Errors
    /// [`Misuse::PeerUnknown`]; [`Error::PeerRefused`]; as [`from_fd`](Self::from_fd). The socket
    /// is closed then, a refused one by the rule's [reaper](PeerRule::reaper) if it has one.
    pub fn from_accepted(socket: OwnedFd, limits: Limits, rule: &PeerRule) -> Result<Self, Error> {
        // An accepted socket has its listener's name (net/unix/af_unix.c, unix_stream_connect).
        if !socket::is_named(socket.as_fd())? {
            return Err(Misuse::PeerUnknown.into());
        }
        let channel = Self::over(socket, limits, Origin::Met)?;
        if let Err(error) = rule.check(channel.as_fd()) {
            if let Some(socket) = channel.into_closing() {
                rule.turn_away(socket);
            }
            return Err(error);
        }
        Ok(channel)
    }

    /// Who connected or, on the connecting side, who listened; see [`PeerRule`].
    ///
    /// # Errors
    /// [`Misuse::PeerUnknown`] of a channel that neither a [`Listener`](crate::Listener) nor
    /// [`connect`](Self::connect) made; [`Error::Io`].
    pub fn peer(&self) -> Result<Credentials, Error> {
        self.check_met()?;
        Credentials::of_peer(self.as_fd())
    }

    /// A pidfd (pidfd_open(2)) of who connected or listened, which refers to that process whoever
    /// gets its number later. Needs Linux 6.5.
    ///
    /// # Errors
    /// As [`peer`](Self::peer); [`Error::Io`] of getsockopt(2), with ENOPROTOOPT before Linux 6.5
    /// and, before 6.16, ESRCH or EINVAL where that process is gone.
    pub fn peer_pidfd(&self) -> Result<OwnedFd, Error> {
        self.check_met()?;
        sys::peer_pidfd(self.as_fd()).map_err(|errno| Error::io("getsockopt", errno))
    }

    /// Ends the conversation with a process: its death is a clean end, [`Error::Closed`], once all
    /// that it had sent has been received, and [`Error::PeerGone`] to who sends. On a pair of
    /// datagram sockets, the wire `libcamera`, nothing else shows it; on the others it counts although
    /// somebody else holds the peer's end, and may hold it open. To be called before
    /// [`split`](Self::split).
    ///
    /// While a datagram peer is watched, every send first reads what is there, as far as `Limits` let
    /// a receiver hold and up to 255 messages: to a socket that the peer has closed a send fails, and
    /// the kernel throws away what was left unread. After [`split`](Self::split) the senders cannot;
    /// then only what was sent in the last moment of a peer's life may be lost so.
    ///
    /// For a child: pidfd_open(2) of its pid, before it is waited for. Event loops of one's own poll
    /// [`watched_peer`](Self::watched_peer) too, and call [`try_receive`](Self::try_receive) when it
    /// is readable.
    ///
    /// # Errors
    /// [`Misuse::NoPidfd`]; [`Misuse::PeerWatched`], when one is watched already; [`Error::Io`].
    pub fn watch_peer(&mut self, pidfd: OwnedFd) -> Result<(), Error> {
        if !sys::is_pidfd(pidfd.as_fd()).map_err(|errno| Error::io("waitid", errno))? {
            return Err(Misuse::NoPidfd.into());
        }
        let pidfd = sys::raised(pidfd).map_err(|errno| Error::io("fcntl", errno))?;
        self.socket.watch(pidfd).map_err(|_| Misuse::PeerWatched.into())
    }

    /// The pidfd that is [watched](Self::watch_peer).
    pub fn watched_peer(&self) -> Option<BorrowedFd<'_>> {
        self.socket.watched()
    }

    fn check_met(&self) -> Result<(), Misuse> {
        match self.origin {
            Origin::Met => Ok(()),
            Origin::Given => Err(Misuse::PeerUnknown),
        }
    }
}
