//! Calls over real sockets, rule by rule (`docs/PROTOCOL.md`): CA-10 to CA-17. The others stand in
//! `calls.rs`.

#[path = "support/driver.rs"]
mod driver;
mod support;
#[path = "support/calls.rs"]
mod with;

use std::time::{Duration, Instant};

use fdpost::calls::{Bounds, CallId, Correlate, Role};
use fdpost::driver::{Event, Sent};
use fdpost::profile::packet::REPLY;
use fdpost::{
    Calls, Channel, Deadline, Error, Exhausted, Head, Libcamera, Limits, Message, Misuse, Packet, SendError,
    Stream, Violation,
};
use nix::errno::Errno;
use support::{Ledger, files, identity};
use with::{
    LIMITS, SHORT, answered, assert_ended, body, events_until_end, failed, packet, passed, plain, request,
    say, sides, soon, tell, with_files,
};

#[test] // P1, P3
fn ca_10_a_message_where_no_call_is_out() {
    let ledger = Ledger::open();
    let (mut ours, mut peer) = passed::<Stream>();
    let call = ours.start(Message::new(b"?").with_kind(3), soon()).unwrap();
    assert_eq!(peer.receive_by(soon()).unwrap().head().kind, 3);
    peer.send(Message::new(b"!").with_kind(4)).unwrap();
    let answer = answered(&mut ours, call);
    assert_eq!((answer.payload(), answer.head().kind), (&b"!"[..], 4));
    peer.send(Message::new(b"unasked")).unwrap();
    assert_ended(&mut ours, Violation::ReplyUnknown { correlation: 0 });
    drop((ours, peer));
    // And this side does not say anything but calls and answers.
    let (mut ours, mut theirs) = sides::<Stream>();
    for side in [&mut ours, &mut theirs] {
        let refused = side.send(Message::new(b"a word"), soon()).unwrap_err();
        assert_eq!(refused.error, Error::Misuse(Misuse::CallsOnly { wire: "stream" }));
        assert_eq!(refused.messages[0].payload(), b"a word");
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P3
fn ca_11_giving_up_ends_a_stream() {
    let ledger = Ledger::open();
    let given_up = Error::Misuse(Misuse::CallGivenUp { wire: "stream" });
    for by_hand in [false, true] {
        let (mut ours, mut theirs) = sides::<Stream>();
        let call = ours.start(Message::new(b"?"), Deadline::after(SHORT)).unwrap();
        if by_hand {
            assert!(ours.give_up(call));
        } else {
            assert_eq!(failed(&mut ours, call), Error::TimedOut);
        }
        for _ in 0..3 {
            assert_eq!(ours.receive_by(soon()).unwrap_err(), given_up);
            let refused = ours.start(Message::new(b"next"), soon()).unwrap_err();
            assert_eq!((refused.error, refused.messages[0].payload()), (given_up, &b"next"[..]));
        }
        // The peer learns of it: what it was asked is delivered, then there is the end.
        let (mut asked, _) = request(&mut theirs);
        let refused = theirs.reply(&mut asked, Message::new(b"late"), soon()).unwrap_err();
        assert!(matches!(refused.error, Error::PeerGone { .. }), "{refused:?}");
        assert!(!asked.is_answered());
        assert_eq!(theirs.receive_by(soon()).unwrap_err(), refused.error);
        drop((ours, theirs));
    }
    ledger.close();
}

#[test] // P3
fn ca_12_a_call_before_the_last_one_was_answered() {
    let ledger = Ledger::open();
    // Ours makes one call at a time.
    let (mut ours, mut theirs) = sides::<Stream>();
    let call = ours.start(Message::new(b"1"), soon()).unwrap();
    let refused = ours.start(Message::new(b"2"), soon()).unwrap_err();
    let limit = Exhausted::CallsInFlight { pending: 1, given_up: 0, limit: 1 };
    assert_eq!((refused.error, refused.messages[0].payload()), (Error::Exhausted(limit), &b"2"[..]));
    let (mut asked, _) = request(&mut theirs);
    tell(&mut theirs, &mut asked, Message::new(b"to 1"));
    assert_eq!(answered(&mut ours, call).payload(), b"to 1");
    ours.start(Message::new(b"2"), soon()).unwrap();
    let (_asked, message) = request(&mut theirs);
    assert_eq!(message.payload(), b"2");
    drop((ours, theirs));
    // A peer that does not wait is refused: its answers could be taken for each other.
    let (ours, theirs) = Channel::<Stream>::pair(LIMITS).unwrap();
    let mut peer = Channel::<Stream>::from_fd(theirs, LIMITS).unwrap();
    let mut called = Calls::answering(ours);
    peer.send(Message::new(b"1")).unwrap();
    peer.send(Message::new(b"2")).unwrap();
    let (_asked, _) = request(&mut called);
    assert_eq!(called.receive_by(soon()).unwrap_err(), Error::Violation(Violation::CallOverlap));
    drop((called, peer));
    ledger.close();
}

/// What came before the peer was gone, then each call with the same error, which stays.
#[track_caller]
fn assert_all_end<P: Correlate>(ours: &mut Calls<P>, calls: &[CallId], expected: Error) {
    let patience = soon();
    let (events, end) = events_until_end(ours);
    assert!(!patience.has_passed(), "{}: it waits for a peer that is gone", P::NAME);
    assert_eq!(end, expected, "{}", P::NAME);
    let mut ended: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Failed { call, error } if *error == expected => *call,
            other => panic!("{other:?}"),
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, calls, "{}", P::NAME);
    for _ in 0..2 {
        assert_eq!(ours.receive_by(soon()).unwrap_err(), expected);
        assert_eq!(ours.start(ask(), soon()).unwrap_err().error, expected);
        assert_eq!(ours.call(ask(), soon()).unwrap_err().error, expected);
    }
    assert_eq!((ours.counters().pending, ours.counters().given_up), (0, 0));
}

/// A message that any of the wires can call with.
fn ask() -> Message {
    Message::new([0; 8])
}

#[test] // P1, P3
fn ca_13_the_end_is_the_same_for_every_call() {
    let ledger = Ledger::open();
    let gone = |errno: Errno| Error::PeerGone { errno: errno as i32 };
    // The peer closes between two messages.
    let (mut ours, mut theirs) = sides::<Packet>();
    let calls: Vec<_> = (0..3).map(|_| ours.start(ask(), soon()).unwrap()).collect();
    let mut requests: Vec<_> = (0..3).map(|_| request(&mut theirs)).collect();
    tell(&mut theirs, &mut requests[1].0, Message::new(b"before"));
    say(&mut theirs, Message::new(b"farewell"));
    drop((theirs, requests));
    assert_eq!(answered(&mut ours, calls[1]).payload(), b"before");
    assert_eq!(plain(&mut ours).payload(), b"farewell");
    assert_all_end(&mut ours, &[calls[0], calls[2]], Error::Closed);
    drop(ours);

    // A send learns of it first: the same error then, and what had come is delivered all the same.
    let (mut ours, mut theirs) = sides::<Packet>();
    let calls: Vec<_> = (0..3).map(|_| ours.start(ask(), soon()).unwrap()).collect();
    let mut requests: Vec<_> = (0..3).map(|_| request(&mut theirs)).collect();
    tell(&mut theirs, &mut requests[2].0, Message::new(b"before"));
    drop((theirs, requests));
    let refused = ours.start(ask(), soon()).unwrap_err();
    assert_eq!((refused.error, refused.messages.len()), (gone(Errno::EPIPE), 1));
    assert_eq!(answered(&mut ours, calls[2]).payload(), b"before");
    assert_all_end(&mut ours, &calls[..2], gone(Errno::EPIPE));
    drop(ours);

    // On a datagram pair only a send can learn of it, and there the kernel would throw away what
    // had come (net/unix/af_unix.c, unix_dgram_disconnected).
    let (mut ours, mut theirs) = sides::<Libcamera>();
    let calls: Vec<_> = (0..3).map(|_| ours.start(ask(), soon()).unwrap()).collect();
    let mut requests: Vec<_> = (0..3).map(|_| request(&mut theirs)).collect();
    tell(&mut theirs, &mut requests[0].0, body(0, 0, b"before"));
    drop((theirs, requests));
    let refused = ours.start(ask(), soon()).unwrap_err();
    assert_eq!(refused.error, gone(Errno::ECONNREFUSED));
    assert_eq!(answered(&mut ours, calls[0]).payload()[8..], *b"before");
    // No event of the socket's tells an event loop to look again.
    assert_eq!(ours.timeout(), Some(Duration::ZERO));
    assert_all_end(&mut ours, &calls[1..], gone(Errno::ECONNREFUSED));
    drop(ours);

    let (mut ours, theirs) = sides::<Stream>();
    let call = ours.start(ask(), soon()).unwrap();
    drop(theirs);
    assert_all_end(&mut ours, &[call], Error::Closed);
    drop(ours);

    // And our own shutdown, from another thread.
    let (mut ours, theirs) = sides::<Packet>();
    let call = ours.start(ask(), Deadline::NEVER).unwrap();
    let closer = ours.channel().closer();
    let closing = std::thread::spawn(move || closer.shutdown());
    assert_all_end(&mut ours, &[call], Error::Closed);
    closing.join().unwrap();
    drop((ours, theirs));
    ledger.close();
}

#[test] // P3: also where a send was told before that the peer is gone
fn what_a_dead_peer_broke_stays_its_violation() {
    let ledger = Ledger::open();
    let (mut ours, mut peer) = passed::<Packet>();
    let call = ours.start(ask(), soon()).unwrap();
    peer.receive_by(soon()).unwrap();
    peer.send(packet(REPLY, 99, 0)).unwrap();
    drop(peer);
    let refused = ours.start(ask(), soon()).unwrap_err();
    assert_eq!(refused.error, Error::PeerGone { errno: Errno::EPIPE as i32 });
    let violation = Violation::ReplyUnknown { correlation: 99 };
    assert_eq!(failed(&mut ours, call), Error::Violation(violation));
    assert_ended(&mut ours, violation);
    drop(ours);
    // And one of the wire's own rules.
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut ours = Calls::new(ours);
    let call = ours.start(ask(), soon()).unwrap();
    support::raw_send(&theirs, b"short", &[]);
    let mut request = [0; 64];
    nix::unistd::read(&theirs, &mut request).unwrap();
    drop(theirs);
    assert!(ours.start(ask(), soon()).is_err());
    let violation = Violation::HeaderLength { expected: 16, received: 5 };
    assert_eq!(failed(&mut ours, call), Error::Violation(violation));
    assert_ended(&mut ours, violation);
    drop(ours);
    ledger.close();
}

#[test] // P2, P4
fn ca_14_other_messages_reach_the_receive() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let bounds = Bounds::new().messages(4);
    let mut ours = Calls::within(ours, Role::Caller, bounds);
    let mut theirs = Calls::new(Channel::<Packet>::from_fd(theirs, LIMITS).unwrap());
    let early = ours.start(Message::new(b"early"), soon()).unwrap();
    let (mut asked_early, _) = request(&mut theirs);
    let peer = std::thread::spawn(move || {
        let (mut asked, message) = request(&mut theirs);
        assert_eq!(message.payload(), b"call");
        say(&mut theirs, Message::new(b"word"));
        theirs.start(Message::new(b"back"), soon()).unwrap();
        tell(&mut theirs, &mut asked_early, Message::new(b"to early"));
        tell(&mut theirs, &mut asked, Message::new(b"to call"));
        theirs
    });
    let answer = ours.call(Message::new(b"call"), soon()).unwrap().into_message();
    assert_eq!(answer.payload(), b"to call");
    let mut theirs = peer.join().unwrap();
    // They were all there before: no receive reads anything for them.
    assert_eq!(ours.timeout(), Some(Duration::ZERO));
    assert_eq!(plain(&mut ours).payload(), b"word");
    let (_asked, message) = request(&mut ours);
    assert_eq!(message.payload(), b"back");
    assert_eq!(answered(&mut ours, early).payload(), b"to early");
    assert!(ours.try_receive().unwrap().is_none());

    // At the bound nothing more is read, and the call says so: the answer would be the fifth.
    for number in 0..4 {
        say(&mut theirs, Message::new([number]));
    }
    let unread = |messages, bytes, descriptors| {
        Error::Exhausted(Exhausted::MessagesUnread { messages, bytes, descriptors })
    };
    let refused = ours.call(Message::new(b"call"), soon()).unwrap_err();
    assert_eq!((refused.error, refused.messages.len()), (unread(4, 4, 0), 0));
    let (mut asked, _) = request(&mut theirs);
    tell(&mut theirs, &mut asked, Message::new(b"late"));
    for number in 0..4 {
        assert_eq!(plain(&mut ours).payload(), [number]);
    }
    assert!(ours.try_receive().unwrap().is_none());
    assert_eq!(ours.counters().late, 1);
    drop((ours, theirs));

    // The same for bytes and descriptors; what fills them is taken whole.
    for (bounds, expected) in
        [(Bounds::new().bytes(3), unread(2, 4, 4)), (Bounds::new().descriptors(3), unread(2, 4, 4))]
    {
        let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
        let mut ours = Calls::within(ours, Role::Caller, bounds);
        let mut peer = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
        let sent: Vec<_> = (0..3).map(|_| with_files(Message::new(b"xx"), 2)).collect();
        let names: Vec<_> = sent.iter().map(|one| identity(one.descriptor(0).unwrap())).collect();
        sent.into_iter().for_each(|one| peer.send(one).unwrap());
        assert_eq!(ours.call(Message::new(b"call"), soon()).unwrap_err().error, expected);
        for name in names {
            assert_eq!(identity(plain(&mut ours).descriptor(0).unwrap()), name);
        }
        drop((ours, peer));
    }
    ledger.close();
}

