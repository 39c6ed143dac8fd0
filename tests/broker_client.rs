//! The client's side: a broker that breaks the rules, answers that come too late, hand-overs that
//! wait (BR-22, BR-23).

mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::os::fd::AsFd;
use std::time::Duration;

use fdpost::broker::{
    ASK, Answer, Audience, HAND_OVER, Name, Peer, Quotas, REGISTER, TURNED_AWAY, WITHDRAW, Wire,
};
use fdpost::driver::{HAND_OVERS_MOST, UNANSWERED_MOST};
use fdpost::profile::packet::{ERROR, REPLY};
use fdpost::wire::control::Credentials;
use fdpost::{
    BrokerClient, Channel, Deadline, Error, Exhausted, Head, Limits, Message, Misuse, Packet, PeerRule,
    Refusal, Stream, Violation,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::getuid;
use support::{Ledger, files};
use support_broker::{Serving, Turned, refusal, register, soon, talk};

const NOBODY: Peer = Peer { credentials: Credentials { pid: 1, uid: 2, gid: 3 }, accepts: 4 };

/// A client and its broker, which says what the test says.
fn played() -> (BrokerClient, Channel<Packet>) {
    let (broker, end) = Channel::<Packet>::pair(Limits::new()).unwrap();
    (BrokerClient::from_fd(end).unwrap(), broker)
}

/// What becomes of a question that this message answers.
#[track_caller]
fn answered(message: Message) -> Error {
    let (mut client, mut broker) = played();
    broker.send(message).unwrap();
    let error = client.ask::<Packet>("clock", Limits::new(), soon()).unwrap_err();
    if matches!(error, Error::Violation(_)) {
        // P3: for ever, and the broker is told.
        assert_eq!(client.ask::<Packet>("clock", Limits::new(), soon()).unwrap_err(), error);
        assert_eq!(client.accept_by::<Packet>(Limits::new(), soon()).unwrap_err(), error);
        assert!(support::is_shut_down(&broker));
    }
    error
}

fn broken(field: &'static str, value: u32) -> Error {
    Error::Violation(Violation::BrokerMessage { field, value })
}

#[test] // P1, P2, P3
fn br_22_a_broker_that_breaks_the_rules() {
    let ledger = Ledger::open();
    let end = || files(1).remove(0);
    let granted = || Answer::Granted(NOBODY).message(ASK, 1);
    let with_head = |change: fn(&mut Head)| {
        let mut head = *granted().head();
        change(&mut head);
        granted().with_head(head).with(end())
    };
    assert_eq!(answered(with_head(|head| head.kind = 9)), broken("kind", 9));
    assert_eq!(answered(with_head(|head| head.kind = REGISTER)), broken("accepts", 4));
    assert_eq!(answered(with_head(|head| head.flags = 0)), broken("flags", 0));
    assert_eq!(answered(with_head(|head| head.flags = REPLY | ERROR)), broken("status", 0));
    assert_eq!(answered(with_head(|head| head.correlation = 2)), broken("correlation", 2));
    let done = Answer::Done.message(REGISTER, 1);
    assert_eq!(answered(done), broken("kind", REGISTER));
    // Descriptors: one with the end, none without.
    let count = |declared, received| Error::Violation(Violation::DescriptorCount { declared, received });
    assert_eq!(answered(granted()), count(1, 0));
    let refused = Answer::Refused(Refusal::NameUnknown).message(ASK, 1);
    assert_eq!(answered(refused.with(end())), count(0, 1));
    let two = Error::Violation(Violation::TooManyDescriptors { declared: 2, limit: 1 });
    assert_eq!(answered(granted().with(end()).with(end())), two);
    // Fields, one by one.
    let with_byte = |answer: Answer, place: usize, value: u8| {
        let mut message = answer.message(ASK, 1);
        message.payload_mut()[place] = value;
        if answer.descriptors() > 0 { message.with(end()) } else { message }
    };
    let unknown = Answer::Refused(Refusal::NameUnknown);
    assert_eq!(answered(with_byte(unknown, 0, 12)), broken("status", 12));
    assert_eq!(answered(with_byte(unknown, 0, 0)), broken("status", 0));
    assert_eq!(answered(with_byte(unknown, 1, 5)), broken("socket", 5));
    assert_eq!(answered(with_byte(unknown, 2, 1)), broken("accepts", 1));
    assert_eq!(answered(with_byte(unknown, 3, 1)), broken("reserved", 1));
    assert_eq!(answered(with_byte(unknown, 4, 1)), broken("pid", 1));
    assert_eq!(answered(with_byte(unknown, 8, 1)), broken("uid", 1));
    assert_eq!(answered(with_byte(unknown, 12, 1)), broken("gid", 1));
    assert_eq!(answered(with_byte(Answer::Granted(NOBODY), 1, 5)), broken("socket", 5));
    assert_eq!(answered(with_byte(Answer::Granted(NOBODY), 2, 254)), broken("accepts", 254));
    // A mismatch that is none, and one without a wire.
    let mismatch = |wire| Answer::Refused(Refusal::WireMismatch(wire));
    let same = mismatch(Wire::of::<Packet>().unwrap());
    assert_eq!(answered(same.message(ASK, 1)), broken("wire", 0));
    let stream = mismatch(Wire::of::<Stream>().unwrap());
    assert_eq!(answered(with_byte(stream, 1, 4)), broken("socket", 4));
    assert_eq!(answered(with_byte(stream, 16, b' ')), broken("wire", b' '.into()));
    assert_eq!(
        answered(stream.message(ASK, 1)),
        Error::BrokerRefused(Refusal::WireMismatch(Wire::of::<Stream>().unwrap()))
    );
    // Lengths.
    let length = |declared, received| Error::Violation(Violation::PayloadLength { declared, received });
    let mut cut = unknown.message(ASK, 1);
    cut.payload_mut().truncate(15);
    assert_eq!(answered(cut), length(16, 15));
    let mut long = unknown.message(ASK, 1);
    long.payload_mut().push(b'x');
    assert_eq!(answered(long), length(16, 17));
    // Hand-overs of what nobody serves, or without an end; being turned away with a yes.
    let name = Name::new("clock").unwrap();
    let hand_over = || Answer::HandOver(name, NOBODY).message(0, 0);
    assert_eq!(answered(hand_over().with(end())), broken("name", 0));
    assert_eq!(answered(hand_over()), count(1, 0));
    assert_eq!(answered(with_byte(Answer::HandOver(name, NOBODY), 0, 2)), broken("status", 2));
    assert_eq!(answered(with_byte(Answer::HandOver(name, NOBODY), 16, 7)), broken("name", 7));
    let head = Head { kind: HAND_OVER, correlation: 1, flags: 0, reply_descriptors: 0 };
    assert_eq!(answered(hand_over().with_head(head).with(end())), broken("correlation", 1));
    let turned = Answer::TurnedAway(Refusal::Quota);
    assert_eq!(answered(with_byte(turned, 0, 0)), broken("status", 0));
    let head = Head { kind: TURNED_AWAY, correlation: 1, flags: REPLY, reply_descriptors: 0 };
    assert_eq!(answered(turned.message(0, 0).with_head(head)), broken("flags", REPLY));
    ledger.close();
}

#[test] // P1, P2
fn br_23_an_answer_too_late() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut service, _) = turned.connected();
    let registration = register::<Packet>("clock", 0, Audience::SameUser);
    turned.answer(&mut service, &registration, true);
    let mut client = BrokerClient::connect(&turned.address).unwrap();
    // The broker is not turned meanwhile.
    let passed = || Deadline::after(Duration::ZERO);
    for _ in 0..3 {
        let late = client.ask::<Packet>("clock", Limits::new(), passed());
        assert_eq!(late.unwrap_err(), Error::TimedOut);
    }
    let late = client.register::<Packet>("late", Limits::new(), Audience::SameUser, passed());
    assert_eq!(late.unwrap_err(), Error::TimedOut);
    let mut ends = Vec::new();
    while ends.len() < 3 {
        let mut handed = turned.until(&mut service);
        ends.push(handed.take_channel::<Packet>(0, Limits::new()).unwrap());
    }
    // The next question hears its own answer.
    let closer = turned.broker.closer();
    let broker = std::thread::spawn(move || turned.broker.run().unwrap());
    assert_eq!(refusal(client.ask::<Packet>("nobody", Limits::new(), soon())), Refusal::NameUnknown);
    assert_eq!(client.late(), 4);
    for end in &mut ends {
        assert_eq!(end.receive_by(soon()).unwrap_err(), Error::Closed);
    }
    // And the name that came late is this connection's all the same: who tries again is told so, once.
    client.register::<Packet>("late", Limits::new(), Audience::SameUser, soon()).unwrap();
    let taken = client.register::<Packet>("late", Limits::new(), Audience::SameUser, soon());
    assert_eq!(refusal(taken), Refusal::NameTaken);
    let mut theirs = client.ask::<Packet>("late", Limits::new(), soon()).unwrap().channel;
    let mut ours = client.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
    talk(&mut ours, &mut theirs);
    drop(ours);
    drop((client, service, theirs, ends));
    closer.shutdown();
    broker.join().unwrap();
    ledger.close();
}

