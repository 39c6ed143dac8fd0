//! What a channel's calls answer when they do not do what was asked.

use std::io;

use nix::errno::Errno;

use crate::error::{Exhausted, Fault, Misuse, Violation};
use crate::machine::Failure;
use crate::message::Message;
use std::os::fd::OwnedFd;

/// Why a call on a channel did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer broke a rule; the channel is shut down and will say the same for ever (P3).
    #[error("the peer broke rule {rule}: {0}", rule = .0.rule())]
    Violation(#[from] Violation),
    /// This process ran out of something.
    #[error("{rule}: {0}", rule = .0.rule())]
    Exhausted(#[from] Exhausted),
    /// The caller's mistake. Nothing happened.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The caller's rule refused who sent a message. It is dropped; others may follow.
    #[error("a message of process {pid}, user {uid}, group {gid} was refused")]
    SenderRefused {
        /// Process id.
        pid: i32,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// The caller's rule refused who connected, or who listens. The connection is closed, nothing
    /// was read; a listener can accept others.
    #[error("process {pid}, user {uid}, group {gid} is refused as a peer")]
    PeerRefused {
        /// Process id.
        pid: i32,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Somebody is bound to the address already. It was left alone.
    #[error("somebody is bound to this address")]
    AddressInUse,
    /// At the path is something else than a socket. It was left alone.
    #[error("at this path is a file that is no socket")]
    NotASocket,
    /// The peer's socket accepts no descriptors (SO_PASSRIGHTS is off), and the message has some.
    #[error("the peer accepts no descriptors")]
    DescriptorsRefused,
    /// A broker does not do what it was asked.
    #[cfg(feature = "broker")]
    #[error("the broker refuses: {0}")]
    BrokerRefused(crate::broker::Refusal),
    /// The conversation is over: the peer closed its end between two messages, or this side was
    /// shut down.
    #[error("the conversation is over")]
    Closed,
    /// There is no peer to send to any more.
    #[error("the peer is gone: {}", text(*.errno))]
    PeerGone {
        /// The errno of sendmsg(2).
        errno: i32,
    },
    /// The deadline passed. Nothing was lost.
    #[error("the deadline passed")]
    TimedOut,
    /// The call would have had to wait. Nothing was sent.
    #[error("the socket is full; try again when it is writable")]
    WouldBlock,
    /// The kernel is short of memory or of descriptors in flight (ENOBUFS, ENOMEM,
    /// ETOOMANYREFS), or this process has no descriptor left for what it would accept (EMFILE,
    /// ENFILE). Nothing was sent, and nothing is lost; try again later: poll(2) will call the
    /// socket ready all the while.
    #[error("the kernel is short of something, try again later: {}", text(*.errno))]
    Pressure {
        /// The errno of sendmsg(2) or accept4(2).
        errno: i32,
    },
    /// A system call failed.
    #[error("{call}: {}", text(*.errno))]
    Io {
        /// Its name.
        call: &'static str,
        /// Its errno.
        errno: i32,
    },
}

fn text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Violation(violation) => violation.into(),
            Fault::Exhausted(exhausted) => exhausted.into(),
            Fault::Misuse(misuse) => misuse.into(),
        }
    }
}

impl Error {
    pub(super) const fn io(call: &'static str, errno: nix::Error) -> Self {
        Self::Io { call, errno: errno as i32 }
    }

    /// What `std` made of an errno.
    pub(super) fn of_io(call: &'static str, error: &io::Error) -> Self {
        Self::Io { call, errno: error.raw_os_error().unwrap_or(0) }
    }

