//! The classic two bytes: an optional error text, a zero byte, a status (W. R. Stevens, "UNIX
//! Network Programming", `send_fd`/`recv_fd`). Rules SF-1.. of `docs/PROTOCOL.md`.
//!
//! Not header-first, so no [`Profile`](crate::profile::Profile): a small parser of its own.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::error::{Exhausted, Fault, Misuse, Violation};

/// A message: `status` 0 comes with one descriptor, any other with none and is the sender's
/// error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The sender's words; empty with status 0 by custom, which is not checked.
    pub text: &'a [u8],
    /// 0, or the error.
    pub status: u8,
}

/// How much of a message is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan<'a> {
    /// At least so many bytes are to come: reading that many cannot reach into the next message.
    Needs(usize),
    /// All of it; `used` bytes were its own.
    Whole {
        /// The message.
        reply: Reply<'a>,
        /// Its bytes.
        used: usize,
    },
}

/// Looks at the bytes of a stream so far.
///
/// # Errors
/// [`Violation::PayloadTooLarge`] for a text beyond `limit` bytes.
pub fn scan(bytes: &[u8], limit: usize) -> Result<Scan<'_>, Violation> {
    let zero = bytes.iter().position(|byte| *byte == 0);
    let length = zero.unwrap_or(bytes.len());
    if length > limit {
        return Err(Violation::PayloadTooLarge { declared: length as u64, limit: limit as u64 });
    }
    let Some((text, [_, rest @ ..])) = zero.and_then(|zero| bytes.split_at_checked(zero)) else {
        return Ok(Scan::Needs(2)); // the zero byte and the status, if not more text
    };
    Ok(match rest.first() {
        None => Scan::Needs(1),
        Some(&status) => {
            let used = text.len().saturating_add(2);
            Scan::Whole { reply: Reply { text, status }, used }
        }
    })
}

/// Parses a packet, which holds one message and nothing else.
///
/// # Errors
/// [`Violation::Status`] without a zero byte and a status, or with bytes behind them; as
/// [`scan`].
pub fn parse(packet: &[u8], limit: usize) -> Result<Reply<'_>, Violation> {
    match scan(packet, limit)? {
        Scan::Whole { reply, used } if used == packet.len() => Ok(reply),
        _ => {
            let zeros = packet.iter().fold(0, |zeros: u64, byte| zeros.saturating_add(u64::from(*byte == 0)));
            Err(Violation::Status { bytes: packet.len() as u64, zeros })
        }
    }
}

/// Checks the number of descriptors that came with a message. `cut`: the kernel cut control data,
/// into room for one descriptor more than belongs.
///
/// # Errors
/// [`Violation::DescriptorCount`], [`Violation::DescriptorUnexpected`],
/// [`Violation::ControlTruncated`]; [`Exhausted::DescriptorsLost`].
pub fn check_descriptors(status: u8, received: u32, cut: bool) -> Result<(), Fault> {
    let declared = u32::from(status == 0);
    match received {
        _ if received > 0 && declared == 0 => Err(Violation::DescriptorUnexpected { received }.into()),
        _ if received > declared => Err(Violation::DescriptorCount { declared, received }.into()),
        _ if received == declared && cut => Err(Violation::ControlTruncated { received }.into()),
        _ if received == declared => Ok(()),
        _ if cut => Err(Exhausted::DescriptorsLost { declared, received }.into()),
        _ => Err(Violation::DescriptorCount { declared, received }.into()),
    }
}

/// Checks an error before it is sent.
///
/// # Errors
/// [`Misuse::StatusZero`], [`Misuse::ZeroInText`].
pub fn check_error(status: u8, text: &[u8]) -> Result<(), Misuse> {
    if status == 0 {
        return Err(Misuse::StatusZero);
    }
    match text.iter().position(|byte| *byte == 0) {
        Some(index) => Err(Misuse::ZeroInText { index: index as u64 }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_message_says_what_it_needs() {
        let message = b"no room\0\x05next";
        for length in 0..=7 {
            assert_eq!(scan(&message[..length], 7), Ok(Scan::Needs(2)), "{length}");
        }
        assert_eq!(scan(&message[..8], 7), Ok(Scan::Needs(1)));
        let reply = Reply { text: b"no room", status: 5 };
        for length in 9..=message.len() {
            assert_eq!(scan(&message[..length], 7), Ok(Scan::Whole { reply, used: 9 }));
        }
    }

    #[test] // P4
    fn a_text_beyond_the_limit() {
        let error = Err(Violation::PayloadTooLarge { declared: 8, limit: 7 });
        assert_eq!(scan(b"no room!", 7), error);
        assert_eq!(parse(b"no room!\0\x05", 7).map(|_| ()), error.map(|_: Scan<'_>| ()));
    }

    #[test]
    fn a_packet_is_one_message() {
        assert_eq!(parse(b"\0\0", 0), Ok(Reply { text: b"", status: 0 }));
        for (packet, zeros) in [(&b""[..], 0), (b"x", 0), (b"x\0", 1), (b"\0\0\0", 3), (b"x\0\x05y", 1)] {
            let error = Violation::Status { bytes: packet.len() as u64, zeros };
            assert_eq!(parse(packet, 9), Err(error));
        }
    }

    #[test] // P1, P2
    fn a_status_of_0_has_one_descriptor_and_any_other_none() {
        let count = |received| Err(Violation::DescriptorCount { declared: 1, received }.into());
        assert_eq!(check_descriptors(0, 1, false), Ok(()));
        assert_eq!(check_descriptors(0, 0, false), count(0));
        assert_eq!(check_descriptors(0, 2, true), count(2));
        let lost = Exhausted::DescriptorsLost { declared: 1, received: 0 };
        assert_eq!(check_descriptors(0, 0, true), Err(lost.into()));
        assert_eq!(check_descriptors(0, 1, true), Err(Violation::ControlTruncated { received: 1 }.into()));
        assert_eq!(check_descriptors(9, 0, false), Ok(()));
        assert_eq!(check_descriptors(9, 0, true), Err(Violation::ControlTruncated { received: 0 }.into()));
        let unexpected = Violation::DescriptorUnexpected { received: 1 };
        assert_eq!(check_descriptors(9, 1, false), Err(unexpected.into()));
    }

    #[test]
    fn an_error_to_send_is_checked() {
        assert_eq!(check_error(1, b"text"), Ok(()));
        assert_eq!(check_error(0, b"text"), Err(Misuse::StatusZero));
        assert_eq!(check_error(1, b"te\0xt"), Err(Misuse::ZeroInText { index: 2 }));
    }
}