#[test] // P4
fn hand_overs_wait_for_their_wire() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let (mut service, mut client) = (serving.client(), serving.client());
    service.register::<Packet>("packets", Limits::new(), Audience::SameUser, soon()).unwrap();
    service.register::<Stream>("bytes", Limits::new(), Audience::SameUser, soon()).unwrap();
    assert!(service.try_accept::<Packet>(Limits::new()).unwrap().is_none());
    let bytes = client.ask::<Stream>("bytes", Limits::new(), soon()).unwrap();
    let packets = client.ask::<Packet>("packets", Limits::new(), soon()).unwrap();
    // In the order that the service likes.
    let mut ours = service.accept_by::<Packet>(Limits::new(), soon()).unwrap();
    talk(&mut ours.channel, &mut { packets }.channel);
    drop(ours);
    assert!(service.try_accept::<Packet>(Limits::new()).unwrap().is_none());
    let mut ours = service.try_accept::<Stream>(Limits::new()).unwrap().unwrap();
    assert_eq!(ours.name.as_str(), "bytes");
    talk(&mut ours.channel, &mut { bytes }.channel);
    // A name withdrawn: what came before is still there.
    let bytes = client.ask::<Stream>("bytes", Limits::new(), soon()).unwrap();
    service.withdraw("bytes", soon()).unwrap();
    let mut second = service.try_accept::<Stream>(Limits::new()).unwrap().unwrap();
    talk(&mut second.channel, &mut { bytes }.channel);
    drop((service, client, ours, second));
    serving.stop();
    ledger.close();
}

