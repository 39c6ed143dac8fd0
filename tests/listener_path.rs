//! The file that a listener makes: what it may replace, and when it is removed.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/meeting.rs"]
mod meeting;
mod support;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use driver::soon;
use fdpost::{Channel, Error, Limits, Listener, Listening, Message, Misuse, Packet, Stream};
use meeting::{Directory, LOCK, stale};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use support::{Ledger, assert_child, child, child_value};

const LIMITS: Limits = Limits::new();

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[track_caller]
fn refused(path: &Path, expected: Error) {
    let before = inode(path);
    assert_eq!(Listener::<Packet>::bind(path, LIMITS).unwrap_err(), expected);
    assert_eq!(inode(path), before, "it was left alone");
}

#[test]
fn a_socket_that_nobody_serves_is_replaced() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    for kind in [SockType::SeqPacket, SockType::Stream, SockType::Datagram] {
        stale(&path, kind);
        let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
        let client = Channel::<Packet>::connect(&path, LIMITS).unwrap();
        drop(listener.accept_by(soon()).unwrap());
        assert_eq!(directory.names(), ["socket"], "the lock is gone");
        drop((client, listener));
        assert!(directory.is_empty());
    }
    drop(directory);
    ledger.close();
}

#[test]
fn mt_7_a_socket_that_is_served_is_left_alone_and_sees_nobody() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
    refused(&path, Error::AddressInUse);
    assert_eq!(Listener::<Stream>::bind(&path, LIMITS).unwrap_err(), Error::AddressInUse);
    // A look at it that connected would wait here.
    assert!(matches!(listener.try_accept(), Ok(None)), "a phantom client");
    drop(listener);

    let strange = UnixListener::bind(&path).unwrap();
    strange.set_nonblocking(true).unwrap();
    assert_eq!(Listener::<Stream>::bind(&path, LIMITS).unwrap_err(), Error::AddressInUse);
    assert_eq!(strange.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "a phantom client");
    drop(strange);
    fs::remove_file(&path).unwrap();

    let datagrams = UnixDatagram::bind(&path).unwrap();
    refused(&path, Error::AddressInUse);
    drop(datagrams);
    assert_eq!(directory.names(), ["socket"], "no lock is left");
    drop(directory);
    ledger.close();
}

#[test]
fn one_between_bind_and_listen_is_not_taken_for_dead() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let starting = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(starting.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    refused(&path, Error::AddressInUse);
    drop((starting, directory));
    ledger.close();
}

#[test]
fn any_other_file_is_left_alone() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("there");
    fs::write(&path, "mine").unwrap();
    refused(&path, Error::NotASocket);
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused(&path, Error::NotASocket);
    fs::remove_dir(&path).unwrap();
    // Not even where it points to a socket that nobody serves.
    let dead = directory.join("dead");
    stale(&dead, SockType::SeqPacket);
    for target in [dead.clone(), directory.join("nothing")] {
        symlink(&target, &path).unwrap();
        refused(&path, Error::NotASocket);
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(directory.names(), ["dead"]);
    drop(directory);
    ledger.close();
}

#[test]
fn a_missing_directory_is_the_kernels_to_name() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let missing = directory.join("missing").join("socket");
    let error = Error::Io { call: "bind", errno: Errno::ENOENT as i32 };
    assert_eq!(Listener::<Packet>::bind(&missing, LIMITS).unwrap_err(), error);
    let error = Error::Io { call: "connect", errno: Errno::ENOENT as i32 };
    assert_eq!(Channel::<Packet>::connect(&missing, LIMITS).unwrap_err(), error);
    let nobody = directory.join("nobody");
    stale(&nobody, SockType::SeqPacket);
    let error = Error::Io { call: "connect", errno: Errno::ECONNREFUSED as i32 };
    assert_eq!(Channel::<Packet>::connect(&nobody, LIMITS).unwrap_err(), error);
    let other = directory.join("other");
    let stream = UnixListener::bind(&other).unwrap();
    let error = Error::Io { call: "connect", errno: Errno::EPROTOTYPE as i32 };
    assert_eq!(Channel::<Packet>::connect(&other, LIMITS).unwrap_err(), error);
    drop(stream);
    ledger.close();
}

#[test]
fn the_longest_path_fits() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let name = "x".repeat(107 - directory.path().as_os_str().len() - 1);
    let path = directory.join(&name);
    assert_eq!(path.as_os_str().len(), 107);
    for _ in 0..2 {
        // The second time over the first's remains.
        let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
        let mut client = Channel::<Packet>::connect(&path, LIMITS).unwrap();
        client.send(Message::new(b"far")).unwrap();
        assert_eq!(listener.accept_by(soon()).unwrap().receive_by(soon()).unwrap().payload(), b"far");
        drop(listener);
        stale(&path, SockType::SeqPacket);
    }
    ledger.close();
}

#[test]
fn a_path_deleted_and_made_again_belongs_to_the_second() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let first = Listener::<Packet>::bind(&path, LIMITS).unwrap();
    let mut early = Channel::<Packet>::connect(&path, LIMITS).unwrap();
    fs::remove_file(&path).unwrap();
    let second = Listener::<Packet>::bind(&path, LIMITS).unwrap();
    let mut late = Channel::<Packet>::connect(&path, LIMITS).unwrap();
    // Who came before is the first's, who came after the second's.
    early.send(Message::new(b"early")).unwrap();
    late.send(Message::new(b"late")).unwrap();
    assert_eq!(first.accept_by(soon()).unwrap().receive_by(soon()).unwrap().payload(), b"early");
    assert!(matches!(first.try_accept(), Ok(None)));
    drop(first);
    assert_eq!(directory.names(), ["socket"], "it is the second's");
    assert_eq!(second.accept_by(soon()).unwrap().receive_by(soon()).unwrap().payload(), b"late");
    drop((early, late, second));
    assert!(directory.is_empty());
    drop(directory);
    ledger.close();
}

