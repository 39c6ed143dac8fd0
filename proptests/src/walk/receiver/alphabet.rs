//! What a peer and the kernel can put into one read: representative bytes, every limit and one more.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{Datum, Flags};
use crate::log::Wire;
use crate::model::Half;

/// Payload bytes that the small walks allow.
pub const PAYLOAD: u32 = 2;
/// And descriptors.
pub const DESCRIPTORS: u8 = 2;
/// Longer than a page: read in place.
pub const LARGE: u32 = 4200;
/// Longer than the window of a packet of several frames.
pub const LARGE_PACKET: u32 = 70_000;

/// The reads of a wire.
pub struct Alphabet {
    kind: Kind,
    /// Descriptors that come with a read.
    counts: Vec<usize>,
    flags: &'static [Flags],
    large: bool,
}

enum Kind {
    /// Every datagram or packet, in every state.
    Whole(Vec<Rc<[u8]>>),
    /// Several at once, of few kinds.
    Batches(Vec<Vec<Datum>>),
    /// On streams, from where the message stands: each next byte of `headers`, and each cut of what
    /// may follow whole.
    Bytes { headers: Vec<Vec<u8>>, wire: Wire },
}

const fn flags(cut: bool, malformed: bool, unknown: bool, end: bool) -> Flags {
    Flags { cut, malformed, unknown, end }
}

const PLAIN: Flags = flags(false, false, false, false);
const CUT: Flags = flags(true, false, false, false);
const END: Flags = flags(false, false, false, true);
static FLAGS: [Flags; 6] = [
    PLAIN,
    CUT,
    flags(false, true, false, false),
    flags(false, false, true, false),
    flags(true, true, true, false),
    END,
];

impl Alphabet {
    /// Where no payload is as long as a page, windows have one size.
    pub const fn is_large(&self) -> bool {
        self.large
    }

    /// How many kinds of datagrams, packets, batches or headers there are.
    pub fn size(&self) -> usize {
        match &self.kind {
            Kind::Whole(data) => data.len(),
            Kind::Batches(reads) => reads.len(),
            Kind::Bytes { headers, .. } => headers.len(),
        }
    }

    /// `libcamera`, a datagram at a time.
    pub fn libcamera() -> Self {
        let mut data: BTreeSet<Vec<u8>> = BTreeSet::new();
        for size in [0, 1, PAYLOAD, PAYLOAD + 1, 4_194_305, u32::MAX] {
            for count in [0, 1, DESCRIPTORS, DESCRIPTORS + 1, 255] {
                data.insert(libcamera_header(size, count, 0));
            }
        }
        data.insert(libcamera_header(1, 1, 0xff));
        data.extend([0, 1, 2, 3, 7, 9, 64].map(payload));
        Self::whole(data, &[0, 1, 2, 3, 4])
    }

    /// The same with payloads of a page and more, which are read in place.
    pub fn libcamera_large() -> Self {
        let mut data: BTreeSet<Vec<u8>> = BTreeSet::new();
        for size in [1, 4096, 4097, LARGE, LARGE + 1] {
            data.extend([0, 1].map(|count| libcamera_header(size, count, 0)));
            data.insert(payload(size as usize));
        }
        Self { large: true, flags: &FLAGS[..2], ..Self::whole(data, &[0, 1, 2]) }
    }

    /// Up to three datagrams in one recvmmsg(2).
    pub fn libcamera_batches(large: bool) -> Self {
        let size = if large { 4097 } else { 1 };
        let header = |size, count| Datum::of(&libcamera_header(size, count, 0), 0);
        let mut data = vec![
            header(size, 0),
            header(size, 1),
            header(0, 1),
            Datum::of(&payload(size as usize), 0),
            Datum::of(&payload(size as usize), 1),
            Datum::of(&payload(size as usize + 1), 1),
            Datum::of(&[], 1),
            Datum { flags: CUT, ..Datum::of(&payload(size as usize), 1) },
        ];
        if !large {
            data.extend([header(0, 0), header(u32::MAX, 0), Datum { flags: END, ..Datum::of(&[], 0) }]);
        }
        Self { large, ..Self::batches(&data) }
    }

    /// `packet`: one frame with everything that a header can say, or several.
    pub fn packet() -> Self {
        let mut data: BTreeSet<Vec<u8>> = BTreeSet::new();
        let own = PAYLOAD as usize;
        for (size, bytes) in
            [(0, 0), (0, 1), (1, 0), (1, 1), (PAYLOAD, own), (PAYLOAD + 1, own + 1), (u32::MAX, 0)]
        {
            for count in [0, 1, DESCRIPTORS, DESCRIPTORS + 1, 255] {
                for [version, flags, replies, correlation] in HEADS {
                    let mut frame = vec![version, flags, count, replies];
                    frame.extend([size, 7, u32::from(correlation)].map(u32::to_le_bytes).concat());
                    frame.extend(payload(bytes));
                    data.insert(frame);
                }
            }
        }
        let frames =
            [frame(0, 0), frame(1, 0), frame(0, 1), frame(1, 2), frame(3, 0), frame(0, 3), vec![0; 16]];
        for tail in [vec![], vec![1], vec![1; 15]] {
            for first in &frames {
                data.insert([&first[..], &tail].concat());
                for second in &frames {
                    data.insert([&first[..], second, &tail].concat());
                    data.extend(frames.iter().map(|third| [&first[..], second, third, &tail].concat()));
                }
            }
        }
        data.extend([63, 64, 65].map(|count| frame(0, 0).repeat(count)));
        data.extend([62, 63, 64].map(|count| [frame(1, 0).repeat(count), frame(0, 1)].concat()));
        // Sixteen descriptors are the cap of several frames: eight of two, and one more.
        data.extend([8, 9].map(|count| frame(0, 2).repeat(count)));
        data.insert([frame(0, 2).repeat(8), frame(0, 1)].concat());
        data.insert(vec![]);
        Self::whole(data, &[0, 1, 2, 3, 16, 17, 18])
    }

