//! What may be said to a broker, and what it answers (BR-1 to BR-9, BR-11 to BR-14).

mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::os::fd::AsFd;

use fdpost::broker::{ASK, Answer, Audience, Quotas, REGISTER, REQUEST_MOST, Request, WITHDRAW, Wire};
use fdpost::driver::Departure;
use fdpost::profile::packet::{ERROR, REPLY};
use fdpost::{
    BrokerEvent, Channel, Error, Head, Libcamera, Limits, Message, Packet, Refusal, Stream, Violation,
};
use nix::unistd::{getgid, getuid};
use support::{Ledger, assert_child, child, child_value, identity};
use support_broker::{
    Serving, Turned, ask, decode, kernel_refuses_descriptors, passes_rights, refusal, register, soon, talk,
};

const HEAD: Head = Head { kind: ASK, correlation: 1, flags: 0, reply_descriptors: 1 };

/// What the broker makes of one message of a fresh party: an answer, or the rule that it broke.
#[track_caller]
fn judged(serving: &Serving, head: Head, payload: &[u8]) -> Result<Answer, Violation> {
    let mut party = serving.raw();
    party.send(Message::new(payload).with_head(head)).unwrap();
    let answer = party.receive_by(soon());
    match answer {
        Ok(message) => {
            drop(party);
            assert_eq!(serving.departure(), Departure::Closed);
            Ok(decode(&message))
        }
        Err(error) => {
            assert_eq!(error, Error::Closed, "the conversation ends without another word");
            match serving.departure() {
                Departure::Failed(Error::Violation(violation)) => Err(violation),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn broken(field: &'static str, value: u32) -> Result<Answer, Violation> {
    Err(Violation::BrokerMessage { field, value })
}

const UNKNOWN: Result<Answer, Violation> = Ok(Answer::Refused(Refusal::NameUnknown));

/// The payload of a question.
fn question() -> Vec<u8> {
    ask::<Packet>("clock", 0).message::<()>(1, true).into_payload()
}

#[test] // P3
fn br_1_what_is_no_request() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let payload = question();
    for kind in [0, 4, 5, 6, u32::MAX] {
        assert_eq!(judged(&serving, Head { kind, ..HEAD }, &payload), broken("kind", kind));
    }
    for flags in [REPLY, REPLY | ERROR] {
        let head = Head { flags, reply_descriptors: 0, ..HEAD };
        assert_eq!(judged(&serving, head, &payload), broken("flags", flags));
    }
    let head = Head { correlation: 0, reply_descriptors: 0, ..HEAD };
    assert_eq!(judged(&serving, head, &payload), broken("correlation", 0));
    assert_eq!(judged(&serving, HEAD, &payload), UNKNOWN);
    assert_eq!(serving.stop().violations, 8);
    ledger.close();
}

#[test] // P4
fn br_2_a_request_cut_anywhere() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let payload = question();
    let wire_end = 8 + "packet".len();
    for length in 0..=payload.len() {
        let expected = match length {
            0..8 => Err(Violation::PayloadLength { declared: 8, received: length as u64 }),
            _ if length < wire_end => {
                Err(Violation::PayloadLength { declared: wire_end as u64, received: length as u64 })
            }
            _ if length == wire_end => broken("name_length", 0),
            _ => UNKNOWN,
        };
        assert_eq!(judged(&serving, HEAD, &payload[..length]), expected, "{length} bytes");
    }
    let (declared, limit) = (u64::from(REQUEST_MOST) + 1, REQUEST_MOST.into());
    let expected = Err(Violation::PayloadTooLarge { declared, limit });
    assert_eq!(judged(&serving, HEAD, &[b'x'; REQUEST_MOST as usize + 1]), expected);
    drop(serving);
    ledger.close();
}

#[test] // P4
fn br_3_names_of_every_length_and_byte() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let with = |wire: &[u8], name: &[u8]| [&[5, 0, 0, wire.len() as u8, 0, 0, 0, 0][..], wire, name].concat();
    for length in [0, 1, 2, 63, 64, 65, 90] {
        let expected = if (1..=64).contains(&length) { UNKNOWN } else { broken("name_length", length) };
        let name = vec![b'n'; length as usize];
        assert_eq!(judged(&serving, HEAD, &with(b"w", &name)), expected, "{length}");
        let head = Head { kind: WITHDRAW, ..HEAD };
        assert_eq!(judged(&serving, head, &name), expected, "{length}");
    }
    for length in [0, 1, 32, 33] {
        let expected = if (1..=32).contains(&length) { UNKNOWN } else { broken("wire_length", length) };
        assert_eq!(judged(&serving, HEAD, &with(&vec![b'w'; length as usize], b"n")), expected);
    }
    for byte in 0..=255_u8 {
        let expected = |field| if byte.is_ascii_graphic() { UNKNOWN } else { broken(field, byte.into()) };
        assert_eq!(judged(&serving, HEAD, &with(b"w", &[b'n', byte])), expected("name"), "{byte}");
        assert_eq!(judged(&serving, HEAD, &with(&[byte], b"n")), expected("wire"), "{byte}");
    }
    drop(serving);
    ledger.close();
}

#[test] // P4
fn br_4_fields_that_mean_nothing() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let done = Ok(Answer::Done);
    let judge = |kind, changes: &[(usize, u8)]| {
        let mut payload = question();
        changes.iter().for_each(|(place, value)| payload[*place] = *value);
        judged(&serving, Head { kind, ..HEAD }, &payload)
    };
    for socket in [0, 3, 4, 6, 255] {
        assert_eq!(judge(ASK, &[(0, socket)]), broken("socket", socket.into()));
    }
    for socket in [1, 2, 5] {
        assert_eq!(judge(ASK, &[(0, socket)]), UNKNOWN);
        assert_eq!(judge(REGISTER, &[(0, socket)]), done);
    }
    assert_eq!(judge(ASK, &[(1, 253)]), UNKNOWN);
    assert_eq!(judge(ASK, &[(1, 254)]), broken("accepts", 254));
    assert_eq!(judge(REGISTER, &[(1, 255)]), broken("accepts", 255));
    for audience in 1..=3 {
        assert_eq!(judge(ASK, &[(2, audience)]), broken("audience", audience.into()));
        assert_eq!(judge(REGISTER, &[(2, audience)]), done);
    }
    assert_eq!(judge(REGISTER, &[(2, 4)]), broken("audience", 4));
    assert_eq!(judge(ASK, &[(7, 1)]), broken("id", 1 << 24));
    for audience in [0, 3] {
        assert_eq!(judge(REGISTER, &[(2, audience), (4, 7)]), broken("id", 7));
    }
    for audience in [1, 2] {
        assert_eq!(judge(REGISTER, &[(2, audience), (4, 7)]), done);
    }
    drop(serving);
    ledger.close();
}

