//! `fdpost inspect --profile send-fd`: the classic two bytes, passed on.

mod support;
#[path = "support/inspect.rs"]
mod watched;

use std::os::fd::OwnedFd;

use fdpost::driver::{FdReply, receive_fd, send_error, send_fd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use support::{Ledger, files, identity, is_shut_down, raw_send, soon};
use watched::{Running, end, start};

fn between(kind: SockType) -> (OwnedFd, OwnedFd, Running) {
    let pair = || socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let ((one, end_one), (two, end_two)) = (pair(), pair());
    let arguments = ["--profile", "send-fd", "--fd", "3", "--fd", "4", "--json", "--idle-timeout", "1000"];
    (one, two, start(&arguments, vec![end_one, end_two]))
}

#[test] // P1, P2
fn descriptors_and_errors_pass_both_ways() {
    let ledger = Ledger::open();
    for kind in [SockType::Stream, SockType::SeqPacket, SockType::Datagram] {
        let (mut one, mut two, running) = between(kind);
        for from in ["fd-3", "fd-4"] {
            let file = files(1).remove(0);
            send_fd(&one, &file).unwrap();
            match receive_fd(&two, soon()).unwrap() {
                FdReply::Descriptor(came) => assert_eq!(identity(&came), identity(&file)),
                other => panic!("{from}: {other:?}"),
            }
            send_error(&one, 7, "no such camera").unwrap();
            match receive_fd(&two, soon()).unwrap() {
                FdReply::Error { status, text } => {
                    assert_eq!((status, &text[..]), (7, &b"no such camera"[..]))
                }
                other => panic!("{from}: {other:?}"),
            }
            [one, two] = [two, one];
        }
        drop((one, two));
        let (status, lines, err) = end(running);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{lines:?}");
        let shown: Vec<_> =
            lines.iter().filter(|line| !line["from"].is_null() && line["event"] != "closed").collect();
        assert_eq!(shown.len(), 4, "{lines:?}");
        for (index, line) in shown.into_iter().enumerate() {
            assert_eq!(line["from"], if index < 2 { "fd-3" } else { "fd-4" });
            if index % 2 == 0 {
                assert_eq!((&line["event"], &line["kinds"]), (&"message".into(), &vec!["memfd"].into()));
            } else {
                assert_eq!((&line["event"], &line["status"]), (&"peer-error".into(), &7.into()));
                assert_eq!(line["data"], "6e6f20737563682063616d657261");
            }
        }
    }
    ledger.close();
}

#[test] // P1, P3
fn a_violation_ends_both() {
    let ledger = Ledger::open();
    let (one, two, running) = between(SockType::Stream);
    raw_send(&one, &[0, 0], &[]);
    let (status, lines, _) = end(running);
    assert_eq!(status, Some(65));
    assert!(
        lines.iter().any(|line| line["rule"] == "descriptor-count" && line["from"] == "fd-3"),
        "{lines:?}"
    );
    assert!(is_shut_down(&one) && is_shut_down(&two));
    drop((one, two));
    ledger.close();
}
