//! Where two processes meet.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::socket::UnixAddr;

use super::error::Error;
use crate::error::Misuse;

/// `sun_path` has 108 bytes (linux/un.h). The last of a path's is the zero that ends it, the first
/// of an abstract name's the zero that marks it.
const LONGEST: usize = 107;

/// The name of a socket that listens (unix(7)): a file, whose directory and mode say who may
/// connect, or an abstract name, to which every process of the network namespace may connect.
///
/// A string or a path that is given where an `Address` is wanted means a file, whatever it begins
/// with; [`parse`](Self::parse) reads `@name` as an abstract one, as people write it.
///
/// ```
/// use fdpost::Address;
///
/// assert_eq!(Address::parse("@backup"), Address::abstract_name("backup"));
/// assert_eq!(Address::parse("/run/backup.sock"), Address::from("/run/backup.sock"));
/// assert_eq!(Address::abstract_name(b"a\0b").to_string(), "@a\\0b");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(Name);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    File(PathBuf),
    Abstract(Vec<u8>),
}

impl Address {
    /// An abstract name of 1 to 107 bytes, of any value. It goes with its last socket; for each type
    /// of socket it is another one; and anybody may take it before its owner does: use a
    /// [`PeerRule`](crate::PeerRule) on both sides.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Self {
        Self(Name::Abstract(name.as_ref().to_vec()))
    }

    /// `@name` for an abstract name, anything else for a path (`./@name` for a file so called).
    pub fn parse(text: impl AsRef<OsStr>) -> Self {
        let text = text.as_ref();
        match text.as_bytes().strip_prefix(b"@") {
            Some(name) => Self::abstract_name(name),
            None => Self::from(text),
        }
    }

    /// The path, of a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Name::File(path) => Some(path),
            Name::Abstract(_) => None,
        }
    }

    /// What the kernel is told. Refused is what it would cut, or take for something else.
    pub(super) fn kernel_form(&self) -> Result<UnixAddr, Error> {
        let bytes = self.bytes();
        if bytes.is_empty() {
            return Err(Misuse::AddressEmpty.into());
        }
        if bytes.len() > LONGEST {
            return Err(Misuse::AddressTooLong { bytes: bytes.len() as u64, limit: LONGEST as u64 }.into());
        }
        match &self.0 {
            Name::Abstract(name) => UnixAddr::new_abstract(name),
            Name::File(path) => {
                if let Some(index) = bytes.iter().position(|byte| *byte == 0) {
                    return Err(Misuse::ZeroInPath { index: index as u64 }.into());
                }
                UnixAddr::new(path)
            }
        }
        .map_err(|errno| Error::io("bind", errno))
    }

    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Name::File(path) => path.as_os_str().as_bytes(),
            Name::Abstract(name) => name,
        }
    }
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for Address {
    fn from(path: &T) -> Self {
        Self(Name::File(PathBuf::from(path)))
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self(Name::File(path))
    }
}

impl From<String> for Address {
    fn from(path: String) -> Self {
        Self(Name::File(path.into()))
    }
}

impl From<OsString> for Address {
    fn from(path: OsString) -> Self {
        Self(Name::File(path.into()))
    }
}

impl From<&Self> for Address {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

impl fmt::Display for Address {
    /// On one line, whatever the name holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Cow<'_, str> = String::from_utf8_lossy(self.bytes());
        if self.path().is_none() {
            f.write_str("@")?;
        }
        for letter in text.chars() {
            match letter {
                '\0' => f.write_str("\\0")?,
                letter if letter.is_control() => write!(f, "{}", letter.escape_default())?,
                letter => write!(f, "{letter}")?,
            }
        }
        Ok(())
    }
}
