//! `--accept`: which kinds of descriptors are taken.

use clap::{Args, ValueEnum};
use fdpost::{Accept, Policy, Seals};

/// A kind of descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Shared memory, whatever its seals (memfd_create); a file on tmpfs is the same to the kernel
    Memfd,
    /// Shared memory that can neither shrink nor change any more
    SealedMemfd,
    /// A regular file; shared memory is one too
    File,
    /// A socket
    Socket,
    /// Either end of a pipe, or a named one
    Pipe,
    /// A process (pidfd_open)
    Pidfd,
    /// Whatever it is
    Any,
}

/// Which descriptors are taken.
#[derive(Args, Clone, Debug)]
pub(crate) struct Accepting {
    /// Kind of descriptor that is accepted; give it again for each further kind. A message with
    /// another is a violation (descriptor-kind). Without it, any kind
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) accept: Vec<Kind>,
}

impl Accepting {
    /// `None`: nothing was said, so there is nothing to look at.
    pub(crate) fn policy(&self) -> Option<Policy> {
        if self.accept.is_empty() {
            return None;
        }
        Some(self.accept.iter().fold(Policy::new(), |policy, kind| policy.every(kind.demanded())))
    }
}

impl Kind {
    const fn demanded(self) -> Accept {
        match self {
            Self::Memfd => Accept::memfd(Seals::NONE),
            Self::SealedMemfd => Accept::memfd(Seals::STEADY),
            Self::File => Accept::file(),
            Self::Socket => Accept::socket(),
            Self::Pipe => Accept::pipe(),
            Self::Pidfd => Accept::pidfd(),
            Self::Any => Accept::any(),
        }
    }
}
