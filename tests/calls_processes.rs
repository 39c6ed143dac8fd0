//! Calls between processes: many in flight, both sides at once, full sockets, a peer that is
//! killed, and a kernel that is short of something.

#[path = "support/meeting.rs"]
mod meeting;
#[path = "support/ordinary.rs"]
mod ordinary;
mod support;
#[path = "support/calls.rs"]
mod with;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use fdpost::calls::{Answer, Bounds, Correlate, Role};
use fdpost::driver::Event;
use fdpost::{
    Calls, Channel, Deadline, Error, Head, Libcamera, Memfd, Message, Packet, Stream, Violation, inherited,
};
use nix::errno::Errno;
use ordinary::as_an_ordinary_user;
use support::{Ledger, Random, child_value, files, raw_send};
use with::{LIMITS, SHORT, answered, body, failed, passed, request, sides, soon, tell};

/// The number under which a process finds its end.
const FD: i32 = 3;

/// This test once more, in a process of its own, with the other end; killed and reaped when dropped.
struct Other(Child);

impl Other {
    fn start<P: Correlate>(test: &str) -> (Self, Channel<P>) {
        let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("FDPOST_CHILD", "other");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: FD }]).unwrap();
        (Self(command.spawn().unwrap()), ours)
    }

    /// Waits for it to end, and well.
    fn finish(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ended_by_itself = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}

/// In the other process: its end.
fn own_end<P: Correlate>() -> Option<Channel<P>> {
    child_value().map(|_| Channel::from_fd(inherited(FD).unwrap(), LIMITS).unwrap())
}

/// What the other process answers to a number.
fn squared(message: &Message) -> u64 {
    let number = u64::from_le_bytes(message.payload().try_into().unwrap());
    number * number
}

/// Calls and answers so often, whichever process this is.
fn call_and_answer(channel: Channel<Packet>, seed: u64) {
    const CALLS: u64 = 1000;
    let mut calls = Calls::within(channel, Role::Caller, Bounds::new().messages(4096));
    let mut random = Random(seed);
    let mut waiting = BTreeMap::new();
    for number in 0..CALLS {
        let call = calls.start(Message::new(number.to_le_bytes()), soon()).unwrap();
        assert_eq!(waiting.insert(call, number), None);
    }
    let (mut asked, mut served) = (Vec::new(), 0);
    while !waiting.is_empty() || served < CALLS {
        match calls.receive_by(soon()).unwrap() {
            Event::Answered { call, answer: Answer::Reply(message) } => {
                let number = waiting.remove(&call).unwrap();
                assert_eq!(message.payload(), (number * number).to_le_bytes());
            }
            Event::Request { request, message } => asked.push((request, squared(&message))),
            other => panic!("{other:?}"),
        }
        // In any order, once many are there: at the end, all of them.
        while asked.len() > 100 || (served + asked.len() as u64 == CALLS && !asked.is_empty()) {
            let (mut request, answer) = asked.swap_remove(random.below(asked.len()));
            tell(&mut calls, &mut request, Message::new(answer.to_le_bytes()));
            served += 1;
        }
    }
    let counters = calls.counters();
    assert_eq!((counters.begun, counters.answered, counters.pending), (CALLS, CALLS, 0));
}

#[test] // P1, P7; CA-1, CA-9
fn a_thousand_calls_are_in_flight_each_way_from_one_thread() {
    if let Some(channel) = own_end() {
        return call_and_answer(channel, 1);
    }
    let ledger = Ledger::open();
    let (process, channel) = Other::start("a_thousand_calls_are_in_flight_each_way_from_one_thread");
    call_and_answer(channel, 2);
    process.finish();
    ledger.close();
}

#[test] // P1, P2
fn an_answer_brings_what_the_call_permits_from_another_process() {
    let test = "an_answer_brings_what_the_call_permits_from_another_process";
    if let Some(channel) = own_end::<Packet>() {
        let mut calls = Calls::answering(channel);
        let (mut asked, message) = request(&mut calls);
        let file = Memfd::sealed("answer", message.payload()).unwrap();
        return tell(&mut calls, &mut asked, Message::new(b"here").with(file));
    }
    let ledger = Ledger::open();
    let (process, channel) = Other::start::<Packet>(test);
    let mut calls = Calls::new(channel);
    let head = Head { reply_descriptors: 1, ..Head::default() };
    let answer = calls.call(Message::new(b"copy me").with_head(head), soon()).unwrap();
    let file = answer.into_message().take(0).unwrap();
    assert_eq!(Memfd::map(&file, 7).unwrap()[..], *b"copy me");
    process.finish();
    drop((calls, file));
    ledger.close();
}

