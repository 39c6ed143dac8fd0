//! Parties that die, vanish, do not read, or are too many; and a broker that has nothing left
//! (BR-5, BR-15 to BR-21).

mod support;
#[path = "support/broker.rs"]
mod support_broker;
#[path = "support/driver.rs"]
mod support_driver;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use fdpost::broker::{Answer, Audience, Id, Quotas};
use fdpost::driver::Departure;
use fdpost::{
    Address, Broker, BrokerClient, BrokerEvent, Channel, Deadline, Error, Limits, Packet, PeerRule, Refusal,
    Violation,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use support::{Ledger, assert_child, child, child_value, files, raw_send};
use support_broker::{LIMITS, Serving, Turned, ask, decode, frame, refusal, register, soon, talk};

/// So little that a handful of messages fill it: the kernel's own least.
const LITTLE: u32 = 4608;

/// What a broker has answered so far, to whom.
fn answered(turned: &Turned) -> Vec<Id> {
    let events = turned.events.try_iter();
    events
        .filter_map(|event| if let BrokerEvent::Answered { id, .. } = event { Some(id) } else { None })
        .collect()
}

#[test] // P2, P9
fn br_5_a_request_with_a_descriptor() {
    let ledger = Ledger::open();
    // A listener that somebody else made does not refuse descriptors in the name of those who wait.
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let name = format!("fdpost-broker-raw-{}", std::process::id());
    let address = UnixAddr::new_abstract(name.as_bytes()).unwrap();
    bind(socket.as_raw_fd(), &address).unwrap();
    listen(&socket, Backlog::new(16).unwrap()).unwrap();
    // One says that there is one, the other does not.
    let connect = || Channel::<Packet>::connect(Address::abstract_name(&name), LIMITS).unwrap();
    let (mut frank, mut sly) = (connect(), connect());
    frank.send(ask::<Packet>("clock", 0).message(1, true).with(files(1).remove(0))).unwrap();
    raw_send(&sly.as_fd(), &frame(&ask::<Packet>("clock", 0), 1), &files(1));
    let mut broker = Broker::from_fd(socket, Quotas::new(), PeerRule::new()).unwrap();
    let (told, events) = std::sync::mpsc::channel();
    broker.set_observer(move |event| told.send(*event).unwrap());
    let mut left = Vec::new();
    while left.len() < 2 {
        broker.turn(soon()).unwrap();
        let gone = |event| if let BrokerEvent::Left { why, .. } = event { Some(why) } else { None };
        left.extend(events.try_iter().filter_map(gone));
    }
    let unexpected = Violation::DescriptorUnexpected { received: 1 };
    let declared = Violation::TooManyDescriptors { declared: 1, limit: 0 };
    for violation in [unexpected, declared] {
        assert!(left.contains(&Departure::Failed(Error::Violation(violation))), "{left:?}");
    }
    assert_eq!(frank.receive_by(soon()).unwrap_err(), Error::Closed);
    // Its frame was sound (PK-14): what no frame claims is found behind it.
    let answer = decode(&sly.receive_by(soon()).unwrap());
    assert_eq!(answer, Answer::Refused(Refusal::NameUnknown));
    assert_eq!(sly.receive_by(soon()).unwrap_err(), Error::Closed);
    drop((broker, frank, sly));
    ledger.close();
}

/// In a process of its own: serves a name, leaves its connection to another process, and ends.
fn serve_and_die(address: &str) {
    let mut service = BrokerClient::connect(Address::abstract_name(address)).unwrap();
    service.register::<Packet>("mortal", Limits::new(), Audience::SameUser, soon()).unwrap();
    let parent_fd = service.as_fd().try_clone_to_owned().unwrap();
    let mut heir = Command::new("cat");
    // It ends with the standard input, which the test holds.
    heir.stdin(Stdio::inherit()).stdout(Stdio::null()).stderr(Stdio::null());
    heir.fd_mappings(vec![FdMapping { parent_fd, child_fd: 9 }]).unwrap();
    std::mem::forget(heir.spawn().unwrap());
}

#[test]
fn br_15_a_dead_service_is_forgotten() {
    if let Some(address) = child_value() {
        return serve_and_die(&address);
    }
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    if matches!(serving.raw().peer_pidfd(), Err(Error::Io { errno: nix::libc::ENOPROTOOPT, .. })) {
        println!("skipped: SO_PEERPIDFD is not in this kernel (Linux 6.5)");
        return;
    }
    let text = serving.address.to_string();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["br_15_a_dead_service_is_forgotten", "--exact", "--nocapture", "--test-threads=1"])
        .env("FDPOST_CHILD", text.trim_start_matches('@'))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let heirs_life = process.stdin.take().unwrap();
    assert!(process.wait().unwrap().success());
    // The heir has the connection still: only the process's end tells.
    let left = serving.event(|event| matches!(event, BrokerEvent::Left { names: 1, .. }));
    assert!(matches!(left, BrokerEvent::Left { why: Departure::Died, .. }), "{left:?}");
    let mut next = serving.client();
    assert_eq!(refusal(next.ask::<Packet>("mortal", Limits::new(), soon())), Refusal::NameUnknown);
    next.register::<Packet>("mortal", Limits::new(), Audience::SameUser, soon()).unwrap();
    drop((heirs_life, next));
    serving.stop();
    ledger.close();
}

