//! What a hostile or unlucky peer does with descriptors (the cases of the house's list are named
//! by their numbers). Numbers other than declared stand in `libcamera.rs`, `packet.rs` and
//! `common_rules.rs`.

mod support;

use std::io::{IoSlice, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use fdpost::profile::Profile;
use fdpost::{Channel, Error, Libcamera, Limits, Message, Packet, Violation};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{close, dup2_stderr, dup2_stdin, dup2_stdout};
use support::{
    Ledger, assert_child, assert_refused, child, child_value, files, identity, libcamera_header as header,
    packet_header, raw_send, soon, try_raw_send, unguarded_pair,
};

const LIMITS: Limits = Limits::new().payload(100).descriptors(4);

fn frame(payload: &[u8], descriptors: u8) -> Vec<u8> {
    [&packet_header(payload.len() as u32, descriptors)[..], payload].concat()
}

fn both<P: Profile>(limits: Limits) -> [Channel<P>; 2] {
    let (ours, theirs) = unguarded_pair::<P>(limits);
    [ours, Channel::from_fd(theirs, limits).unwrap()]
}

fn message(descriptors: Vec<OwnedFd>) -> Message {
    descriptors.into_iter().fold(Message::new(b"with"), Message::with)
}

#[test] // P2, P3; cases 22, 26
fn descriptors_split_over_two_sends_or_on_the_wrong_message() {
    let count = |declared, received| Violation::DescriptorCount { declared, received };
    // Split: the first half is not enough, the second is never looked at.
    let sends = [(&header(3, 2)[..], 0), (&b"abc"[..], 1), (b"", 1)];
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    for (bytes, descriptors) in sends {
        raw_send(&peer, bytes, &files(descriptors));
    }
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(count(2, 1)));
    drop((channel, peer));
    ledger.close();
    // One message promises and the next one brings: each is judged for itself.
    let whole = frame(b"abc", 0);
    let expected = Violation::DescriptorUnexpected { received: 1 };
    assert_refused::<Packet>(LIMITS, &[(&frame(b"abc", 0), 1)], 1, expected);
    assert_refused::<Packet>(LIMITS, &[(&whole, 0), (&frame(b"abc", 1), 0)], 1, count(1, 0));
    let sends = [(&header(3, 0)[..], 0), (&b"abc"[..], 1)];
    assert_refused::<Libcamera>(LIMITS, &sends, 0, expected);
    let sends = [(&header(3, 0)[..], 0), (&b"abc"[..], 0), (&header(3, 1), 0), (b"abc", 0)];
    assert_refused::<Libcamera>(LIMITS, &sends, 1, count(1, 0));
}

/// One send with its descriptors in two SCM_RIGHTS messages.
fn send_in_two(socket: &OwnedFd, bytes: &[u8], [one, two]: [&[RawFd]; 2]) {
    let control = [ControlMessage::ScmRights(one), ControlMessage::ScmRights(two)];
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::empty(), None).unwrap();
}

#[test] // P1, P2; case 27
fn two_arrays_of_descriptors_in_one_message() {
    // The kernel joins them: to the receiver they are one.
    let ledger = Ledger::open();
    let sent = files(3);
    let numbers: Vec<RawFd> = sent.iter().map(AsRawFd::as_raw_fd).collect();
    let names: Vec<_> = sent.iter().map(identity).collect();
    let came = |mut message: Message| -> Vec<_> {
        message.take_all().map(|descriptor| identity(&descriptor)).collect()
    };
    let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    raw_send(&peer, &header(3, 3), &[]);
    send_in_two(&peer, b"abc", [&numbers[..1], &numbers[1..]]);
    assert_eq!(came(channel.receive_by(soon()).unwrap()), names);
    raw_send(&peer, &header(3, 1), &[]);
    send_in_two(&peer, b"abc", [&numbers[..1], &numbers[1..]]);
    let expected = Violation::DescriptorCount { declared: 1, received: 3 };
    assert_eq!(channel.receive_by(soon()).unwrap_err(), Error::Violation(expected));
    drop((channel, peer));
    let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
    send_in_two(&peer, &frame(b"abc", 3), [&numbers[..2], &numbers[2..]]);
    assert_eq!(came(channel.receive_by(soon()).unwrap()), names);
    drop((channel, peer, sent));
    ledger.close();
}

