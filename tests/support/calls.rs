//! What the tests of calls share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::time::Duration;

use fdpost::calls::{CallId, Correlate, Request};
use fdpost::driver::{Event, Sent};
use fdpost::{Calls, Channel, Deadline, Error, Head, Limits, Message, Violation};

use crate::support::files;

/// Patient: a loaded machine may halt either side in the middle of a message.
pub const LIMITS: Limits = Limits::new().descriptors(8).assembly_timeout(Duration::from_secs(30));

/// A deadline that passes at once, for calls that nobody answers.
pub const SHORT: Duration = Duration::from_millis(30);

/// Long enough for a loaded machine; a test that waits so long has failed.
pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// A side that calls, and one that is called.
pub fn sides<P: Correlate>() -> (Calls<P>, Calls<P>) {
    let (ours, peer) = passed();
    (ours, Calls::answering(peer))
}

/// A side that calls, and a peer that says what it likes.
pub fn passed<P: Correlate>() -> (Calls<P>, Channel<P>) {
    let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    (Calls::new(ours), Channel::from_fd(theirs, LIMITS).unwrap())
}

/// A message of the `packet` wire with this head.
pub fn packet(flags: u32, correlation: u32, reply_descriptors: u8) -> Message {
    Message::new(b"!").with_head(Head { flags, correlation, reply_descriptors, ..Head::default() })
}

/// A message of the `libcamera` wire: command, cookie, and the rest.
pub fn body(command: u32, cookie: u32, rest: &[u8]) -> Message {
    Message::new([&command.to_ne_bytes(), &cookie.to_ne_bytes(), rest].concat())
}

/// The message with so many descriptors.
pub fn with_files(message: Message, count: u32) -> Message {
    files(count as usize).into_iter().fold(message, Message::with)
}

/// Answers, whole.
#[track_caller]
pub fn tell<P: Correlate>(calls: &mut Calls<P>, request: &mut Request, message: Message) {
    assert_eq!(calls.reply(request, message, soon()).unwrap(), Sent::Complete);
    assert!(request.is_answered());
}

/// Sends a message that is neither call nor answer, whole.
#[track_caller]
pub fn say<P: Correlate>(calls: &mut Calls<P>, message: Message) {
    assert_eq!(calls.send(message, soon()).unwrap(), Sent::Complete);
}

/// The next event is the answer to this call.
#[track_caller]
pub fn answered<P: Correlate>(calls: &mut Calls<P>, expected: CallId) -> Message {
    match calls.receive_by(soon()).unwrap() {
        Event::Answered { call, answer } if call == expected => {
            assert!(!answer.is_error(), "{answer:?}");
            answer.into_message()
        }
        other => panic!("{other:?} where call {expected} should be answered"),
    }
}

/// The next event is that this call failed.
#[track_caller]
pub fn failed<P: Correlate>(calls: &mut Calls<P>, expected: CallId) -> Error {
    match calls.receive_by(soon()).unwrap() {
        Event::Failed { call, error } if call == expected => error,
        other => panic!("{other:?} where call {expected} should fail"),
    }
}

/// The next event is a call of the peer's.
#[track_caller]
pub fn request<P: Correlate>(calls: &mut Calls<P>) -> (Request, Message) {
    match calls.receive_by(soon()).unwrap() {
        Event::Request { request, message } => (request, message),
        other => panic!("{other:?} where the peer should call"),
    }
}

/// The next event is a message that is neither.
#[track_caller]
pub fn plain<P: Correlate>(calls: &mut Calls<P>) -> Message {
    match calls.receive_by(soon()).unwrap() {
        Event::Message(message) => message,
        other => panic!("{other:?} where a message should come"),
    }
}

/// All events up to the end, and the end.
#[track_caller]
pub fn events_until_end<P: Correlate>(calls: &mut Calls<P>) -> (Vec<Event>, Error) {
    let mut events = Vec::new();
    loop {
        match calls.receive_by(soon()) {
            Ok(event) => events.push(event),
            Err(error) => return (events, error),
        }
    }
}

/// How many of these brought a message.
pub fn messages(events: &[Event]) -> usize {
    events.iter().filter(|event| !matches!(event, Event::Failed { .. })).count()
}

/// The violation is the answer to everything, for ever (P3), and the peer sees the end.
#[track_caller]
pub fn assert_ended<P: Correlate>(calls: &mut Calls<P>, expected: Violation) {
    let error = Error::Violation(expected);
    for _ in 0..2 {
        assert_eq!(calls.receive_by(soon()).unwrap_err(), error);
        assert_eq!(calls.try_receive().unwrap_err(), error);
        let refused = calls.start(Message::new([0; 8]), soon()).unwrap_err();
        assert_eq!((refused.error, refused.messages.len()), (error, 1));
        let refused = calls.send(Message::new([0; 8]), soon()).unwrap_err();
        assert_eq!((refused.error, refused.messages.len()), (error, 1));
    }
    assert_eq!(calls.channel().stats().violation, Some(expected));
    assert_eq!(calls.timeout(), Some(Duration::ZERO));
}