#[test] // P2, P6
fn ca_15_a_call_that_does_not_leave() {
    let ledger = Ledger::open();
    let back = |refused: SendError, error: Error, whole: &Message, name| {
        assert_eq!((refused.error, refused.messages.len()), (error, 1));
        let message = &refused.messages[0];
        assert_eq!((message.head(), message.payload()), (whole.head(), whole.payload()));
        assert_eq!(identity(message.descriptor(0).unwrap()), name);
    };
    let (mut ours, mut theirs) = sides::<Libcamera>();
    let head = Head { reply_descriptors: 2, ..Head::default() };
    let ask = || {
        let file = files(1).remove(0);
        let name = identity(&file);
        (body(1, 0xffff_ffff, b"ask").with_head(head).with(file), name)
    };
    let whole = body(1, 0xffff_ffff, b"ask").with_head(head);
    // A deadline that has passed.
    let (message, name) = ask();
    back(ours.start(message, Deadline::after(Duration::ZERO)).unwrap_err(), Error::TimedOut, &whole, name);
    let (message, name) = ask();
    back(
        ours.try_start(message, Deadline::after(Duration::ZERO)).unwrap_err(),
        Error::TimedOut,
        &whole,
        name,
    );
    // A full socket: without waiting, and until the deadline.
    let mut begun = Vec::new();
    let full = loop {
        match ours.try_start(body(2, 0, &[7; 2000]), soon()) {
            Ok(call) => begun.push(call),
            Err(refused) => break refused,
        }
    };
    assert_eq!(full.error, Error::WouldBlock);
    assert_eq!(full.messages[0].payload(), body(2, 0, &[7; 2000]).payload());
    let (message, name) = ask();
    back(ours.start(message, Deadline::after(SHORT)).unwrap_err(), Error::TimedOut, &whole, name);
    // None of these was made: the ids that the peer sees are those of the others.
    for call in &begun {
        let (mut asked, _) = request(&mut theirs);
        assert_eq!(asked.correlation(), call.get());
        tell(&mut theirs, &mut asked, body(0, 0, b""));
        answered(&mut ours, *call);
    }
    assert_eq!((ours.counters().begun, ours.counters().pending), (begun.len() as u64, 0));
    assert!(theirs.try_receive().unwrap().is_none());
    drop((ours, theirs, full));
    ledger.close();
}

