//! EMFILE (RLIMIT_NOFILE) wherever a descriptor is made or comes: one clear error, nothing left open, and
//! whoever had no part in it goes on. Accepting by itself is in `listener_shortage.rs`, a plain channel's
//! receives in `channel_rlimit.rs`, a broker's pairs in `broker_rules.rs` (BR-21).

#[path = "support/calls.rs"]
mod calls;
mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::os::unix::net::UnixStream;

use calls::{answered, packet, tell, with_files};
use fdpost::broker::{Answer, Audience, Quotas};
use fdpost::driver::{Event, FdReply, receive_fd, send_fd};

use fdpost::{BrokerClient, Channel, Error, Exhausted, Limits, Listener, Message, Packet, Refusal};
use nix::errno::Errno;
use support::{assert_child, child, child_value, descriptors, files};
use support_broker::meeting::{abstract_name, take_all_descriptors};
use support_broker::{Turned, ask, decode, register, soon, talk};

const LIMITS: Limits = Limits::new().descriptors(1);

const fn none_left(call: &'static str) -> Error {
    Error::Io { call, errno: Errno::EMFILE as i32 }
}

/// The one descriptor that was sent found no place.
const LOST: Error = Error::Exhausted(Exhausted::DescriptorsLost { declared: 1, received: 0 });

/// Runs `test` in a process of its own, whose limits it ruins; nothing is left open.
fn alone(name: &str, test: impl FnOnce()) {
    if child_value().is_none() {
        return assert_child(&child(name, "run"));
    }
    let before = descriptors();
    test();
    assert_eq!(descriptors(), before, "open now and before");
}

/// Does something while no descriptor is free.
fn starved<T>(what: impl FnOnce() -> T) -> T {
    let hoard = take_all_descriptors();
    let done = what();
    drop(hoard);
    done
}

#[test] // P2
fn what_makes_a_socket() {
    alone("what_makes_a_socket", || {
        let address = abstract_name();
        let listener = Listener::<Packet>::bind(&address, LIMITS).unwrap();
        starved(|| {
            assert_eq!(Channel::<Packet>::pair(LIMITS).unwrap_err(), none_left("socketpair"));
            let connected = Channel::<Packet>::connect(&address, LIMITS);
            assert_eq!(connected.unwrap_err(), none_left("socket"));
            assert_eq!(BrokerClient::connect(&address).unwrap_err(), none_left("socket"));
            let bound = Listener::<Packet>::bind(abstract_name(), LIMITS);
            assert_eq!(bound.unwrap_err(), none_left("socket"));
        });
        // Nobody came meanwhile, and who comes now is served.
        let mut client = Channel::<Packet>::connect(&address, LIMITS).unwrap();
        talk(&mut client, &mut listener.accept_by(soon()).unwrap());
    });
}

#[test] // P1, P2, P3
fn an_answer_without_a_place_for_its_descriptor() {
    alone("an_answer_without_a_place_for_its_descriptor", || {
        let (mut ours, mut theirs) = calls::sides::<Packet>();
        let (mut other, mut others) = calls::sides::<Packet>();
        let waiting = [0; 2].map(|_| ours.start(packet(0, 0, 1), soon()).unwrap());
        let survives = other.start(packet(0, 0, 1), soon()).unwrap();
        for calls in [&mut theirs, &mut others] {
            let Event::Request { mut request, .. } = calls.receive_by(soon()).unwrap() else {
                panic!("no request came")
            };
            tell(calls, &mut request, with_files(packet(0, 0, 0), 1));
        }
        starved(|| {
            // Each call is told, and then there is nothing more to be said.
            for call in waiting {
                assert!(matches!(
                    calls::failed(&mut ours, call),
                    Error::Exhausted(Exhausted::DescriptorsLost { .. })
                ));
            }
            assert!(matches!(ours.receive_by(soon()).unwrap_err(), Error::Exhausted(_)));
        });
        // Another conversation of this process's, whose answer was not read then.
        assert_eq!(answered(&mut other, survives).descriptor_count(), 1);
        // Who was called sees the end, behind the second call.
        loop {
            match theirs.receive_by(soon()) {
                Ok(Event::Request { .. }) => {}
                Err(Error::Closed) => break,
                other => panic!("{other:?}"),
            }
        }
        drop((ours, theirs, other, others));
    });
}

