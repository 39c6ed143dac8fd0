//! Who is at the other end, and whether it still lives.

use std::os::fd::{AsFd, OwnedFd};

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
    /// is closed then.
    pub fn from_accepted(socket: OwnedFd, limits: Limits, rule: &PeerRule) -> Result<Self, Error> {
        // An accepted socket has its listener's name (net/unix/af_unix.c, unix_stream_connect).
        if !socket::is_named(socket.as_fd())? {
            return Err(Misuse::PeerUnknown.into());
        }
        let channel = Self::over(socket, limits, Origin::Met)?;
        rule.check(channel.as_fd())?;
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

    fn check_met(&self) -> Result<(), Misuse> {
        match self.origin {
            Origin::Met => Ok(()),
            Origin::Given => Err(Misuse::PeerUnknown),
        }
    }
}
