//! No check of a descriptor's kind asks the server of its file, which may be the peer and may let us
//! wait as long as it likes: with a real FUSE mount.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/fuse.rs"]
mod fuse;
#[path = "support/kinds.rs"]
mod kinds;
mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use driver::{ends, soon};
use fdpost::accept::{Domain, SocketType};
use fdpost::{Accept, Limits, Message, Packet, Policy, Seals};
use fuse::{Fuse, GETATTR, OPEN};
use kinds::Directory;
use support::{Ledger, assert_child, child, child_value};

#[test] // P5, P9
fn the_files_server_is_not_asked() {
    let ledger = Ledger::open();
    // In a process of its own: what is mounted there ends with it, whatever happens.
    if child_value().is_none() {
        let output = child("the_files_server_is_not_asked", "yes");
        assert_child(&output);
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.starts_with("skipped"))
            .for_each(|line| println!("{line}"));
        return ledger.close();
    }
    let place = Directory::new();
    let fuse = match Fuse::mount(&place.0) {
        Ok(fuse) => fuse,
        Err(error) => return println!("skipped: a FUSE mount: {error} (needs root, and /dev/fuse)"),
    };
    let file = File::open(fuse.file()).unwrap();
    assert_eq!(fuse.asked().get(&OPEN), Some(&1));
    // The mount is what it is said to be: fstat(2) does ask, each time.
    for _ in 0..3 {
        assert_eq!(nix::sys::stat::fstat(&file).unwrap().st_size, 100);
    }
    assert_eq!(fuse.asked().get(&GETATTR), Some(&3));
    // A close says FLUSH, until the server does not know that.
    drop(file.try_clone().unwrap());
    fuse.asked();

    let accepts = [
        Accept::nothing(),
        Accept::any().readable(),
        Accept::memfd(Seals::NONE),
        Accept::memfd_of(10, Seals::STEADY),
        Accept::file(),
        Accept::file().writable(),
        Accept::socket(),
        Accept::socket_of(Domain::Unix, SocketType::Stream),
        Accept::pipe(),
        Accept::pidfd(),
    ];
    for accept in accepts {
        let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(1));
        // Closing it is not part of the check.
        let (grave, refused) = mpsc::channel::<OwnedFd>();
        ours.set_reaper(move |descriptor| grave.send(descriptor).unwrap());
        ours.set_policy(Policy::new().every(accept));
        theirs.send(Message::new(b"").with(file.try_clone().unwrap().into())).unwrap();
        let received = ours.receive_by(soon());
        let right = [Accept::file(), Accept::any().readable()].contains(&accept);
        assert_eq!(received.is_ok(), right, "{accept}");
        if let Err(error) = received {
            assert!(error.to_string().contains("is a regular file, open for reading"), "{error}");
        }
        assert_eq!(fuse.asked(), [].into(), "{accept}: what the server was asked");
        drop(refused);
    }
    drop(file);
    drop(fuse);
    drop(place);
}