fn assert_close_on_exec(descriptor: &OwnedFd) {
    let flags = FdFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC), "{descriptor:?} survives an exec");
}

#[test] // P1, P2; cases 28, 29, 36
fn order_and_identity_and_one_descriptor_twice() {
    fn identities<P: Profile>() {
        let [mut ours, mut theirs] = both::<P>(Limits::new().descriptors(253));
        for count in [1, 2, 3, 4, 100, 253] {
            let mut sent = files(count);
            if count > 2 {
                // The same file at both ends, as two descriptors.
                sent[count - 1] = sent[0].try_clone().unwrap();
            }
            let names: Vec<_> = sent.iter().map(identity).collect();
            ours.send(message(sent)).unwrap();
            // Ours are closed by now; the kernel keeps what is in flight.
            let mut message = theirs.receive_by(soon()).unwrap();
            let came: Vec<OwnedFd> = message.take_all().collect();
            assert_eq!(came.iter().map(identity).collect::<Vec<_>>(), names);
            came.iter().for_each(assert_close_on_exec);
            let mut numbers: Vec<_> = came.iter().map(AsRawFd::as_raw_fd).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "each has one owner");
        }
    }
    let ledger = Ledger::open();
    identities::<Libcamera>();
    identities::<Packet>();
    ledger.close();
}

#[test] // P2; case 30
fn the_channels_own_sockets_and_cycles_of_them() {
    fn cycle<P: Profile>() {
        let [mut ours, mut theirs] = both::<P>(LIMITS);
        // Each end through the channel itself, received: just two more descriptors.
        let ends = [&ours, &theirs].map(|end| end.as_fd().try_clone_to_owned().unwrap());
        ours.send(message(Vec::from(ends))).unwrap();
        assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), 2);
        // In flight within itself and never read: the kernel's garbage, collected some time
        // after both ends are closed. Nothing of it is ours.
        let ends = [&ours, &theirs].map(|end| end.as_fd().try_clone_to_owned().unwrap());
        ours.send(message(Vec::from(ends))).unwrap();
    }
    let ledger = Ledger::open();
    cycle::<Libcamera>();
    cycle::<Packet>();
    ledger.close();
}

#[test] // P2, P9; case 31
fn a_receiver_that_accepts_none() {
    let none = LIMITS.descriptors(0);
    let expected = Violation::TooManyDescriptors { declared: 1, limit: 0 };
    assert_refused::<Libcamera>(none, &[(&header(3, 1), 0)], 0, expected);
    assert_refused::<Packet>(none, &[(&frame(b"abc", 1), 1)], 0, expected);
    let expected = Violation::DescriptorUnexpected { received: 1 };
    for came in [1, 2, 253] {
        assert_refused::<Libcamera>(none, &[(&header(3, 0), came)], 0, expected);
        let sends = [(&header(3, 0)[..], 0), (&b"abc"[..], came)];
        assert_refused::<Libcamera>(none, &sends, 0, expected);
        assert_refused::<Packet>(none, &[(&frame(b"abc", 0), came)], 1, expected);
    }
}