    /// What an errno of sendmsg(2) amounts to for a message of so many descriptors, where nothing is
    /// kept to be sent again.
    pub(super) const fn of_send(errno: nix::Error, descriptors: usize) -> Self {
        match classify(errno) {
            Failure::WouldBlock => Self::WouldBlock,
            Failure::Pressure => Self::Pressure { errno: errno as i32 },
            Failure::Gone => Self::PeerGone { errno: errno as i32 },
            // Without descriptors: a datagram socket that its peer is not connected to.
            Failure::Refused if matches!(errno, Errno::EPERM) && descriptors > 0 => Self::DescriptorsRefused,
            Failure::Refused => Self::io("sendmsg", errno),
        }
    }

    /// Memory or descriptors were short for a moment: nothing is lost, and the same call may be made
    /// again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Exhausted(exhausted) => matches!(exhausted, Exhausted::OutOfMemory { .. }),
            Self::Io { errno, .. } => is_shortage(Errno::from_raw(*errno)),
            _ => false,
        }
    }

    /// The violation, where the peer is to blame.
    pub const fn violation(&self) -> Option<Violation> {
        match self {
            Self::Violation(violation) => Some(*violation),
            _ => None,
        }
    }

    /// The errno, where the kernel gave one.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::PeerGone { errno } | Self::Pressure { errno } | Self::Io { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// A message was not sent: why, and everything that did not leave, with its descriptors (P6).
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct SendError {
    /// Why.
    pub error: Error,
    /// What did not leave, in the order in which it was handed in. Usually the one message; more
    /// where the direction died with a message begun before it.
    pub messages: Vec<Message<OwnedFd>>,
}

impl SendError {
    pub(super) fn new(error: impl Into<Error>, messages: Vec<Message<OwnedFd>>) -> Self {
        Self { error: error.into(), messages }
    }
}

impl From<SendError> for Error {
    /// Keeps the reason and closes the messages' descriptors.
    fn from(error: SendError) -> Self {
        error.error
    }
}

/// This process or the kernel is short of something: nothing to do with what was asked about, which
/// can be asked again.
pub(super) const fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
}

/// What an errno of sendmsg(2) means for the message (unix(7), send(2)).
pub(super) const fn classify(errno: Errno) -> Failure {
    match errno {
        Errno::EAGAIN => Failure::WouldBlock,
        // ETOOMANYREFS: this *user's* descriptors in flight, which another process may have
        // caused. Not a dead peer.
        Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS => Failure::Pressure,
        Errno::EPIPE | Errno::ECONNREFUSED | Errno::ENOTCONN | Errno::ECONNRESET => Failure::Gone,
        _ => Failure::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // P6
    fn an_errno_of_a_send_says_what_it_was() {
        let refused = |errno, descriptors| Error::of_send(errno, descriptors);
        assert_eq!(refused(Errno::EPERM, 1), Error::DescriptorsRefused);
        // unix_may_send: a datagram socket that its peer is not connected to.
        assert_eq!(refused(Errno::EPERM, 0), Error::Io { call: "sendmsg", errno: Errno::EPERM as i32 });
        assert_eq!(refused(Errno::EINVAL, 1), Error::Io { call: "sendmsg", errno: Errno::EINVAL as i32 });
        assert_eq!(refused(Errno::EPIPE, 1), Error::PeerGone { errno: Errno::EPIPE as i32 });
        assert_eq!(refused(Errno::ENOBUFS, 1), Error::Pressure { errno: Errno::ENOBUFS as i32 });
        assert_eq!(refused(Errno::EAGAIN, 1), Error::WouldBlock);
    }

    #[test] // P3: only what passes by itself is tried again
    fn what_passes_is_told_from_what_stays() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS] {
            assert!(is_shortage(errno) && Error::io("accept4", errno).is_passing(), "{errno}");
        }
        for errno in [Errno::EPERM, Errno::ECONNABORTED, Errno::EBADF, Errno::EINVAL] {
            assert!(!is_shortage(errno) && !Error::io("accept4", errno).is_passing(), "{errno}");
        }
        assert!(Error::Exhausted(Exhausted::OutOfMemory { bytes: 1 }).is_passing());
        assert!(!Error::Closed.is_passing());
    }
}
