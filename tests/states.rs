//! The receiver's state table: walked whole, and each row shown by a socket, so that a table
//! without it is not the one that the receiver executes.

#[path = "support/wires.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the property tests")]
mod wires;

mod support;

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fdpost::machine::table::{Action, Input, ROWS, State, step};
use fdpost::profile::Profile;
use fdpost::{Channel, Deadline, Error, Libcamera, Limits, Message, Packet, Stream, Violation};
use support::{Ledger, files, libcamera_header, packet_header, raw_send};
use wires::{MARKER, VhostUser};

const STATES: [State; 5] = [State::Idle, State::Header, State::Body, State::Ended, State::Failed];
const INPUTS: [Input; 6] =
    [Input::Bytes, Input::Part, Input::Message, Input::End, Input::Overdue, Input::Breach];

/// Why a pair has no row.
fn impossible(state: State, input: Input) -> Option<&'static str> {
    match (state, input) {
        (State::Idle, Input::Overdue) => Some("between messages no deadline runs"),
        (State::Ended, _) => Some("the peer closed: nothing is read any more"),
        (State::Failed, _) => Some("final: the same fault is returned for ever (P3)"),
        _ => None,
    }
}

#[test] // P3
fn every_pair_of_state_and_input_is_a_row_or_impossible() {
    assert_eq!((STATES.len(), INPUTS.len()), (State::Failed as usize + 1, Input::Breach as usize + 1));
    let mut rows = 0;
    for state in STATES {
        for input in INPUTS {
            let found: Vec<_> = ROWS.iter().filter(|row| row.state == state && row.input == input).collect();
            match (&found[..], impossible(state, input)) {
                ([row], None) => {
                    assert_eq!(step(state, input), Some((row.next, row.action)));
                    rows += 1;
                }
                ([], Some(_)) => assert_eq!(step(state, input), None),
                _ => panic!("{state:?} x {input:?}: {found:?}"),
            }
        }
    }
    assert_eq!(rows, ROWS.len());
}

#[test] // P3, P5
fn rows_do_what_their_input_means() {
    for row in ROWS {
        let expected = match (row.input, row.state) {
            (Input::Bytes, State::Idle) => (State::Header, Action::Begin),
            (Input::Bytes, same) => (same, Action::Continue),
            (Input::Part, State::Idle) => (State::Body, Action::Begin),
            (Input::Part, _) => (State::Body, Action::Continue),
            (Input::Message, _) => (State::Idle, Action::Deliver),
            (Input::End, State::Idle) => (State::Ended, Action::Finish),
            (Input::End | Input::Overdue, _) => (State::Failed, Action::Miss),
            (Input::Breach, _) => (State::Failed, Action::Refuse),
        };
        assert_eq!((row.next, row.action), expected, "{row:?}");
    }
}

#[test]
fn every_state_can_be_reached() {
    let mut reached = vec![State::Idle];
    for _ in STATES {
        for row in ROWS {
            if reached.contains(&row.state) && !reached.contains(&row.next) {
                reached.push(row.next);
            }
        }
    }
    assert!(STATES.iter().all(|state| reached.contains(state)), "{reached:?}");
}

// ---- one socket test per row ----

const LIMITS: Limits = Limits::new().payload(100).descriptors(4).assembly_timeout(Duration::from_millis(80));

/// A conversation under test, in a thread of its own: a table with a hole may spin, and then the
/// test fails instead of hanging.
#[track_caller]
fn converse<P: Profile>(talk: impl FnOnce(&mut Channel<P>, OwnedFd) + Send + 'static) {
    let ledger = Ledger::open();
    let (done, over) = mpsc::channel();
    let thread = thread::spawn(move || {
        let (mut channel, peer) = Channel::<P>::pair(LIMITS).unwrap();
        talk(&mut channel, peer);
        drop(channel);
        let _over = done.send(());
    });
    let spun = matches!(over.recv_timeout(Duration::from_secs(10)), Err(mpsc::RecvTimeoutError::Timeout));
    assert!(!spun, "the conversation does not end");
    thread.join().unwrap();
    ledger.close();
}

