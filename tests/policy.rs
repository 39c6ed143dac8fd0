//! Which kinds of descriptors a channel accepts (rule CO-12), over real sockets.

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc;

use driver::{Wire, ends, message, soon, twin};
use fdpost::accept::{Domain, Found, Kind, SocketType};
use fdpost::{
    Accept, Channel, Error, Libcamera, Limits, Memfd, Message, Packet, Policy, Profile, Seals, Stream,
    Violation,
};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::pipe2;
use support::{
    Ledger, assert_final, assert_unread, files, identity, is_shut_down, libcamera_header, packet_header,
    raw_send,
};

const LIMITS: Limits = Limits::new().descriptors(4);

/// A memfd of three bytes that nothing can change any more.
fn sealed() -> OwnedFd {
    Memfd::sealed("sealed", b"abc").unwrap()
}

/// The end to read from.
fn pipe() -> OwnedFd {
    pipe2(OFlag::O_CLOEXEC).unwrap().0
}

/// The violation and its two descriptions, in words.
#[track_caller]
fn refusal(error: Error) -> (u32, String, String) {
    match error.violation() {
        Some(Violation::DescriptorKind { slot, required, found }) => {
            (slot, required.to_string(), found.to_string())
        }
        other => panic!("{other:?} of {error:?}"),
    }
}

/// A whole message of the wire in one send of bytes and descriptors.
fn send_raw<P: Profile>(peer: &OwnedFd, descriptors: &[OwnedFd]) {
    let count = descriptors.len() as u8;
    match P::NAME {
        "packet" => {
            raw_send(peer, &packet_header(0, count), descriptors);
        }
        "libcamera" => {
            raw_send(peer, &libcamera_header(1, count), &[]);
            raw_send(peer, b"x", descriptors);
        }
        _ => {
            raw_send(peer, &[0, 0, 0, 0, 0, 0, 0, 0, count, 0, 0, 0], &[]);
            raw_send(peer, &[0x77], descriptors);
        }
    }
}

fn refused_for_ever<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    ours.set_policy(Policy::new().every(Accept::memfd(Seals::STEADY)));
    send_raw::<P>(&theirs, &[sealed(), sealed()]);
    send_raw::<P>(&theirs, &[sealed(), pipe(), sealed()]);
    if P::NAME != "stream" {
        raw_send(&theirs, b"behind the violation", &files(1));
    }
    // What came before is delivered.
    assert_eq!(ours.receive_by(soon()).unwrap().descriptor_count(), 2);
    let violation = Violation::DescriptorKind {
        slot: 1,
        required: Accept::memfd(Seals::STEADY),
        found: Found { kind: Kind::Pipe, readable: true, writable: false },
    };
    assert_final(&mut ours, &theirs, violation);
    let received = ours.stats().received;
    assert_eq!((received.messages, received.descriptors), (1, 2), "{}: delivered", P::NAME);
    if P::NAME != "stream" {
        assert_unread(&ours, b"behind the violation");
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P3, P9
fn co_12_a_descriptor_of_another_kind() {
    refused_for_ever::<Libcamera>();
    refused_for_ever::<Packet>();
    refused_for_ever::<Stream>();
}

#[test] // P2: all of the message's, in their order, and what came behind it; once
fn the_reaper_gets_all_of_a_refused_message() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<Packet>(LIMITS);
    let (grave, refused) = mpsc::channel::<OwnedFd>();
    ours.set_reaper(move |descriptor| grave.send(descriptor).unwrap());
    ours.set_policy(Policy::new().every(Accept::memfd(Seals::NONE)));
    let given = [sealed(), sealed(), sealed(), pipe(), sealed(), sealed()];
    let names: Vec<PathBuf> = given.iter().map(identity).collect();
    // Three frames in one packet: of 1, 3 and 2 descriptors.
    let packet = [packet_header(0, 1), packet_header(0, 3), packet_header(0, 2)].concat();
    let socket = twin(&theirs);
    raw_send(&socket, &packet, &given);
    drop(given);
    let mut first = ours.receive_by(soon()).unwrap();
    assert_eq!(identity(&first.take(0).unwrap()), names[0]);
    assert_eq!(refused.try_iter().count(), 0, "nothing is refused yet");
    let error = ours.receive_by(soon()).unwrap_err();
    assert_eq!(refusal(error).0, 2);
    let came: Vec<PathBuf> = refused.try_iter().map(|refused| identity(&refused)).collect();
    assert_eq!(came, names[1..]);
    assert_eq!(ours.receive_by(soon()).unwrap_err(), error);
    assert_eq!(refused.try_iter().count(), 0, "not again");
    drop((first, socket, ours, theirs, refused));
    ledger.close();
}