#[test] // P2
fn br_16_a_client_that_vanishes() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut service, _) = turned.connected();
    let registration = register::<Packet>("clock", 0, Audience::SameUser);
    assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
    let (mut client, _) = turned.connected();
    client.send(ask::<Packet>("clock", 0).message(1, true)).unwrap();
    drop(client);
    // The broker finds the question, and nobody to answer.
    let mut handed = turned.until(&mut service);
    assert!(matches!(decode(&handed), Answer::HandOver(..)));
    let mut end = handed.take_channel::<Packet>(0, Limits::new()).unwrap();
    assert_eq!(end.receive_by(soon()).unwrap_err(), Error::Closed);
    // One that takes its end, and one that is there.
    let (mut client, _) = turned.connected();
    client.send(ask::<Packet>("clock", 0).message(1, true)).unwrap();
    let mut theirs = turned.until(&mut client).take_channel::<Packet>(0, Limits::new()).unwrap();
    let mut ours = turned.until(&mut service).take_channel::<Packet>(0, Limits::new()).unwrap();
    talk(&mut ours, &mut theirs);
    drop((turned, service, client, handed, end, theirs, ours));
    ledger.close();
}

#[test] // P4, P5
fn br_17_a_service_that_does_not_read() {
    let ledger = Ledger::open();
    // The patience of a test that is stopped for an hour.
    let quotas = Quotas::new().unread_bytes(LITTLE).patience(Duration::from_secs(3600));
    let serving = Serving::start(quotas);
    let (mut lazy, mut eager) = (serving.client(), serving.client());
    lazy.register::<Packet>("lazy", Limits::new(), Audience::SameUser, soon()).unwrap();
    eager.register::<Packet>("eager", Limits::new(), Audience::SameUser, soon()).unwrap();
    let mut client = serving.client();
    let mut ends = Vec::new();
    let refused = loop {
        match client.ask::<Packet>("lazy", Limits::new(), soon()) {
            Ok(fresh) => ends.push(fresh),
            Err(error) => break error,
        }
        assert!(ends.len() < 100, "SO_SNDBUF bounds what is unread");
    };
    assert_eq!(refused, Error::BrokerRefused(Refusal::ServiceBusy));
    // Each takes some 700 bytes of it.
    assert!((1..=12).contains(&ends.len()), "{} hand-overs in {LITTLE} bytes", ends.len());
    // Others are not concerned.
    let mut theirs = client.ask::<Packet>("eager", Limits::new(), soon()).unwrap().channel;
    let mut ours = eager.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
    talk(&mut ours, &mut theirs);
    drop((ours, theirs));
    // What was handed over is all there, in order, and when it has been read there is room.
    for theirs in &mut ends {
        let mut ours = lazy.accept_by::<Packet>(Limits::new(), soon()).unwrap();
        talk(&mut ours.channel, &mut theirs.channel);
    }
    let mut theirs = loop {
        // The broker learns of the room when it looks.
        match client.ask::<Packet>("lazy", Limits::new(), soon()) {
            Ok(fresh) => break fresh.channel,
            Err(error) => assert_eq!(error, Error::BrokerRefused(Refusal::ServiceBusy)),
        }
    };
    let mut ours = lazy.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
    talk(&mut ours, &mut theirs);
    drop((lazy, eager, client, ends, ours, theirs));
    serving.stop();
    ledger.close();
}