#[test] // P1, P2
fn send_fd_without_a_place() {
    alone("send_fd_without_a_place", || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = files(1).remove(0);
        send_fd(&ours, &file).unwrap();
        let error = starved(|| receive_fd(&theirs, soon()).unwrap_err());
        assert_eq!(error, LOST);
        // What comes behind it is a message of its own.
        send_fd(&ours, &file).unwrap();
        assert!(matches!(receive_fd(&theirs, soon()).unwrap(), FdReply::Descriptor(_)));
    });
}

#[test] // P1, P2, P3; rules BR-8, BR-16
fn an_end_without_a_place() {
    alone("an_end_without_a_place", || {
        let mut turned = Turned::new(Quotas::new());
        let [(mut service, _), (mut starving, _), (mut client, _)] = [0; 3].map(|_| turned.connected());
        let registration = register::<Packet>("pictures", 0, Audience::SameUser);
        assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
        let question = ask::<Packet>("pictures", 0);
        starving.send(question.message(1, true)).unwrap();
        // Until the service has its end: the answer has left by then, or with the next turn.
        let first = turned.until(&mut service);
        assert_eq!(starved(|| starving.receive_by(soon()).unwrap_err()), LOST);
        // Its end is closed; the other one's is a conversation.
        let mut ends = [first].map(end).into_iter();
        assert_eq!(ends.next().unwrap().receive_by(soon()).unwrap_err(), Error::Closed);
        client.send(question.message(1, true)).unwrap();
        let granted = turned.until(&mut client);
        assert!(matches!(decode(&granted), Answer::Granted(_)));
        talk(&mut end(granted), &mut end(turned.until(&mut service)));
        // A broker that is starved itself says so (BR-21), and to nobody else.
        client.send(question.message(2, true)).unwrap();
        let refused = starved(|| turned.until(&mut client));
        assert_eq!(decode(&refused), Answer::Refused(Refusal::Exhausted));
    });
}

/// The channel that a broker's message brings.
fn end(mut message: Message) -> Channel<Packet> {
    Channel::from_fd(message.take(0).unwrap(), Limits::new()).unwrap()
}

#[cfg(feature = "tokio")]
#[test] // P2, P5
fn in_a_reactor() {
    use fdpost::{AsyncChannel, AsyncListener};
    alone("in_a_reactor", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = abstract_name();
        runtime.block_on(async {
            let listener = AsyncListener::new(Listener::<Packet>::bind(&address, LIMITS).unwrap()).unwrap();
            let mut client = AsyncChannel::<Packet>::connect(&address, LIMITS).await.unwrap();
            let (mut ours, theirs) = AsyncChannel::<Packet>::pair(LIMITS).unwrap();
            let mut theirs = AsyncChannel::<Packet>::from_fd(theirs, LIMITS).unwrap();
            theirs.send(with_files(Message::new(b"!"), 1)).await.unwrap();
            client.send(Message::new(b"hello")).await.unwrap();
            let hoard = take_all_descriptors();
            let pair = AsyncChannel::<Packet>::pair(LIMITS).map(drop);
            assert_eq!(pair.unwrap_err(), none_left("socketpair"));
            let connected = AsyncChannel::<Packet>::connect(&address, LIMITS).await.map(drop);
            assert_eq!(connected.unwrap_err(), none_left("socket"));
            assert_eq!(ours.receive().await.unwrap_err(), LOST);
            // Who waits is kept waiting, and served once that can be.
            let mut accepting = Box::pin(listener.accept());
            let moment = std::time::Duration::from_millis(60);
            tokio::time::timeout(moment, accepting.as_mut()).await.map(drop).unwrap_err();
            drop(hoard);
            let mut served = accepting.await.unwrap();
            assert_eq!(served.receive().await.unwrap().payload(), b"hello");
        });
    });
}