#[test] // P2, P6, P9
fn ca_16_what_cannot_be_answered() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Packet>();
    let head = Head { reply_descriptors: 1, ..Head::default() };
    let call = ours.start(Message::new(b"?").with_head(head), soon()).unwrap();
    let (mut asked, _) = request(&mut theirs);
    let refused = theirs.reply(&mut asked, with_files(Message::new(b"two"), 2), soon()).unwrap_err();
    assert_eq!(refused.error, Error::Misuse(Misuse::ReplyDescriptors { allowed: 1, descriptors: 2 }));
    assert_eq!((refused.messages[0].payload(), refused.messages[0].descriptor_count()), (&b"two"[..], 2));
    drop(refused);
    for (field, head) in [
        ("flags", Head { flags: 2, ..Head::default() }),
        ("correlation", Head { correlation: call.get() + 1, ..Head::default() }),
        ("reply_descriptors", Head { reply_descriptors: 1, ..Head::default() }),
    ] {
        let refused = theirs.reply(&mut asked, Message::new([]).with_head(head), soon()).unwrap_err();
        assert!(
            matches!(refused.error, Error::Misuse(Misuse::CallField { field: named, .. }) if named == field),
            "{field}: {refused:?}"
        );
        assert_eq!(*refused.messages[0].head(), head);
    }
    tell(&mut theirs, &mut asked, with_files(Message::new(b"one"), 1));
    let refused = theirs.reply(&mut asked, Message::new(b"again"), soon()).unwrap_err();
    assert_eq!(refused.error, Error::Misuse(Misuse::AnsweredBefore { correlation: call.get() }));
    assert_eq!(answered(&mut ours, call).payload(), b"one");
    // Nor does a message leave that would be taken for a call or an answer.
    for (field, head) in [
        ("flags", Head { flags: REPLY, correlation: 9, ..Head::default() }),
        ("correlation", Head { correlation: 9, ..Head::default() }),
    ] {
        for refused in [
            theirs.send(Message::new([]).with_head(head), soon()).map(drop).unwrap_err(),
            theirs.start(Message::new([]).with_head(head), soon()).map(drop).unwrap_err(),
        ] {
            assert!(
                matches!(refused.error, Error::Misuse(Misuse::CallField { field: named, .. }) if named == field),
                "{field}: {refused:?}"
            );
        }
    }
    drop((ours, theirs));
    // Where the wire has no way to say that a call failed, that is refused too.
    let (mut ours, mut theirs) = sides::<Libcamera>();
    ours.start(body(1, 0, b""), soon()).unwrap();
    let (mut asked, _) = request(&mut theirs);
    let refused = theirs.reply_error(&mut asked, body(0, 0, b""), soon()).unwrap_err();
    let unsupported = Misuse::HeadUnsupported { wire: "libcamera", field: "flags", value: 3 };
    assert_eq!(refused.error, Error::Misuse(unsupported));
    let (mut calls, mut answers) = sides::<Stream>();
    calls.start(Message::new(b"ask"), soon()).unwrap();
    let (mut asked, _) = request(&mut answers);
    let refused = answers.reply_error(&mut asked, Message::new(b"no"), soon()).unwrap_err();
    let unsupported = Misuse::HeadUnsupported { wire: "stream", field: "flags", value: 3 };
    assert_eq!((refused.error, refused.messages.len()), (Error::Misuse(unsupported), 1));
    drop((calls, answers, asked));
    // And the side that is called does not call.
    for refused in [
        theirs.start(body(1, 0, b""), soon()).unwrap_err(),
        theirs.try_start(body(1, 0, b""), soon()).unwrap_err(),
    ] {
        assert_eq!(refused.error, Error::Misuse(Misuse::OneSideCalls { wire: "libcamera" }));
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P5; case 59
fn ca_17_a_late_reader_and_a_flood() {
    let ledger = Ledger::open();
    // The answer was there, though nobody looked before the deadline.
    let (mut ours, mut theirs) = sides::<Packet>();
    // (What was read before, with pauses, is no flood.)
    for _ in 0..1023 {
        say(&mut theirs, packet(0, 0, 0));
        plain(&mut ours);
        assert!(ours.try_receive().unwrap().is_none());
    }
    let deadline = Deadline::after(SHORT);
    let call = ours.start(Message::new(b"?"), deadline).unwrap();
    let (mut asked, _) = request(&mut theirs);
    say(&mut theirs, Message::new(b"a word"));
    tell(&mut theirs, &mut asked, Message::new(b"in time"));
    pass(deadline);
    assert_eq!(plain(&mut ours).payload(), b"a word");
    assert_eq!(answered(&mut ours, call).payload(), b"in time");
    drop((ours, theirs));

    // Who floods us with other messages does not keep the clock from striking.
    let (mut ours, mut peer) = passed::<Packet>();
    let deadline = Deadline::after(SHORT);
    let call = ours.start(Message::new(b"?"), deadline).unwrap();
    pass(deadline);
    let mut others = 0;
    let error = loop {
        while others % 64 == 0 && peer.try_send(packet(0, 0, 0)).is_ok() {}
        match ours.receive_by(soon()).unwrap() {
            Event::Message(_) => others += 1,
            Event::Failed { call: which, error } if which == call => break error,
            other => panic!("{other:?}"),
        }
        assert!(others < 10_000, "the call is never overdue");
    };
    assert_eq!((error, others), (Error::TimedOut, 1024));
    drop((ours, peer));
    ledger.close();
}

/// Waits until a deadline has passed.
fn pass(deadline: Deadline) {
    while !deadline.has_passed() {
        let left = deadline.instant().unwrap().saturating_duration_since(Instant::now());
        std::thread::sleep(left);
    }
}

#[test] // P3: calls that fail beside it take no room from messages
fn ca_13_for_a_call_that_waits_beside_others() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut ours = Calls::within(ours, Role::Caller, Bounds::new().messages(2));
    let mut peer = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
    let calls: Vec<_> = (0..4).map(|_| ours.start(Message::new(b"?"), soon()).unwrap()).collect();
    let dies = std::thread::spawn(move || (0..5).for_each(|_| drop(peer.receive_by(soon()).unwrap())));
    let ended = ours.call(Message::new(b"!"), soon()).unwrap_err();
    assert_eq!((ended.error, ended.messages.len()), (Error::Closed, 0));
    for call in calls {
        assert_eq!(failed(&mut ours, call), Error::Closed);
    }
    assert_eq!(ours.receive_by(soon()).unwrap_err(), Error::Closed);
    dies.join().unwrap();
    drop(ours);
    ledger.close();
}