#[test]
fn only_its_own_file_is_removed() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody's").unwrap();
    drop(listener);
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    fs::remove_file(&path).unwrap();
    let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
    fs::rename(&path, directory.join("elsewhere")).unwrap();
    drop(listener);
    assert_eq!(directory.names(), ["elsewhere"]);
    drop(directory);
    ledger.close();
}

#[test]
fn mt_6_the_lock_is_waited_for() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let (path, lock) = (directory.join("socket"), directory.join(LOCK));
    stale(&path, SockType::SeqPacket);
    let before = inode(&path);
    let held = Flock::lock(File::create(&lock).unwrap(), FlockArg::LockExclusive).unwrap();
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let starter = scope.spawn(|| {
            tell.send(()).unwrap();
            Listener::<Packet>::bind(&path, LIMITS)
        });
        told.recv().unwrap();
        // Who does not wait would be done by then; who waits cannot be made to fail by this.
        thread::sleep(Duration::from_millis(100));
        assert_eq!(inode(&path), before, "another starter's work was disturbed");
        // As a starter leaves it: the file first, then the lock.
        fs::remove_file(&lock).unwrap();
        drop(held);
        let listener = starter.join().unwrap().unwrap();
        assert_eq!(directory.names(), ["socket"]);
        drop(listener);
    });
    // One that a killed starter left behind is in nobody's way.
    fs::write(&lock, "").unwrap();
    stale(&path, SockType::SeqPacket);
    drop(Listener::<Packet>::bind(&path, LIMITS).unwrap());
    assert!(directory.is_empty());
    // A symbolic link there leads nowhere.
    stale(&path, SockType::SeqPacket);
    let victim = directory.join("victim");
    symlink(&victim, &lock).unwrap();
    let error = Error::Io { call: "open", errno: Errno::ELOOP as i32 };
    assert_eq!(Listener::<Packet>::bind(&path, LIMITS).unwrap_err(), error);
    assert!(!victim.exists());
    fs::remove_file(&lock).unwrap();
    // Nor does a named pipe there stop who opens it.
    nix::unistd::mkfifo(&lock, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = Error::Io { call: "open", errno: Errno::ENXIO as i32 };
    assert_eq!(Listener::<Packet>::bind(&path, LIMITS).unwrap_err(), error);
    drop(directory);
    ledger.close();
}

#[test]
fn a_relative_path_is_found_again_from_elsewhere() {
    if let Some(directory) = child_value() {
        std::env::set_current_dir(&directory).unwrap();
        let listener = Listener::<Packet>::bind("socket", LIMITS).unwrap();
        drop(Channel::<Packet>::connect("./socket", LIMITS).unwrap());
        std::env::set_current_dir("/").unwrap();
        drop(listener);
        assert!(!Path::new(&directory).join("socket").exists());
        return;
    }
    let ledger = Ledger::open();
    let directory = Directory::new();
    assert_child(&child("a_relative_path_is_found_again_from_elsewhere", directory.path().to_str().unwrap()));
    drop(directory);
    ledger.close();
}

#[test] // P2
fn dropped_without_a_free_descriptor_it_removes_its_file() {
    if child_value().is_some() {
        let directory = Directory::new();
        let path = directory.join("socket");
        let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
        let hoard = meeting::take_all_descriptors();
        drop(listener);
        drop(hoard);
        assert!(directory.is_empty());
        return;
    }
    let ledger = Ledger::open();
    assert_child(&child("dropped_without_a_free_descriptor_it_removes_its_file", "run"));
    ledger.close();
}

#[test]
fn a_forked_process_leaves_the_file_to_its_parent() {
    if child_value().is_some() {
        let directory = Directory::new();
        let path = directory.join("socket");
        let listener = Listener::<Packet>::bind(&path, LIMITS).unwrap();
        // SAFETY: the child only drops, which closes and frees, and ends.
        #[allow(unsafe_code, reason = "fork has no safe form")]
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                drop(listener);
                std::process::exit(i32::from(!path.exists()));
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
            }
        }
        drop(Channel::<Packet>::connect(&path, LIMITS).unwrap());
        drop(listener);
        assert!(directory.is_empty());
        return;
    }
    let ledger = Ledger::open();
    assert_child(&child("a_forked_process_leaves_the_file_to_its_parent", "run"));
    ledger.close();
}

#[test]
fn an_option_without_meaning_leaves_no_file() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let bind = |listening| Listener::<Packet>::bind_with(&path, LIMITS, listening);
    for (listening, limit) in [
        (Listening::new().backlog(0), "backlog"),
        (Listening::new().backlog(4097), "backlog"),
        (Listening::new().mode(0o1000), "mode"),
    ] {
        let Err(Error::Misuse(Misuse::LimitOutOfRange { limit: named, .. })) = bind(listening) else {
            panic!("{limit} is accepted");
        };
        assert_eq!(named, limit);
    }
    assert!(Listener::<Packet>::bind(&path, LIMITS.descriptors(254)).is_err());
    assert!(directory.is_empty());
    drop(bind(Listening::new().backlog(4096)).unwrap());
    ledger.close();
}