#[test] // P4
fn hand_overs_beyond_what_waits_are_closed() {
    let ledger = Ledger::open();
    let (mut client, mut broker) = played();
    let name = Name::new("clock").unwrap();
    broker.send(Answer::Done.message(REGISTER, 1)).unwrap();
    client.register::<Packet>("clock", Limits::new(), Audience::SameUser, soon()).unwrap();
    let mut others = Vec::new();
    for _ in 0..HAND_OVERS_MOST + 3 {
        let (other, end) = Channel::<Packet>::pair(Limits::new()).unwrap();
        broker.send(Answer::HandOver(name, NOBODY).message(0, 0).with(end)).unwrap();
        others.push(other);
    }
    broker.send(Answer::Refused(Refusal::NameUnknown).message(ASK, 2)).unwrap();
    assert_eq!(refusal(client.ask::<Packet>("x", Limits::new(), soon())), Refusal::NameUnknown);
    assert_eq!(client.missed(), 3);
    let (kept, closed) = others.split_at_mut(HAND_OVERS_MOST);
    for other in closed {
        assert_eq!(other.receive_by(soon()).unwrap_err(), Error::Closed);
    }
    for other in kept {
        let mut fresh = client.try_accept::<Packet>(Limits::new()).unwrap().unwrap();
        talk(&mut fresh.channel, other);
    }
    drop((client, broker, others));
    ledger.close();
}