#[test] // P3
fn br_6_a_violation_closes_one_connection() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let mut other = serving.client();
    other.register::<Packet>("other", Limits::new(), Audience::SameUser, soon()).unwrap();
    let mut liar = serving.raw();
    liar.send(register::<Packet>("liar", 0, Audience::Anyone).message(1, true)).unwrap();
    assert_eq!(decode(&liar.receive_by(soon()).unwrap()), Answer::Done);
    liar.send(Message::new(b"no request")).unwrap();
    let left = serving.event(|event| matches!(event, BrokerEvent::Left { .. }));
    let BrokerEvent::Left { names: 1, why: Departure::Failed(Error::Violation(_)), .. } = left else {
        panic!("{left:?}")
    };
    assert_eq!(liar.receive_by(soon()).unwrap_err(), Error::Closed);
    // Its name is free, others' are not.
    let mut client = serving.client();
    assert_eq!(refusal(client.ask::<Packet>("liar", Limits::new(), soon())), Refusal::NameUnknown);
    let mut theirs = client.ask::<Packet>("other", Limits::new(), soon()).unwrap().channel;
    let mut ours = other.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
    talk(&mut ours, &mut theirs);
    drop((other, client, liar, ours, theirs));
    assert_eq!(serving.stop().violations, 1);
    ledger.close();
}

