//! What a hostile peer sends, by the rule that it breaks: raw sends of bytes and descriptors.

use std::fs::File;
use std::os::fd::OwnedFd;

use fdpost::Memfd;

use crate::content::PICTURE;
use crate::support::{self, Random, libcamera_header, packet_header, try_raw_send};

/// One send.
pub(crate) type Send = (Vec<u8>, Vec<OwnedFd>);

/// What it does behind its last send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Keeps its end open, and says nothing.
    Stay,
    Leave,
}

/// A way to break a rule.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// The name of the violation that it is.
    pub(crate) rule: &'static str,
    pub(crate) sends: fn(&mut Random) -> Vec<Send>,
    pub(crate) then: Then,
}

impl Attack {
    /// A socket that is full or shut down already takes no more.
    pub(crate) fn strike(&self, socket: &OwnedFd, random: &mut Random) {
        for (bytes, descriptors) in (self.sends)(random) {
            if try_raw_send(socket, &bytes, &descriptors).is_err() {
                return;
            }
        }
    }
}

const fn stays(name: &'static str, rule: &'static str, sends: fn(&mut Random) -> Vec<Send>) -> Attack {
    Attack { name, rule, sends, then: Then::Stay }
}

const fn leaves(name: &'static str, rule: &'static str, sends: fn(&mut Random) -> Vec<Send>) -> Attack {
    Attack { name, rule, sends, then: Then::Leave }
}

fn one(bytes: impl Into<Vec<u8>>, descriptors: usize) -> Vec<Send> {
    vec![(bytes.into(), files(descriptors))]
}

/// Descriptors of the kind that is accepted.
fn files(count: usize) -> Vec<OwnedFd> {
    (0..count).map(|_| Memfd::sealed("fdpost-soak", &[0; PICTURE]).expect("a memfd of a few bytes")).collect()
}

fn null() -> OwnedFd {
    File::open("/dev/null").expect("/dev/null").into()
}

/// A frame with one byte of its header set.
fn frame(length: u32, descriptors: u8, at: usize, byte: u8) -> Vec<u8> {
    let mut frame = packet_header(length, descriptors).to_vec();
    frame[at] = byte;
    frame.extend(vec![b'x'; length as usize]);
    frame
}

fn plain(length: u32, descriptors: u8) -> Vec<u8> {
    frame(length, descriptors, 0, 1)
}

pub(crate) const PACKET: &[Attack] = &[
    stays("header", "header-length", |random| one(plain(0, 0)[..1 + random.below(15)].to_vec(), 0)),
    stays("second-header", "header-length", |random| {
        one([&plain(9, 0)[..], &plain(0, 0)[..1 + random.below(15)]].concat(), 0)
    }),
    stays("version", "header-version", |random| one(frame(3, 0, 0, 2 + random.below(200) as u8), 0)),
    stays("flags", "header-reserved", |random| one(frame(3, 0, 1, 4 << random.below(6)), 0)),
    stays("reply-to-nothing", "header-reserved", |_| one(frame(3, 0, 1, 1), 0)),
    stays("reply-descriptors", "header-reserved", |random| {
        one(frame(3, 0, 3, 1 + random.below(253) as u8), 0)
    }),
    stays("overrun", "frame-overrun", |random| one(plain(100, 0)[..16 + random.below(100)].to_vec(), 0)),
    stays("65-frames", "too-many-frames", |_| one(plain(1, 0).repeat(65), 0)),
    stays("64-kib", "packet-too-large", |random| {
        one([plain(30_000, 0), plain(35_600 + random.below(5000) as u32, 0)].concat(), 0)
    }),
    stays("claims-17", "too-many-descriptors", |_| one(plain(1, 3).repeat(6), 18)),
    stays("claims-more", "too-many-descriptors", |random| {
        let count = 5 + random.below(100);
        one(plain(3, count as u8), count)
    }),
    stays("none-came", "descriptor-count", |random| one(plain(3, 1 + random.below(4) as u8), 0)),
    stays("more-came", "descriptor-count", |random| one(plain(3, 1), 2 + random.below(12))),
    stays("unclaimed", "descriptor-unexpected", |random| {
        one([plain(3, 0), plain(3, 0)].concat(), 1 + random.below(12))
    }),
    stays("253-unclaimed", "descriptor-unexpected", |_| one(plain(3, 0), 253)),
    stays("empty", "empty-packet", |random| one(&b""[..], 1 + random.below(3))),
    stays("4-gib", "payload-too-large", |_| one(packet_header(u32::MAX, 0), 0)),
    stays("64-kib-and-a-byte", "payload-too-large", |_| one(plain(65_537, 0), 0)),
    stays("a-device", "descriptor-kind", |_| vec![(plain(3, 1), vec![null()])]),
    stays("unsealed", "descriptor-kind", |_| vec![(plain(3, 1), support::files(1))]),
];

