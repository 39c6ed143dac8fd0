//! Calls over real sockets, rule by rule (`docs/PROTOCOL.md`): CA-1 to CA-9. The others stand in
//! `calls_ends.rs`.

mod support;
#[path = "support/calls.rs"]
mod with;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fdpost::calls::{Answer, Bounds, Role};
use fdpost::driver::{Event, Sent};
use fdpost::profile::packet::{ERROR, REPLY};
use fdpost::{
    Calls, Channel, Deadline, Error, Exhausted, Head, Libcamera, Limits, Message, Misuse, Packet, Reaper,
    Stream, Violation,
};
use support::{Ledger, files, identity};
use with::{
    LIMITS, answered, assert_ended, body, events_until_end, failed, messages, packet, passed, plain, request,
    say, sides, soon, tell,
};

#[test] // P1
fn ca_1_answers_in_any_order() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Packet>();
    let calls: Vec<_> = (0..8).map(|n| ours.start(Message::new([n]), soon()).unwrap()).collect();
    let mut requests: Vec<_> = (0..8).map(|_| request(&mut theirs)).collect();
    for at in [3, 0, 7, 1, 6, 2, 5, 4] {
        let (asked, message) = &mut requests[at];
        tell(&mut theirs, asked, Message::new([message.payload()[0] + 100]));
        assert_eq!(answered(&mut ours, calls[at]).payload(), [at as u8 + 100]);
    }
    assert_eq!((ours.counters().begun, ours.counters().answered, ours.counters().pending), (8, 8, 0));
    drop((ours, theirs, requests));
    ledger.close();
}

