//! Messages that are refused before their first byte leaves, and come back whole (P6).

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Wire, ends, message, returned, set_option, soon, twin};
use fdpost::{Error, Head, Libcamera, Limits, Message, Misuse, Packet, Profile, Sent};
use nix::libc;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use support::{Ledger, files, identity};

/// Bytes of the wire's header in the datagram that carries the payload.
fn around<P: Profile>() -> usize {
    if P::NAME == "packet" { 16 } else { 0 }
}

/// Nothing of the refused messages left: the next one is the first that the peer sees.
#[track_caller]
fn nothing_left<P: Profile>(ours: &mut fdpost::Channel<P>, theirs: &mut fdpost::Channel<P>) {
    assert!(!ours.wants_write());
    assert_eq!(ours.stats().sent, Default::default());
    ours.send(Message::new(b"first")).unwrap();
    assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"first");
}

fn the_largest_payload<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().payload(u32::MAX).descriptors(1));
    let socket = twin(&ours);
    for double in [false, true] {
        if double {
            // Another holder of the socket raises it: the kernel doubles what is asked for.
            let before = getsockopt(&socket, sockopt::SndBuf).unwrap();
            setsockopt(&socket, sockopt::SndBuf, &before).unwrap();
            assert_eq!(getsockopt(&socket, sockopt::SndBuf).unwrap(), 2 * before);
        }
        let limit = getsockopt(&socket, sockopt::SndBuf).unwrap() - 32 - around::<P>();
        let file = files(1);
        let name = identity(&file[0]);
        let (error, mut back) = returned(ours.send_by(message(&vec![3; limit + 1], file), soon()));
        let too_large = Misuse::PayloadTooLarge { bytes: limit as u64 + 1, limit: limit as u64 };
        assert_eq!(error, too_large.into(), "{}", P::NAME);
        assert_eq!((back.payload().len(), identity(back.descriptor(0).unwrap())), (limit + 1, name));
        if !double {
            nothing_left(&mut ours, &mut theirs);
        }
        back.payload_mut().truncate(limit);
        assert_eq!(ours.try_send(back).unwrap(), Sent::Complete, "{}: {limit} bytes", P::NAME);
        let came = theirs.receive_by(soon()).unwrap();
        assert!(came.payload().len() == limit && came.payload().iter().all(|byte| *byte == 3));
        assert_eq!(came.descriptor_count(), 1);
    }
    drop((socket, ours, theirs));
    ledger.close();
}

#[test] // P6
fn libcamera_what_the_socket_never_takes() {
    the_largest_payload::<Libcamera>();
}

#[test] // P6
fn packet_what_the_socket_never_takes() {
    the_largest_payload::<Packet>();
}

/// SO_SNDBUF belongs to the socket, so every holder of a duplicate may lower it.
fn a_lowered_buffer<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().payload(u32::MAX));
    let socket = twin(&ours);
    setsockopt(&socket, sockopt::SndBuf, &8192).unwrap();
    let limit = getsockopt(&socket, sockopt::SndBuf).unwrap() - 32 - around::<P>();
    let (error, back) = returned(ours.try_send(Message::new(vec![3; limit + 1])));
    let too_large = Misuse::PayloadTooLarge { bytes: limit as u64 + 1, limit: limit as u64 };
    assert_eq!(error, too_large.into(), "{}", P::NAME);
    assert_eq!(back.payload().len(), limit + 1);
    nothing_left(&mut ours, &mut theirs);
    drop((socket, ours, theirs));
    ledger.close();
}

#[test] // P6
fn libcamera_a_send_buffer_that_was_lowered() {
    a_lowered_buffer::<Libcamera>();
}

#[test] // P6
fn packet_a_send_buffer_that_was_lowered() {
    a_lowered_buffer::<Packet>();
}

