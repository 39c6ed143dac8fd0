//! Wires that give descriptors to several parts of a message: each part has its own grant, and
//! the limit is the message's.

use core::time::Duration;
use fdpost::machine::Receiver;
use fdpost::profile::{Framing, Grant, Next, Outline, PacketCaps, Part, Role};
use fdpost::{Fault, Head, Limits, Misuse, Profile, Violation};

/// Two payload parts of four bytes, each with a grant, behind a header of one byte.
struct Two<const FRAMING: u8, const MOST: u8>;

impl<const FRAMING: u8, const MOST: u8> Profile for Two<FRAMING, MOST> {
    const NAME: &'static str = "two";
    const FRAMING: Framing = match FRAMING {
        0 => Framing::PartPerDatagram,
        1 => Framing::MessagesPerPacket(PacketCaps { messages: 4, bytes: 100, descriptors: 16 }),
        _ => Framing::Stream { read_ahead: false },
    };
    const FIRST: Part = Part { role: Role::Frame, bytes: 1, grant: Grant::None };
    type Declared = u8;

    fn next(declared: &mut u8, _: &[u8]) -> Result<Next, Violation> {
        *declared += 1;
        let grant = if MOST == 0 { Grant::Exactly(1) } else { Grant::AtMost(MOST) };
        Ok(if *declared < 3 { Next::Part(Part::payload(4, grant)) } else { Next::End })
    }

    fn head(_: &u8) -> Head {
        Head::default()
    }

    fn encode(_: &Head, _: u32, _: u8) -> Result<Outline, Misuse> {
        Err(Misuse::EmptyMessage { wire: Self::NAME })
    }
}

/// What comes of these reads: the message's payload and descriptors.
fn feed<P: Profile>(reads: &[(&[u8], &[u32])]) -> Result<(Vec<u8>, Vec<u32>), Fault> {
    let mut receiver = Receiver::<P, u32>::new(Limits::new().descriptors(2)).unwrap();
    for (bytes, descriptors) in reads {
        assert!(receiver.poll()?.is_none());
        receiver.windows()?.unwrap()[0].fill(bytes, descriptors.iter().copied());
        receiver.handle(Duration::ZERO, 1);
    }
    let mut message = receiver.poll()?.expect("all of it was there");
    assert!(receiver.poll()?.is_none());
    Ok((message.payload().to_vec(), message.take_all().collect()))
}

#[test] // P1
fn each_part_counts_its_own() {
    let expected = Ok((b"aaaabbbb".to_vec(), vec![10, 11]));
    let parts: &[(&[u8], &[u32])] = &[(b"h", &[]), (b"aaaa", &[10]), (b"bbbb", &[11])];
    assert_eq!(feed::<Two<0, 0>>(parts), expected);
    assert_eq!(feed::<Two<1, 0>>(&[(b"haaaabbbb", &[10, 11])]), expected);
    assert_eq!(feed::<Two<2, 0>>(parts), expected);
    let moved: &[(&[u8], &[u32])] = &[(b"h", &[]), (b"aaaa", &[10, 11]), (b"bbbb", &[])];
    let count = Violation::DescriptorCount { declared: 1, received: 2 };
    assert_eq!(feed::<Two<0, 0>>(moved), Err(count.into()));
}

#[test] // P4, P9
fn the_limit_is_the_messages() {
    let parts: &[(&[u8], &[u32])] = &[(b"h", &[]), (b"aaaa", &[10]), (b"bbbb", &[11])];
    assert!(feed::<Two<0, 2>>(parts).is_ok());
    // The first part took one of two: the second may bring one, not two.
    let parts: &[(&[u8], &[u32])] = &[(b"h", &[]), (b"aaaa", &[10]), (b"bbbb", &[11, 12])];
    let count = Violation::DescriptorCount { declared: 1, received: 2 };
    assert_eq!(feed::<Two<0, 2>>(parts), Err(count.into()));
    // In a packet the first part takes two from the pool and the second none: one is left.
    let unclaimed = Violation::DescriptorCount { declared: 2, received: 3 };
    assert_eq!(feed::<Two<1, 2>>(&[(b"haaaabbbb", &[10, 11, 12])]), Err(unclaimed.into()));
}
