//! The kernel's own control messages beside a peer's descriptors, and sockets that several may
//! send to (the cases of the house's list are named by their numbers). Options switched on behind
//! a channel's back stand in `common_rules.rs` (CO-4 to CO-6).

mod support;

use std::os::fd::{AsRawFd, OwnedFd};

use fdpost::machine::SLACK;
use fdpost::profile::Profile;
use fdpost::{Channel, Error, Libcamera, Limits, Message, Misuse, Packet, Violation};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, sendto, setsockopt, socket, socketpair,
    sockopt,
};
use support::{
    Ledger, assert_child, assert_final, child, child_value, descriptors, files, identity, libcamera_header,
    packet_header, raw_send, soon,
};

const LIMITS: Limits = Limits::new().payload(100).descriptors(4);

/// Which of its own control messages the kernel adds.
#[derive(Clone, Copy, Debug)]
struct Options {
    credentials: bool,
    pidfd: bool,
}

const OPTIONS: [Options; 3] = [
    Options { credentials: true, pidfd: false },
    Options { credentials: false, pidfd: true },
    Options { credentials: true, pidfd: true },
];

/// SO_PASSPIDFD (Linux 6.5). `false`: this kernel has none.
#[allow(unsafe_code, reason = "nix has no name for the option")]
fn pass_pidfd(socket: &OwnedFd) -> bool {
    const SO_PASSPIDFD: i32 = 76;
    let on = 1_i32;
    let length = size_of_val(&on) as libc::socklen_t;
    let pointer = (&raw const on).cast();
    // SAFETY: the pointer is to `length` bytes, alive during the call.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_PASSPIDFD, pointer, length) == 0 }
}

/// A channel over a socket with these options on, and the raw end; `None` where the kernel lacks
/// one.
fn pair<P: Profile>(kind: SockType, options: Options) -> Option<(Channel<P>, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    if options.credentials {
        setsockopt(&ours, sockopt::PassCred, &true).unwrap();
    }
    if options.pidfd && !pass_pidfd(&ours) {
        println!("skipped: SO_PASSPIDFD needs Linux 6.5");
        return None;
    }
    Some((Channel::from_fd(ours, LIMITS).unwrap(), theirs))
}

/// One message on either wire.
fn post(peer: &OwnedFd, wire: &str, declared: u8, sent: &[OwnedFd]) {
    if wire == "libcamera" {
        raw_send(peer, &libcamera_header(3, declared), &[]);
        raw_send(peer, b"abc", sent);
    } else {
        raw_send(peer, &[&packet_header(3, declared)[..], b"abc"].concat(), sent);
    }
}

/// Every number of descriptors that the limits allow arrives beside the kernel's own messages, and
/// too many are refused as ever.
fn beside<P: Profile>(kind: SockType, room: u32) {
    for options in OPTIONS {
        let Some((mut channel, peer)) = pair::<P>(kind, options) else { continue };
        for count in (0..=4).chain((0..=4).rev()) {
            let sent = files(count);
            let names: Vec<_> = sent.iter().map(identity).collect();
            post(&peer, P::NAME, count as u8, &sent);
            let mut message = channel.receive_by(soon()).unwrap();
            let came: Vec<_> = message.take_all().map(|descriptor| identity(&descriptor)).collect();
            assert_eq!(came, names, "{options:?}");
        }
        let open = descriptors().len();
        for _ in 0..10 {
            post(&peer, P::NAME, 0, &[]);
            drop(channel.receive_by(soon()).unwrap());
        }
        assert_eq!(descriptors().len(), open, "a pidfd was left open: {options:?}");
        for came in [5, 6, 11, 17, 18, 23, 253] {
            let Some((mut channel, peer)) = pair::<P>(kind, options) else { continue };
            post(&peer, P::NAME, 4, &files(came));
            if P::NAME == "packet" {
                drop(channel.receive_by(soon()).unwrap());
            }
            // "At least": descriptors may fill the room for a pidfd too, and are counted then.
            let answer = channel.receive_by(soon()).unwrap_err();
            let Error::Violation(violation @ Violation::DescriptorCount { declared: 4, received }) = answer
            else {
                panic!("{answer:?}")
            };
            let least = room.min(came as u32);
            assert!((least..=least + SLACK as u32).contains(&received), "{received} of {came}, {options:?}");
            assert_final(&mut channel, &peer, violation);
        }
    }
}

