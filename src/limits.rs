//! Every budget of a channel.

use core::time::Duration;

use crate::error::Misuse;

/// The most descriptors that one message can carry: SCM_MAX_FD (Linux, include/net/scm.h).
pub const SCM_MAX_FD: u8 = 253;

/// What this side accepts, checked before anything that a peer declared is believed (P4).
///
/// ```
/// const LIMITS: fdpost::Limits = fdpost::Limits::new().payload(4096).descriptors(2);
/// assert_eq!(LIMITS.descriptors, 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "arbitrary", derive(arbitrary::Arbitrary))]
#[non_exhaustive]
pub struct Limits {
    /// Payload bytes of one message. Default 64 KiB: what fits a default SO_SNDBUF (208 KiB)
    /// three times over; more is better passed as a memfd. A wire's own cap holds beside it.
    pub payload: u32,
    /// Descriptors of one message, 0 to 253. Default **0**: who expects none must not have to
    /// close what a stranger sends (P9).
    pub descriptors: u8,
    /// Bytes that the receiver may hold for input when it reads in batches. Default 256 KiB: four
    /// messages of the default size. One window and one payload are always held, whatever stands here.
    pub held_bytes: u32,
    /// Descriptors that the receiver may hold when it reads in batches. Default 64. Room for one
    /// message's is always held, whatever stands here.
    pub held_descriptors: u16,
    /// How long a message that has begun may take. Default 1 s: local peers need microseconds,
    /// a stopped or swapped one is given up before a user notices.
    pub assembly_timeout: Duration,
    /// Bytes per second that a stream must deliver beyond that timeout, at least 1. Default
    /// 1 MiB/s: a thousandth of what a local socket does.
    pub minimum_rate: u32,
}

impl Limits {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            payload: 64 * 1024,
            descriptors: 0,
            held_bytes: 256 * 1024,
            held_descriptors: 64,
            assembly_timeout: Duration::from_secs(1),
            minimum_rate: 1024 * 1024,
        }
    }

    /// Sets the payload bytes of one message.
    pub const fn payload(mut self, bytes: u32) -> Self {
        self.payload = bytes;
        self
    }

    /// Sets the descriptors of one message.
    pub const fn descriptors(mut self, count: u8) -> Self {
        self.descriptors = count;
        self
    }

    /// Sets the bytes held in batches.
    pub const fn held_bytes(mut self, bytes: u32) -> Self {
        self.held_bytes = bytes;
        self
    }

    /// Sets the descriptors held in batches.
    pub const fn held_descriptors(mut self, count: u16) -> Self {
        self.held_descriptors = count;
        self
    }

    /// Sets how long a message that has begun may take.
    pub const fn assembly_timeout(mut self, timeout: Duration) -> Self {
        self.assembly_timeout = timeout;
        self
    }

    /// Sets the rate that a stream must keep, in bytes per second.
    pub const fn minimum_rate(mut self, bytes_per_second: u32) -> Self {
        self.minimum_rate = bytes_per_second;
        self
    }

    /// Checks each limit against the range in which it means something.
    ///
    /// # Errors
    /// [`Misuse::LimitOutOfRange`] names the first that does not.
    pub const fn check(&self) -> Result<(), Misuse> {
        if self.descriptors > SCM_MAX_FD {
            return Err(Misuse::LimitOutOfRange {
                limit: "descriptors",
                value: self.descriptors as u64,
                least: 0,
                most: SCM_MAX_FD as u64,
            });
        }
        if self.minimum_rate == 0 {
            return Err(Misuse::LimitOutOfRange {
                limit: "minimum_rate",
                value: 0,
                least: 1,
                most: u32::MAX as u64,
            });
        }
        Ok(())
    }

    /// How long a message of `bytes` may take on a stream: the timeout plus its bytes over the
    /// minimum rate.
    pub(crate) fn patience(&self, bytes: u64) -> Duration {
        self.assembly_timeout.saturating_add(self.at_minimum_rate(bytes))
    }

    /// How long `bytes` take at the minimum rate.
    pub(crate) fn at_minimum_rate(&self, bytes: u64) -> Duration {
        let rate = u64::from(self.minimum_rate.max(1));
        Duration::from_micros(bytes.saturating_mul(1_000_000).checked_div(rate).unwrap_or(0))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // P9
    fn nothing_is_accepted_unless_said() {
        assert_eq!(Limits::new().descriptors, 0);
        assert_eq!(Limits::default(), Limits::new());
    }

    #[test]
    fn limits_without_meaning_are_named() {
        assert!(Limits::new().descriptors(253).check().is_ok());
        let error = Limits::new().descriptors(254).check();
        assert!(matches!(error, Err(Misuse::LimitOutOfRange { limit: "descriptors", value: 254, .. })));
        let error = Limits::new().minimum_rate(0).check();
        assert!(matches!(error, Err(Misuse::LimitOutOfRange { limit: "minimum_rate", .. })));
    }

    #[test] // P5
    fn patience_grows_with_bytes_over_the_rate() {
        let limits = Limits::new().assembly_timeout(Duration::from_secs(2)).minimum_rate(1000);
        assert_eq!(limits.patience(500), Duration::from_millis(2500));
        assert_eq!(limits.assembly_timeout(Duration::MAX).patience(1), Duration::MAX);
    }
}