/// Header and payload datagrams.
fn datagrams(data: u32, fds: u8, payload: usize, descriptors: usize) -> Vec<Send> {
    vec![(libcamera_header(data, fds).to_vec(), Vec::new()), (vec![b'x'; payload], files(descriptors))]
}

pub(crate) const LIBCAMERA: &[Attack] = &[
    stays("short-header", "header-length", |random| one(vec![1; random.below(8)], 0)),
    stays("long-header", "header-length", |random| one(vec![1; 9 + random.below(500)], 0)),
    stays("empty", "empty-message", |_| one(libcamera_header(0, 0), 0)),
    stays("on-the-header", "descriptor-unexpected", |random| {
        one(libcamera_header(3, 1), 1 + random.below(12))
    }),
    stays("length", "payload-length", |random| datagrams(100, 0, random.below(100), 0)),
    stays("beyond", "payload-truncated", |random| datagrams(9, 0, 65_537 + random.below(40_000), 0)),
    stays("none-came", "descriptor-count", |random| datagrams(9, 1 + random.below(4) as u8, 9, 0)),
    stays("more-came", "descriptor-count", |random| datagrams(9, 1, 9, 2 + random.below(3))),
    stays("253-came", "descriptor-unexpected", |_| datagrams(9, 0, 9, 253)),
    stays("too-many", "too-many-descriptors", |random| datagrams(9, 5 + random.below(249) as u8, 9, 1)),
    stays("silence", "payload-missing", |_| one(libcamera_header(100, 0), 0)),
    leaves("a-death", "payload-missing", |_| one(libcamera_header(100, 0), 0)),
    stays("4-gib", "payload-too-large", |_| one(libcamera_header(u32::MAX, 0), 0)),
    stays("a-device", "descriptor-kind", |_| {
        let mut sends = datagrams(9, 1, 9, 0);
        sends[1].1.push(null());
        sends
    }),
    stays("unsealed", "descriptor-kind", |_| {
        let mut sends = datagrams(9, 2, 9, 1);
        sends[1].1.extend(support::files(1));
        sends
    }),
];

/// Header and payload; the marker is the caller's.
fn said(data: u32, fds: u8, payload: usize) -> Vec<u8> {
    [&[0; 4][..], &data.to_ne_bytes(), &[fds, 0, 0, 0], &vec![b'x'; payload]].concat()
}

const MARKER: u8 = 0x77;

fn marked(fds: u8, marker: u8, descriptors: Vec<OwnedFd>) -> Vec<Send> {
    vec![(said(9, fds, 9), Vec::new()), (vec![marker], descriptors)]
}

pub(crate) const STREAM: &[Attack] = &[
    leaves("cut-header", "payload-missing", |random| one(said(9, 0, 0)[..1 + random.below(11)].to_vec(), 0)),
    leaves("cut-payload", "payload-missing", |random| one(said(500, 0, random.below(500)), 0)),
    leaves("cut-marker", "payload-missing", |_| one(said(9, 2, 9), 0)),
    stays("silence", "payload-missing", |random| one(said(500, 0, random.below(500)), 0)),
    stays("marker", "marker", |random| marked(1, random.below(usize::from(MARKER)) as u8, files(1))),
    stays("none-came", "descriptor-count", |random| marked(1 + random.below(4) as u8, MARKER, Vec::new())),
    stays("more-came", "descriptor-count", |_| marked(2, MARKER, files(3))),
    stays("on-the-header", "descriptor-unexpected", |random| {
        let sent = said(9, 1, 9);
        one(sent[..1 + random.below(sent.len())].to_vec(), 1 + random.below(3))
    }),
    stays("253-on-a-payload", "descriptor-unexpected", |_| one(said(9, 0, 9), 253)),
    stays("4-gib", "payload-too-large", |_| one(said(u32::MAX, 0, 100), 0)),
    stays("too-many", "too-many-descriptors", |random| one(said(9, 5 + random.below(249) as u8, 9), 0)),
    stays("a-device", "descriptor-kind", |_| marked(1, MARKER, vec![null()])),
    stays("unsealed", "descriptor-kind", |_| marked(1, MARKER, support::files(1))),
];