#[test] // P1: the same on a wire whose ids are cookies
fn answers_in_any_order_over_libcamera() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Libcamera>();
    let calls: Vec<_> = (1..5).map(|n| ours.start(body(n, 77, b"ask"), soon()).unwrap()).collect();
    let mut requests: Vec<_> = (0..4).map(|_| request(&mut theirs)).collect();
    for at in [2, 3, 0, 1] {
        let (asked, message) = &mut requests[at];
        assert_eq!(message.payload(), body(at as u32 + 1, calls[at].get(), b"ask").payload());
        // Command and cookie are set by the reply, whatever stood there.
        tell(&mut theirs, asked, body(0, 0, b"told"));
        assert_eq!(
            answered(&mut ours, calls[at]).payload(),
            body(at as u32 + 1, calls[at].get(), b"told").payload()
        );
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1, and the error bit
fn an_answer_says_whether_the_call_failed() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Packet>();
    let call = ours.start(Message::new(b"?").with_kind(9), soon()).unwrap();
    let (mut asked, message) = request(&mut theirs);
    assert_eq!((message.head().kind, message.head().correlation), (9, call.get()));
    let sent = theirs.reply_error(&mut asked, Message::new(b"no").with_kind(4), soon()).unwrap();
    assert_eq!(sent, Sent::Complete);
    match ours.receive_by(soon()).unwrap() {
        Event::Answered { call: which, answer: Answer::Error(message) } => {
            assert_eq!((which, message.payload(), message.head().kind), (call, &b"no"[..], 4));
            assert_eq!(message.head().flags, REPLY | ERROR);
        }
        other => panic!("{other:?}"),
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P3
fn ca_2_an_answer_to_no_call() {
    let reply = |correlation| packet(REPLY, correlation, 0);
    let unknown = |correlation| Violation::ReplyUnknown { correlation };
    // Before any call; another number; twice.
    let ledger = Ledger::open();
    let (mut ours, mut peer) = passed::<Packet>();
    peer.send(reply(1)).unwrap();
    assert_ended(&mut ours, unknown(1));
    drop((ours, peer));
    let (mut ours, mut peer) = passed::<Packet>();
    let call = ours.start(Message::new(b"?"), soon()).unwrap();
    peer.send(reply(call.get() + 1)).unwrap();
    assert_eq!(failed(&mut ours, call), Error::Violation(unknown(call.get() + 1)));
    assert_ended(&mut ours, unknown(call.get() + 1));
    drop((ours, peer));
    let (mut ours, mut peer) = passed::<Packet>();
    let call = ours.start(Message::new(b"?"), soon()).unwrap();
    peer.send(reply(call.get())).unwrap();
    peer.send(reply(call.get())).unwrap();
    answered(&mut ours, call);
    assert_ended(&mut ours, unknown(call.get()));
    drop((ours, peer));
    // On libcamera too, where a cookie before our first call is the peer's fault and not ours.
    let (mut ours, mut peer) = passed::<Libcamera>();
    peer.send(body(3, 1, b"")).unwrap();
    let begun = ours.start(body(3, 0, b""), soon());
    assert_eq!(begun.unwrap_err().error, Error::Violation(unknown(1)));
    assert_ended(&mut ours, unknown(1));
    drop((ours, peer));
    ledger.close();
}

#[test] // P2, P3, P9
fn ca_3_more_descriptors_than_the_call_permits() {
    let ledger = Ledger::open();
    for (permitted, sent) in [(0, 1), (1, 2), (3, 4)] {
        let violation = Violation::ReplyDescriptors { allowed: permitted.into(), received: sent };
        let head = Head { reply_descriptors: permitted, ..Head::default() };
        // Over packet the call says it to the peer too; over the others we know.
        let (mut ours, mut peer) = passed::<Packet>();
        let call = ours.start(Message::new(b"?").with_head(head), soon()).unwrap();
        assert_eq!(peer.receive_by(soon()).unwrap().head().reply_descriptors, permitted);
        peer.send(with::with_files(packet(REPLY, call.get(), 0), sent)).unwrap();
        assert_eq!(failed(&mut ours, call), Error::Violation(violation));
        assert_ended(&mut ours, violation);

        let (mut ours, mut peer) = passed::<Libcamera>();
        let call = ours.start(body(5, 0, b"").with_head(head), soon()).unwrap();
        peer.send(with::with_files(body(5, call.get(), b""), sent)).unwrap();
        assert_eq!(failed(&mut ours, call), Error::Violation(violation));
        assert_ended(&mut ours, violation);

        let (mut ours, mut peer) = passed::<Stream>();
        let call = ours.start(Message::new(b"?").with_head(head), soon()).unwrap();
        peer.send(with::with_files(Message::new(b"!"), sent)).unwrap();
        assert_eq!(failed(&mut ours, call), Error::Violation(violation));
        assert_ended(&mut ours, violation);
    }
    // As many as it permits pass, and are the ones that were sent.
    let (mut ours, mut theirs) = sides::<Packet>();
    let head = Head { reply_descriptors: 2, ..Head::default() };
    let call = ours.start(Message::new(b"?").with_head(head), soon()).unwrap();
    let sent = files(2);
    let names: Vec<_> = sent.iter().map(identity).collect();
    let (mut asked, _) = request(&mut theirs);
    assert_eq!(asked.reply_descriptors(), 2);
    tell(&mut theirs, &mut asked, sent.into_iter().fold(Message::new([]), Message::with));
    let mut answer = answered(&mut ours, call);
    assert_eq!(answer.take_all().map(|file| identity(&file)).collect::<Vec<_>>(), names);
    drop((ours, theirs, answer));
    ledger.close();
}

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<OwnedFd>>>);

impl Reaper for Kept {
    fn reap(&mut self, descriptor: OwnedFd) {
        self.0.lock().unwrap().push(descriptor);
    }
}

#[test] // P2: closing may block, so what nobody gets is the reaper's
fn descriptors_of_refused_and_of_late_answers_go_to_the_reaper() {
    let ledger = Ledger::open();
    let kept = Kept::default();
    let (mut channel, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    channel.set_reaper(kept.clone());
    let mut ours = Calls::new(channel);
    let mut peer = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
    let head = Head { reply_descriptors: 1, ..Head::default() };
    let late = ours.start(Message::new(b"?").with_head(head), soon()).unwrap();
    assert!(ours.give_up(late) && !ours.give_up(late));
    let call = ours.start(Message::new(b"?").with_head(head), soon()).unwrap();
    peer.send(with::with_files(packet(REPLY, late.get(), 0), 1)).unwrap();
    peer.send(with::with_files(packet(REPLY, call.get(), 0), 2)).unwrap();
    let violation = Violation::ReplyDescriptors { allowed: 1, received: 2 };
    assert_eq!(failed(&mut ours, call), Error::Violation(violation));
    assert_eq!(kept.0.lock().unwrap().len(), 3);
    drop((ours, peer, kept));
    ledger.close();
}

#[test] // P3
fn ca_4_an_answer_of_another_command() {
    let ledger = Ledger::open();
    let (mut ours, mut peer) = passed::<Libcamera>();
    let call = ours.start(body(5, 0, b""), soon()).unwrap();
    peer.send(body(6, call.get(), b"")).unwrap();
    let violation = Violation::ReplyCommand { expected: 5, received: 6 };
    assert_eq!(failed(&mut ours, call), Error::Violation(violation));
    assert_ended(&mut ours, violation);
    drop((ours, peer));
    ledger.close();
}

#[test] // P1, P3
fn ca_5_a_payload_without_command_and_cookie() {
    let ledger = Ledger::open();
    for length in 1..8 {
        let violation = Violation::HeaderLength { expected: 8, received: length as u64 };
        for role in [Role::Caller, Role::Answerer] {
            let (ours, theirs) = Channel::<Libcamera>::pair(LIMITS).unwrap();
            let mut peer = Channel::<Libcamera>::from_fd(theirs, LIMITS).unwrap();
            let mut ours = Calls::within(ours, role, Bounds::new());
            peer.send(Message::new(vec![0; length])).unwrap();
            assert_ended(&mut ours, violation);
        }
        // And none leaves here: the message comes back as it was.
        let (mut ours, _peer) = passed::<Libcamera>();
        let refused = ours.start(Message::new(vec![7; length]), soon()).unwrap_err();
        assert_eq!(refused.error, Error::Misuse(Misuse::CallHeader { bytes: length as u64 }));
        assert_eq!(refused.messages[0].payload(), vec![7; length]);
        let refused = ours.send(Message::new(vec![0; length]), soon()).unwrap_err();
        assert_eq!(refused.error, Error::Misuse(Misuse::CallHeader { bytes: length as u64 }));
    }
    ledger.close();
}

#[test] // P1
fn ca_6_an_event_is_no_answer() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Libcamera>();
    say(&mut theirs, body(1, 0, b"event"));
    let call = ours.start(body(1, 0, b""), soon()).unwrap();
    let (mut asked, _) = request(&mut theirs);
    say(&mut theirs, body(1, 0, b"another"));
    tell(&mut theirs, &mut asked, body(0, 0, b"answer"));
    assert_eq!(plain(&mut ours).payload(), body(1, 0, b"event").payload());
    assert_eq!(plain(&mut ours).payload(), body(1, 0, b"another").payload());
    assert_eq!(answered(&mut ours, call).payload(), body(1, call.get(), b"answer").payload());
    // No event with a cookie leaves here, nor a message that would be answered.
    let refused = theirs.send(body(1, 2, b"x"), soon()).unwrap_err();
    assert_eq!(refused.error, Error::Misuse(Misuse::CallField { field: "cookie", value: 2 }));
    // Upstream's first call has cookie 0; a side that answers repeats what came.
    say(&mut ours, body(9, 0, b"first"));
    let (mut asked, _) = request(&mut theirs);
    tell(&mut theirs, &mut asked, body(0, 0, b"second"));
    assert_eq!(plain(&mut ours).payload(), body(9, 0, b"second").payload());
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1, P2
fn ca_7_a_late_answer_reaches_nobody() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Packet>();
    let head = Head { reply_descriptors: 1, ..Head::default() };
    let late = ours.start(Message::new(b"1").with_head(head), Deadline::after(with::SHORT)).unwrap();
    // An event loop is told when to look.
    assert!(ours.timeout().is_some_and(|left| left <= with::SHORT));
    assert_eq!(failed(&mut ours, late), Error::TimedOut);
    assert_eq!(ours.timeout(), None);
    assert_eq!((ours.counters().given_up, ours.counters().late), (1, 0));
    let call = ours.start(Message::new(b"2"), soon()).unwrap();
    let mut requests = [request(&mut theirs), request(&mut theirs)];
    let answer = Message::new(b"late").with(files(1).remove(0));
    tell(&mut theirs, &mut requests[0].0, answer);
    tell(&mut theirs, &mut requests[1].0, Message::new(b"in time"));
    assert_eq!(answered(&mut ours, call).payload(), b"in time");
    assert_eq!((ours.counters().given_up, ours.counters().late, ours.counters().answered), (0, 1, 1));
    // Nobody gets it later either.
    assert!(ours.try_receive().unwrap().is_none());
    drop((ours, theirs, requests));
    ledger.close();
}

#[test] // P4
fn ca_8_an_id_that_is_out_is_not_used_again() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut ours = Calls::within(ours, Role::Caller, Bounds::new().in_flight(3));
    let mut theirs = Calls::new(Channel::<Packet>::from_fd(theirs, LIMITS).unwrap());
    let calls: Vec<_> = (0..3).map(|n| ours.start(Message::new([n]), soon()).unwrap()).collect();
    assert!(ours.give_up(calls[1]));
    let full = ours.start(Message::new(b"kept"), soon()).unwrap_err();
    let expected = Exhausted::CallsInFlight { pending: 2, given_up: 1, limit: 3 };
    assert_eq!((full.error, full.messages[0].payload()), (Error::Exhausted(expected), &b"kept"[..]));
    assert_eq!(*full.messages[0].head(), Head::default());
    // An answer to the one that was given up makes room, and so does one to another.
    let mut requests: Vec<_> = (0..3).map(|_| request(&mut theirs)).collect();
    tell(&mut theirs, &mut requests[1].0, Message::new([]));
    assert!(ours.try_receive().unwrap().is_none());
    let next = ours.start(Message::new(b"4"), soon()).unwrap();
    assert!(!calls.contains(&next));
    tell(&mut theirs, &mut requests[0].0, Message::new([]));
    answered(&mut ours, calls[0]);
    ours.start(Message::new(b"5"), soon()).unwrap();
    drop((ours, theirs, requests));
    ledger.close();
}