    /// The same with payloads that fill half a window, which are taken over with their buffer, and
    /// packets at the cap of 64 KiB.
    pub fn packet_large() -> Self {
        let sizes = [1, 32_769, 65_504, 65_505, LARGE_PACKET, LARGE_PACKET + 1];
        let mut data: BTreeSet<Vec<u8>> = sizes.iter().map(|size| frame(*size, 0)).collect();
        data.extend(sizes.iter().map(|size| frame(*size, 1)));
        data.extend(sizes.iter().map(|size| [frame(*size, 0), frame(0, 0)].concat()));
        data.extend(sizes.iter().map(|size| [frame(0, 0), frame(*size, 1)].concat()));
        data.extend([frame(0, 16), frame(0, 17), frame(0, 18), [frame(0, 16), frame(0, 1)].concat()]);
        data.insert([frame(0, 17), frame(0, 0)].concat());
        Self { large: true, flags: &FLAGS[..2], ..Self::whole(data, &[0, 1, 16, 17, 18]) }
    }

    /// Up to three packets in one recvmmsg(2).
    pub fn packet_batches() -> Self {
        let two = [frame(1, 0), frame(0, 1)].concat();
        let data = [
            Datum::of(&frame(0, 0), 0),
            Datum::of(&frame(1, 1), 1),
            Datum::of(&two, 1),
            Datum::of(&two, 2),
            Datum::of(&frame(1, 0)[..16], 0),
            Datum::of(&frame(3, 0), 0),
            Datum::of(&[], 0),
            Datum::of(&[], 1),
            Datum { flags: CUT, ..Datum::of(&frame(1, 1), 1) },
            Datum { flags: CUT, ..Datum::of(&frame(1, 1), 0) },
        ];
        Self::batches(&data)
    }

    /// `stream` and `vhost-user`, byte by byte and in pieces.
    pub fn stream(wire: Wire) -> Self {
        let counts: &[u8] =
            if wire == Wire::Stream { &[0, 1, DESCRIPTORS, DESCRIPTORS + 1, 255] } else { &[0] };
        let sizes = [0, 1, PAYLOAD, PAYLOAD + 1, 1 << 16, u32::MAX].into_iter();
        let header = |size| counts.iter().map(move |count| stream_header(wire, size, *count, 0));
        let mut headers: Vec<_> = sizes.flat_map(header).collect();
        headers.extend((wire == Wire::Stream).then(|| stream_header(wire, 1, 1, 0xff)));
        Self { kind: Kind::Bytes { headers, wire }, counts: vec![0, 1, 2, 3, 4], flags: &FLAGS, large: false }
    }

    /// With payloads that are read in place, and others too long to be read ahead.
    pub fn stream_large(wire: Wire) -> Self {
        let headers = [(1, 0), (1, 1), (LARGE, 0), (LARGE, 1), (LARGE + 1, 0)];
        let headers = headers.map(|(size, count)| stream_header(wire, size, count, 0)).to_vec();
        Self { kind: Kind::Bytes { headers, wire }, counts: vec![0, 1], flags: &FLAGS[..2], large: true }
    }

    fn whole(data: BTreeSet<Vec<u8>>, counts: &[usize]) -> Self {
        let data = data.into_iter().map(Rc::from).collect();
        Self { kind: Kind::Whole(data), counts: counts.to_vec(), flags: &FLAGS, large: false }
    }

    fn batches(data: &[Datum]) -> Self {
        let mut reads: Vec<Vec<Datum>> = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..3 {
            let to = reads.len();
            for at in from..to {
                let longer = |datum: &Datum| [&reads[at][..], std::slice::from_ref(datum)].concat();
                reads.extend(data.iter().map(longer).collect::<Vec<_>>());
            }
            from = to;
        }
        reads.remove(0);
        Self { kind: Kind::Batches(reads), counts: Vec::new(), flags: &[], large: false }
    }