#[test] // P2
fn without_a_reaper_all_is_closed_before_the_error_returns() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<Libcamera>(LIMITS);
    ours.set_policy(Policy::new().every(Accept::file()));
    send_raw::<Libcamera>(&twin(&theirs), &[sealed(), pipe(), sealed()]);
    assert_eq!(refusal(ours.receive_by(soon()).unwrap_err()).0, 1);
    assert_eq!(ledger.more(), 2, "beside the two channels");
    drop((ours, theirs));
    ledger.close();
}

#[test] // P9
fn each_place_has_its_kinds() {
    let ledger = Ledger::open();
    let policy = Policy::new()
        .slot(0, Accept::socket_of(Domain::Unix, SocketType::SeqPacket))
        .slot(2, Accept::nothing())
        .every(Accept::pipe().readable())
        .every(Accept::memfd(Seals::STEADY));
    let socket = || Channel::<Packet>::pair(LIMITS).unwrap().1;
    let file = || OwnedFd::from(File::open("/dev/null").unwrap());
    for (descriptors, wrong) in [
        (vec![socket()], None),
        (vec![socket(), pipe()], None),
        (vec![socket(), sealed()], None),
        (vec![pipe()], Some((0, "a socket of domain unix and type seqpacket"))),
        (vec![socket(), socket()], Some((1, "a pipe, open for reading"))),
        (vec![socket(), pipe2(OFlag::O_CLOEXEC).unwrap().1], Some((1, "a pipe, open for reading"))),
        (vec![socket(), files(1).remove(0)], Some((1, "a memfd with seals shrink, write"))),
        (vec![socket(), pipe(), pipe()], Some((2, "nothing"))),
        (vec![socket(), file(), pipe()], Some((1, "a pipe, open for reading"))),
    ] {
        let (mut ours, mut theirs) = ends::<Packet>(LIMITS);
        ours.set_policy(policy.clone());
        theirs.send(message(b"placed", descriptors)).unwrap();
        match wrong {
            None => drop(ours.receive_by(soon()).unwrap()),
            Some((slot, required)) => {
                let (at, accepted, _) = refusal(ours.receive_by(soon()).unwrap_err());
                assert_eq!((at, &accepted[..]), (slot, required));
            }
        }
    }
    ledger.close();
}

#[test] // P9
fn a_policy_says_nothing_about_messages_without_descriptors() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(LIMITS);
    ours.set_policy(Policy::new());
    theirs.send(Message::new(b"bare")).unwrap();
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"bare");
    theirs.send(message(b"more", files(1))).unwrap();
    let (slot, required, _) = refusal(ours.receive_by(soon()).unwrap_err());
    assert_eq!((slot, &required[..]), (0, "nothing"));
    drop((ours, theirs));
    ledger.close();
}

#[test] // P9: a channel that was split judges as before
fn the_policy_goes_with_the_receiving_half() {
    let ledger = Ledger::open();
    let (ours, theirs) = ends::<Packet>(LIMITS);
    let (sending, mut receiving) = ours.split();
    receiving.set_policy(Policy::new().every(Accept::file()));
    let (peer, _theirs) = theirs.split();
    peer.send(message(b"file", vec![sealed()])).unwrap();
    assert_eq!(receiving.receive_by(soon()).unwrap().descriptor_count(), 1);
    peer.send(message(b"pipe", vec![pipe()])).unwrap();
    let error = receiving.receive_by(soon()).unwrap_err();
    assert_eq!(refusal(error).2, "a pipe, open for reading");
    assert_eq!(sending.send(Message::new(b"late")).unwrap_err().error, error, "senders are told the same");
    drop((sending, receiving, peer, _theirs));
    ledger.close();
}

#[test] // P2, P3, P9; CO-12 for the classic two bytes
fn send_fd_of_the_kinds_that_are_accepted() {
    use fdpost::driver::{FdReply, receive_fd_accepting, send_error, send_fd};
    let ledger = Ledger::open();
    let policy = Policy::new().slot(0, Accept::memfd(Seals::STEADY));
    for kind in [SockType::Stream, SockType::SeqPacket, SockType::Datagram] {
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let receive = || receive_fd_accepting(&ours, &LIMITS, &policy, soon());
        send_fd(&theirs, sealed()).unwrap();
        send_error(&theirs, 7, "none left").unwrap();
        send_fd(&theirs, pipe()).unwrap();
        assert!(matches!(receive(), Ok(FdReply::Descriptor(_))));
        assert!(matches!(receive(), Ok(FdReply::Error { status: 7, .. })));
        let (slot, required, found) = refusal(receive().unwrap_err());
        assert_eq!((slot, &required[..]), (0, "a memfd with seals shrink, write"));
        assert_eq!(found, "a pipe, open for reading");
        assert!(is_shut_down(&ours), "{kind:?}");
        assert_eq!(send_fd(&theirs, sealed()).unwrap_err().errno(), Some(Errno::EPIPE as i32));
    }
    ledger.close();
}
