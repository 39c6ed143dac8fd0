//! The classic two bytes: behind a violation, or half a text, nothing is taken for a message.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use driver::{set_option, soon};
use fdpost::driver::{receive_fd, send_error, send_fd};
use fdpost::{Error, Violation};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use support::{Ledger, files, raw_send, try_raw_send};

#[test] // P2, P3: as many empty packets as SO_SNDBUF has room for, and a message behind them
fn a_violation_empties_the_queue_of_however_many_empty_packets() {
    for kind in [SockType::SeqPacket, SockType::Datagram] {
        let ledger = Ledger::open();
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        // Cut to net.core.wmem_max. A datagram socket's queue is bounded in number too.
        set_option(&theirs, libc::SO_SNDBUF, i32::MAX / 2).unwrap();
        raw_send(&theirs, b"no zero byte", &[]);
        let empty = (0..3000).take_while(|_| try_raw_send(&theirs, b"", &[]).is_ok()).count();
        let _full = try_raw_send(&theirs, b"\0\0", &files(1));
        assert!(kind == SockType::Datagram || empty == 3000 || empty > 200, "{empty} empty packets");
        let status = Violation::Status { bytes: 12, zeros: 0 };
        let before = driver::processor_time();
        assert_eq!(receive_fd(&ours, soon()).unwrap_err(), Error::Violation(status));
        let used = driver::processor_time() - before;
        assert!(used < Duration::from_millis(500), "{used:?}: it does not see the end");
        for call in 0..=empty {
            assert_eq!(receive_fd(&ours, soon()).unwrap_err(), Error::Closed, "{kind:?}, call {call}");
        }
        drop((ours, theirs));
        ledger.close();
    }
}

#[test] // P1, P6
fn half_a_text_is_not_followed_by_another_message() {
    let ledger = Ledger::open();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let sending = thread::spawn(move || {
        let filtered = seccomp::filter(libc::SYS_poll, None, seccomp::Fate::Fails(Errno::ENOMEM))
            .and_then(|_| seccomp::filter(libc::SYS_ppoll, None, seccomp::Fate::Fails(Errno::ENOMEM)));
        let error = filtered.map(|_| send_error(&ours, 5, vec![b'x'; 4_000_000]).unwrap_err());
        (ours, error)
    });
    let (ours, error) = sending.join().unwrap();
    match error {
        Err(error) => println!("skipped: seccomp(2) is forbidden here: {error}"),
        Ok(error) => {
            assert_eq!(error, Error::Io { call: "poll", errno: Errno::ENOMEM as i32 });
            // The reader makes room, and reads to the end: there is one.
            theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut came = Vec::new();
            theirs.read_to_end(&mut came).unwrap();
            assert!(!came.is_empty() && came.iter().all(|byte| *byte == b'x'));
            assert!(matches!(send_fd(&ours, &files(1)[0]), Err(Error::PeerGone { .. })));
        }
    }
    drop((ours, theirs));
    ledger.close();
}