#[test] // P4, P5
fn br_18_a_client_that_never_reads() {
    let ledger = Ledger::open();
    let quotas = Quotas::new().unread_bytes(LITTLE).patience(Duration::from_millis(100));
    let mut turned = Turned::new(quotas);
    let (mut mute, mute_id) = turned.connected();
    let (mut other, _) = turned.connected();
    // As many questions as its socket takes.
    let mut sent = 0;
    while mute.try_send(ask::<Packet>("nobody", 0).message(sent + 1, true)).is_ok() {
        sent += 1;
    }
    turned.broker.turn(Deadline::after(Duration::ZERO)).unwrap();
    let (mut to_mute, deadline) = (0, soon());
    let why = loop {
        assert!(!deadline.has_passed(), "nobody lets the mute one go");
        // Meanwhile others are served.
        let unknown = Answer::Refused(Refusal::NameUnknown);
        assert_eq!(turned.answer(&mut other, &ask::<Packet>("nobody", 0), true), unknown);
        let mut left = None;
        for event in turned.events.try_iter() {
            match event {
                BrokerEvent::Answered { id, .. } => to_mute += u32::from(id == mute_id),
                BrokerEvent::Left { id, why, .. } if id == mute_id => left = Some(why),
                other => panic!("{other:?}"),
            }
        }
        if let Some(why) = left {
            break why;
        }
    };
    assert_eq!(why, Departure::Unread);
    assert!(to_mute < 20 && sent > 100, "{to_mute} of {sent} requests were read, the rest left alone");
    // It finds what was answered, then the end.
    for _ in 0..to_mute {
        mute.receive_by(soon()).unwrap();
    }
    assert_eq!(mute.receive_by(soon()).unwrap_err(), Error::Closed);
    assert_eq!(turned.broker.stats().unread, 1);
    drop((turned, mute, other));
    ledger.close();
}

#[test] // P5
fn a_reader_that_comes_back_in_time_is_served_on() {
    let ledger = Ledger::open();
    let quotas = Quotas::new().unread_bytes(LITTLE).patience(Duration::from_secs(3600));
    let mut turned = Turned::new(quotas);
    let (mut slow, _) = turned.connected();
    for number in 1..=100 {
        slow.send(ask::<Packet>("nobody", 0).message(number, true)).unwrap();
    }
    while turned.broker.timeout().is_none_or(|left| left.is_zero()) {
        turned.broker.turn(soon()).unwrap();
    }
    let early = answered(&turned).len();
    assert!((1..20).contains(&early), "{early} answers are unread");
    for number in 1..=100 {
        assert_eq!(turned.until(&mut slow).head().correlation, number);
    }
    // And nobody counts the time any more.
    let deadline = soon();
    while turned.broker.timeout().is_some() {
        assert!(!deadline.has_passed(), "{:?}", turned.broker.timeout());
        turned.broker.turn(Deadline::after(Duration::from_millis(10))).unwrap();
    }
    drop((turned, slow));
    ledger.close();
}

#[test]
fn br_19_a_busy_client_starves_nobody() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new().unread_bytes(1 << 20));
    let (mut busy, busy_id) = turned.connected();
    let (mut modest, modest_id) = turned.connected();
    // Also in one packet, which a receiver takes whole.
    let mut lot = Vec::new();
    for number in 1..=50_u8 {
        lot.extend(frame(&ask::<Packet>("nobody", 0), number));
    }
    raw_send(&busy.as_fd(), &lot, &[]);
    for number in 51..=100 {
        busy.send(ask::<Packet>("nobody", 0).message(number, true)).unwrap();
    }
    modest.send(ask::<Packet>("nobody", 0).message(1, true)).unwrap();
    turned.until(&mut modest);
    let before = answered(&turned);
    let turn = before.iter().position(|id| *id == modest_id).unwrap();
    assert!(turn < 3, "{turn} answers for the busy one came first: {before:?}");
    for number in 1..=100 {
        assert_eq!(turned.until(&mut busy).head().correlation, number);
    }
    assert!(answered(&turned).iter().all(|id| *id == busy_id));
    drop((turned, busy, modest));
    ledger.close();
}