#[test] // P3; CA-13
fn a_peer_that_is_killed_ends_every_call_with_one_error() {
    let test = "a_peer_that_is_killed_ends_every_call_with_one_error";
    if let Some(channel) = own_end::<Packet>() {
        let mut calls = Calls::answering(channel);
        let (mut asked, _) = request(&mut calls);
        tell(&mut calls, &mut asked, Message::new(b"first"));
        // Until it is killed.
        loop {
            let _more = calls.receive_by(Deadline::NEVER);
        }
    }
    let ledger = Ledger::open();
    let (process, channel) = Other::start::<Packet>(test);
    let mut calls = Calls::new(channel);
    let started: Vec<_> =
        (0..5_u8).map(|number| calls.start(Message::new([number]), Deadline::NEVER).unwrap()).collect();
    assert_eq!(answered(&mut calls, started[0]).payload(), b"first");
    drop(process);
    for call in &started[1..] {
        // What it had not read is lost with it, which the kernel says once (ECONNRESET) and the
        // channel not at all: it is the end.
        assert_eq!(failed(&mut calls, *call), Error::Closed);
    }
    for _ in 0..2 {
        assert_eq!(calls.receive_by(soon()).unwrap_err(), Error::Closed);
        assert_eq!(calls.start(Message::new([]), soon()).unwrap_err().error, Error::Closed);
    }
    drop(calls);
    ledger.close();
}

#[test] // P1, P3; CA-13: a death that no socket shows
fn a_watched_datagram_peer_that_is_killed_ends_every_call() {
    let test = "a_watched_datagram_peer_that_is_killed_ends_every_call";
    if let Some(channel) = own_end::<Libcamera>() {
        let mut calls = Calls::answering(channel);
        let (mut asked, _) = request(&mut calls);
        tell(&mut calls, &mut asked, body(0, 0, b"first"));
        // Until it is killed.
        loop {
            let _more = calls.receive_by(Deadline::NEVER);
        }
    }
    let ledger = Ledger::open();
    let (process, mut channel) = Other::start::<Libcamera>(test);
    channel.watch_peer(support::pidfd(process.0.id())).unwrap();
    let mut calls = Calls::new(channel);
    let started: Vec<_> =
        (0..4).map(|number| calls.start(body(number, 0, b"?"), Deadline::NEVER).unwrap()).collect();
    assert_eq!(answered(&mut calls, started[0]).payload()[8..], *b"first");
    drop(process);
    for call in &started[1..] {
        assert_eq!(failed(&mut calls, *call), Error::Closed);
    }
    assert_eq!(calls.receive_by(soon()).unwrap_err(), Error::Closed);
    assert_eq!(calls.start(body(0, 0, b""), soon()).unwrap_err().error, Error::Closed);
    drop(calls);
    ledger.close();
}

#[test] // P1, P3; CA-13, ST-8
fn an_answer_that_ends_half_way_is_the_violation_of_every_call() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Stream>::pair(LIMITS).unwrap();
    let mut ours = Calls::new(ours);
    let call = ours.start(Message::new(b"?"), soon()).unwrap();
    let header = [1_u32.to_ne_bytes(), 9_u32.to_ne_bytes(), [0; 4]].concat();
    raw_send(&theirs, &header, &[]);
    raw_send(&theirs, b"half", &[]);
    drop(theirs);
    let missing = Error::Violation(Violation::PayloadMissing { expected: 9, received: 4 });
    assert_eq!(failed(&mut ours, call), missing);
    assert_eq!(ours.receive_by(soon()).unwrap_err(), missing);
    assert_eq!(ours.start(Message::new(b"?"), soon()).unwrap_err().error, missing);
    drop(ours);
    ledger.close();
}

