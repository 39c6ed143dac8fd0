//! A broker in a thread, or turned by hand, and parties that say what no honest one would.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

#[path = "meeting.rs"]
pub mod meeting;

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fdpost::broker::{Answer, Ask, Audience, Id, Name, Quotas, Registration, Request, Wire};
use fdpost::driver::{BrokerStats, Departure};
use fdpost::profile::Profile;
use fdpost::{
    Address, Broker, BrokerClient, BrokerEvent, Channel, Closer, Deadline, Error, Limits, Message, Packet,
    Refusal,
};
use meeting::abstract_name;

/// Longer than anything here may take, however loaded the machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a raw party accepts of its broker.
pub const LIMITS: Limits = Limits::new().descriptors(1);

pub fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// A broker in a thread of its own.
pub struct Serving {
    pub address: Address,
    closer: Closer,
    thread: Option<JoinHandle<(Result<(), Error>, BrokerStats)>>,
    events: Receiver<BrokerEvent>,
}

impl Serving {
    pub fn start(quotas: Quotas) -> Self {
        Self::start_with(quotas, |_| {})
    }

    pub fn start_with(quotas: Quotas, prepare: impl FnOnce(&mut Broker)) -> Self {
        let address = abstract_name();
        let mut broker = Broker::bind(&address, quotas).unwrap();
        prepare(&mut broker);
        let (told, events) = channel();
        // Who does not look at the events does not keep the broker.
        broker.set_observer(move |event| {
            let _nobody_looks = told.send(*event);
        });
        let closer = broker.closer();
        let thread = std::thread::spawn(move || {
            let ended = broker.run();
            (ended, broker.stats())
        });
        Self { address, closer, thread: Some(thread), events }
    }

    pub fn client(&self) -> BrokerClient {
        BrokerClient::connect(&self.address).unwrap()
    }

    /// A party that is only a channel.
    pub fn raw(&self) -> Channel<Packet> {
        Channel::connect(&self.address, LIMITS).unwrap()
    }

    /// Waits for an event.
    #[track_caller]
    pub fn event(&self, wanted: impl Fn(&BrokerEvent) -> bool) -> BrokerEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event that is waited for");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Waits until somebody has left, and says why.
    #[track_caller]
    pub fn departure(&self) -> Departure {
        match self.event(|event| matches!(event, BrokerEvent::Left { .. })) {
            BrokerEvent::Left { why, .. } => why,
            other => unreachable!("{other:?}"),
        }
    }

    /// Ends it: it must have been well until now.
    #[track_caller]
    pub fn stop(mut self) -> BrokerStats {
        self.closer.shutdown();
        let (ended, stats) = self.thread.take().unwrap().join().unwrap();
        ended.unwrap();
        stats
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.closer.shutdown();
        if let Some(thread) = self.thread.take() {
            let _failed_already = thread.join();
        }
    }
}

/// A broker that does something only when a test says so.
pub struct Turned {
    pub address: Address,
    pub broker: Broker,
    pub events: Receiver<BrokerEvent>,
}

impl Turned {
    pub fn new(quotas: Quotas) -> Self {
        let address = abstract_name();
        let mut broker = Broker::bind(&address, quotas).unwrap();
        let (told, events) = channel();
        broker.set_observer(move |event| told.send(*event).unwrap());
        Self { address, broker, events }
    }

    pub fn raw(&self) -> Channel<Packet> {
        Channel::connect(&self.address, LIMITS).unwrap()
    }

    /// Turns until the party has something to read.
    #[track_caller]
    pub fn until(&mut self, party: &mut Channel<Packet>) -> Message {
        let deadline = soon();
        while !deadline.has_passed() {
            if let Some(message) = party.try_receive().unwrap() {
                return message;
            }
            self.broker.turn(Deadline::after(Duration::from_millis(100))).unwrap();
        }
        panic!("the broker says nothing");
    }

    /// A party of which the broker knows.
    #[track_caller]
    pub fn connected(&mut self) -> (Channel<Packet>, Id) {
        let party = self.raw();
        loop {
            self.broker.turn(soon()).unwrap();
            let connected = |event| match event {
                BrokerEvent::Connected { id, .. } => Some(id),
                _ => None,
            };
            if let Some(id) = self.events.try_iter().find_map(connected) {
                return (party, id);
            }
        }
    }

    /// What the party's request is answered.
    #[track_caller]
    pub fn answer(&mut self, party: &mut Channel<Packet>, request: &Request, accepts_ends: bool) -> Answer {
        party.send(request.message(1, accepts_ends)).unwrap();
        let message = self.until(party);
        decode(&message)
    }
}

#[track_caller]
pub fn decode(message: &Message) -> Answer {
    Answer::decode(message.head(), message.payload(), message.descriptor_count()).unwrap()
}

pub fn register<P: Profile>(name: &str, accepts: u8, audience: Audience) -> Request {
    let (name, wire) = (Name::new(name).unwrap(), Wire::of::<P>().unwrap());
    Request::Register(Registration { name, wire, accepts, audience })
}

pub fn ask<P: Profile>(name: &str, accepts: u8) -> Request {
    let (name, wire) = (Name::new(name).unwrap(), Wire::of::<P>().unwrap());
    Request::Ask(Ask { name, wire, accepts })
}

/// A request as the bytes of a frame.
pub fn frame(request: &Request, correlation: u8) -> Vec<u8> {
    let message = request.message::<()>(correlation.into(), true);
    let (kind, length) = (request.kind() as u8, message.payload().len() as u8);
    let header = [1, 0, 0, 1, length, 0, 0, 0, kind, 0, 0, 0, correlation, 0, 0, 0];
    [&header, message.payload()].concat()
}

/// The broker's "no".
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::BrokerRefused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

/// Both say something and hear it.
#[track_caller]
pub fn talk<P: Profile>(one: &mut Channel<P>, two: &mut Channel<P>) {
    one.send(Message::new(b"to two")).unwrap();
    two.send(Message::new(b"to one")).unwrap();
    assert_eq!(two.receive_by(soon()).unwrap().payload(), b"to two");
    assert_eq!(one.receive_by(soon()).unwrap().payload(), b"to one");
}

/// Whether this kernel lets a socket refuse descriptors (SO_PASSRIGHTS, Linux 6.16).
pub fn kernel_refuses_descriptors() -> bool {
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    passes_rights(&socket).is_some()
}

/// SO_PASSRIGHTS, where the kernel knows it.
#[allow(unsafe_code, reason = "SO_PASSRIGHTS has no safe wrapper")]
pub fn passes_rights(socket: &impl AsFd) -> Option<bool> {
    use nix::libc;
    use std::os::fd::AsRawFd;
    let (mut value, mut length) = (0_i32, 4);
    let number = socket.as_fd().as_raw_fd();
    let pointer = (&raw mut value).cast();
    // SAFETY: the pointers are to four bytes and their length, which live through the call.
    let result = unsafe { libc::getsockopt(number, libc::SOL_SOCKET, 83, pointer, &raw mut length) };
    (result == 0).then_some(value != 0)
}
