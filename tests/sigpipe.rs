//! A peer that is gone costs an error, never the process: SIGPIPE's default action ends it
//! (signal(7)), and Rust's runtime alone ignores the signal, for programs that it starts.
//!
//! One test, because the action is the whole process's.

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{Wire, ends, returned};
use fdpost::driver::send_fd;
use fdpost::{Error, Libcamera, Limits, Message, Packet, Stream};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use support::{Ledger, files};

/// Everything that sends, with a descriptor and without, to a peer that is gone.
fn to_nobody<P: Wire>() {
    for descriptors in [0, 1] {
        let gone = || {
            let (ours, theirs) = ends::<P>(Limits::new().descriptors(1));
            drop(theirs);
            ours
        };
        let message = || files(descriptors).into_iter().fold(Message::new(b"for nobody"), Message::with);
        let is_gone = |error: &Error| matches!(error, Error::Closed | Error::PeerGone { .. });
        let (sent, tried) = (returned(gone().send(message())), returned(gone().try_send(message())));
        assert!(is_gone(&sent.0) && is_gone(&tried.0), "{sent:?}, {tried:?}");
        let mut burst = vec![message(), message()];
        let sent = gone().send_all(&mut burst);
        assert!(is_gone(&sent.unwrap_err()));
        assert_eq!(burst.len(), 2, "nothing is lost");
    }
}

#[expect(unsafe_code, reason = "the action of a signal is the whole process's")]
#[test] // P6
fn a_send_to_nobody_raises_no_signal() {
    let ledger = Ledger::open();
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
    to_nobody::<Libcamera>();
    to_nobody::<Packet>();
    to_nobody::<Stream>();
    for kind in [SockType::Stream, SockType::SeqPacket, SockType::Datagram] {
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        drop(theirs);
        for file in files(1) {
            assert!(send_fd(&ours, &file).is_err(), "{kind:?}");
        }
    }
    ledger.close();
}
