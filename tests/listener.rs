//! Listening, connecting, and who is there, within one process.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/meeting.rs"]
mod meeting;
mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::thread;

use driver::{Wire, soon};
use fdpost::{
    Address, Channel, Deadline, Error, Libcamera, Limits, Listener, Listening, Message, Misuse, Packet,
    PeerRule, Stream,
};
use meeting::{Directory, abstract_name};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use support::{Ledger, assert_child, child, child_value, files};

const LIMITS: Limits = Limits::new();

/// Both directions, with a descriptor to the side that accepts one.
fn talk<P: Wire>(address: &Address) {
    let listener = Listener::<P>::bind(address, LIMITS.descriptors(1)).unwrap();
    assert!(matches!(listener.try_accept(), Ok(None)));
    let mut client = Channel::<P>::connect_by(address, LIMITS, soon()).unwrap();
    client.send(Message::new(b"to the server").with(files(1).remove(0))).unwrap();
    let mut served = listener.accept_by(soon()).unwrap();
    let message = served.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.descriptor_count()), (&b"to the server"[..], 1));
    served.send(Message::new(b"to the client")).unwrap();
    assert_eq!(client.receive_by(soon()).unwrap().payload(), b"to the client");
    drop(client);
    assert_eq!(served.receive_by(soon()).unwrap_err(), Error::Closed);
}

#[test]
fn two_sides_meet_at_a_path_or_a_name() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    for address in [Address::from(&directory.join("socket")), abstract_name()] {
        talk::<Packet>(&address);
        talk::<Stream>(&address);
    }
    assert!(directory.is_empty(), "the files are gone with their listeners");
    drop(directory);
    ledger.close();
}

#[test]
fn the_file_has_the_mode_asked_for_whatever_the_umask() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    for mode in [0o600, 0o666, 0o777, 0o060, 0] {
        let listener = Listener::<Packet>::bind_with(&path, LIMITS, Listening::new().mode(mode)).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        drop(listener);
    }
    let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o600);
    drop((listener, directory));
    ledger.close();
}

#[test]
fn the_file_has_its_mode_from_its_first_moment() {
    if child_value().is_none() {
        let ledger = Ledger::open();
        assert_child(&child("the_file_has_its_mode_from_its_first_moment", "run"));
        return ledger.close();
    }
    let directory = Directory::new();
    let path = directory.join("socket");
    let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
    watch.add_watch(directory.path(), AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB).unwrap();
    // Nothing is taken away, so nothing is changed once the file is there; and what the umask takes
    // away is given back.
    for (umask_bits, changed) in [(0, false), (0o077, true)] {
        umask(Mode::from_bits_truncate(umask_bits));
        let listener = Listener::<Packet>::bind_with(&path, LIMITS, Listening::new().mode(0o640)).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o640);
        let seen: Vec<AddWatchFlags> = watch.read_events().unwrap().iter().map(|event| event.mask).collect();
        let expected = [AddWatchFlags::IN_CREATE, AddWatchFlags::IN_ATTRIB];
        assert_eq!(seen, expected[..1 + usize::from(changed)], "umask {umask_bits:o}");
        drop(listener);
        drop(watch.read_events());
    }
}

#[test]
fn mt_2_an_address_that_does_not_fit() {
    let ledger = Ledger::open();
    let misuse = |address: Address, expected: Misuse| {
        assert_eq!(Listener::<Packet>::bind(&address, LIMITS).unwrap_err(), Error::Misuse(expected));
        assert_eq!(Channel::<Packet>::connect(&address, LIMITS).unwrap_err(), Error::Misuse(expected));
    };
    misuse("".into(), Misuse::AddressEmpty);
    misuse(Address::abstract_name(""), Misuse::AddressEmpty);
    misuse("a\0b".into(), Misuse::ZeroInPath { index: 1 });
    misuse("x".repeat(108).into(), Misuse::AddressTooLong { bytes: 108, limit: 107 });
    misuse(Address::abstract_name([7; 108]), Misuse::AddressTooLong { bytes: 108, limit: 107 });
    ledger.close();
}

#[test]
fn mt_1_each_wire_has_its_type_of_socket() {
    let ledger = Ledger::open();
    let other_type = Error::Io { call: "connect", errno: Errno::EPROTOTYPE as i32 };
    let directory = Directory::new();
    let (packets, streams) = (directory.join("packet"), directory.join("stream"));
    let packet = Listener::<Packet>::bind(&packets, LIMITS).unwrap();
    let stream = Listener::<Stream>::bind(&streams, LIMITS).unwrap();
    assert_eq!(getsockopt(&packet, sockopt::SockType).unwrap(), SockType::SeqPacket);
    assert_eq!(getsockopt(&stream, sockopt::SockType).unwrap(), SockType::Stream);
    assert_eq!(Channel::<Stream>::connect(&packets, LIMITS).unwrap_err(), other_type);
    assert_eq!(Channel::<Packet>::connect(&streams, LIMITS).unwrap_err(), other_type);
    let pairs_only = Error::Misuse(Misuse::PairsOnly { wire: "libcamera" });
    assert_eq!(Listener::<Libcamera>::bind(abstract_name(), LIMITS).unwrap_err(), pairs_only);
    assert_eq!(Channel::<Libcamera>::connect(abstract_name(), LIMITS).unwrap_err(), pairs_only);
    // An abstract name is another one for each type.
    let name = abstract_name();
    let both = (Listener::<Packet>::bind(&name, LIMITS), Listener::<Stream>::bind(&name, LIMITS));
    assert!(both.0.is_ok() && both.1.is_ok());
    drop((both, packet, stream, directory));
    ledger.close();
}