/// A datagram's memory is one piece, so a larger SO_SNDBUF does not help: what the kernel would refuse
/// for ever, and call a want of memory, is the caller's mistake. What is below it arrives.
fn a_raised_buffer<P: Wire>() {
    const MOST: usize = 4 * 1024 * 1024;
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().payload(u32::MAX));
    let socket = twin(&ours);
    if let Err(errno) = set_option(&socket, libc::SO_SNDBUFFORCE, 8 * MOST as i32) {
        println!("skipped: SO_SNDBUFFORCE: {errno}");
    } else {
        let limit = MOST - around::<P>();
        let (error, _) = returned(ours.try_send(Message::new(vec![3; limit + 1])));
        let too_large = Misuse::PayloadTooLarge { bytes: limit as u64 + 1, limit: limit as u64 };
        assert_eq!(error, too_large.into(), "{}", P::NAME);
        nothing_left(&mut ours, &mut theirs);
        assert_eq!(ours.try_send(Message::new(vec![3; 3 * MOST / 4])).unwrap(), Sent::Complete);
        assert_eq!(theirs.receive_by(soon()).unwrap().payload().len(), 3 * MOST / 4);
    }
    drop((socket, ours, theirs));
    ledger.close();
}

#[test] // P6
fn libcamera_a_send_buffer_that_was_raised() {
    a_raised_buffer::<Libcamera>();
}

#[test] // P6
fn packet_a_send_buffer_that_was_raised() {
    a_raised_buffer::<Packet>();
}

fn the_most_descriptors<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().descriptors(253));
    for count in [254, 255, 256, 257] {
        let (error, back) = returned(ours.try_send(message(b"many", files(count))));
        let too_many = Misuse::TooManyDescriptors { descriptors: count as u64, limit: 253 };
        assert_eq!((error, back.descriptor_count()), (too_many.into(), count), "{}", P::NAME);
    }
    nothing_left(&mut ours, &mut theirs);
    let given = files(253);
    let names: Vec<_> = given.iter().map(identity).collect();
    assert_eq!(ours.try_send(message(b"most", given)).unwrap(), Sent::Complete);
    let mut came = theirs.receive_by(soon()).unwrap();
    assert_eq!(came.take_all().map(|file| identity(&file)).collect::<Vec<_>>(), names);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1, P6; case 33
fn libcamera_253_descriptors_pass_and_no_more() {
    the_most_descriptors::<Libcamera>();
}

#[test] // P1, P6; case 33
fn packet_253_descriptors_pass_and_no_more() {
    the_most_descriptors::<Packet>();
}

fn a_taken_descriptor<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new());
    let mut holed = message(b"holed", files(3));
    drop(holed.take(1));
    let (error, mut back) = returned(ours.try_send(holed));
    assert_eq!(error, Misuse::DescriptorTaken { index: 1 }.into());
    assert!(back.descriptor(0).is_some() && back.descriptor(1).is_none() && back.descriptor(2).is_some());
    back.clear();
    nothing_left(&mut ours, &mut theirs);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6
fn a_message_with_a_hole() {
    a_taken_descriptor::<Libcamera>();
    a_taken_descriptor::<Packet>();
}

#[test] // P6; case 16
fn what_libcamera_cannot_say() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(Limits::new());
    let (error, _) = returned(ours.try_send(Message::default()));
    assert_eq!(error, Misuse::EmptyMessage { wire: "libcamera" }.into());
    let plain = Head::default();
    for (field, value, head) in [
        ("kind", 7, Head { kind: 7, ..plain }),
        ("correlation", 8, Head { correlation: 8, ..plain }),
        ("flags", 1, Head { flags: 1, ..plain }),
        ("reply_descriptors", 2, Head { reply_descriptors: 2, ..plain }),
    ] {
        let (error, back) = returned(ours.try_send(message(b"headed", files(1)).with_head(head)));
        assert_eq!(error, Misuse::HeadUnsupported { wire: "libcamera", field, value }.into());
        assert_eq!((*back.head(), back.descriptor_count()), (head, 1));
    }
    nothing_left(&mut ours, &mut theirs);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6
fn what_packet_cannot_say() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new());
    let plain = Head::default();
    let (error, _) = returned(ours.try_send(Message::new(b"x").with_head(Head { flags: 4, ..plain })));
    assert_eq!(error, Error::Misuse(Misuse::HeadUnsupported { wire: "packet", field: "flags", value: 4 }));
    nothing_left(&mut ours, &mut theirs);
    ours.send(Message::default()).unwrap();
    assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"", "a kind alone");
    drop((ours, theirs));
    ledger.close();
}