#[test]
fn br_7_each_request_has_its_answer() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let mut party = serving.raw();
    let withdraw = |name: &str| match ask::<Packet>(name, 0) {
        Request::Ask(ask) => Request::Withdraw(ask.name),
        other => other,
    };
    let name = |number: u32| format!("name-{}", number % 7);
    // Sent in one breath, also several to a packet: answered one by one.
    let requests: Vec<Request> = (0..60)
        .map(|number| match number % 3 {
            0 => register::<Packet>(&name(number), 0, Audience::SameUser),
            1 => ask::<Stream>(&name(number), 0),
            _ => withdraw(&name(number)),
        })
        .collect();
    let mut answers = Vec::new();
    for (first, lot) in requests.chunks(10).enumerate() {
        for (number, request) in lot.iter().enumerate() {
            party.send(request.message((first * 10 + number + 1) as u32, true)).unwrap();
        }
        answers.extend((0..lot.len()).map(|_| party.receive_by(soon()).unwrap()));
    }
    for ((request, message), correlation) in requests.iter().zip(&answers).zip(1..) {
        let head = message.head();
        assert_eq!((head.kind, head.correlation), (request.kind(), correlation));
        let refused = matches!(decode(message), Answer::Refused(_));
        assert_eq!(head.flags, if refused { REPLY | ERROR } else { REPLY }, "{message:?}");
    }
    let kinds = answers.iter().map(decode).fold([0; 2], |[done, refused], answer| match answer {
        Answer::Done => [done + 1, refused],
        _ => [done, refused + 1],
    });
    assert!(kinds[0] > 5 && kinds[1] > 5, "both kinds of answers: {kinds:?}");
    drop(party);
    serving.stop();
    ledger.close();
}

/// One channel of the wire `P`, handed out and used.
#[track_caller]
fn handed_out<P: fdpost::Profile>(serving: &Serving) {
    let (mut service, mut client) = (serving.client(), serving.client());
    service.register::<P>("it", Limits::new().descriptors(3), Audience::SameUser, soon()).unwrap();
    let theirs = client.ask::<P>("it", Limits::new().descriptors(7), soon()).unwrap();
    let ours = service.accept_by::<P>(Limits::new().descriptors(3), soon()).unwrap();
    let me = (std::process::id() as i32, getuid().as_raw(), getgid().as_raw());
    for fresh in [&ours.peer, &theirs.peer] {
        assert_eq!((fresh.pid, fresh.uid, fresh.gid), me);
    }
    assert_eq!((ours.peer_accepts, theirs.peer_accepts), (7, 3));
    assert_eq!((ours.name.as_str(), theirs.name.as_str()), ("it", "it"));
    assert_ne!(identity(&ours.channel.as_fd()), identity(&theirs.channel.as_fd()));
    let (mut ours, mut theirs) = (ours.channel, theirs.channel);
    talk(&mut ours, &mut theirs);
    // A descriptor goes over it, and the broker is not needed any more.
    drop((service, client));
    ours.send(Message::new(b"file").with(support::files(1).remove(0))).unwrap();
    assert_eq!(theirs.receive_by(soon()).unwrap().descriptor_count(), 1);
    // Nobody else holds an end: the conversation is over when one side drops its own. On a datagram
    // socket only the sender learns of it.
    drop(ours);
    let gone = theirs.send(Message::new(b"anyone?"));
    assert!(matches!(gone.unwrap_err().error, Error::PeerGone { .. }));
}

#[test] // P1, P2
fn br_8_both_ends_of_a_fresh_channel() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    handed_out::<Packet>(&serving);
    serving.departure();
    serving.departure();
    handed_out::<Libcamera>(&serving);
    serving.departure();
    serving.departure();
    handed_out::<Stream>(&serving);
    assert_eq!(serving.stop().granted, 3);
    ledger.close();
}

