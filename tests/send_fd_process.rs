//! `send_fd` and the descriptors of a whole process: number 0, and RLIMIT_NOFILE.

mod support;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use fdpost::driver::{FdReply, receive_fd, send_fd};
use fdpost::{Error, Exhausted};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use support::{Ledger, assert_child, child, child_value, descriptors, files, identity, is_shut_down, soon};

const TYPES: [SockType; 3] = [SockType::Stream, SockType::SeqPacket, SockType::Datagram];

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

#[track_caller]
fn descriptor(reply: FdReply) -> OwnedFd {
    match reply {
        FdReply::Descriptor(descriptor) => descriptor,
        FdReply::Error { status, text } => panic!("status {status}: {}", text.escape_ascii()),
    }
}

#[test] // P2; case 40
fn the_descriptor_may_be_descriptor_0() {
    let ledger = Ledger::open();
    let input = std::io::stdin();
    for kind in TYPES {
        let (ours, theirs) = pair(kind);
        assert_eq!(input.as_fd().as_raw_fd(), 0);
        send_fd(&theirs, &input).unwrap();
        let came = descriptor(receive_fd(&ours, soon()).unwrap());
        assert_eq!(identity(&came), identity(&0));
        assert!(came.as_raw_fd() >= 3, "{came:?} would be taken for a standard one");
    }
    ledger.close();
}

#[test] // P2; case 42
fn a_descriptor_that_cannot_be_installed_is_lost() {
    // The limit is the whole process's.
    if child_value().is_none() {
        let ledger = Ledger::open();
        assert_child(&child("a_descriptor_that_cannot_be_installed_is_lost", "here"));
        return ledger.close();
    }
    for kind in TYPES {
        let ledger = Ledger::open();
        let (ours, theirs) = pair(kind);
        let sent = files(1).remove(0);
        send_fd(&theirs, &sent).unwrap();
        send_fd(&theirs, &sent).unwrap();
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // Every number below the highest is taken in this child: standard ones, then ours.
        let highest = *descriptors().last_key_value().unwrap().0;
        let mut plugs = Vec::new();
        while plugs.last().is_none_or(|plug: &OwnedFd| plug.as_raw_fd() <= highest) {
            plugs.push(sent.try_clone().unwrap());
        }
        let limit = plugs.last().unwrap().as_raw_fd() as nix::libc::rlim_t + 1;
        setrlimit(Resource::RLIMIT_NOFILE, limit, before.1).unwrap();
        let lost = receive_fd(&ours, soon());
        setrlimit(Resource::RLIMIT_NOFILE, before.0, before.1).unwrap();
        let expected = Exhausted::DescriptorsLost { declared: 1, received: 0 };
        assert_eq!(lost.unwrap_err(), Error::Exhausted(expected), "{kind:?}");
        // Nobody misbehaved, and the next message stands by itself.
        assert!(!is_shut_down(&ours));
        assert_eq!(identity(&descriptor(receive_fd(&ours, soon()).unwrap())), identity(&sent));
        drop((ours, theirs, sent, plugs));
        ledger.close();
    }
}
