//! Control messages (cmsg(3), unix(7)), decoded from the raw bytes that recvmsg(2) left behind
//! and encoded for sendmsg(2).
//!
//! Why from raw bytes: the kernel succeeds with MSG_CTRUNC and has installed a prefix; who asks
//! a library that then answers with an error leaks that prefix. Counting goes by `cmsg_len`,
//! never by the room offered (CVE-2014-3635).

use crate::error::Malformed;
use crate::wire::cursor::Cursor;

/// SOL_SOCKET where this crate runs (asm-generic/socket.h).
pub const SOL_SOCKET: i32 = 1;
/// An array of descriptors (linux/socket.h).
pub const SCM_RIGHTS: i32 = 1;
/// `struct ucred`: pid, uid, gid.
pub const SCM_CREDENTIALS: i32 = 2;
/// One pidfd, installed like a descriptor but outside SCM_RIGHTS.
pub const SCM_PIDFD: i32 = 4;

/// Bytes of a descriptor in an SCM_RIGHTS array.
const DESCRIPTOR: usize = 4;
/// Bytes of `struct ucred`.
const CREDENTIALS: usize = 12;

/// How `struct cmsghdr` lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `cmsg_len` is read as eight bytes; otherwise as four.
    wide: bool,
    /// Four bytes of padding follow a four-byte `cmsg_len`. On little-endian machines only: on
    /// big-endian ones musl puts them in front, which reads as eight bytes.
    padded: bool,
    /// Bytes of the header; its data begins there.
    header: usize,
    /// Each control message begins at a multiple of this.
    align: usize,
}

impl Layout {
    /// 64-bit glibc: `size_t`, `int`, `int`. The kernel's own on 64-bit machines.
    pub const GLIBC_64: Self = Self { wide: true, padded: false, header: 16, align: 8 };
    /// 64-bit musl: `socklen_t`, padding, `int`, `int`.
    pub const MUSL_64: Self = Self {
        wide: cfg!(target_endian = "big"),
        padded: cfg!(target_endian = "little"),
        header: 16,
        align: 8,
    };
    /// 32-bit, glibc and musl alike.
    pub const BITS_32: Self = Self { wide: false, padded: false, header: 12, align: 4 };
    /// The layout of the target that this was compiled for.
    pub const NATIVE: Self = if cfg!(target_pointer_width = "32") {
        Self::BITS_32
    } else if cfg!(target_env = "musl") {
        Self::MUSL_64
    } else {
        Self::GLIBC_64
    };

    /// CMSG_LEN: header and `data` bytes, without the padding behind them.
    pub const fn length(&self, data: usize) -> usize {
        self.header.saturating_add(data)
    }

    /// CMSG_SPACE: header, `data` bytes and the padding to the next control message.
    pub const fn space(&self, data: usize) -> usize {
        self.aligned(self.length(data))
    }

    const fn aligned(&self, length: usize) -> usize {
        let mask = self.align.saturating_sub(1);
        length.saturating_add(mask) & !mask
    }

    fn header(&self, cursor: &mut Cursor<'_>) -> Option<(u64, i32, i32)> {
        let length = if self.wide { cursor.u64_ne()? } else { u64::from(cursor.u32_ne()?) };
        if self.padded {
            cursor.take(4)?;
        }
        Some((length, cursor.i32_ne()?, cursor.i32_ne()?))
    }
}

/// `struct ucred` of SCM_CREDENTIALS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, in the receiver's pid namespace.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What control data holds, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// A descriptor of SCM_RIGHTS, at least 0.
    Descriptor(i32),
    /// The descriptor of SCM_PIDFD; a negative errno where the kernel could not make one, which
    /// is nobody's fault (include/net/scm.h, scm_pidfd_recv).
    Pidfd(i32),
    /// The sender's credentials.
    Credentials(Credentials),
    /// A control message of another type, which may have carried descriptors.
    Unknown {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
    },
    /// What is wrong here. The walk goes on where that is possible, so that no descriptor is
    /// missed.
    Malformed(Malformed),
}

/// Walks control data; `bytes` end where the kernel's `msg_controllen` says.
pub const fn items(bytes: &[u8], layout: Layout) -> Items<'_> {
    Items { messages: Cursor::new(bytes), layout, data: Data::None }
}

/// The iterator of [`items`].
#[derive(Clone, Debug)]
pub struct Items<'a> {
    messages: Cursor<'a>,
    layout: Layout,
    data: Data<'a>,
}

/// The control message being walked.
#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    None,
    Descriptors { rest: Cursor<'a>, pidfd: bool },
}

impl Iterator for Items<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Data::Descriptors { rest, pidfd } = &mut self.data {
                if let Some(item) = descriptor(rest, *pidfd) {
                    return Some(item);
                }
                self.data = Data::None;
            }
            if self.messages.rest().is_empty() {
                return None;
            }
            if let Some(item) = self.message() {
                return Some(item);
            }
        }
    }
}

