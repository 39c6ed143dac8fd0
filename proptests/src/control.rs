//! What must hold of the decoder of control messages.

use arbitrary::{Arbitrary, Unstructured};
use fdpost::error::Malformed;
use fdpost::wire::control::{
    Credentials, Item, Layout, SCM_CREDENTIALS, SCM_PIDFD, SCM_RIGHTS, SOL_SOCKET, encode_credentials,
    encode_rights, items,
};

use crate::reach::note;

/// The three shapes of `cmsghdr`.
pub const LAYOUTS: [Layout; 3] = [Layout::GLIBC_64, Layout::MUSL_64, Layout::BITS_32];

/// Any bytes, first as control data and then as a [`Plan`]: what the fuzz target `control` and
/// the corpus call.
pub fn check_bytes(bytes: &[u8]) {
    for layout in LAYOUTS {
        check_raw(bytes, layout);
    }
    if let Ok(plan) = Unstructured::new(bytes).arbitrary::<Plan>() {
        check_plan(&plan);
    }
}

/// Whatever the bytes are: the walk ends, and no descriptor is made up or named twice.
pub fn check_raw(bytes: &[u8], layout: Layout) -> Vec<Item> {
    let mut walk = items(bytes, layout);
    let found: Vec<Item> = walk.by_ref().take(bytes.len() + 2).collect();
    assert!(found.len() <= bytes.len(), "more items than bytes");
    assert_eq!((walk.next(), walk.next()), (None, None), "the end is final");
    for item in &found {
        match item {
            Item::Malformed(_) => note("control-malformed"),
            Item::Unknown { .. } => note("control-unknown"),
            _ => {}
        }
    }
    let mut from = 0;
    for descriptor in descriptors(&found) {
        assert!(descriptor >= 0, "{descriptor} is no descriptor");
        let wanted = descriptor.to_ne_bytes();
        let at = bytes[from..].windows(4).position(|window| window == wanted);
        from += at.expect("every descriptor lies in the input, behind the one before") + 4;
    }
    found
}

/// The descriptors among items.
pub fn descriptors(found: &[Item]) -> Vec<i32> {
    let descriptor = |item: &Item| match item {
        Item::Descriptor(descriptor) => Some(*descriptor),
        // An errno where the kernel could not make one.
        Item::Pidfd(descriptor) => Some(*descriptor).filter(|descriptor| *descriptor >= 0),
        _ => None,
    };
    found.iter().filter_map(descriptor).collect()
}

/// Control messages, and what becomes of their bytes.
#[derive(Clone, Debug, Arbitrary)]
pub struct Plan {
    pub layout: u8,
    pub messages: Vec<Control>,
    /// The kernel may leave out the padding behind the last.
    pub unpadded: bool,
    pub damage: Option<Damage>,
}

