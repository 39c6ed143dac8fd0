//! Seals of a memfd, as a set.

use core::fmt;

/// Seals of a memfd (fcntl(2), F_ADD_SEALS): what nobody can do to it any more. A set.
///
/// ```
/// use fdpost::accept::Seals;
/// let seals = Seals::SHRINK.with(Seals::GROW);
/// assert!(seals.contains(Seals::GROW) && !seals.contains(Seals::STEADY));
/// assert_eq!(seals.to_string(), "shrink, grow");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seals(u32);

/// By the numbers of include/uapi/linux/fcntl.h.
const NAMES: [(u32, &str); 6] =
    [(1, "seal"), (2, "shrink"), (4, "grow"), (8, "write"), (16, "future-write"), (32, "exec")];

impl Seals {
    /// None.
    pub const NONE: Self = Self(0);
    /// No seal may be added (F_SEAL_SEAL).
    pub const SEAL: Self = Self(1);
    /// It may not become smaller (F_SEAL_SHRINK).
    pub const SHRINK: Self = Self(2);
    /// It may not become larger (F_SEAL_GROW).
    pub const GROW: Self = Self(4);
    /// Its bytes may not change (F_SEAL_WRITE).
    pub const WRITE: Self = Self(8);
    /// Its bytes may change only through mappings that exist (F_SEAL_FUTURE_WRITE). It does not stand
    /// for [`WRITE`](Self::WRITE): such a mapping may be the peer's.
    pub const FUTURE_WRITE: Self = Self(16);
    /// Its mode may not become executable (F_SEAL_EXEC).
    pub const EXEC: Self = Self(32);
    /// What [`Memfd::map`](../struct.Memfd.html#method.map) needs: what was checked stays there and
    /// stays as it was.
    pub const STEADY: Self = Self::SHRINK.with(Self::WRITE);
    /// Nothing about it may change any more.
    pub const ALL: Self = Self::STEADY.with(Self::GROW).with(Self::SEAL);

    /// These seals and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether all of `others` are among these.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// The kernel's bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From the kernel's bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let mut left = self.0;
        let mut comma = "";
        for (bit, name) in NAMES {
            if left & bit != 0 {
                write!(f, "{comma}{name}")?;
                comma = ", ";
                left &= !bit;
            }
        }
        // Of a kernel that has more than this list.
        if left == 0 { Ok(()) } else { write!(f, "{comma}{left:#x}") }
    }
}
