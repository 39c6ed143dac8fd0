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
use std::time::Duration;

use driver::{set_option, soon};
use fdpost::driver::{receive_fd, send_error, send_fd};
use fdpost::{Error, Violation};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use seccomp::under;
use support::{Ledger, files, raw_send, try_raw_send};

#[test] // P2, P3: as many empty packets as SO_SNDBUF has room for, and a message behind them
fn a_violation_empties_the_queue_of_however_many_empty_packets() {
    for kind in [SockType::SeqPacket, SockType::Datagram] {
        let ledger = Ledger::open();
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        // Cut to net.core.wmem_max; for root not even that. A datagram socket's queue is bounded in number too.
        set_option(&theirs, libc::SO_SNDBUFFORCE, 8 << 20)
            .or_else(|_| set_option(&theirs, libc::SO_SNDBUF, 8 << 20))
            .unwrap();
        raw_send(&theirs, b"no zero byte", &[]);
        let empty = (0..3000).take_while(|_| try_raw_send(&theirs, b"", &[]).is_ok()).count();
        let behind = try_raw_send(&theirs, b"\0\0", &files(1)).is_ok();
        if empty < 3000 || !behind {
            println!("skipped: {kind:?}: {empty} empty packets fill the queue, nothing stands behind them");
        }
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
    let text = vec![b'x'; 4_000_000];
    let short = under(libc::SYS_poll, None, Errno::ENOMEM, || send_error(&ours, 5, &text).unwrap_err());
    if let Some(error) = short {
        assert_eq!(error, Error::Io { call: "poll", errno: Errno::ENOMEM as i32 });
        // The reader makes room, and reads to the end: there is one.
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut came = Vec::new();
        theirs.read_to_end(&mut came).unwrap();
        assert!(!came.is_empty() && came.iter().all(|byte| *byte == b'x'));
        assert!(matches!(send_fd(&ours, &files(1)[0]), Err(Error::PeerGone { .. })));
    }
    drop((ours, theirs));
    ledger.close();
}