#[test] // P2; case 32
fn descriptors_left_unclaimed_are_closed() {
    fn unclaimed<P: Profile>(ledger: &Ledger) {
        let [mut ours, mut theirs] = both::<P>(LIMITS);
        let before = ledger.more();
        let mut kept = Message::default();
        for _ in 0..3 {
            ours.send(message(files(4))).unwrap();
            // What the message held before is closed for what it holds now.
            theirs.receive_into(&mut kept, soon()).unwrap();
            assert_eq!(ledger.more(), before + 4);
        }
        let taken = kept.take(2).unwrap();
        drop(kept);
        assert_eq!(ledger.more(), before + 1);
        drop(taken);
        ours.send(message(files(4))).unwrap();
        assert_eq!(theirs.receive_by(soon()).unwrap().into_payload(), b"with");
        assert_eq!(ledger.more(), before);
    }
    let ledger = Ledger::open();
    unclaimed::<Libcamera>(&ledger);
    unclaimed::<Packet>(&ledger);
    ledger.close();
}

#[test] // P1, P2, P3; cases 24, 33
fn around_the_most_that_the_kernel_sends() {
    let most = LIMITS.descriptors(253);
    let ledger = Ledger::open();
    let (mut channel, peer) = Channel::<Libcamera>::pair(most).unwrap();
    raw_send(&peer, &header(0, 253), &[]);
    let sent = files(257);
    for count in 254..=257 {
        assert_eq!(try_raw_send(&peer, b"", &sent[..count]), Err(Errno::EINVAL), "{count}");
    }
    raw_send(&peer, b"", &sent[..253]);
    assert_eq!(channel.receive_by(soon()).unwrap().descriptor_count(), 253);
    drop((channel, peer));
    let (mut channel, peer) = Channel::<Packet>::pair(most).unwrap();
    raw_send(&peer, &frame(b"", 253), &sent[..253]);
    assert_eq!(channel.receive_by(soon()).unwrap().descriptor_count(), 253);
    drop((channel, peer, sent));
    ledger.close();
    // Odd limits leave padding where one more would fit: it is not taken for one.
    for limit in [1, 2, 3, 5, 252] {
        let limits = LIMITS.descriptors(limit);
        let (declared, received) = (u32::from(limit), u32::from(limit) + 1);
        let expected = Violation::DescriptorCount { declared, received };
        for came in [usize::from(limit) + 1, usize::from(limit) + 2, 253] {
            if came <= 253 {
                let sends = [(&header(3, limit)[..], 0), (&b"abc"[..], came)];
                assert_refused::<Libcamera>(limits, &sends, 0, expected);
            }
        }
    }
}

#[test] // P2; case 40
fn received_while_the_standard_descriptors_are_closed() {
    const NAME: &str = "received_while_the_standard_descriptors_are_closed";
    let ledger = Ledger::open();
    match child_value().as_deref() {
        None => {
            for wire in ["libcamera", "packet"] {
                assert_child(&child(NAME, wire));
            }
        }
        Some("libcamera") => without_standard_descriptors::<Libcamera>(),
        Some(_) => without_standard_descriptors::<Packet>(),
    }
    ledger.close();
}

fn without_standard_descriptors<P: Profile>() {
    let [mut ours, mut theirs] = both::<P>(LIMITS);
    ours.send(message(files(4))).unwrap();
    ours.send(message(files(4))).unwrap();
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    let standard = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let saved = standard.map(|descriptor| descriptor.try_clone_to_owned().unwrap());
    (0..=2).for_each(|number| close(number).unwrap());
    // Nobody can be told anything now: look first, judge later.
    let mut kept = theirs.receive_by(soon());
    let came: Vec<OwnedFd> = kept.iter_mut().flat_map(Message::take_all).collect();
    let dropped = theirs.receive_by(soon()).map(drop);
    let left_free = standard.map(|descriptor| fcntl(descriptor, FcntlArg::F_GETFD));
    let reopened = dup2_stdin(&saved[0]).and(dup2_stdout(&saved[1])).and(dup2_stderr(&saved[2]));
    assert_eq!((reopened, dropped), (Ok(()), Ok(())));
    assert_eq!(left_free, [Err(Errno::EBADF); 3]);
    assert_eq!(came.len(), 4);
    assert!(came.iter().all(|descriptor| descriptor.as_raw_fd() >= 3), "{came:?}");
    came.iter().for_each(assert_close_on_exec);
}
