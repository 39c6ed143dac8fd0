//! Which kinds of descriptors are accepted, as values: what a place demands ([`Accept`], [`Policy`])
//! and what came ([`Found`]). Looking at a descriptor takes system calls and is the driver's.

mod found;
mod policy;
mod seals;

use core::fmt;

pub use found::{Domain, Found, Kind, SocketType};
pub use policy::Policy;
pub use seals::Seals;

/// One kind of descriptor, and what must hold of it.
///
/// ```
/// use fdpost::accept::{Accept, Seals};
/// // 4 KiB that stay as they are, whatever the peer does: fit for `Memfd::map`.
/// const FRAME: Accept = Accept::memfd_of(4096, Seals::STEADY);
/// assert_eq!(FRAME.to_string(), "a memfd of at least 4096 bytes with seals shrink, write");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub(crate) wanted: Wanted,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

/// The kind, without the access mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    Any,
    /// `bytes` = 0: whatever its size.
    Memfd {
        seals: Seals,
        bytes: u64,
    },
    File,
    Socket(Option<(Domain, SocketType)>),
    Pipe,
    Pidfd,
}

impl Accept {
    const fn of(wanted: Wanted) -> Self {
        Self { wanted, readable: false, writable: false }
    }

    /// No descriptor at all: closes a place.
    pub const fn nothing() -> Self {
        Self::of(Wanted::Nothing)
    }

    /// Whatever it is, one that can neither be read nor written (O_PATH) included.
    pub const fn any() -> Self {
        Self::of(Wanted::Any)
    }

    /// Shared memory that has at least these seals (memfd_create(2)), of ordinary or of huge pages.
    ///
    /// With [`Seals::NONE`] files on tmpfs pass too: the kernel answers for them as for a memfd
    /// that cannot be sealed.
    pub const fn memfd(seals: Seals) -> Self {
        Self::of(Wanted::Memfd { seals, bytes: 0 })
    }

    /// As [`memfd`](Self::memfd), of at least `bytes` bytes and not of huge pages. It must be sealed
    /// against shrinking too, whatever `seals` says: a size that the peer may take away again is
    /// none.
    pub const fn memfd_of(bytes: u64, seals: Seals) -> Self {
        Self::of(Wanted::Memfd { seals: seals.with(Seals::SHRINK), bytes })
    }

    /// What stat(2) calls a regular file, on whatever file system: a memfd, a deleted file, one of
    /// procfs or FUSE are regular files. Of its content nothing is said: whoever may write to it may
    /// change it at any time, so its size is not asked for.
    pub const fn file() -> Self {
        Self::of(Wanted::File)
    }

    /// A socket of any domain and type.
    pub const fn socket() -> Self {
        Self::of(Wanted::Socket(None))
    }

    /// A socket of this domain and type.
    pub const fn socket_of(domain: Domain, kind: SocketType) -> Self {
        Self::of(Wanted::Socket(Some((domain, kind))))
    }

    /// Either end of a pipe, or a named pipe. [`readable`](Self::readable) and
    /// [`writable`](Self::writable) say which.
    pub const fn pipe() -> Self {
        Self::of(Wanted::Pipe)
    }

    /// A pidfd (pidfd_open(2)), of a process that lives or not. Needs Linux 5.4; an older kernel
    /// has none that could be told from others.
    pub const fn pidfd() -> Self {
        Self::of(Wanted::Pidfd)
    }

    /// And open for reading: O_RDONLY or O_RDWR.
    #[must_use]
    pub const fn readable(mut self) -> Self {
        self.readable = true;
        self
    }

    /// And open for writing: O_WRONLY or O_RDWR.
    #[must_use]
    pub const fn writable(mut self) -> Self {
        self.writable = true;
        self
    }

    /// Whether a descriptor of which all this is known is accepted.
    pub fn permits(&self, found: &Found) -> bool {
        let kind = match (self.wanted, found.kind) {
            (Wanted::Any, _)
            | (Wanted::File, Kind::File | Kind::Memfd { .. })
            | (Wanted::Pipe, Kind::Pipe)
            | (Wanted::Pidfd, Kind::Pidfd)
            | (Wanted::Socket(None), Kind::Socket { .. }) => true,
            (Wanted::Memfd { seals, bytes: 0 }, Kind::Memfd { seals: has, .. }) => has.contains(seals),
            (Wanted::Memfd { seals, bytes }, Kind::Memfd { seals: has, bytes: size, huge }) => {
                has.contains(seals) && size >= bytes && !huge
            }
            (Wanted::Socket(Some(wanted)), Kind::Socket { domain, kind }) => wanted == (domain, kind),
            _ => false,
        };
        kind && (found.readable || !self.readable) && (found.writable || !self.writable)
    }

    /// Whether it demands the kind that `found` is, if not its other properties.
    fn is_akin(&self, found: &Found) -> bool {
        matches!(
            (self.wanted, found.kind),
            (Wanted::Memfd { .. } | Wanted::File, Kind::Memfd { .. })
                | (Wanted::File, Kind::File)
                | (Wanted::Socket(_), Kind::Socket { .. })
                | (Wanted::Pipe, Kind::Pipe)
                | (Wanted::Pidfd, Kind::Pidfd)
        )
    }
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            Wanted::Nothing => return f.write_str("nothing"),
            Wanted::Any => f.write_str("any descriptor"),
            Wanted::Memfd { seals, bytes: 0 } => write!(f, "a memfd with seals {seals}"),
            Wanted::Memfd { seals, bytes } => {
                write!(f, "a memfd of at least {bytes} bytes with seals {seals}")
            }
            Wanted::File => f.write_str("a regular file"),
            Wanted::Socket(None) => f.write_str("a socket"),
            Wanted::Socket(Some((domain, kind))) => {
                write!(f, "a socket of domain {domain} and type {kind}")
            }
            Wanted::Pipe => f.write_str("a pipe"),
            Wanted::Pidfd => f.write_str("a pidfd"),
        }?;
        f.write_str(match (self.readable, self.writable) {
            (false, false) => "",
            (true, false) => ", open for reading",
            (false, true) => ", open for writing",
            (true, true) => ", open for reading and writing",
        })
    }
}

#[cfg(test)]
mod tests;
