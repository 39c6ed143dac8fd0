//! What a descriptor turned out to be.

use core::fmt;

use super::Seals;

/// What a descriptor is, as far as it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kind of file.
    pub kind: Kind,
    /// Open for reading.
    pub readable: bool,
    /// Open for writing.
    pub writable: bool,
}

/// The kind of file behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Shared memory: a memfd, or a file on tmpfs or hugetlbfs.
    Memfd {
        /// F_GET_SEALS. A file on tmpfs has [`Seals::SEAL`] alone.
        seals: Seals,
        /// Its size in bytes.
        bytes: u64,
        /// Of huge pages.
        huge: bool,
    },
    /// Another regular file.
    File,
    /// A directory.
    Directory,
    /// A character or block device.
    Device,
    /// A socket.
    Socket {
        /// SO_DOMAIN.
        domain: Domain,
        /// SO_TYPE.
        kind: SocketType,
    },
    /// A pipe, named or not.
    Pipe,
    /// A process.
    Pidfd,
    /// A place in a file system and no open file (O_PATH).
    Path,
    /// An eventfd, epoll, timerfd, io_uring and the like.
    Other,
}

/// The domain of a socket (socket(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Domain {
    /// AF_UNIX.
    Unix,
    /// AF_INET.
    Inet,
    /// AF_INET6.
    Inet6,
    /// Another, by its number. What has a name here is never found under this one.
    Other(i32),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix => f.write_str("unix"),
            Self::Inet => f.write_str("inet"),
            Self::Inet6 => f.write_str("inet6"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}

/// The type of a socket (socket(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketType {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
    /// SOCK_SEQPACKET.
    SeqPacket,
    /// Another, by its number. What has a name here is never found under this one.
    Other(i32),
}

impl fmt::Display for SocketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream => f.write_str("stream"),
            Self::Datagram => f.write_str("datagram"),
            Self::SeqPacket => f.write_str("seqpacket"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Memfd { huge: true, bytes, seals } => {
                write!(f, "a memfd of huge pages of {bytes} bytes with seals {seals}")
            }
            Kind::Memfd { seals: Seals::SEAL, bytes, .. } => {
                write!(f, "a memfd or a file on tmpfs of {bytes} bytes that cannot be sealed")
            }
            Kind::Memfd { seals, bytes, .. } => write!(f, "a memfd of {bytes} bytes with seals {seals}"),
            Kind::File => f.write_str("a regular file"),
            Kind::Directory => f.write_str("a directory"),
            Kind::Device => f.write_str("a device"),
            Kind::Socket { domain, kind } => write!(f, "a socket of domain {domain} and type {kind}"),
            Kind::Pipe => f.write_str("a pipe"),
            Kind::Pidfd => f.write_str("a pidfd"),
            Kind::Path => return f.write_str("a place in a file system (O_PATH)"),
            Kind::Other => f.write_str("something else (eventfd, epoll, timerfd, io_uring, ...)"),
        }?;
        f.write_str(match (self.readable, self.writable) {
            (true, false) => ", open for reading",
            (false, true) => ", open for writing",
            _ => "",
        })
    }
}
