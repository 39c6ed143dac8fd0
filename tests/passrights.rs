//! Who accepts no descriptors is sent none: SO_PASSRIGHTS (Linux 6.16).

#[path = "support/driver.rs"]
mod driver;
#[path = "support/meeting.rs"]
mod meeting;
mod support;

use std::os::fd::{AsRawFd, OwnedFd};

use driver::{Wire, message, returned, set_option, soon};
use fdpost::driver::{FdReply, receive_fd, send_fd};
use fdpost::{Channel, Error, Libcamera, Limits, Listener, Message, Packet, PeerRule, Stream};
use meeting::abstract_name;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket};
use support::{Ledger, files, try_raw_send};

const NONE: Limits = Limits::new();
const ONE: Limits = Limits::new().descriptors(1);

/// Says so where this kernel has no such option.
fn kernel_has_it() -> bool {
    const SO_PASSRIGHTS: i32 = 83;
    let (one, _other) = Channel::<Packet>::pair(NONE).unwrap();
    let has = set_option(&one, SO_PASSRIGHTS, 0).is_ok();
    if !has {
        println!("skipped: this kernel has no SO_PASSRIGHTS (Linux 6.16)");
    }
    has
}

/// The sender hears it, has its message back, and may go on without descriptors.
#[track_caller]
fn refused<P: Wire>(from: &mut Channel<P>, to: &mut Channel<P>) {
    let (error, back) = returned(from.send_by(message(b"with", files(1)), soon()));
    assert_eq!((error, back.descriptor_count()), (Error::DescriptorsRefused, 1));
    from.send(Message::new(b"without")).unwrap();
    assert_eq!(to.receive_by(soon()).unwrap().payload(), b"without");
}

#[track_caller]
fn accepted<P: Wire>(from: &mut Channel<P>, to: &mut Channel<P>) {
    from.send(message(b"with", files(1))).unwrap();
    assert_eq!(to.receive_by(soon()).unwrap().descriptor_count(), 1);
}

#[test] // P9
fn a_pair_that_accepts_none_is_sent_none() {
    let ledger = Ledger::open();
    if kernel_has_it() {
        // Our end is ours to decide about; what the other end accepts, its owner says.
        let (mut ours, theirs) = Channel::<Packet>::pair(NONE).unwrap();
        let mut theirs = Channel::<Packet>::from_fd(theirs, ONE).unwrap();
        refused(&mut theirs, &mut ours);
        accepted(&mut ours, &mut theirs);
        let (_ours, theirs) = Channel::<Stream>::pair(NONE).unwrap();
        assert_eq!(try_raw_send(&theirs, b"x", &files(1)), Err(Errno::EPERM));
        let (_ours, theirs) = Channel::<Libcamera>::pair(NONE).unwrap();
        assert_eq!(try_raw_send(&theirs, b"x", &files(1)), Err(Errno::EPERM));
        let (_ours, theirs) = Channel::<Libcamera>::pair(ONE).unwrap();
        assert_eq!(try_raw_send(&theirs, b"x", &files(1)), Ok(1));
    }
    ledger.close();
}

#[test] // P9
fn both_ends_of_a_connection_are_sent_what_they_accept() {
    fn meet<P: Wire>(listener: Limits, client: Limits) -> (Channel<P>, Channel<P>) {
        let address = abstract_name();
        let listener = Listener::<P>::bind(&address, listener).unwrap();
        let client = Channel::<P>::connect(&address, client).unwrap();
        (listener.accept_by(soon()).unwrap(), client)
    }
    fn each<P: Wire>() {
        let (mut served, mut client) = meet::<P>(NONE, ONE);
        accepted(&mut served, &mut client);
        if P::NAME == "packet" {
            refused(&mut client, &mut served);
        }
        let (mut served, mut client) = meet::<P>(ONE, NONE);
        accepted(&mut client, &mut served);
        if P::NAME == "packet" {
            refused(&mut served, &mut client);
        }
    }
    let ledger = Ledger::open();
    if kernel_has_it() {
        each::<Packet>();
        each::<Stream>();
    }
    ledger.close();
}

#[test] // P9
fn mt_4_nothing_that_nobody_accepts_is_queued_before_accept_either() {
    let ledger = Ledger::open();
    if kernel_has_it() {
        let address = abstract_name();
        let listener = Listener::<Packet>::bind(&address, NONE).unwrap();
        let mut client = Channel::<Packet>::connect(&address, NONE).unwrap();
        let (error, _) = returned(client.try_send(message(b"early", files(1))));
        assert_eq!(error, Error::DescriptorsRefused);
        client.send(Message::new(b"without")).unwrap();
        let mut served = listener.accept_by(soon()).unwrap();
        assert_eq!(served.receive_by(soon()).unwrap().payload(), b"without");
    }
    ledger.close();
}

/// A socket that somebody else made to listen, as socket activation hands it over.
fn activated(name: &fdpost::Address) -> OwnedFd {
    let listening = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let name = name.to_string();
    let name = nix::sys::socket::UnixAddr::new_abstract(&name.as_bytes()[1..]).unwrap();
    bind(listening.as_raw_fd(), &name).unwrap();
    listen(&listening, Backlog::new(8).unwrap()).unwrap();
    listening
}

#[test] // P9
fn a_listener_of_others_keeps_its_option_and_each_connection_gets_its_own() {
    let ledger = Ledger::open();
    if kernel_has_it() {
        let address = abstract_name();
        let socket = activated(&address);
        let theirs = socket.try_clone().unwrap();
        let listener = Listener::<Packet>::from_fd(socket, NONE, PeerRule::new()).unwrap();
        let mut client = Channel::<Packet>::connect(&address, NONE).unwrap();
        let mut served = listener.accept_by(soon()).unwrap();
        refused(&mut client, &mut served);
        // What was sent before it was ours is the peer's violation, as on any kernel.
        let mut early = Channel::<Packet>::connect(&address, NONE).unwrap();
        early.send(message(b"early", files(1))).unwrap();
        let mut served_early = listener.accept_by(soon()).unwrap();
        let broken = served_early.receive_by(soon()).unwrap_err().violation().map(|broken| broken.rule());
        assert_eq!(broken, Some("too-many-descriptors"));
        // Whoever accepts next from the same socket may want descriptors.
        let next = Listener::<Packet>::from_fd(theirs, ONE, PeerRule::new()).unwrap();
        let mut other = Channel::<Packet>::connect(&address, NONE).unwrap();
        accepted(&mut other, &mut next.accept_by(soon()).unwrap());
    }
    ledger.close();
}

#[test] // P6
fn send_fd_and_threads_hear_it_too() {
    let ledger = Ledger::open();
    if kernel_has_it() {
        let (ours, theirs) = Channel::<Stream>::pair(NONE).unwrap();
        let file = files(1).remove(0);
        assert_eq!(send_fd(&theirs, &file).unwrap_err(), Error::DescriptorsRefused);
        send_fd(&ours, &file).unwrap();
        assert!(matches!(receive_fd(&theirs, soon()), Ok(FdReply::Descriptor(_))));
        drop((ours, theirs));

        let (mut ours, theirs) = Channel::<Packet>::pair(NONE).unwrap();
        let (sending, receiving) = Channel::<Packet>::from_fd(theirs, NONE).unwrap().split();
        let (error, back) = returned(sending.send_by(message(b"with", files(1)), soon()));
        assert_eq!((error, back.descriptor_count()), (Error::DescriptorsRefused, 1));
        sending.send(Message::new(b"without")).unwrap();
        assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"without");
        drop((receiving, sending));
    }
    ledger.close();
}