#[test] // P1, P2; cases 48, 49
fn credentials_and_pidfds_beside_descriptors() {
    let ledger = Ledger::open();
    beside::<Libcamera>(SockType::Datagram, 5);
    beside::<Packet>(SockType::SeqPacket, 17);
    ledger.close();
}

#[test] // P2; case 49
fn a_pidfd_that_does_not_fit_is_nobodys_fault() {
    const NAME: &str = "a_pidfd_that_does_not_fit_is_nobodys_fault";
    let ledger = Ledger::open();
    match child_value().as_deref() {
        None => {
            for wire in ["libcamera", "packet"] {
                assert_child(&child(NAME, wire));
            }
        }
        Some("libcamera") => no_room_for_a_pidfd::<Libcamera>(SockType::Datagram),
        Some(_) => no_room_for_a_pidfd::<Packet>(SockType::SeqPacket),
    }
    ledger.close();
}

/// Where no descriptor is free the kernel puts a negative errno in the pidfd's place. No wire has
/// asked for it, so the message is whole all the same.
fn no_room_for_a_pidfd<P: Profile>(kind: SockType) {
    let options = Options { credentials: true, pidfd: true };
    let Some((mut channel, peer)) = pair::<P>(kind, options) else { return };
    post(&peer, P::NAME, 0, &[]);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // The lowest number that is free, and so none above it either.
    let free = (0..).find(|number| !descriptors().contains_key(number)).unwrap();
    let fillers: Vec<OwnedFd> = std::iter::repeat_with(|| files(1).remove(0)).take(300).collect();
    setrlimit(Resource::RLIMIT_NOFILE, free as libc::rlim_t, hard).unwrap();
    let message = channel.receive_by(soon()).map(Message::into_payload);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    drop(fillers);
    assert_eq!(message, Ok(b"abc".to_vec()));
}

#[test] // P2, P3; case 53
fn a_packet_of_no_bytes_with_a_descriptor() {
    for limit in [0, 4] {
        let limits = LIMITS.descriptors(limit);
        let expected = Violation::EmptyPacket { descriptors: 1 };
        support::assert_refused::<Packet>(limits, &[(b"", 1)], 0, expected);
        // In front of a header it is a header of no bytes, with a descriptor where none belongs.
        let expected = Violation::DescriptorUnexpected { received: 1 };
        support::assert_refused::<Libcamera>(limits, &[(b"", 1)], 0, expected);
    }
    // Without one, a datagram of no bytes is no end.
    let expected = Violation::HeaderLength { expected: 8, received: 0 };
    support::assert_refused::<Libcamera>(LIMITS, &[(b"", 0)], 0, expected);
}

#[test] // P1; case 58
fn an_unconnected_datagram_socket_has_more_than_one_peer() {
    let ledger = Ledger::open();
    let datagram = || socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let name = format!("fdpost-{}-unconnected", std::process::id());
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    let bound = datagram();
    bind(bound.as_raw_fd(), &address).unwrap();
    // What would come of it: two senders' headers before either's payload.
    let (one, two) = (datagram(), datagram());
    for sender in [&one, &two] {
        sendto(sender.as_raw_fd(), &libcamera_header(3, 0), &address, MsgFlags::empty()).unwrap();
    }
    let refused = Channel::<Libcamera>::from_fd(bound, LIMITS).unwrap_err();
    assert_eq!(refused, Error::Misuse(Misuse::NotConnected));
    drop((one, two));
    ledger.close();
}
