//! Why a broker does not do what it was asked.

use super::{Wire, broken};
use crate::error::Violation;

/// A broker's answer where it is not "yes". The connection goes on, except after
/// [`TURNED_AWAY`](super::TURNED_AWAY).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Somebody serves that name already.
    #[error("somebody serves that name already")]
    NameTaken,
    /// Nobody serves that name; of a withdrawal: this connection does not.
    #[error("nobody serves that name")]
    NameUnknown,
    /// The service speaks another wire: this one.
    #[error("the service speaks the wire {}", .0.name)]
    WireMismatch(Wire),
    /// The service's audience, or the broker's own rule, does not include the asker.
    #[error("not permitted")]
    NotPermitted,
    /// The asker did not say that it accepts a descriptor in the answer (or of a registration, in
    /// hand-overs), or its socket refuses them.
    #[error("the asker accepts no descriptor, so no channel can be handed to it")]
    AcceptsNone,
    /// The service's socket refuses descriptors, although it said that it accepts them.
    #[error("the service accepts no descriptor, so no channel can be handed to it")]
    ServiceAcceptsNone,
    /// The service does not read what was handed over before.
    #[error("the service does not read what was handed over before")]
    ServiceBusy,
    /// The service went away while the channel was made.
    #[error("the service went away")]
    ServiceGone,
    /// The asker's user has as many connections or names as one user may.
    #[error("this user has as many connections or names as one user may")]
    Quota,
    /// The broker has as many connections or names as it may.
    #[error("the broker has as many connections or names as it may")]
    Full,
    /// The broker, or the kernel, is short of descriptors or memory. Try again later.
    #[error("the broker is short of descriptors or memory")]
    Exhausted,
}

impl Refusal {
    /// The stable kebab-case name, as `docs/PROTOCOL.md` has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NameTaken => "name-taken",
            Self::NameUnknown => "name-unknown",
            Self::WireMismatch(_) => "wire-mismatch",
            Self::NotPermitted => "not-permitted",
            Self::AcceptsNone => "accepts-none",
            Self::ServiceAcceptsNone => "service-accepts-none",
            Self::ServiceBusy => "service-busy",
            Self::ServiceGone => "service-gone",
            Self::Quota => "quota",
            Self::Full => "full",
            Self::Exhausted => "exhausted",
        }
    }

    /// The status on the wire; 0 is "yes".
    pub const fn status(&self) -> u8 {
        match self {
            Self::NameTaken => 1,
            Self::NameUnknown => 2,
            Self::WireMismatch(_) => MISMATCH,
            Self::NotPermitted => 4,
            Self::AcceptsNone => 5,
            Self::ServiceAcceptsNone => 6,
            Self::ServiceBusy => 7,
            Self::ServiceGone => 8,
            Self::Quota => 9,
            Self::Full => 10,
            Self::Exhausted => 11,
        }
    }

    /// Of every status but a mismatch's, which has a wire.
    pub(super) const fn decode(status: u8) -> Result<Self, Violation> {
        Ok(match status {
            1 => Self::NameTaken,
            2 => Self::NameUnknown,
            4 => Self::NotPermitted,
            5 => Self::AcceptsNone,
            6 => Self::ServiceAcceptsNone,
            7 => Self::ServiceBusy,
            8 => Self::ServiceGone,
            9 => Self::Quota,
            10 => Self::Full,
            11 => Self::Exhausted,
            _ => return Err(broken("status", status as u32)),
        })
    }
}

/// The one status with a wire behind it.
pub(super) const MISMATCH: u8 = 3;
