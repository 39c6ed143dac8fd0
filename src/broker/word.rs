//! Short texts that are kept in place.

use core::fmt;

use crate::error::{Misuse, Violation};

use super::broken;

/// The most bytes of a service's name.
pub const NAME_MOST: usize = 64;
/// The most bytes of a wire's name.
pub const WIRE_MOST: usize = 32;

/// The name of a service.
pub type Name = Word<NAME_MOST>;
/// The name of a wire, such as `packet`.
pub type WireName = Word<WIRE_MOST>;

/// 1 to `MOST` printable ASCII characters without spaces, so that a log line or a terminal can
/// show what a stranger chose. `MOST` is at most 255.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word<const MOST: usize> {
    length: u8,
    bytes: [u8; MOST],
}

/// What is wrong with a text.
enum Flaw {
    Length(usize),
    Byte(usize, u8),
}

impl<const MOST: usize> Word<MOST> {
    /// These characters.
    ///
    /// # Errors
    /// [`Misuse::WordLength`], [`Misuse::WordByte`].
    pub fn new(text: &str) -> Result<Self, Misuse> {
        Self::check(text.as_bytes()).map_err(|flaw| match flaw {
            Flaw::Length(bytes) => Misuse::WordLength { bytes: bytes as u64, limit: MOST as u64 },
            Flaw::Byte(index, byte) => Misuse::WordByte { index: index as u64, byte },
        })
    }

    /// What a peer sent; the names are those of the fields in `docs/PROTOCOL.md`.
    pub(super) fn decode(
        bytes: &[u8],
        length_name: &'static str,
        byte_name: &'static str,
    ) -> Result<Self, Violation> {
        Self::check(bytes).map_err(|flaw| match flaw {
            Flaw::Length(length) => broken(length_name, u32::try_from(length).unwrap_or(u32::MAX)),
            Flaw::Byte(_, byte) => broken(byte_name, byte.into()),
        })
    }

    fn check(text: &[u8]) -> Result<Self, Flaw> {
        const { assert!(MOST <= u8::MAX as usize) };
        let mut bytes = [0; MOST];
        let length = u8::try_from(text.len()).map_err(|_| Flaw::Length(text.len()))?;
        match bytes.get_mut(..text.len()) {
            Some(place) if length > 0 => place.copy_from_slice(text),
            _ => return Err(Flaw::Length(text.len())),
        }
        match text.iter().position(|byte| !byte.is_ascii_graphic()) {
            Some(index) => Err(Flaw::Byte(index, text.get(index).copied().unwrap_or(0))),
            None => Ok(Self { length, bytes }),
        }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The characters as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl<const MOST: usize> fmt::Display for Word<MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const MOST: usize> fmt::Debug for Word<MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn one_to_most_printable_characters() {
        for text in ["a", "camera/0", "~!", &"x".repeat(NAME_MOST)] {
            assert_eq!(Name::new(text).unwrap().to_string(), text);
        }
        let length = |bytes| Err(Misuse::WordLength { bytes, limit: 64 });
        assert_eq!(Name::new(""), length(0));
        assert_eq!(Name::new(&"x".repeat(65)), length(65));
        assert_eq!(Name::new(&"x".repeat(256)), length(256));
        for byte in [0, b' ', b'\n', 0x1b, 0x7f] {
            let text = [b'a', byte];
            let text = core::str::from_utf8(&text).unwrap();
            assert_eq!(Name::new(text), Err(Misuse::WordByte { index: 1, byte }));
        }
        assert_eq!(Name::new("é"), Err(Misuse::WordByte { index: 0, byte: 0xc3 }));
    }
}