/// The next of an array of descriptors.
fn descriptor(rest: &mut Cursor<'_>, pidfd: bool) -> Option<Item> {
    match rest.i32_ne() {
        Some(value) if pidfd => Some(Item::Pidfd(value)),
        // A kernel with SO_RIGHTS_NOTRUNC may put a negative errno in a descriptor's place.
        Some(value) if value < 0 => Some(Item::Malformed(Malformed::NegativeDescriptor { value })),
        Some(value) => Some(Item::Descriptor(value)),
        None if rest.rest().is_empty() => None,
        None => {
            let length = rest.rest().len() as u64;
            *rest = Cursor::new(&[]);
            Some(Item::Malformed(Malformed::ArrayLength { length, element: DESCRIPTOR as u64 }))
        }
    }
}

impl Items<'_> {
    /// Opens the next control message; `None` if its data are now to be walked.
    fn message(&mut self) -> Option<Item> {
        let whole = self.messages.rest();
        let remaining = whole.len() as u64;
        let header = self.layout.header as u64;
        let mut cursor = Cursor::new(whole);
        let Some((length, level, kind)) = self.layout.header(&mut cursor) else {
            return Some(self.stop(Malformed::HeaderCut { remaining, header }));
        };
        if length < header {
            return Some(self.stop(Malformed::LengthBelowHeader { length, header }));
        }
        // Where the length runs past the buffer, what the buffer does hold is walked all the same:
        // a descriptor named there may be installed and must be closed.
        let data_length = usize::try_from(length.min(remaining).saturating_sub(header)).unwrap_or(0);
        let data = Cursor::new(cursor.take(data_length).unwrap_or_default());
        let opened = match (level, kind) {
            (SOL_SOCKET, SCM_RIGHTS) => {
                self.data = Data::Descriptors { rest: data, pidfd: false };
                None
            }
            (SOL_SOCKET, SCM_PIDFD) => {
                self.data = Data::Descriptors { rest: data, pidfd: true };
                None
            }
            (SOL_SOCKET, SCM_CREDENTIALS) => Some(credentials(data)),
            _ => Some(Item::Unknown { level, kind }),
        };
        if length > remaining {
            return Some(self.stop(Malformed::LengthBeyondBuffer { length, remaining }));
        }
        let step = self.layout.aligned(usize::try_from(length).unwrap_or(usize::MAX));
        // The kernel leaves out the padding behind the last control message where room ends.
        self.messages.take(step.min(whole.len()));
        opened
    }

    /// Ends the walk: where the next control message begins is unknown.
    fn stop(&mut self, malformed: Malformed) -> Item {
        self.messages = Cursor::new(&[]);
        Item::Malformed(malformed)
    }
}

fn credentials(mut data: Cursor<'_>) -> Item {
    let length = data.rest().len() as u64;
    let decoded = (|| {
        let pid = data.i32_ne()?;
        let uid = data.u32_ne()?;
        let gid = data.u32_ne()?;
        data.finish(Credentials { pid, uid, gid })
    })();
    match decoded {
        Some(credentials) => Item::Credentials(credentials),
        None => Item::Malformed(Malformed::ArrayLength { length, element: CREDENTIALS as u64 }),
    }
}

/// Writes one SCM_RIGHTS control message into `out`, which must hold
/// [`Layout::space`]`(4 * n)` bytes; returns how many it wrote, padding included, all set.
/// `None` if `out` is too small.
pub fn encode_rights(
    out: &mut [u8],
    layout: Layout,
    descriptors: impl ExactSizeIterator<Item = i32>,
) -> Option<usize> {
    let data = descriptors.len().checked_mul(DESCRIPTOR)?;
    let (space, body) = open(out, layout, SCM_RIGHTS, data)?;
    for (place, descriptor) in body.chunks_exact_mut(DESCRIPTOR).zip(descriptors) {
        place.copy_from_slice(&descriptor.to_ne_bytes());
    }
    Some(space)
}

/// Writes one SCM_CREDENTIALS control message, as [`encode_rights`] does.
pub fn encode_credentials(out: &mut [u8], layout: Layout, credentials: Credentials) -> Option<usize> {
    let (space, body) = open(out, layout, SCM_CREDENTIALS, CREDENTIALS)?;
    let fields =
        [credentials.pid.to_ne_bytes(), credentials.uid.to_ne_bytes(), credentials.gid.to_ne_bytes()];
    for (place, field) in body.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field);
    }
    Some(space)
}

/// Writes the header; returns the whole space, zeroed, and the place for `data` bytes.
fn open(out: &mut [u8], layout: Layout, kind: i32, data: usize) -> Option<(usize, &mut [u8])> {
    let space = layout.space(data);
    let out = out.get_mut(..space)?;
    out.fill(0);
    let length = layout.length(data);
    let (header, body) = out.split_at_mut_checked(layout.header)?;
    if layout.wide {
        *header.first_chunk_mut()? = u64::try_from(length).ok()?.to_ne_bytes();
    } else {
        *header.first_chunk_mut()? = u32::try_from(length).ok()?.to_ne_bytes();
    }
    let names = header.last_chunk_mut::<8>()?;
    let (level, name) = names.split_first_chunk_mut::<4>()?;
    *level = SOL_SOCKET.to_ne_bytes();
    *name.first_chunk_mut()? = kind.to_ne_bytes();
    Some((space, body.get_mut(..data)?))
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