    /// What a read may bring where `half` of a message came.
    pub fn reads(&self, half: Option<&Half>) -> Vec<Vec<Datum>> {
        let mut reads = Vec::new();
        let mut add = |bytes: &Rc<[u8]>, flags: &[Flags]| {
            for count in &self.counts {
                let datum =
                    |flags: &Flags| Datum { bytes: bytes.clone(), descriptors: *count, flags: *flags };
                reads.extend(flags.iter().map(|flags| vec![datum(flags)]));
            }
        };
        match &self.kind {
            Kind::Batches(reads) => return reads.clone(),
            Kind::Whole(data) => data.iter().for_each(|bytes| add(bytes, self.flags)),
            Kind::Bytes { headers, wire } => {
                let (bytes, pieces) = next(*wire, headers, half, self.large);
                // No bytes: the end, or descriptors that hang in the air.
                add(&Rc::from([]), &FLAGS);
                bytes.into_iter().for_each(|byte| add(&Rc::from([byte]), self.flags));
                pieces.into_iter().for_each(|piece| add(&piece.into(), &FLAGS[..2]));
            }
        }
        reads
    }
}

impl Datum {
    fn of(bytes: &[u8], descriptors: usize) -> Self {
        Self { bytes: bytes.into(), descriptors, flags: PLAIN }
    }
}

/// Version, flags, descriptors of a reply, correlation: each rule of the header kept and broken.
const HEADS: [[u8; 4]; 14] = [
    [1, 0, 0, 0],
    [1, 0, 0, 1],
    [1, 0, 1, 1],
    [1, 0, 253, 1],
    [1, 0, 254, 1],
    [1, 0, 1, 0],
    [1, 1, 0, 1],
    [1, 1, 0, 0],
    [1, 1, 1, 1],
    [1, 2, 0, 1],
    [1, 3, 0, 1],
    [1, 4, 0, 1],
    [0, 0, 0, 0],
    [2, 0, 0, 0],
];

/// Each byte is another, so that one left out, doubled or moved shows.
fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251 + 1) as u8).collect()
}

fn libcamera_header(size: u32, count: u8, padding: u8) -> Vec<u8> {
    let mut header = size.to_ne_bytes().to_vec();
    header.extend([count, padding, padding, padding]);
    header
}

fn frame(size: u32, count: u8) -> Vec<u8> {
    let mut frame = vec![1, 0, count, 0];
    frame.extend([size, 7, 0].map(u32::to_le_bytes).concat());
    frame.extend(payload(size as usize));
    frame
}

fn stream_header(wire: Wire, size: u32, count: u8, padding: u8) -> Vec<u8> {
    if wire == Wire::VhostUser {
        return [7, u32::from(count), size].map(u32::to_ne_bytes).concat();
    }
    let mut header = [7, size].map(u32::to_ne_bytes).concat();
    header.extend([count, padding, padding, padding]);
    header
}

/// What may follow on a stream: single bytes, and longer pieces.
fn next(
    wire: Wire,
    headers: &[Vec<u8>],
    half: Option<&Half>,
    large: bool,
) -> (BTreeSet<u8>, BTreeSet<Vec<u8>>) {
    let parts = half.map_or(&[][..], |half| &half.parts);
    let part = parts.last().map_or(&[][..], |part| part);
    let ways = ways(wire, headers, half);
    let mut bytes: BTreeSet<u8> = ways.iter().filter_map(|way| way.first().copied()).collect();
    if large {
        bytes.clear(); // thousands of states that differ in a payload's length alone
    }
    // Longer pieces from where a read may well have stopped; single bytes from anywhere.
    let stops = parts.len() > 1 || [0, 11].contains(&part.len());
    let mut pieces = BTreeSet::new();
    for way in ways.into_iter().filter(|_| stops) {
        let then = [&way[..], headers.first().map_or(&[][..], |header| header)].concat();
        let ends = match (large, parts.len()) {
            (false, _) => (2..=then.len()).collect(),
            (true, 0 | 1) => vec![1, 11, 12, 13, 4096, way.len() - 1, way.len(), way.len() + 1],
            (true, _) => vec![way.len().saturating_sub(1), way.len(), way.len() + 1],
        };
        let piece = |end| then.get(..end).filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec);
        pieces.extend(ends.into_iter().filter_map(piece));
    }
    (bytes, pieces)
}

/// The bytes that end the message begun, or make one.
fn ways(wire: Wire, headers: &[Vec<u8>], half: Option<&Half>) -> Vec<Vec<u8>> {
    let parts = half.map_or(&[][..], |half| &half.parts);
    let part = parts.last().map_or(&[][..], |part| part);
    if let (Some(half), 2..) = (half, parts.len()) {
        let left = if parts.len() == 2 { half.size - part.len() } else { 0 };
        let markers: &[&[u8]] =
            if wire == Wire::Stream && half.count > 0 { &[&[0x77], &[0x78]] } else { &[&[]] };
        return markers.iter().map(|marker| [&payload(left), *marker].concat()).collect();
    }
    let way = |header: &Vec<u8>| {
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (size, count) = if wire == Wire::Stream { (word(4), header[8]) } else { (word(8), 0) };
        let size = if size > 2 * LARGE { 2 } else { size as usize };
        let marker: &[u8] = if count > 0 { &[0x77] } else { &[] };
        [&header[part.len()..], &payload(size), marker].concat()
    };
    headers.iter().filter(|header| header.starts_with(part)).map(way).collect()
}