/// What the server awaits first where a handshake is agreed on; see `talk`.
pub(crate) const HANDSHAKE: &[Attack] = &[
    stays("another-byte", "handshake", |random| {
        one([said(1, 0, 0), vec![random.below(31) as u8]].concat(), 0)
    }),
    stays("another-length", "handshake", |random| one(said(2 + random.below(50) as u32, 0, 52), 0)),
    stays("silence", "handshake", |_| Vec::new()),
    leaves("a-death", "handshake", |_| one(said(1, 0, 0), 0)),
];

/// `send_fd` over packets: a datagram or packet is one message.
pub(crate) const HAND_OVER_PACKETS: &[Attack] = &[
    stays("none-came", "descriptor-count", |_| one(&b"\0\0"[..], 0)),
    stays("two-came", "descriptor-count", |random| one(&b"\0\0"[..], 2 + random.below(200))),
    stays("with-an-error", "descriptor-unexpected", |random| one(&b"text\0\x05"[..], 1 + random.below(200))),
    stays("text", "payload-too-large", |random| {
        one([vec![b'x'; 1001 + random.below(5000)], vec![0, 9]].concat(), 0)
    }),
    stays("no-end", "status", |random| one(vec![b'x'; 1 + random.below(900)], 0)),
    stays("more-behind", "status", |random| {
        one([&b"text\0\x05"[..], &vec![1; 1 + random.below(9)]].concat(), 0)
    }),
    stays("a-device", "descriptor-kind", |_| vec![(b"\0\0".to_vec(), vec![null()])]),
];

/// `send_fd` over a stream.
pub(crate) const HAND_OVER_STREAM: &[Attack] = &[
    stays("none-came", "descriptor-count", |_| one(&b"\0\0"[..], 0)),
    stays("two-came", "descriptor-count", |random| one(&b"\0\0"[..], 2 + random.below(200))),
    stays("with-an-error", "descriptor-unexpected", |random| one(&b"text\0\x05"[..], 1 + random.below(200))),
    stays("text", "payload-too-large", |random| one(vec![b'x'; 1001 + random.below(5000)], 0)),
    leaves("cut", "payload-missing", |random| one(b"text\0"[..1 + random.below(5)].to_vec(), 0)),
    stays("a-device", "descriptor-kind", |_| vec![(b"\0\0".to_vec(), vec![null()])]),
];

/// A frame of a broker's: kind, flags, correlation, and the bytes.
fn request(kind: u8, flags: u8, correlation: u8, payload: &[u8]) -> Vec<u8> {
    let header = [1, flags, 0, 0, payload.len() as u8, 0, 0, 0, kind, 0, 0, 0, correlation, 0, 0, 0];
    [&header, payload].concat()
}

/// SOCK_SEQPACKET, no descriptor, the service's own user; the wire `packet`, and a name.
const ASKED: &[u8] = b"\x05\0\0\x06\0\0\0\0packetsoak";

pub(crate) const BROKER: &[Attack] = &[
    stays("kind", "broker-message", |random| one(request(4 + random.below(200) as u8, 0, 1, ASKED), 0)),
    stays("no-correlation", "broker-message", |_| one(request(3, 0, 0, ASKED), 0)),
    stays("a-reply", "broker-message", |_| one(request(3, 1, 7, ASKED), 0)),
    stays("cut", "payload-length", |random| one(request(3, 0, 1, &ASKED[..random.below(14)]), 0)),
    stays("too-long", "payload-too-large", |random| {
        one(request(3, 0, 1, &vec![b'x'; 105 + random.below(100)]), 0)
    }),
    stays("a-space", "broker-message", |_| one(request(3, 0, 1, &[ASKED, b" "].concat()), 0)),
    stays("socket", "broker-message", |_| one(request(3, 0, 1, &[b"\x03", &ASKED[1..]].concat()), 0)),
    stays("a-descriptor", "too-many-descriptors", |_| {
        let mut bytes = request(3, 0, 1, ASKED);
        bytes[2] = 1;
        one(bytes, 0)
    }),
    stays("version", "header-version", |_| one(frame(3, 0, 0, 9), 0)),
    stays("overrun", "frame-overrun", |_| one(plain(50, 0)[..40].to_vec(), 0)),
];
