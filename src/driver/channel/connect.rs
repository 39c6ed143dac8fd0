//! Going to where somebody listens.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{connect, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{Channel, Origin};
use crate::driver::address::Address;
use crate::driver::credentials::PeerRule;
use crate::driver::deadline::Deadline;
use crate::driver::error::Error;
use crate::driver::socket;
use crate::limits::Limits;
use crate::profile::Profile;

impl<P: Profile> Channel<P> {
    /// Connects to a listener, waiting for ever while its queue of connections is full.
    ///
    /// ```
    /// # use fdpost::{Channel, Error, Limits, Packet};
    /// let nobody = Channel::<Packet>::connect("/no/such/socket", Limits::new());
    /// assert!(matches!(nobody, Err(Error::Io { call: "connect", .. })));
    /// ```
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with), without [`Error::TimedOut`].
    pub fn connect(address: impl Into<Address>, limits: Limits) -> Result<Self, Error> {
        Self::connect_by(address, limits, Deadline::NEVER)
    }

    /// Connects to a listener, waiting until the deadline while its queue of connections is full.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub fn connect_by(
        address: impl Into<Address>,
        limits: Limits,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        Self::connect_with(address, limits, &PeerRule::new(), deadline)
    }

    /// Connects to a listener that `rule` lets pass: it is asked before anything is sent or read.
    /// Who listens need not be who accepts, see [`PeerRule`]; whom it refuses may have sent descriptors
    /// whose close(2) blocks, see [`PeerRule::reaper`].
    ///
    /// # Errors
    /// [`Error::PeerRefused`]; [`Error::TimedOut`]; [`Misuse`](crate::Misuse) about the address, a
    /// limit or the wire; [`Error::Io`], among them `connect` with ENOENT and ECONNREFUSED, when
    /// nobody listens, EACCES, and EPROTOTYPE, when a socket of another type does.
    pub fn connect_with(
        address: impl Into<Address>,
        limits: Limits,
        rule: &PeerRule,
        deadline: Deadline,
    ) -> Result<Self, Error> {
        Self::connect_until(address.into(), limits, rule, Some(deadline))
    }

    /// As [`connect_with`](Self::connect_with). `None`: does not wait, and says
    /// [`Error::WouldBlock`].
    pub(in crate::driver) fn connect_until(
        address: Address,
        limits: Limits,
        rule: &PeerRule,
        deadline: Option<Deadline>,
    ) -> Result<Self, Error> {
        limits.check()?;
        let socket = socket::unconnected::<P>()?;
        let name = address.kernel_form()?;
        // Before connect: the peer may send at once.
        if limits.descriptors == 0 {
            socket::refuse_descriptors(socket.as_fd());
        }
        // A socket that is not connected cannot be polled for room in the other's queue, but
        // connect(2) itself waits for it, as long as SO_SNDTIMEO says (unix_stream_connect).
        let wait_at_most = |duration: Duration| {
            let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
            let value = TimeVal::microseconds(micros);
            setsockopt(&socket, sockopt::SendTimeout, &value).map_err(|errno| Error::io("setsockopt", errno))
        };
        // Nobody else holds this socket yet, so its flag is nobody else's.
        let status = |flags| {
            fcntl(&socket, FcntlArg::F_SETFL(flags)).map(drop).map_err(|errno| Error::io("fcntl", errno))
        };
        let until = deadline.unwrap_or(Deadline::NEVER);
        if deadline.is_none() {
            status(OFlag::O_NONBLOCK)?;
        }
        loop {
            if let Some(instant) = until.instant() {
                // 0 would mean "for ever".
                let left = instant.saturating_duration_since(Instant::now());
                wait_at_most(left.clamp(Duration::from_micros(1), Duration::from_secs(3600)))?;
            }
            match connect(socket.as_raw_fd(), &name) {
                Ok(()) => break,
                Err(Errno::EAGAIN) if deadline.is_none() => return Err(Error::WouldBlock),
                Err(Errno::EAGAIN | Errno::EINTR) if until.has_passed() => return Err(Error::TimedOut),
                // Interrupted before it was connected: nothing goes on behind our back.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("connect", errno)),
            }
        }
        if until.instant().is_some() {
            wait_at_most(Duration::ZERO)?;
        }
        if deadline.is_none() {
            status(OFlag::empty())?;
        }
        if !rule.is_empty() {
            if let Err(error) = rule.check(socket.as_fd()) {
                rule.turn_away(socket);
                return Err(error);
            }
        }
        Self::over(socket, limits, Origin::Met)
    }
}
