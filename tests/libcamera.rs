//! The `libcamera` wire over real sockets, rule by rule (`docs/PROTOCOL.md`).

mod support;

use fdpost::{Channel, Deadline, Libcamera, Limits, Message};
use std::time::Duration;
use support::{Ledger, files, identity};

#[test] // P1, P2
fn a_message_with_descriptors_goes_round() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = Channel::<Libcamera>::pair(Limits::new().descriptors(4)).unwrap();
    let mut theirs = Channel::<Libcamera>::from_fd(theirs, Limits::new().descriptors(4)).unwrap();
    let [one, two] = <[_; 2]>::try_from(files(2)).unwrap();
    let names = [identity(&one), identity(&two)];
    ours.send(Message::new(b"hello").with(one).with(two)).unwrap();
    let mut message = theirs.receive_by(Deadline::after(Duration::from_secs(5))).unwrap();
    assert_eq!(message.payload(), b"hello");
    let came = [message.take(0).unwrap(), message.take(1).unwrap()];
    assert_eq!(came.each_ref().map(identity), names);
    drop((message, came, ours, theirs));
    ledger.close();
}