/// A call of which the header left and the payload did not.
fn half_a_call() -> (Calls<Libcamera>, Channel<Libcamera>, Vec<CallId>) {
    // Which of the two datagrams finds the socket full depends on the sizes before.
    for first in 1..100 {
        let (mut ours, peer) = passed::<Libcamera>();
        let large = vec![0; first * 500];
        let mut calls = vec![ours.try_start(body(1, 0, &large), Deadline::NEVER).unwrap()];
        while let Ok(call) = ours.try_start(body(1, 0, b"?"), Deadline::NEVER) {
            calls.push(call);
            if ours.channel().has_pending() {
                return (ours, peer, calls);
            }
        }
    }
    panic!("a full socket takes whole messages only");
}

#[test] // P5, P6; cases 14, 57: on a datagram socket only the rest of it shows the death
fn ca_13_a_peer_that_dies_in_the_middle_of_a_call() {
    let ledger = Ledger::open();
    for by_flush in [false, true] {
        let (mut ours, mut peer, calls) = half_a_call();
        peer.send(body(7, 0, b"last words")).unwrap();
        drop(peer);
        let end = Error::PeerGone { errno: Errno::ECONNREFUSED as i32 };
        let mut rest = Vec::new();
        if by_flush {
            let refused = ours.flush_by(soon()).unwrap_err();
            assert_eq!(refused.error, end);
            rest.extend(refused.messages);
        }
        assert_eq!(plain(&mut ours).payload(), body(7, 0, b"last words").payload());
        for call in calls {
            assert_eq!(failed(&mut ours, call), end);
        }
        assert_eq!(ours.receive_by(soon()).unwrap_err(), end);
        let refused = ours.start(body(1, 0, b"next"), soon()).unwrap_err();
        assert_eq!(refused.error, end);
        // Whoever is told first gets back what did not leave.
        rest.extend(refused.messages);
        assert_eq!(rest.len(), 2, "{rest:?}");
        assert_eq!((rest[0].payload().len(), rest[1].payload()), (9, body(1, 0, b"next").payload()));
        drop(ours);
    }
    ledger.close();
}

#[test] // P5: replies are unread, and no more may be; the peer's queue is full
fn a_send_with_all_room_for_unread_messages_taken_does_not_spin() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    let mut ours = Calls::within(ours, Role::Caller, Bounds::new().messages(1));
    let mut peer = Channel::<Packet>::from_fd(theirs, Limits::new()).unwrap();
    while ours.try_start(Message::new([7; 1000]), Deadline::NEVER).is_ok() {}
    for _ in 0..3 {
        assert_eq!(peer.try_send(Message::new(b"told")).unwrap(), Sent::Complete);
    }
    let before = driver::processor_time();
    let refused = ours.send(Message::new([7; 1000]), driver::after(500)).unwrap_err();
    let used = driver::processor_time() - before;
    assert_eq!(refused.error, Error::TimedOut);
    assert!(used < Duration::from_millis(100), "{used:?} of 500 ms");
    drop((refused, ours, peer));
    ledger.close();
}