#[test] // P9
fn br_9_who_takes_no_ends_gets_none() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut service, _) = turned.connected();
    let (mut client, _) = turned.connected();
    let registration = register::<Packet>("clock", 0, Audience::SameUser);
    let no = Answer::Refused(Refusal::AcceptsNone);
    assert_eq!(turned.answer(&mut service, &registration, false), no);
    assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
    // Its channel accepts none (a descriptor would be its peer's violation), and it says so.
    assert_eq!(turned.answer(&mut client, &ask::<Packet>("clock", 0), false), no);
    assert!(service.try_receive().unwrap().is_none(), "nothing was handed over");
    assert!(matches!(turned.answer(&mut client, &ask::<Packet>("clock", 0), true), Answer::Granted(_)));
    assert_eq!(turned.until(&mut service).descriptor_count(), 1);
    if kernel_refuses_descriptors() {
        // It says that it takes them and its socket does not.
        let mut liar = Channel::<Packet>::connect(&turned.address, Limits::new()).unwrap();
        assert_eq!(turned.answer(&mut liar, &ask::<Packet>("clock", 0), true), no);
        // The service has an end that reads as closed.
        let mut handed = turned.until(&mut service);
        let mut end = handed.take_channel::<Packet>(0, Limits::new()).unwrap();
        assert_eq!(end.receive_by(soon()).unwrap_err(), Error::Closed);
        let registration = register::<Packet>("liar", 0, Audience::SameUser);
        assert_eq!(turned.answer(&mut liar, &registration, true), Answer::Done);
        let refused = turned.answer(&mut client, &ask::<Packet>("liar", 0), true);
        assert_eq!(refused, Answer::Refused(Refusal::ServiceAcceptsNone));
        assert_eq!(turned.answer(&mut liar, &ask::<Packet>("none", 0), true), UNKNOWN.unwrap());
    } else {
        println!("skipped: SO_PASSRIGHTS is not in this kernel (Linux 6.16)");
    }
    drop((turned, service, client));
    ledger.close();
}

#[test] // P9
fn br_10_ends_refuse_what_nobody_accepts() {
    if !kernel_refuses_descriptors() {
        println!("skipped: SO_PASSRIGHTS is not in this kernel (Linux 6.16)");
        return;
    }
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut service, _) = turned.connected();
    let (mut client, _) = turned.connected();
    for (service_accepts, client_accepts) in [(0, 0), (0, 1), (1, 0), (253, 253)] {
        let name = format!("{service_accepts}-{client_accepts}");
        let registration = register::<Stream>(&name, service_accepts, Audience::SameUser);
        assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
        client.send(ask::<Stream>(&name, client_accepts).message(1, true)).unwrap();
        let (mut theirs, mut ours) = (turned.until(&mut client), turned.until(&mut service));
        let (theirs, ours) = (theirs.take(0).unwrap(), ours.take(0).unwrap());
        assert_eq!(passes_rights(&ours), Some(service_accepts > 0), "{name}");
        assert_eq!(passes_rights(&theirs), Some(client_accepts > 0), "{name}");
    }
    drop((turned, service, client));
    ledger.close();
}

#[test]
fn br_11_a_name_taken_twice() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let register = |party: &mut fdpost::BrokerClient, name| {
        party.register::<Packet>(name, Limits::new(), Audience::Anyone, soon())
    };
    let (mut first, mut second) = (serving.client(), serving.client());
    register(&mut first, "one").unwrap();
    register(&mut first, "two").unwrap();
    assert_eq!(refusal(register(&mut second, "one")), Refusal::NameTaken);
    assert_eq!(refusal(register(&mut first, "one")), Refusal::NameTaken);
    // Not the second's to withdraw.
    assert_eq!(refusal(second.withdraw("one", soon())), Refusal::NameUnknown);
    first.withdraw("one", soon()).unwrap();
    register(&mut second, "one").unwrap();
    // With the connection both ways: asked for, then free.
    drop(first);
    serving.departure();
    register(&mut second, "two").unwrap();
    let mut client = serving.client();
    let fresh = client.ask::<Packet>("two", Limits::new(), soon()).unwrap();
    assert_eq!(second.accept_by::<Packet>(Limits::new(), soon()).unwrap().name, fresh.name);
    drop((second, client, fresh));
    let stats = serving.stop();
    assert_eq!((stats.granted, stats.refused), (1, 3));
    ledger.close();
}