#[test] // P4
fn br_20_quotas_of_connections_and_names() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new().connections(10, 3).names(3, 2));
    let mut parties: Vec<_> = (0..3).map(|_| serving.client()).collect();
    // Who is accepted is known only when it is answered.
    for party in &mut parties {
        assert_eq!(refusal(party.withdraw("x", soon())), Refusal::NameUnknown);
    }
    for _ in 0..3 {
        let mut fourth = serving.client();
        let turned_away = fourth.ask::<Packet>("x", Limits::new(), soon());
        assert_eq!(refusal(turned_away), Refusal::Quota);
        // For ever, whatever is tried.
        assert_eq!(refusal(fourth.accept_by::<Packet>(Limits::new(), soon())), Refusal::Quota);
        assert_eq!(refusal(fourth.withdraw("x", soon())), Refusal::Quota);
    }
    let register = |party: &mut BrokerClient, name| {
        party.register::<Packet>(name, Limits::new(), Audience::SameUser, soon())
    };
    register(&mut parties[0], "one").unwrap();
    register(&mut parties[1], "two").unwrap();
    assert_eq!(refusal(register(&mut parties[2], "three")), Refusal::Quota);
    parties[1].withdraw("two", soon()).unwrap();
    register(&mut parties[2], "three").unwrap();
    // A place is free with who leaves.
    parties.remove(0);
    serving.departure();
    let mut fourth = serving.client();
    assert_eq!(refusal(fourth.withdraw("x", soon())), Refusal::NameUnknown);
    register(&mut fourth, "one").unwrap();
    drop((parties, fourth));
    assert_eq!(serving.stop().turned_away, 3);

    // And all together, whoever they are.
    let serving = Serving::start(Quotas::new().connections(2, 5).names(1, 5));
    let (mut one, mut two) = (serving.client(), serving.client());
    register(&mut one, "one").unwrap();
    assert_eq!(refusal(register(&mut two, "two")), Refusal::Full);
    assert_eq!(refusal(serving.client().ask::<Packet>("one", Limits::new(), soon())), Refusal::Full);
    drop((one, two));
    serving.stop();
    ledger.close();
}

/// In a process of its own, whose descriptors are then all taken.
fn run_out() {
    let mut turned = Turned::new(Quotas::new());
    let (mut service, _) = turned.connected();
    let registration = register::<Packet>("clock", 0, Audience::SameUser);
    assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
    let (mut client, _) = turned.connected();
    // Its socket is made now, and connected when nothing is left.
    let late = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut plugs: Vec<OwnedFd> = Vec::new();
    while let Ok(plug) = late.try_clone() {
        plugs.push(plug);
    }
    let exhausted = Answer::Refused(Refusal::Exhausted);
    for _ in 0..3 {
        assert_eq!(turned.answer(&mut client, &ask::<Packet>("clock", 0), true), exhausted);
    }
    // A service needs a pidfd; who serves already has it.
    assert_eq!(turned.answer(&mut client, &register::<Packet>("two", 0, Audience::Anyone), true), exhausted);
    let second = register::<Packet>("second", 0, Audience::Anyone);
    assert_eq!(turned.answer(&mut service, &second, true), Answer::Done);
    // Room for one, where a pair takes two.
    plugs.pop();
    assert_eq!(turned.answer(&mut client, &ask::<Packet>("clock", 0), true), exhausted);
    plugs.push(late.try_clone().unwrap());
    let name = turned.address.to_string();
    let name = UnixAddr::new_abstract(name.trim_start_matches('@').as_bytes()).unwrap();
    connect(late.as_raw_fd(), &name).unwrap();
    // It waits in the queue, and nothing spins meanwhile.
    let before = support_driver::processor_time();
    let until = Deadline::after(Duration::from_millis(300));
    while !until.has_passed() {
        turned.broker.turn(until).unwrap();
    }
    let spent = support_driver::processor_time() - before;
    assert!(spent < Duration::from_millis(150), "{spent:?} of the processor in 300 ms of waiting");
    assert_eq!(turned.broker.stats().connections, 2);
    drop(plugs);
    let mut late = Channel::<Packet>::from_fd(late, LIMITS).unwrap();
    let unknown = Answer::Refused(Refusal::NameUnknown);
    assert_eq!(turned.answer(&mut late, &ask::<Packet>("nobody", 0), true), unknown);
    assert!(matches!(turned.answer(&mut client, &ask::<Packet>("clock", 0), true), Answer::Granted(_)));
    assert_eq!(turned.until(&mut service).descriptor_count(), 1);
}