#[test]
fn names_are_checked_before_anything_is_said() {
    let ledger = Ledger::open();
    let (mut client, mut broker) = played();
    let length = |bytes| Error::Misuse(Misuse::WordLength { bytes, limit: 64 });
    let ask = |client: &mut BrokerClient, name: &str| client.ask::<Packet>(name, Limits::new(), soon());
    assert_eq!(ask(&mut client, "").unwrap_err(), length(0));
    assert_eq!(client.withdraw(&"x".repeat(65), soon()).unwrap_err(), length(65));
    let registered = client.register::<Packet>("a b", Limits::new(), Audience::Anyone, soon());
    assert_eq!(registered.unwrap_err(), Error::Misuse(Misuse::WordByte { index: 1, byte: b' ' }));
    let limits = Limits::new().descriptors(254);
    let out_of_range = client.ask::<Packet>("x", limits, soon()).unwrap_err();
    assert!(matches!(out_of_range, Error::Misuse(Misuse::LimitOutOfRange { .. })), "{out_of_range:?}");
    assert!(broker.try_receive().unwrap().is_none(), "nothing was said");
    drop((client, broker));
    ledger.close();
}

#[test]
fn a_broker_that_is_gone_says_so() {
    let ledger = Ledger::open();
    let (mut client, broker) = played();
    drop(broker);
    let gone = client.ask::<Packet>("x", Limits::new(), soon()).unwrap_err();
    assert!(matches!(gone, Error::PeerGone { .. }), "{gone:?}");
    assert_eq!(client.accept_by::<Packet>(Limits::new(), soon()).unwrap_err(), Error::Closed);
    drop(client);
    ledger.close();
}

#[test] // P9
fn a_broker_of_another_user_hears_nothing() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let rule = PeerRule::new().uid(getuid().as_raw() + 1);
    let refused = BrokerClient::connect_with(&turned.address, &rule, soon()).unwrap_err();
    assert!(matches!(refused, Error::PeerRefused { .. }), "{refused:?}");
    let rule = PeerRule::new().uid(getuid().as_raw());
    let client = BrokerClient::connect_with(&turned.address, &rule, soon()).unwrap();
    while turned.broker.stats().connected < 2 {
        turned.broker.turn(soon()).unwrap();
    }
    drop((turned, client));
    ledger.close();
}

#[test] // P5
fn a_closer_wakes_who_waits() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let (mut service, mut client) = (serving.client(), serving.client());
    service.register::<Packet>("clock", Limits::new(), Audience::SameUser, soon()).unwrap();
    let mut theirs = client.ask::<Packet>("clock", Limits::new(), soon()).unwrap().channel;
    let mut ours = service.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
    let closer = service.closer();
    let waiting = std::thread::spawn(move || service.accept_by::<Packet>(Limits::new(), Deadline::NEVER));
    closer.shutdown();
    assert_eq!(waiting.join().unwrap().unwrap_err(), Error::Closed);
    serving.departure();
    assert_eq!(refusal(client.ask::<Packet>("clock", Limits::new(), soon())), Refusal::NameUnknown);
    talk(&mut ours, &mut theirs);
    drop((client, ours, theirs));
    serving.stop();
    ledger.close();
}

/// The answer to a registration was not heard: the same call again is about the same registration.
#[test] // P5; rule BR-11
fn a_registration_tried_again_is_the_same_one() {
    let ledger = Ledger::open();
    let (mut client, mut broker) = played();
    let register = |client: &mut BrokerClient, deadline| {
        client.register::<Packet>("clock", Limits::new(), Audience::SameUser, deadline)
    };
    let now = || Deadline::after(Duration::ZERO);
    assert_eq!(register(&mut client, now()).unwrap_err(), Error::TimedOut);
    assert_eq!(register(&mut client, now()).unwrap_err(), Error::TimedOut);
    broker.send(Answer::Done.message(REGISTER, 1)).unwrap();
    register(&mut client, soon()).unwrap();
    assert_eq!(broker.receive_by(soon()).unwrap().head().correlation, 1);
    assert!(broker.try_receive().unwrap().is_none(), "asked once");
    // Whoever was told is not told again: the broker is asked, and says whose the name is.
    broker.send(Answer::Refused(Refusal::NameTaken).message(REGISTER, 2)).unwrap();
    assert_eq!(refusal(register(&mut client, soon())), Refusal::NameTaken);
    // So with a withdrawal.
    assert_eq!(client.withdraw("clock", now()).unwrap_err(), Error::TimedOut);
    broker.send(Answer::Done.message(WITHDRAW, 3)).unwrap();
    client.withdraw("clock", soon()).unwrap();
    // An answer that another call hears is known to the next registration.
    assert_eq!(register(&mut client, now()).unwrap_err(), Error::TimedOut);
    broker.send(Answer::Done.message(REGISTER, 4)).unwrap();
    assert!(client.try_accept::<Packet>(Limits::new()).unwrap().is_none());
    register(&mut client, now()).unwrap();
    // Another audience is another registration; and behind a withdrawal it is a new one.
    let another = client.register::<Packet>("clock", Limits::new(), Audience::Anyone, now());
    assert_eq!(another.unwrap_err(), Error::TimedOut);
    assert_eq!(client.withdraw("clock", now()).unwrap_err(), Error::TimedOut);
    let another = client.register::<Packet>("clock", Limits::new(), Audience::Anyone, now());
    assert_eq!(another.unwrap_err(), Error::TimedOut);
    let asked: Vec<u32> = std::iter::from_fn(|| broker.try_receive().unwrap())
        .map(|message| message.head().correlation)
        .collect();
    assert_eq!(asked, [2, 3, 4, 5, 6, 7]);
    drop((client, broker));
    ledger.close();
}

