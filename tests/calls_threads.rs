//! Several threads call over one channel, as the documentation of `Calls` says: one thread owns it,
//! in an event loop, and the others hand it their messages.

mod support;
#[path = "support/calls.rs"]
mod with;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use fdpost::calls::Correlate;
use fdpost::driver::Event;
use fdpost::{Calls, Error, Libcamera, Message, Packet};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::Ledger;
use with::{body, sides, soon, tell};

/// A question, and who waits for its answer.
type Asked = (Message, mpsc::Sender<Result<Message, Error>>);

/// What a thread holds that calls.
#[derive(Clone)]
struct Caller {
    asked: mpsc::Sender<Asked>,
    bell: std::sync::Arc<UnixStream>,
}

impl Caller {
    fn call(&self, message: Message) -> Result<Message, Error> {
        let (tell, told) = mpsc::channel();
        self.asked.send((message, tell)).unwrap();
        (&*self.bell).write_all(b"!").unwrap();
        told.recv().unwrap()
    }
}

/// The thread that owns the calls, until nobody can ask it any more.
fn own<P: Correlate>(mut calls: Calls<P>, asked: &mpsc::Receiver<Asked>, mut bell: UnixStream) {
    bell.set_nonblocking(true).unwrap();
    let (mut waiting, mut refused) = (HashMap::new(), None);
    loop {
        let timeout = calls.timeout().map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut events = PollFlags::POLLIN;
        if refused.is_some() || calls.channel().wants_write() {
            events |= PollFlags::POLLOUT;
        }
        let mut sockets = [PollFd::new(calls.as_fd(), events), PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        poll(&mut sockets, timeout).unwrap();
        while let Some(event) = calls.try_receive().unwrap() {
            let (call, answer) = match event {
                Event::Answered { call, answer } => (call, Ok(answer.into_message())),
                Event::Failed { call, error } => (call, Err(error)),
                other => panic!("{other:?}"),
            };
            let waits: mpsc::Sender<_> = waiting.remove(&call).unwrap();
            waits.send(answer).unwrap();
        }
        let rung = bell.read(&mut [0; 64]);
        while let Some((message, tell)) = refused.take().or_else(|| asked.try_recv().ok()) {
            match calls.try_start(message, soon()) {
                Ok(call) => drop(waiting.insert(call, tell)),
                Err(mut back) if back.error == Error::WouldBlock => {
                    refused = Some((back.messages.remove(0), tell));
                    break;
                }
                Err(back) => tell.send(Err(back.error)).unwrap(),
            }
        }
        if matches!(rung, Ok(0)) && waiting.is_empty() && refused.is_none() {
            return;
        }
    }
}

fn many_threads<P: Correlate<Declared: Send> + 'static>() {
    const EACH: u32 = 100;
    let (ours, mut theirs) = sides::<P>();
    std::thread::scope(|scope| {
        let (asked, questions) = mpsc::channel();
        let (bell, heard) = UnixStream::pair().unwrap();
        let caller = Caller { asked, bell: std::sync::Arc::new(bell) };
        scope.spawn(move || own(ours, &questions, heard));
        scope.spawn(|| {
            let mut served = 0;
            while served < 4 * EACH {
                let mut requests = vec![with::request(&mut theirs)];
                while let Some(Event::Request { request, message }) = theirs.try_receive().unwrap() {
                    requests.push((request, message));
                }
                // The last one first.
                while let Some((mut request, message)) = requests.pop() {
                    tell(&mut theirs, &mut request, Message::new(message.into_payload()));
                    served += 1;
                }
            }
        });
        for thread in 0..4 {
            let caller = caller.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    let question = body(thread, 0, &number.to_le_bytes());
                    let answer = caller.call(question).unwrap();
                    assert_eq!(answer.payload()[..4], thread.to_ne_bytes());
                    assert_eq!(answer.payload()[8..], number.to_le_bytes());
                }
            });
        }
        drop(caller);
    });
}

#[test] // P7
fn several_threads_call_through_the_one_that_owns_the_calls() {
    let ledger = Ledger::open();
    many_threads::<Packet>();
    many_threads::<Libcamera>();
    ledger.close();
}