#[test] // P2
fn br_21_no_descriptors_left() {
    if child_value().is_some() {
        return run_out();
    }
    let ledger = Ledger::open();
    assert_child(&child("br_21_no_descriptors_left", "here"));
    ledger.close();
}

#[test]
fn nobody_else_notices_a_shutdown() {
    let ledger = Ledger::open();
    let serving = Serving::start(Quotas::new());
    let (mut service, mut client) = (serving.client(), serving.client());
    service.register::<Packet>("clock", Limits::new(), Audience::SameUser, soon()).unwrap();
    let mut theirs = client.ask::<Packet>("clock", Limits::new(), soon()).unwrap().channel;
    let mut ours = service.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
    serving.stop();
    assert_eq!(service.accept_by::<Packet>(Limits::new(), soon()).unwrap_err(), Error::Closed);
    talk(&mut ours, &mut theirs);
    let gone = client.ask::<Packet>("clock", Limits::new(), soon()).unwrap_err();
    assert!(matches!(gone, Error::PeerGone { .. } | Error::Closed), "{gone:?}");
    drop((service, client, ours, theirs));
    ledger.close();
}

/// Whether poll(2) finds it readable at once.
fn is_readable(broker: &Broker) -> bool {
    let mut sockets = [PollFd::new(broker.as_fd(), PollFlags::POLLIN)];
    poll(&mut sockets, PollTimeout::ZERO).unwrap() > 0
}

#[test]
fn a_broker_is_one_descriptor_of_an_event_loop() {
    let ledger = Ledger::open();
    let quotas = Quotas::new().unread_bytes(LITTLE).patience(Duration::from_secs(3600));
    let mut turned = Turned::new(quotas);
    assert!(!is_readable(&turned.broker));
    assert_eq!(turned.broker.timeout(), None);
    let mut party = turned.raw();
    assert!(is_readable(&turned.broker), "somebody connects");
    turned.broker.turn(Deadline::after(Duration::ZERO)).unwrap();
    assert!(!is_readable(&turned.broker));
    // Several in one packet: the descriptor says nothing of those behind the first, the timeout does.
    let lot = [1, 2, 3].map(|number| frame(&ask::<Packet>("nobody", 0), number)).concat();
    raw_send(&party.as_fd(), &lot, &[]);
    assert!(is_readable(&turned.broker));
    let (mut turns, mut heard) = (0, 0);
    while heard < 3 {
        assert!(is_readable(&turned.broker) || turned.broker.timeout() == Some(Duration::ZERO));
        turned.broker.turn(Deadline::after(Duration::ZERO)).unwrap();
        while party.try_receive().unwrap().is_some() {
            heard += 1;
        }
        turns += 1;
        assert!(turns < 100, "an event loop would spin");
    }
    assert_eq!(answered(&turned).len(), 3);
    // A socket left full does not make it spin either, and the timeout says until when to wait.
    while party.try_send(ask::<Packet>("nobody", 0).message(9, true)).is_ok() {}
    for _ in 0..100 {
        turned.broker.turn(Deadline::after(Duration::ZERO)).unwrap();
    }
    assert!(!is_readable(&turned.broker));
    let left = turned.broker.timeout().unwrap();
    assert!(left > Duration::from_secs(1800), "{left:?}");
    // Shut down: at once, and for ever.
    turned.broker.closer().shutdown();
    assert!(is_readable(&turned.broker));
    for _ in 0..2 {
        assert_eq!(turned.broker.turn(soon()).unwrap_err(), Error::Closed);
    }
    turned.broker.run().unwrap();
    drop((turned, party));
    ledger.close();
}