#[test] // P1
fn ca_9_both_sides_call_at_once() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Packet>();
    let mine = ours.start(Message::new(b"mine"), soon()).unwrap();
    let yours = theirs.start(Message::new(b"yours"), soon()).unwrap();
    assert_eq!(mine, yours, "the same number on both sides");
    let (mut at_theirs, asked) = request(&mut theirs);
    assert_eq!(asked.payload(), b"mine");
    let (mut at_ours, asked) = request(&mut ours);
    assert_eq!(asked.payload(), b"yours");
    tell(&mut theirs, &mut at_theirs, Message::new(b"to mine"));
    tell(&mut ours, &mut at_ours, Message::new(b"to yours"));
    assert_eq!(answered(&mut ours, mine).payload(), b"to mine");
    assert_eq!(answered(&mut theirs, yours).payload(), b"to yours");
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1: what ends a conversation of calls is told in its order
fn answers_before_a_violation_come_first() {
    let ledger = Ledger::open();
    let (mut ours, mut peer) = passed::<Packet>();
    let calls: Vec<_> = (0..3).map(|n| ours.start(Message::new([n]), soon()).unwrap()).collect();
    peer.send(packet(REPLY, calls[1].get(), 0)).unwrap();
    peer.send(Message::new(b"word")).unwrap();
    peer.send(packet(REPLY, 99, 0)).unwrap();
    peer.send(packet(REPLY, calls[0].get(), 0)).unwrap();
    let violation = Violation::ReplyUnknown { correlation: 99 };
    let (events, end) = events_until_end(&mut ours);
    assert_eq!(end, Error::Violation(violation));
    assert!(matches!(&events[0], Event::Answered { call, .. } if *call == calls[1]), "{events:?}");
    assert!(matches!(&events[1], Event::Message(message) if message.payload() == b"word"), "{events:?}");
    for (event, call) in events[2..].iter().zip([calls[0], calls[2]]) {
        assert!(matches!(event, Event::Failed { call: which, error } if (*which, *error) == (call, end)));
    }
    assert_eq!((events.len(), messages(&events)), (4, 2));
    assert_ended(&mut ours, violation);
    drop((ours, peer));
    ledger.close();
}

