//! What a broker closes may block for as long as a stranger likes: with a reaper that is not its
//! thread's business.

mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};

use fdpost::broker::{Answer, Audience, Name, Quotas, Request};
use fdpost::driver::Departure;
use fdpost::{Address, Broker, BrokerEvent, Channel, Limits, Listening, Packet, PeerRule, Refusal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::pipe;
use support::{Ledger, identity, raw_send};
use support_broker::meeting::abstract_name;
use support_broker::{LIMITS, Turned, ask, decode, frame, register, soon};

/// Where descriptors go that nobody closes, until the test says so.
fn grave(broker: &mut Broker) -> Receiver<OwnedFd> {
    let (dug, grave) = channel();
    broker.set_reaper(move |descriptor| {
        // Of a test that has failed, nobody looks any more.
        let _nobody_looks = dug.send(descriptor);
    });
    grave
}

/// Whether somebody still has the other end of a pipe.
fn is_held(reading: &OwnedFd) -> bool {
    let mut pipes = [PollFd::new(reading.as_fd(), PollFlags::POLLIN)];
    poll(&mut pipes, PollTimeout::ZERO).unwrap();
    !pipes[0].revents().unwrap().contains(PollFlags::POLLHUP)
}

#[test] // P2, P5
fn what_a_party_left_behind_is_closed_elsewhere() {
    let ledger = Ledger::open();
    // A listener that somebody else made: who connects before the broker is there can send
    // descriptors on every kernel.
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let name = abstract_name().to_string();
    let name = name.trim_start_matches('@');
    bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).unwrap()).unwrap();
    listen(&socket, Backlog::new(16).unwrap()).unwrap();
    let address = Address::abstract_name(name);
    let mut hostile = Channel::<Packet>::connect(&address, LIMITS).unwrap();
    // In the first message, which is read and refused; in the second, which nobody reads: it is
    // closed with the socket.
    let mut pipes = Vec::new();
    for _ in 0..2 {
        let (reading, writing) = pipe().unwrap();
        raw_send(&hostile.as_fd(), &frame(&ask::<Packet>("clock", 0), 1), &[writing]);
        pipes.push(reading);
    }
    let mut other = Channel::<Packet>::connect(&address, LIMITS).unwrap();
    other.send(ask::<Packet>("clock", 0).message(1, true)).unwrap();
    let mut broker = Broker::from_fd(socket, Quotas::new(), PeerRule::new()).unwrap();
    let grave = grave(&mut broker);
    let (told, events) = channel();
    broker.set_observer(move |event| told.send(*event).unwrap());
    let mut left = None;
    while left.is_none() {
        broker.turn(soon()).unwrap();
        left = events.try_iter().find(|event| matches!(event, BrokerEvent::Left { .. }));
    }
    assert!(matches!(left, Some(BrokerEvent::Left { why: Departure::Failed(_), .. })), "{left:?}");
    // Nobody has closed anything, and others are served.
    assert!(pipes.iter().all(is_held));
    while other.try_receive().unwrap().is_none() {
        broker.turn(soon()).unwrap();
    }
    // The hostile one saw the end at once, not when its socket was closed.
    assert_eq!(decode(&hostile.receive_by(soon()).unwrap()), Answer::Refused(Refusal::NameUnknown));
    assert_eq!(hostile.receive_by(soon()).unwrap_err(), fdpost::Error::Closed);
    let buried: Vec<OwnedFd> = grave.try_iter().collect();
    assert_eq!(buried.len(), 2, "a refused descriptor, and a socket with one in its queue");
    drop(buried);
    assert!(!pipes.iter().any(is_held), "they are the broker's last copies");
    drop((broker, hostile, other, pipes));
    drop(grave);
    ledger.close();
}