#[test] // P5, P7: both write more than a socket holds before either receives
fn two_sides_that_call_each_other_do_not_wait_for_each_other() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let theirs = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
    std::thread::scope(|scope| {
        for channel in [ours, theirs] {
            scope.spawn(move || {
                let mut calls = Calls::new(channel);
                let started: Vec<_> =
                    (0..200).map(|_| calls.start(Message::new([7; 4000]), soon()).unwrap()).collect();
                let (mut answers, mut served) = (Vec::new(), 0);
                while answers.len() < started.len() || served < started.len() {
                    match calls.receive_by(soon()).unwrap() {
                        Event::Answered { call, answer } => {
                            assert_eq!(answer.message().payload().len(), 4000);
                            answers.push(call);
                        }
                        Event::Request { mut request, message } => {
                            tell(&mut calls, &mut request, Message::new(message.into_payload()));
                            served += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(answers, started, "in order, because the other side answers in order");
            });
        }
    });
    ledger.close();
}

#[test] // P4, P5: where nothing more may wait to be received, the deadline ends it
fn a_call_to_a_peer_that_never_reads_ends_with_its_deadline() {
    fn never_reads<P: Correlate>() {
        let (mut ours, peer) = passed::<P>();
        let mut started = 0;
        loop {
            match ours.try_start(body(1, 0, &[7; 1000]), soon()) {
                Ok(_) => started += 1,
                Err(refused) if refused.error == Error::WouldBlock => break,
                Err(refused) => panic!("{refused:?}"),
            }
        }
        assert!(started > 10, "{started}");
        let refused = ours.start(body(1, 0, b"late"), Deadline::after(SHORT)).unwrap_err();
        assert_eq!(
            (refused.error, refused.messages[0].payload()),
            (Error::TimedOut, body(1, 0, b"late").payload())
        );
        let refused = ours.call(body(1, 0, b"late"), Deadline::after(SHORT)).unwrap_err();
        assert_eq!((refused.error, refused.messages.len()), (Error::TimedOut, 1));
        drop((ours, peer));
    }
    let ledger = Ledger::open();
    never_reads::<Packet>();
    never_reads::<Libcamera>();
    ledger.close();
}

#[test] // P2, P5, P6; case 43; CA-15
fn a_kernel_that_is_short_of_something_makes_no_other_answer_of_a_deadline() {
    let test = "a_kernel_that_is_short_of_something_makes_no_other_answer_of_a_deadline";
    if !as_an_ordinary_user(test, 32) {
        return;
    }
    let (mut ours, mut theirs) = sides::<Packet>();
    let ask = || with::with_files(Message::new(b"?"), 8);
    let mut started = Vec::new();
    let mut back = loop {
        match ours.try_start(ask(), soon()) {
            Ok(call) => started.push(call),
            Err(mut refused) => {
                assert_eq!(refused.error, Error::Pressure { errno: Errno::ETOOMANYREFS as i32 });
                break refused.messages.remove(0);
            }
        }
        assert!(started.len() < 100, "the kernel lets nobody have 800 descriptors in flight");
    };
    // A deadline that has passed, and one that passes: the same answer, and all comes back.
    for wait in [Duration::ZERO, SHORT] {
        let mut refused = ours.start(back, Deadline::after(wait)).unwrap_err();
        assert_eq!((refused.error, refused.messages.len()), (Error::TimedOut, 1));
        back = refused.messages.remove(0);
        assert_eq!((back.descriptor_count(), *back.head()), (8, Head::default()));
    }
    assert_eq!(ours.counters().begun, started.len() as u64);
    // The peer makes room: nothing was lost, and the id of the one that comes now is the next.
    let (mut asked, message) = request(&mut theirs);
    drop(message);
    tell(&mut theirs, &mut asked, Message::new(b"!"));
    let call = ours.start(back, soon()).unwrap();
    assert_eq!(call.get(), started.len() as u32 + 1);
    assert_eq!(answered(&mut ours, started[0]).payload(), b"!");
}

#[test] // P2: nothing of an unfinished call stays behind
fn calls_dropped_in_the_middle_leave_nothing_open() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = sides::<Packet>();
    let head = Head { reply_descriptors: 3, ..Head::default() };
    for _ in 0..3 {
        ours.start(with::with_files(Message::new(b"?"), 2).with_head(head), soon()).unwrap();
    }
    let (mut asked, _) = request(&mut theirs);
    tell(&mut theirs, &mut asked, files(3).into_iter().fold(Message::new([]), Message::with));
    let refused = ours.call(Message::new(b"?").with_head(head), Deadline::after(Duration::ZERO));
    assert_eq!(refused.unwrap_err().error, Error::TimedOut);
    drop((ours, theirs, asked));
    ledger.close();
}
