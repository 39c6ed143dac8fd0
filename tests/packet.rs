//! The `packet` wire over real sockets, rule by rule (`docs/PROTOCOL.md`).

mod support;

use fdpost::{Channel, Deadline, Limits, Message, Packet};
use std::time::Duration;
use support::{Ledger, files, identity};

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

#[test] // P1, P2
fn a_message_with_descriptors_goes_round() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(4)).unwrap();
    let mut theirs = Channel::<Packet>::from_fd(theirs, Limits::new().descriptors(4)).unwrap();
    let [one, two] = <[_; 2]>::try_from(files(2)).unwrap();
    let names = [identity(&one), identity(&two)];
    ours.send(Message::new(b"hello").with(one).with(two).with_kind(7)).unwrap();
    let mut message = theirs.receive_by(soon()).unwrap();
    assert_eq!((message.payload(), message.head().kind), (&b"hello"[..], 7));
    let came = [message.take(0).unwrap(), message.take(1).unwrap()];
    assert_eq!(came.each_ref().map(identity), names);
    drop((message, came, ours, theirs));
    ledger.close();
}
