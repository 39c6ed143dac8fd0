use super::*;
use alloc::vec;
use alloc::vec::Vec;

const LAYOUTS: [Layout; 3] = [Layout::GLIBC_64, Layout::MUSL_64, Layout::BITS_32];

/// One raw control message, written by hand and not by the encoder.
fn raw(layout: Layout, length: u64, level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if layout == Layout::BITS_32 {
        bytes.extend_from_slice(&(length as u32).to_ne_bytes());
    } else {
        bytes.extend_from_slice(&length.to_ne_bytes());
    }
    bytes.extend_from_slice(&level.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn rights(layout: Layout, descriptors: &[i32]) -> Vec<u8> {
    let mut out = vec![0xaa; layout.space(4 * descriptors.len())];
    let written = encode_rights(&mut out, layout, descriptors.iter().copied());
    assert_eq!(written, Some(out.len()));
    out
}

fn walk(bytes: &[u8], layout: Layout) -> Vec<Item> {
    items(bytes, layout).collect()
}

#[test]
fn sizes_are_those_of_cmsg_3() {
    assert_eq!((Layout::GLIBC_64.length(4), Layout::GLIBC_64.space(4)), (20, 24));
    assert_eq!((Layout::BITS_32.length(4), Layout::BITS_32.space(4)), (16, 16));
    assert_eq!((Layout::BITS_32.length(5), Layout::BITS_32.space(5)), (17, 20));
    assert_eq!(Layout::MUSL_64.space(0), 16);
}

#[test]
fn rights_survive_in_every_layout() {
    for layout in LAYOUTS {
        for count in [0_i32, 1, 2, 3, 253] {
            let descriptors: Vec<i32> = (0..count).collect();
            let expected: Vec<Item> = descriptors.iter().copied().map(Item::Descriptor).collect();
            let bytes = rights(layout, &descriptors);
            assert_eq!(walk(&bytes, layout), expected);
            let length = layout.length(4 * descriptors.len());
            assert_eq!(walk(&bytes[..length], layout), expected, "padding left out");
        }
    }
}

#[test]
fn several_messages_are_walked_in_order() {
    for layout in LAYOUTS {
        let credentials = Credentials { pid: 7, uid: 8, gid: 9 };
        let mut bytes = vec![0; layout.space(12)];
        assert_eq!(encode_credentials(&mut bytes, layout, credentials), Some(layout.space(12)));
        bytes.extend(rights(layout, &[5]));
        bytes.extend(rights(layout, &[6, 7]));
        let mut pidfd = raw(layout, layout.length(4) as u64, SOL_SOCKET, SCM_PIDFD, &9_i32.to_ne_bytes());
        pidfd.resize(layout.space(4), 0);
        bytes.extend(pidfd);
        bytes.extend(raw(layout, layout.length(0) as u64, 41, 3, &[]));
        let expected = [
            Item::Credentials(credentials),
            Item::Descriptor(5),
            Item::Descriptor(6),
            Item::Descriptor(7),
            Item::Pidfd(9),
            Item::Unknown { level: 41, kind: 3 },
        ];
        assert_eq!(walk(&bytes, layout), expected);
    }
}

#[test] // P2, case 50
fn malformed_data_is_named_and_no_descriptor_before_it_is_missed() {
    for layout in LAYOUTS {
        let header = layout.length(0) as u64;
        let before = rights(layout, &[3, 4]);
        let named = [Item::Descriptor(3), Item::Descriptor(4)];
        let zero = raw(layout, 0, SOL_SOCKET, SCM_RIGHTS, &[0; 8]);
        let below = raw(layout, header - 1, SOL_SOCKET, SCM_RIGHTS, &[0; 8]);
        let remaining = header + 8;
        let cases: [(&[u8], Malformed); 3] = [
            (&zero, Malformed::LengthBelowHeader { length: 0, header }),
            (&below, Malformed::LengthBelowHeader { length: header - 1, header }),
            (&[1, 2, 3], Malformed::HeaderCut { remaining: 3, header }),
        ];
        for (tail, malformed) in cases {
            let mut bytes = before.clone();
            bytes.extend_from_slice(tail);
            let mut expected = named.to_vec();
            expected.push(Item::Malformed(malformed));
            assert_eq!(walk(&bytes, layout), expected);
        }
        let mut bytes = before;
        let length = remaining + 1;
        let mut data = 5_i32.to_ne_bytes().to_vec();
        data.extend_from_slice(&6_i32.to_ne_bytes());
        bytes.extend(raw(layout, length, SOL_SOCKET, SCM_RIGHTS, &data));
        let mut expected = named.to_vec();
        expected.push(Item::Malformed(Malformed::LengthBeyondBuffer { length, remaining }));
        expected.extend([Item::Descriptor(5), Item::Descriptor(6)]);
        assert_eq!(walk(&bytes, layout), expected);
    }
}

#[test] // P2, case 50
fn a_broken_array_yields_its_whole_elements_first() {
    for layout in LAYOUTS {
        let mut data = 5_i32.to_ne_bytes().to_vec();
        data.extend_from_slice(&[1, 2, 3]);
        let bytes = raw(layout, layout.length(7) as u64, SOL_SOCKET, SCM_RIGHTS, &data);
        let malformed = Malformed::ArrayLength { length: 3, element: 4 };
        assert_eq!(walk(&bytes, layout), [Item::Descriptor(5), Item::Malformed(malformed)]);
        let bytes = raw(layout, layout.length(11) as u64, SOL_SOCKET, SCM_CREDENTIALS, &[0; 11]);
        let malformed = Malformed::ArrayLength { length: 11, element: 12 };
        assert_eq!(walk(&bytes, layout), [Item::Malformed(malformed)]);
        let bytes = raw(layout, layout.length(13) as u64, SOL_SOCKET, SCM_CREDENTIALS, &[0; 13]);
        let malformed = Malformed::ArrayLength { length: 13, element: 12 };
        assert_eq!(walk(&bytes, layout), [Item::Malformed(malformed)]);
    }
}

#[test] // P2
fn a_negative_descriptor_is_no_descriptor_and_its_neighbours_are() {
    for layout in LAYOUTS {
        let negative = Item::Malformed(Malformed::NegativeDescriptor { value: -24 });
        let bytes = rights(layout, &[3, -24, 0]);
        assert_eq!(walk(&bytes, layout), [Item::Descriptor(3), negative, Item::Descriptor(0)]);
    }
}

#[test]
fn a_number_of_unknown_level_is_not_taken_for_rights() {
    for layout in LAYOUTS {
        let bytes = raw(layout, layout.length(4) as u64, 0, SCM_RIGHTS, &3_i32.to_ne_bytes());
        assert_eq!(walk(&bytes, layout), [Item::Unknown { level: 0, kind: SCM_RIGHTS }]);
    }
}

#[test]
fn too_little_room_is_refused_when_encoding() {
    for layout in LAYOUTS {
        let mut out = vec![0; layout.space(8) - 1];
        assert_eq!(encode_rights(&mut out, layout, [1, 2].into_iter()), None);
        let credentials = Credentials { pid: 1, uid: 2, gid: 3 };
        let mut out = vec![0; layout.space(12) - 1];
        assert_eq!(encode_credentials(&mut out, layout, credentials), None);
    }
}