#[test] // P2, P5
fn ends_that_were_handed_out_are_closed_elsewhere() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let grave = grave(&mut turned.broker);
    let (mut service, _) = turned.connected();
    let registration = register::<Packet>("clock", 1, Audience::SameUser);
    assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
    let (mut client, _) = turned.connected();
    client.send(ask::<Packet>("clock", 1).message(1, true)).unwrap();
    let theirs = turned.until(&mut client).take(0).unwrap();
    let ours = turned.until(&mut service).take(0).unwrap();
    // The broker's own copies: if both parties put what blocks into their queues and go, these
    // are the last.
    let buried: Vec<OwnedFd> = grave.try_iter().collect();
    assert_eq!(buried.iter().map(identity).collect::<Vec<_>>(), [identity(&ours), identity(&theirs)]);
    let (reading, writing) = pipe().unwrap();
    raw_send(&ours, b"x", &[writing]);
    drop((ours, theirs));
    assert!(is_held(&reading));
    drop(buried);
    assert!(!is_held(&reading));
    // What could not be handed out, too.
    drop(service);
    client.send(ask::<Packet>("clock", 1).message(1, true)).unwrap();
    let refused = decode(&turned.until(&mut client));
    let gone = [Refusal::ServiceGone, Refusal::NameUnknown].map(Answer::Refused);
    assert!(gone.contains(&refused), "{refused:?}");
    drop((turned, client, reading));
    drop(grave);
    ledger.close();
}

#[test] // P2, P9
fn whom_the_rule_refuses_is_closed_elsewhere() {
    let ledger = Ledger::open();
    let (address, nobody) = (abstract_name(), PeerRule::new().test(|_| false));
    let mut broker = Broker::bind_with(&address, Quotas::new(), Listening::new().rule(nobody)).unwrap();
    let grave = grave(&mut broker);
    let mut refused = Channel::<Packet>::connect(&address, LIMITS).unwrap();
    broker.turn(soon()).unwrap();
    assert_eq!(refused.receive_by(soon()).unwrap_err(), fdpost::Error::Closed);
    assert_eq!(grave.try_iter().count(), 1);
    drop((broker, refused, grave));
    ledger.close();
}

#[test] // P2
fn the_parties_of_a_broker_that_is_dropped_are_closed_elsewhere() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let grave = grave(&mut turned.broker);
    let (mut service, _) = turned.connected();
    let registration = register::<Packet>("clock", 1, Audience::SameUser);
    assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
    let stats = turned.broker.stats();
    assert_eq!((stats.connections, stats.names), (1, 1));
    drop(turned);
    // It saw the end at once, and the broker's socket to it is still open.
    assert_eq!(service.receive_by(soon()).unwrap_err(), fdpost::Error::Closed);
    assert_eq!(grave.try_iter().count(), 1);
    drop((service, grave));
    ledger.close();
}

#[test] // P2; BR-15
fn who_serves_no_name_any_more_is_not_watched() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut party, _) = turned.connected();
    let before = ledger.more();
    let name = |name| Name::new(name).unwrap();
    for served in ["clock", "camera"] {
        turned.answer(&mut party, &register::<Packet>(served, 1, Audience::SameUser), true);
        assert_eq!(ledger.more(), before + 1, "{served}: its process is watched, once");
    }
    turned.answer(&mut party, &Request::Withdraw(name("clock")), true);
    assert_eq!(ledger.more(), before + 1, "it still serves the other");
    turned.answer(&mut party, &Request::Withdraw(name("camera")), true);
    assert_eq!(ledger.more(), before);
    drop((turned, party));
    ledger.close();
}

#[test] // P2
fn without_a_reaper_everything_is_closed_on_the_spot() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut service, _) = turned.connected();
    let registration = register::<Packet>("clock", 1, Audience::SameUser);
    turned.answer(&mut service, &registration, true);
    let before = ledger.more();
    let (mut client, _) = turned.connected();
    client.send(ask::<Packet>("clock", 1).message(1, true)).unwrap();
    let theirs = turned.until(&mut client).take(0).unwrap();
    let mut ours = turned.until(&mut service).take_channel::<Packet>(0, Limits::new()).unwrap();
    assert_eq!(ledger.more(), before + 4, "a connection and a channel, each with two ends");
    drop(theirs);
    assert_eq!(ours.receive_by(soon()).unwrap_err(), fdpost::Error::Closed);
    drop((turned, service, client, ours));
    ledger.close();
}
