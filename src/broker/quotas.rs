//! What a broker gives at most.

use core::time::Duration;

use crate::error::Misuse;

/// Every bound of a broker (P4). What it knows of a party is fixed in size, and of what a party sends
/// it has read at most one packet (64 KiB), so these are also the bounds of its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quotas {
    /// Connections at once. Default 512: half of the usual RLIMIT_NOFILE, since a service's takes
    /// two descriptors.
    pub connections: u32,
    /// Connections of one user at once. Default 128: no user can take all of them.
    pub user_connections: u32,
    /// Names at once. Default 256.
    pub names: u32,
    /// Names of one user at once. Default 64.
    pub user_names: u32,
    /// Bytes that a party may leave unread, as SO_SNDBUF counts them: a small message takes about
    /// 700, one with a descriptor little more. Default 16 KiB, so some 20 hand-overs; requests are read
    /// while a quarter of it at most is taken. It also bounds the descriptors in flight, which the
    /// kernel counts for the broker's user (ETOOMANYREFS).
    pub unread_bytes: u32,
    /// How long a party may leave that full before it is let go, with its names; or, while the broker has
    /// too many descriptors in flight, an end unread. Default 10 s: a
    /// stopped or swapped process comes back before that, and its names are free soon after.
    pub patience: Duration,
}

impl Quotas {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            connections: 512,
            user_connections: 128,
            names: 256,
            user_names: 64,
            unread_bytes: 16 * 1024,
            patience: Duration::from_secs(10),
        }
    }

    /// Sets the connections at once, and of one user.
    pub const fn connections(mut self, all: u32, of_a_user: u32) -> Self {
        (self.connections, self.user_connections) = (all, of_a_user);
        self
    }

    /// Sets the names at once, and of one user.
    pub const fn names(mut self, all: u32, of_a_user: u32) -> Self {
        (self.names, self.user_names) = (all, of_a_user);
        self
    }

    /// Sets the bytes that a party may leave unread.
    pub const fn unread_bytes(mut self, bytes: u32) -> Self {
        self.unread_bytes = bytes;
        self
    }

    /// Sets how long a party may leave them unread once they are too many.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Checks each against the range in which it means something.
    ///
    /// # Errors
    /// [`Misuse::LimitOutOfRange`] names the first that does not.
    pub const fn check(&self) -> Result<(), Misuse> {
        let counts = [
            ("connections", self.connections),
            ("user_connections", self.user_connections),
            ("names", self.names),
            ("user_names", self.user_names),
            ("unread_bytes", self.unread_bytes),
        ];
        let mut rest: &[(&'static str, u32)] = &counts;
        while let [(limit, value), behind @ ..] = rest {
            if *value == 0 || *value > MOST {
                return Err(Misuse::LimitOutOfRange {
                    limit,
                    value: *value as u64,
                    least: 1,
                    most: MOST as u64,
                });
            }
            rest = behind;
        }
        Ok(())
    }
}

/// Beyond any RLIMIT_NOFILE, and half of what setsockopt(2) takes for SO_SNDBUF, which doubles it.
const MOST: u32 = 1 << 30;

impl Default for Quotas {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_of_nothing_is_named() {
        assert_eq!((Quotas::new().check(), Quotas::default()), (Ok(()), Quotas::new()));
        let named = |quotas: Quotas, name| {
            assert!(matches!(quotas.check(), Err(Misuse::LimitOutOfRange { limit, .. }) if limit == name));
        };
        named(Quotas::new().connections(0, 1), "connections");
        named(Quotas::new().connections(1, 0), "user_connections");
        named(Quotas::new().names(0, 1), "names");
        named(Quotas::new().names(1, u32::MAX), "user_names");
        named(Quotas::new().unread_bytes(0), "unread_bytes");
        named(Quotas::new().unread_bytes(MOST + 1), "unread_bytes");
        assert_eq!(Quotas::new().unread_bytes(MOST).check(), Ok(()));
    }
}