/// Where the channel stands, by the only way that it shows.
#[track_caller]
fn assert_state<P: Profile>(channel: &Channel<P>, state: State) {
    let shown = format!("{channel:?}");
    assert!(shown.contains(&format!("state: {state:?}")), "{shown}");
}

fn receive<P: Profile>(channel: &mut Channel<P>) -> Result<Message, Error> {
    channel.receive_by(Deadline::after(Duration::from_secs(2)))
}

/// Reads what is there; no message is whole.
#[track_caller]
fn nothing_yet<P: Profile>(channel: &mut Channel<P>, state: State) {
    assert!(channel.try_receive().unwrap().is_none());
    assert_state(channel, state);
}

#[track_caller]
fn assert_missing<P: Profile>(channel: &mut Channel<P>, expected: u64, received: u64) {
    let violation = Violation::PayloadMissing { expected, received };
    for _ in 0..2 {
        assert_eq!(receive(channel).unwrap_err(), Error::Violation(violation));
    }
    assert_state(channel, State::Failed);
}

#[track_caller]
fn assert_breach<P: Profile>(channel: &mut Channel<P>, violation: Violation) {
    for _ in 0..2 {
        assert_eq!(receive(channel).unwrap_err(), Error::Violation(violation));
    }
    assert_state(channel, State::Failed);
}

/// A `stream` message: header, payload, marker.
fn stream(payload: &[u8], fds: u8) -> Vec<u8> {
    let mut bytes = [&[0; 4], &(payload.len() as u32).to_ne_bytes()[..], &[fds, 0, 0, 0]].concat();
    bytes.extend_from_slice(payload);
    bytes
}

#[test] // row Idle x Bytes
fn idle_bytes_begins_a_header_and_its_deadline() {
    converse::<Stream>(|channel, peer| {
        raw_send(&peer, &[0; 5], &[]);
        nothing_yet(channel, State::Header);
        assert!(channel.timeout().is_some());
        assert_missing(channel, 12, 5);
    });
}

#[test] // row Idle x Part
fn idle_part_begins_a_message_and_its_deadline() {
    converse::<Libcamera>(|channel, peer| {
        raw_send(&peer, &libcamera_header(3, 0), &[]);
        nothing_yet(channel, State::Body);
        assert!(channel.timeout().is_some());
        assert_missing(channel, 3, 0);
    });
}

#[test] // row Idle x Message
fn idle_message_delivers_what_has_one_part() {
    converse::<Packet>(|channel, peer| {
        raw_send(&peer, &packet_header(0, 0), &[]);
        assert_eq!(receive(channel).unwrap().payload(), b"");
        assert_state(channel, State::Idle);
    });
}

#[test] // row Idle x End
fn idle_end_is_clean_and_final() {
    converse::<Packet>(|channel, peer| {
        drop(peer);
        for _ in 0..3 {
            assert_eq!(receive(channel).unwrap_err(), Error::Closed);
        }
        assert_state(channel, State::Ended);
    });
}

#[test] // row Idle x Breach
fn idle_breach_is_final() {
    converse::<Packet>(|channel, peer| {
        raw_send(&peer, b"short", &[]);
        assert_breach(channel, Violation::HeaderLength { expected: 16, received: 5 });
    });
}

#[test] // row Header x Bytes
fn header_bytes_go_on_with_the_header() {
    converse::<Stream>(|channel, peer| {
        let message = stream(b"abc", 0);
        for piece in [0..3, 3..7, 7..11] {
            raw_send(&peer, &message[piece], &[]);
            nothing_yet(channel, State::Header);
        }
        raw_send(&peer, &message[11..], &[]);
        assert_eq!(receive(channel).unwrap().payload(), b"abc");
    });
}

#[test] // row Header x Part
fn header_part_goes_on_with_the_body() {
    converse::<Stream>(|channel, peer| {
        let message = stream(b"abc", 0);
        raw_send(&peer, &message[..5], &[]);
        nothing_yet(channel, State::Header);
        raw_send(&peer, &message[5..12], &[]);
        nothing_yet(channel, State::Body);
        raw_send(&peer, &message[12..], &[]);
        assert_eq!(receive(channel).unwrap().payload(), b"abc");
    });
}

