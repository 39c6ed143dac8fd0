//! What must hold of the parser of the classic two bytes.

use fdpost::Violation;
use fdpost::error::{Exhausted, Fault};
use fdpost::send_fd::{Reply, Scan, check_descriptors, parse, scan};

use crate::reach::note;

/// Any bytes; the first says how long a text may be. What the fuzz target `send_fd` and the corpus
/// call.
pub fn check_bytes(bytes: &[u8]) {
    let Some((&limit, bytes)) = bytes.split_first() else { return };
    check(bytes, usize::from(limit));
}

/// What `docs/PROTOCOL.md` says of a stream that begins with `bytes`: byte by byte.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// The message lacks at least so many bytes.
    Lacks(usize),
    TooLarge,
    Message {
        text: Vec<u8>,
        status: u8,
        used: usize,
    },
}

fn judge(bytes: &[u8], limit: usize) -> Judged {
    let mut text = Vec::new();
    let mut ended = false;
    for (index, byte) in bytes.iter().enumerate() {
        if ended {
            return Judged::Message { text, status: *byte, used: index + 1 };
        }
        match byte {
            0 => ended = true,
            byte => text.push(*byte),
        }
        if text.len() > limit {
            return Judged::TooLarge; // SF-3
        }
    }
    Judged::Lacks(if ended { 1 } else { 2 })
}

/// Scan and parse against that model, whole and cut anywhere (P1, P4, P8).
pub fn check(bytes: &[u8], limit: usize) {
    let judged = judge(bytes, limit);
    let whole = scan(bytes, limit);
    let packet = parse(bytes, limit);
    whole.as_ref().err().into_iter().chain(packet.as_ref().err()).for_each(|broken| note(broken.rule()));
    match (&judged, whole) {
        (Judged::Lacks(lacks), Ok(Scan::Needs(needs))) => assert_eq!(*lacks, needs),
        (Judged::TooLarge, Err(Violation::PayloadTooLarge { declared, limit: at })) => {
            assert!(declared > at && at == limit as u64 && declared <= bytes.len() as u64);
        }
        (Judged::Message { text, status, used }, Ok(Scan::Whole { reply, used: found })) => {
            assert_eq!((&text[..], *status, *used), (reply.text, reply.status, found));
        }
        (judged, whole) => panic!("{judged:?}, and {whole:?}"),
    }
    // A packet is one message: SF-5.
    match (&judged, packet) {
        (Judged::Message { text, status, used }, Ok(reply)) => {
            assert_eq!((reply, *used), (Reply { text, status: *status }, bytes.len()));
        }
        (Judged::TooLarge, Err(Violation::PayloadTooLarge { .. })) => {}
        (Judged::TooLarge, other) => panic!("too large, and {other:?}"),
        (_, Err(Violation::Status { bytes: length, zeros })) => {
            let rest = bytes.iter().filter(|byte| **byte == 0).count();
            assert_eq!((length, zeros), (bytes.len() as u64, rest as u64));
            let is_one = matches!(&judged, Judged::Message { used, .. } if *used == bytes.len());
            assert!(!is_one, "a packet of one message was refused");
        }
        (judged, other) => panic!("{judged:?}, and {other:?}"),
    }
    if let Judged::Message { status, .. } = judged {
        counted(status);
    }
    cut_anywhere(bytes, limit, whole);
}

/// A message of this status with each number of descriptors that there is room for, and whether the
/// kernel cut control data (P1, P2; SF-1, SF-2): a descriptor stands beside a status of 0, and only there.
fn counted(status: u8) {
    for (received, cut) in (0..=2).flat_map(|received| [(received, false), (received, true)]) {
        let fault = check_descriptors(status, received, cut).err();
        let expected = match (status == 0, received, cut) {
            (true, 1, false) | (false, 0, false) => None,
            // One belongs, none came, and the kernel says that some did not fit: it is lost, not missing.
            (true, 0, true) => Some("descriptors-lost"),
            (true, 1, true) | (false, 0, true) => Some("control-truncated"),
            (true, ..) => Some("descriptor-count"),
            (false, ..) => Some("descriptor-unexpected"),
        };
        let rule = fault.map(|fault| match fault {
            Fault::Violation(violation) => violation.rule(),
            Fault::Exhausted(Exhausted::DescriptorsLost { .. }) => "descriptors-lost",
            other => panic!("{other:?}"),
        });
        assert_eq!(rule, expected, "status {status}, {received} came, cut: {cut}");
        rule.into_iter().for_each(note);
    }
}

/// Reading as many bytes as are needed, and never more, comes to the same: no read reaches into
/// the next message, and what was said of a beginning holds.
fn cut_anywhere(bytes: &[u8], limit: usize, whole: Result<Scan<'_>, Violation>) {
    let mut length = 0;
    loop {
        match scan(&bytes[..length], limit) {
            Ok(Scan::Needs(needs)) => {
                assert!((1..=2).contains(&needs), "{needs} needed");
                if length + needs > bytes.len() {
                    // What is left is too little for a message, or for a text beyond the limit.
                    let tail = scan(bytes, limit);
                    assert!(!matches!(tail, Ok(Scan::Whole { .. })), "{tail:?} was within reach");
                    return;
                }
                length += needs;
            }
            Ok(Scan::Whole { reply, used }) => {
                assert_eq!(used, length, "a read reached into the next message");
                return assert_eq!(whole, Ok(Scan::Whole { reply, used }));
            }
            Err(Violation::PayloadTooLarge { declared, .. }) => {
                // Refused as soon as it can be known: one byte beyond, or two read together.
                assert!(declared <= limit as u64 + 2, "{declared} bytes were read");
                return assert!(matches!(whole, Err(Violation::PayloadTooLarge { .. })));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