#[test] // P9
fn more_descriptors_than_this_side_accepts_cannot_be_asked_for() {
    let ledger = Ledger::open();
    let (ours, _theirs) = Channel::<Packet>::pair(Limits::new().descriptors(1)).unwrap();
    let mut ours = Calls::new(ours);
    let head = Head { reply_descriptors: 2, ..Head::default() };
    let refused = ours.start(Message::new(b"?").with_head(head), soon()).unwrap_err();
    assert_eq!(refused.error, Error::Misuse(Misuse::ReplyDescriptorsAsked { asked: 2, accepted: 1 }));
    assert_eq!(*refused.messages[0].head(), head);
    drop((ours, _theirs));
    ledger.close();
}

#[test] // for event loops: the socket is silent by then
fn what_came_in_the_packet_of_an_answer_is_due_at_once() {
    let ledger = Ledger::open();
    let (mut ours, mut peer) = passed::<Packet>();
    let call = ours.start(Message::new(b"?"), Deadline::NEVER).unwrap();
    let id = peer.receive_by(soon()).unwrap().head().correlation;
    peer.send_all(&mut vec![packet(REPLY, id, 0), packet(0, 0, 0), packet(0, 0, 0)]).unwrap();
    assert_eq!(ours.timeout(), None);
    drop(answered(&mut ours, call));
    for _ in 0..2 {
        assert_eq!(ours.timeout(), Some(Duration::ZERO));
        assert!(matches!(ours.try_receive().unwrap(), Some(Event::Message(_))));
    }
    assert_eq!(ours.timeout(), None);
    drop((ours, peer));
    ledger.close();
}