#[test]
fn mt_5_who_connects_begins_the_handshake() {
    let ledger = Ledger::open();
    let address = abstract_name();
    let listener = Listener::<Stream>::bind(&address, LIMITS).unwrap();
    // The 500 ms begin when a side waits: neither waits for a thread to start.
    let shaken = (0..20).any(|_| {
        let mut client = Channel::<Stream>::connect(&address, LIMITS).unwrap();
        let mut served = listener.accept_by(soon()).unwrap();
        thread::scope(|scope| {
            let welcomed = scope.spawn(|| served.welcome());
            let greeted = client.greet();
            welcomed.join().unwrap().is_ok() && greeted.is_ok()
        })
    });
    assert!(shaken);
    // Where both begin, neither hears what it expects.
    let mut client = Channel::<Stream>::connect(&address, LIMITS).unwrap();
    let mut served = listener.accept_by(soon()).unwrap();
    thread::scope(|scope| {
        let greeted = scope.spawn(|| served.greet());
        assert!(client.greet().is_err());
        assert!(greeted.join().unwrap().is_err());
    });
    drop((client, served, listener));
    ledger.close();
}

#[test] // P5
fn waiting_to_accept_ends_at_the_deadline_or_by_a_shutdown() {
    let ledger = Ledger::open();
    let listener = Listener::<Packet>::bind(abstract_name(), LIMITS).unwrap();
    assert_eq!(listener.accept_by(driver::after(20)).unwrap_err(), Error::TimedOut);
    assert_eq!(listener.accept_by(Deadline::after(std::time::Duration::ZERO)).unwrap_err(), Error::TimedOut);
    let closer = listener.closer();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| listener.accept());
        closer.shutdown();
        assert_eq!(waiting.join().unwrap().unwrap_err(), Error::Closed);
    });
    assert_eq!(listener.accept().unwrap_err(), Error::Closed);
    assert_eq!(listener.try_accept().unwrap_err(), Error::Closed);
    drop(listener);
    ledger.close();
}

#[test] // P9
fn mt_3_a_rule_refuses_at_accept_and_at_connect() {
    let ledger = Ledger::open();
    let address = abstract_name();
    let stranger = nix::unistd::getuid().as_raw() + 1;
    let listening = Listening::new().rule(PeerRule::new().uid(stranger));
    let listener = Listener::<Packet>::bind_with(&address, LIMITS, listening).unwrap();
    let mut client = Channel::<Packet>::connect(&address, LIMITS).unwrap();
    client.send(Message::new(b"never read")).unwrap();
    let refused = listener.accept_by(soon()).unwrap_err();
    assert!(matches!(refused, Error::PeerRefused { pid, .. } if pid == std::process::id() as i32));
    assert_eq!(listener.refused(), 1);
    assert_eq!(client.receive_by(soon()).unwrap_err(), Error::Closed);
    let rule = PeerRule::new().test(|peer| peer.pid == 1);
    let refused = Channel::<Packet>::connect_with(&address, LIMITS, &rule, soon()).unwrap_err();
    assert!(matches!(refused, Error::PeerRefused { .. }));
    drop((client, listener));
    ledger.close();
}

#[test]
fn a_pair_tells_nothing_about_its_peer() {
    let ledger = Ledger::open();
    let (channel, end) = Channel::<Packet>::pair(LIMITS).unwrap();
    let unknown = Error::Misuse(Misuse::PeerUnknown);
    assert_eq!(channel.peer().unwrap_err(), unknown);
    assert_eq!(channel.peer_pidfd().unwrap_err(), unknown);
    let twin = end.as_fd().try_clone_to_owned().unwrap();
    assert_eq!(Channel::<Packet>::from_accepted(twin, LIMITS, &PeerRule::new()).unwrap_err(), unknown);
    drop((channel, end));
    ledger.close();
}

#[test] // P5: a socket that its maker had made non-blocking (systemd's NonBlocking=) stays so.
fn a_listener_of_others_does_not_block_whatever_it_was() {
    use std::os::unix::net::UnixListener;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let ledger = Ledger::open();
    let directory = Directory::new();
    for (name, nonblocking) in [("one", false), ("two", true)] {
        let made = UnixListener::bind(directory.join(name)).unwrap();
        made.set_nonblocking(nonblocking).unwrap();
        let listener = Listener::<Stream>::from_fd(made.into(), LIMITS, PeerRule::new()).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK), "{name}");
        assert!(listener.try_accept().unwrap().is_none(), "{name}");
    }
    drop(directory);
    ledger.close();
}