#[test] // P4
fn requests_that_nobody_answers_are_bounded() {
    let ledger = Ledger::open();
    let (mut client, mut broker) = played();
    let now = || Deadline::after(Duration::ZERO);
    for _ in 0..UNANSWERED_MOST {
        assert_eq!(client.ask::<Packet>("x", Limits::new(), now()).unwrap_err(), Error::TimedOut);
    }
    let limit = UNANSWERED_MOST as u32;
    let full = Error::Exhausted(Exhausted::CallsInFlight { pending: 0, given_up: limit, limit });
    assert_eq!(client.ask::<Packet>("x", Limits::new(), soon()).unwrap_err(), full);
    // Each answer makes room.
    broker.send(Answer::Refused(Refusal::NameUnknown).message(ASK, 1)).unwrap();
    assert!(client.try_accept::<Packet>(Limits::new()).unwrap().is_none());
    assert_eq!(client.ask::<Packet>("x", Limits::new(), now()).unwrap_err(), Error::TimedOut);
    let asked = std::iter::from_fn(|| broker.try_receive().unwrap()).count();
    assert_eq!(asked, UNANSWERED_MOST + 1);
    drop((client, broker));
    ledger.close();
}

/// What is to be read without end does not stop the clock.
#[test] // P4, P5
fn a_broker_that_floods_does_not_stop_the_clock() {
    let ledger = Ledger::open();
    let (mut client, mut broker) = played();
    let mut flood = Vec::new();
    for _ in 0..3000 {
        flood.push(Answer::TurnedAway(Refusal::Full).message(0, 0));
    }
    broker.send_all(&mut flood).unwrap();
    assert!(client.try_accept::<Packet>(Limits::new()).unwrap().is_none());
    assert!(is_readable(&client), "it was read to its end");
    drop((client, broker));
    ledger.close();
}

fn is_readable(socket: &impl AsFd) -> bool {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut sockets, PollTimeout::ZERO).unwrap() > 0
}

#[test] // P1, P2; BR-23
fn what_was_withdrawn_is_served_no_longer_and_the_rest_is() {
    let ledger = Ledger::open();
    let names = ["clock", "camera"].map(|name| Name::new(name).unwrap());
    for (served, accepted) in [(names[1], true), (names[0], false)] {
        let (mut client, mut broker) = played();
        for (answer, kind, correlation) in
            [(Answer::Done, REGISTER, 1), (Answer::Done, REGISTER, 2), (Answer::Done, WITHDRAW, 3)]
        {
            broker.send(answer.message(kind, correlation)).unwrap();
        }
        for name in ["clock", "camera"] {
            client.register::<Packet>(name, Limits::new(), Audience::Anyone, soon()).unwrap();
        }
        client.withdraw("clock", soon()).unwrap();
        let (_ours, end) = Channel::<Packet>::pair(Limits::new()).unwrap();
        broker.send(Answer::HandOver(served, NOBODY).message(0, 0).with(end)).unwrap();
        let handed = client.accept_by::<Packet>(Limits::new(), soon());
        match (handed, accepted) {
            (Ok(_), true) => {}
            (Err(error), false) => assert_eq!(error, broken("name", 0)),
            (handed, _) => panic!("{served}: {handed:?}"),
        }
        drop((client, broker));
    }
    ledger.close();
}