#[test] // row Header x Message
fn header_message_delivers_what_has_one_part() {
    converse::<VhostUser>(|channel, peer| {
        raw_send(&peer, &[7, 0, 0, 0, 0], &[]);
        nothing_yet(channel, State::Header);
        raw_send(&peer, &[0; 7], &[]);
        let message = receive(channel).unwrap();
        assert_eq!((message.payload(), message.head().kind), (&b""[..], u32::from_ne_bytes([7, 0, 0, 0])));
        assert_state(channel, State::Idle);
    });
}

#[test] // row Header x End
fn header_end_is_a_message_missing() {
    converse::<Stream>(|channel, peer| {
        raw_send(&peer, &[0; 5], &[]);
        nothing_yet(channel, State::Header);
        drop(peer);
        assert_missing(channel, 12, 5);
    });
}

#[test] // row Header x Overdue
fn header_overdue_is_a_message_missing() {
    converse::<VhostUser>(|channel, peer| {
        raw_send(&peer, &[0; 11], &[]);
        nothing_yet(channel, State::Header);
        assert_missing(channel, 12, 11);
    });
}

#[test] // row Header x Breach
fn header_breach_is_final() {
    converse::<Stream>(|channel, peer| {
        raw_send(&peer, &[0; 5], &[]);
        nothing_yet(channel, State::Header);
        raw_send(&peer, &[0; 5], &files(2));
        assert_breach(channel, Violation::DescriptorUnexpected { received: 2 });
    });
}

#[test] // row Body x Bytes
fn body_bytes_go_on_with_the_body() {
    converse::<Stream>(|channel, peer| {
        let message = stream(b"a payload in pieces", 0);
        for piece in [0..12, 12..15, 15..20, 20..30] {
            raw_send(&peer, &message[piece], &[]);
            nothing_yet(channel, State::Body);
        }
        raw_send(&peer, &message[30..], &[]);
        assert_eq!(receive(channel).unwrap().payload(), b"a payload in pieces");
    });
}

#[test] // row Body x Part
fn body_part_goes_on_with_the_next_part() {
    converse::<Stream>(|channel, peer| {
        raw_send(&peer, &stream(b"abc", 2), &[]);
        nothing_yet(channel, State::Body);
        raw_send(&peer, &[MARKER], &files(2));
        let message = receive(channel).unwrap();
        assert_eq!((message.payload(), message.descriptor_count()), (&b"abc"[..], 2));
    });
}

#[test] // row Body x Message
fn body_message_delivers() {
    converse::<Libcamera>(|channel, peer| {
        raw_send(&peer, &libcamera_header(3, 1), &[]);
        nothing_yet(channel, State::Body);
        raw_send(&peer, b"abc", &files(1));
        assert_eq!(receive(channel).unwrap().payload(), b"abc");
        assert_state(channel, State::Idle);
    });
}

#[test] // row Body x End
fn body_end_is_a_message_missing() {
    converse::<VhostUser>(|channel, peer| {
        raw_send(&peer, &[&[0; 8], &9_u32.to_ne_bytes()[..], b"abc"].concat(), &[]);
        nothing_yet(channel, State::Body);
        drop(peer);
        assert_missing(channel, 9, 3);
    });
}

#[test] // row Body x Overdue
fn body_overdue_is_a_message_missing() {
    converse::<Stream>(|channel, peer| {
        raw_send(&peer, &stream(b"abc", 1), &[]);
        nothing_yet(channel, State::Body);
        assert_missing(channel, 1, 0);
    });
}

#[test] // row Body x Breach
fn body_breach_is_final() {
    converse::<Libcamera>(|channel, peer| {
        raw_send(&peer, &libcamera_header(3, 0), &[]);
        nothing_yet(channel, State::Body);
        raw_send(&peer, b"abcd", &[]);
        assert_breach(channel, Violation::PayloadLength { declared: 3, received: 4 });
    });
}