#[test]
fn br_12_an_unknown_name() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let mut client = serving.client();
    for _ in 0..3 {
        assert_eq!(refusal(client.ask::<Packet>("nobody", Limits::new(), soon())), Refusal::NameUnknown);
    }
    assert_eq!(refusal(client.withdraw("nobody", soon())), Refusal::NameUnknown);
    drop(client);
    serving.stop();
    ledger.close();
}

#[test]
fn br_13_another_wire() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let (mut service, mut client) = (serving.client(), serving.client());
    service.register::<Packet>("clock", Limits::new(), Audience::SameUser, soon()).unwrap();
    let mismatch = Refusal::WireMismatch(Wire::of::<Packet>().unwrap());
    assert_eq!(refusal(client.ask::<Stream>("clock", Limits::new(), soon())), mismatch);
    assert_eq!(refusal(client.ask::<Libcamera>("clock", Limits::new(), soon())), mismatch);
    // The same name over another type of socket is another wire, and so is another name over the
    // same.
    let mut raw = serving.raw();
    for (place, value) in [(0, 1), (8, b'P')] {
        let mut message = ask::<Packet>("clock", 0).message(1, true);
        message.payload_mut()[place] = value;
        raw.send(message).unwrap();
        assert_eq!(decode(&raw.receive_by(soon()).unwrap()), Answer::Refused(mismatch));
    }
    assert!(client.ask::<Packet>("clock", Limits::new(), soon()).is_ok());
    drop((service, client, raw));
    serving.stop();
    ledger.close();
}

/// A user that is certainly another than ours.
const OTHER: u32 = 54_321;

#[test] // P9
fn br_14_who_may_ask() {
    if let Some(address) = child_value() {
        return ask_as_another(&address);
    }
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let mut service = serving.client();
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let names = [
        ("same-user", Audience::SameUser, true),
        ("us", Audience::User(user), true),
        ("others", Audience::User(OTHER), false),
        ("group", Audience::Group(group), true),
        ("other-group", Audience::Group(OTHER), false),
        ("anyone", Audience::Anyone, true),
    ];
    let mut client = serving.client();
    for (name, audience, permitted) in names {
        service.register::<Packet>(name, Limits::new(), audience, soon()).unwrap();
        match client.ask::<Packet>(name, Limits::new(), soon()) {
            Ok(_) if permitted => drop(service.accept_by::<Packet>(Limits::new(), soon()).unwrap()),
            Err(Error::BrokerRefused(Refusal::NotPermitted)) if !permitted => {}
            other => panic!("{name}: {other:?}"),
        }
    }
    if getuid().is_root() {
        let text = serving.address.to_string();
        assert_child(&child("br_14_who_may_ask", text.trim_start_matches('@')));
    } else {
        println!("skipped: only root can ask as another user");
    }
    drop((service, client));
    serving.stop();
    ledger.close();
}

/// In a process of its own: the same names, seen by somebody else.
fn ask_as_another(address: &str) {
    nix::unistd::setgid(OTHER.into()).unwrap();
    nix::unistd::setuid(OTHER.into()).unwrap();
    let mut client = fdpost::BrokerClient::connect(fdpost::Address::abstract_name(address)).unwrap();
    for (name, permitted) in [
        ("same-user", false),
        ("us", false),
        ("others", true),
        ("group", false),
        ("other-group", true),
        ("anyone", true),
    ] {
        match client.ask::<Packet>(name, Limits::new(), soon()) {
            Ok(_) if permitted => {}
            Err(Error::BrokerRefused(Refusal::NotPermitted)) if !permitted => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test] // P9
fn a_rule_of_the_brokers_own_says_who_may_register_what() {
    let ledger = Ledger::open();
    let serving = Serving::start_with(Quotas::new(), |broker| {
        broker.set_rule(|who, request| {
            who.uid == getuid().as_raw()
                && !matches!(request, Request::Register(it) if it.name.as_str() == "root")
        });
    });
    let mut party = serving.client();
    let register = |party: &mut fdpost::BrokerClient, name| {
        party.register::<Packet>(name, Limits::new(), Audience::Anyone, soon())
    };
    assert_eq!(refusal(register(&mut party, "root")), Refusal::NotPermitted);
    register(&mut party, "user").unwrap();
    drop(party);
    serving.stop();
    ledger.close();
}