/// One control message.
#[derive(Clone, Debug, Arbitrary)]
pub enum Control {
    Rights(Vec<i32>),
    Credentials(i32, u32, u32),
    Pidfd(i32),
    /// Of another level or type, with so many bytes.
    Unknown(i32, i32, u8),
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Damage {
    /// The data end after so many bytes.
    Cut(u16),
    /// The `cmsg_len` of a message is this.
    Length(u8, u32),
    /// One bit of the header of a message.
    Header(u8, u8),
}

/// Encode, damage, decode: without damage it is identity, and with it no descriptor named before
/// is missed (P2).
pub fn check_plan(plan: &Plan) {
    let layout = LAYOUTS[usize::from(plan.layout) % 3];
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    // Where each message begins, and how many items come before.
    let mut begins = Vec::new();
    // Where each descriptor ends.
    let mut ends = Vec::new();
    let mut unpadded = 0;
    for control in plan.messages.iter().take(20) {
        begins.push((bytes.len(), expected.len()));
        let (encoded, data, found) = encode(control, layout);
        let first = bytes.len() + layout.length(0);
        for (index, item) in found.iter().enumerate() {
            if matches!(item, Item::Descriptor(_) | Item::Pidfd(0..)) {
                ends.push(first + 4 * index + 4);
            }
        }
        unpadded = bytes.len() + layout.length(data);
        bytes.extend(encoded);
        expected.extend(found);
    }
    if plan.unpadded {
        bytes.truncate(unpadded);
    }
    let named = descriptors(&expected);
    match plan.damage {
        None => assert_eq!(check_raw(&bytes, layout), expected),
        Some(Damage::Cut(at)) => {
            bytes.truncate(usize::from(at) % (bytes.len() + 1));
            let whole = ends.iter().filter(|end| **end <= bytes.len()).count();
            assert_eq!(descriptors(&check_raw(&bytes, layout)), named[..whole]);
        }
        Some(Damage::Length(message, length)) => {
            let Some(&(at, before)) = begins.get(usize::from(message) % begins.len().max(1)) else { return };
            bytes.splice(at..at + field(layout, 0).len(), field(layout, length as usize));
            let found = check_raw(&bytes, layout);
            assert_eq!(found[..before], expected[..before]);
            let (length, header) = (u64::from(length), layout.length(0) as u64);
            let remaining = (bytes.len() - at) as u64;
            if length < header {
                let below = Malformed::LengthBelowHeader { length, header };
                assert_eq!(found[before..], [Item::Malformed(below)]);
            } else if length > remaining {
                let beyond = Malformed::LengthBeyondBuffer { length, remaining };
                assert!(found[before..].contains(&Item::Malformed(beyond)), "{found:?}");
            }
        }
        Some(Damage::Header(message, bit)) => {
            let Some(&(at, before)) = begins.get(usize::from(message) % begins.len().max(1)) else { return };
            bytes[at + usize::from(bit / 8) % layout.length(0)] ^= 1 << (bit % 8);
            assert_eq!(check_raw(&bytes, layout)[..before], expected[..before]);
        }
    }
}

/// One control message as bytes with its padding, the length of its data, and what is to be found.
fn encode(control: &Control, layout: Layout) -> (Vec<u8>, usize, Vec<Item>) {
    match control {
        Control::Rights(numbers) => {
            let numbers: Vec<i32> = numbers.iter().copied().take(253).collect();
            let data = 4 * numbers.len();
            let mut out = vec![0xee; layout.space(data)];
            let written = encode_rights(&mut out, layout, numbers.iter().copied());
            assert_eq!(written, Some(out.len()));
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
            assert_eq!(out, by_hand(layout, SOL_SOCKET, SCM_RIGHTS, &bytes));
            (out, data, numbers.into_iter().map(named).collect())
        }
        Control::Credentials(pid, uid, gid) => {
            let credentials = Credentials { pid: *pid, uid: *uid, gid: *gid };
            let mut out = vec![0xee; layout.space(12)];
            assert_eq!(encode_credentials(&mut out, layout, credentials), Some(out.len()));
            let data = [pid.to_ne_bytes(), uid.to_ne_bytes(), gid.to_ne_bytes()].concat();
            assert_eq!(out, by_hand(layout, SOL_SOCKET, SCM_CREDENTIALS, &data));
            (out, 12, vec![Item::Credentials(credentials)])
        }
        Control::Pidfd(number) => {
            let found = vec![Item::Pidfd(*number)];
            (by_hand(layout, SOL_SOCKET, SCM_PIDFD, &number.to_ne_bytes()), 4, found)
        }
        Control::Unknown(level, kind, data) => {
            let known = [SCM_RIGHTS, SCM_CREDENTIALS, SCM_PIDFD].contains(kind);
            let level = if *level == SOL_SOCKET && known { 0 } else { *level };
            let data = vec![3; usize::from(*data)];
            (by_hand(layout, level, *kind, &data), data.len(), vec![Item::Unknown { level, kind: *kind }])
        }
    }
}

/// A descriptor's place: a negative number is none, and its neighbours stay what they are.
fn named(value: i32) -> Item {
    if value < 0 { Item::Malformed(Malformed::NegativeDescriptor { value }) } else { Item::Descriptor(value) }
}

/// `cmsg_len`. musl's `socklen_t` and its padding read as eight bytes.
fn field(layout: Layout, length: usize) -> Vec<u8> {
    match layout {
        Layout::BITS_32 => (length as u32).to_ne_bytes().to_vec(),
        _ => (length as u64).to_ne_bytes().to_vec(),
    }
}

/// A control message as cmsg(3) lays it out.
fn by_hand(layout: Layout, level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let header = layout.length(0);
    let length = header + data.len();
    let mut out = field(layout, length);
    out.extend(level.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(data);
    out.resize(length.next_multiple_of(if layout == Layout::BITS_32 { 4 } else { 8 }), 0);
    out
}
