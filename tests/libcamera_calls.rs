//! libcamera's packaged worker, called: cookies are ours to choose, and it repeats them.

mod support;
#[path = "support/vimc.rs"]
mod vimc;
#[path = "support/calls.rs"]
mod with;

use std::time::Duration;

use fdpost::calls::CallId;
use fdpost::driver::Event;
use fdpost::{Calls, Deadline, Error, Libcamera, Message};
use support::Ledger;
use vimc::{Process, Script};
use with::{answered, plain, say, soon};

/// The worker, and the recorded messages; `None`, said in words, where it may be absent and is.
fn worker() -> Option<(Process, Calls<Libcamera>, Script)> {
    let Some(installed) = vimc::find() else {
        let required = std::env::var("FDPOST_REQUIRE_WORKER").is_ok_and(|value| value == "1");
        assert!(!required, "{}, but FDPOST_REQUIRE_WORKER asks for it", vimc::ABSENT);
        println!("{}", vimc::ABSENT);
        return None;
    };
    let (process, channel) = Process::start(&installed).unwrap();
    Some((process, Calls::new(channel), Script::load().unwrap()))
}

/// The recorded request.
fn request(script: &Script, name: &str) -> Message {
    Message::new(script.payload(name, "request").unwrap())
}

/// The recorded reply, with our cookie in the place of upstream's.
fn reply(script: &Script, name: &str, call: CallId) -> Vec<u8> {
    let mut payload = script.payload(name, "reply").unwrap();
    payload[4..8].copy_from_slice(&call.get().to_ne_bytes());
    payload
}

#[test] // P1, P2, CA-1, CA-6, CA-14
fn the_worker_is_called_and_answers_as_recorded() {
    let ledger = Ledger::open();
    let Some((mut process, mut calls, script)) = worker() else { return };
    let answer = calls.call(request(&script, "start"), soon()).unwrap();
    assert_eq!(answer.message().payload()[..4], script.payload("start", "reply").unwrap()[..4]);
    assert_eq!(answer.message().payload()[8..], script.payload("start", "reply").unwrap()[8..]);

    let map = request(&script, "map-buffers").with(vimc::buffer().unwrap());
    let answer = calls.call(map, soon()).unwrap().into_message();
    assert_eq!(answer.payload()[8..], script.payload("map-buffers", "reply").unwrap()[8..]);
    assert!(process.has_mapped().unwrap());

    // An event is asked for by a message without a cookie, and comes before the answer to the call
    // behind it: it waits for its receive.
    say(&mut calls, request(&script, "event"));
    let answer = calls.call(request(&script, "start"), soon()).unwrap().into_message();
    assert_eq!(answer.payload()[8..], script.payload("start", "reply").unwrap()[8..]);
    assert_eq!(calls.timeout(), Some(Duration::ZERO));
    assert_eq!(plain(&mut calls).payload(), script.payload("event", "reply").unwrap());

    // Several in flight.
    let unmap = calls.start(request(&script, "unmap-buffers"), soon()).unwrap();
    let stop = calls.start(request(&script, "stop"), soon()).unwrap();
    assert_eq!(answered(&mut calls, unmap).payload(), reply(&script, "unmap-buffers", unmap));
    assert_eq!(answered(&mut calls, stop).payload(), reply(&script, "stop", stop));
    assert!(!process.has_mapped().unwrap());

    say(&mut calls, request(&script, "exit"));
    assert!(process.wait().unwrap().success());
    drop((process, calls));
    ledger.close();
}

#[test] // CA-7, CA-13
fn a_worker_that_does_not_answer_and_one_that_died() {
    let ledger = Ledger::open();
    let Some((process, mut calls, script)) = worker() else { return };
    // A message that the worker does not answer, made a call: the deadline finds it.
    let unanswered = request(&script, "event");
    let call = calls.start(unanswered, Deadline::after(with::SHORT)).unwrap();
    loop {
        // Its event may come first.
        match calls.receive_by(soon()).unwrap() {
            Event::Message(event) => {
                assert_eq!(event.payload(), script.payload("event", "reply").unwrap());
            }
            Event::Failed { call: which, error } => {
                assert_eq!((which, error), (call, Error::TimedOut));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(calls.counters().given_up, 1);
    let pending = calls.start(request(&script, "event"), Deadline::NEVER).unwrap();
    drop(process);
    // Nothing shows that it died but a send.
    let gone = calls.call(request(&script, "stop"), soon()).unwrap_err().error;
    assert!(matches!(gone, Error::PeerGone { .. }), "{gone:?}");
    while let Some(event) = calls.try_receive().unwrap() {
        match event {
            Event::Message(_) => {}
            Event::Failed { call, error } => {
                assert_eq!((call, error), (pending, gone));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let again = calls.start(request(&script, "stop"), soon()).unwrap_err();
    assert_eq!(again.error, gone);
    drop((calls, again));
    ledger.close();
}
