//! The simulation: the pure machine, tokens for descriptors, the simulated kernel. It behaves as
//! the driver does, and its clock is what the driver saw.

use fdpost::machine::{Hunk, Received, Receiver, table::State};
use fdpost::{Error, Profile};
use fdpost_proptests::kernel::Kernel;
use fdpost_proptests::log::{Event, Heard, Wire};
use fdpost_proptests::token::{Ledger, Token};
use std::time::Duration;

use crate::Met;
use crate::plan::{Beat, Plan};

/// What came of it.
pub struct Rehearsed {
    /// What was read, for the model.
    pub log: Vec<Event>,
    pub heard: Vec<Heard>,
    /// As a channel would say it.
    pub answer: Error,
    pub received: Received,
    pub met: Vec<Met>,
}

struct Rehearsal<'a, P: Profile> {
    receiver: Receiver<P, Token>,
    kernel: Kernel,
    times: &'a [Duration],
    heard: Vec<Heard>,
    met: Vec<Met>,
    /// The peer has gone from a datagram socket, and nobody has noticed.
    leaving: bool,
}

/// Plays `beats` to a receiver that meets its n-th read at the n-th of `times`.
pub fn rehearse<P: Profile>(plan: &Plan, beats: &[Beat], times: &[Duration]) -> Rehearsed {
    let ledger = Ledger::default();
    let receiver = Receiver::new(plan.limits).expect("a script's limits are within range");
    let mut rehearsal = Rehearsal::<P> {
        receiver: receiver.batch(plan.batch),
        kernel: Kernel::new(plan.wire, ledger.clone(), &[]),
        times,
        heard: Vec::new(),
        met: Vec::new(),
        leaving: false,
    };
    for beat in beats {
        match beat {
            Beat::Send(sent) => rehearsal.kernel.send(sent.clone()),
            Beat::Drain => while rehearsal.poll() && rehearsal.read() {},
            Beat::Wait(_) => {}
            Beat::Close if plan.wire == Wire::Libcamera => rehearsal.leaving = true,
            Beat::Close => rehearsal.kernel.close(),
        }
    }
    rehearsal.finish(&ledger)
}

impl<P: Profile> Rehearsal<'_, P> {
    /// Takes every message that is whole. `false` after a fault.
    fn poll(&mut self) -> bool {
        loop {
            match self.receiver.poll() {
                Ok(None) => return true,
                Err(_) => return false,
                Ok(Some(mut message)) => {
                    let descriptors = message.take_all().map(|token| token.id()).collect();
                    let head = *message.head();
                    self.heard.push(Heard { head, payload: message.into_payload(), descriptors });
                }
            }
        }
    }

    /// One read. `false` if nothing more can be read now.
    fn read(&mut self) -> bool {
        let now = self.times.get(self.met.len()).or(self.times.last()).copied().unwrap_or_default();
        let Ok(Some(hunks)) = self.receiver.windows() else { return false };
        let rooms: Vec<_> = hunks.iter().map(|hunk| (hunk.room(), hunk.descriptor_room())).collect();
        let before = self.kernel.log.len();
        let mut filled = self.kernel.receive(now, hunks);
        if hunks.first().is_some_and(Hunk::is_end) {
            // It is the driver that says so of a datagram socket, and it says it once.
            filled = 1;
            self.kernel.log.truncate(before + filled);
        }
        self.receiver.handle(now, filled);
        if filled > 0 {
            let read = &self.kernel.log[self.kernel.log.len() - filled..];
            self.met.extend(read.iter().zip(rooms).map(|(event, room)| met(event, room)));
            return true;
        }
        self.kernel.log.push(Event::Block(now));
        self.met.push(Met::Block);
        if std::mem::take(&mut self.leaving) {
            // A datagram socket says "would block" to a reader, and the end to poll(2), which the
            // driver asks next.
            self.kernel.close();
            return self.receiver.fault().is_none();
        }
        false
    }

    fn finish(self, ledger: &Ledger) -> Rehearsed {
        let answer = match (self.receiver.fault(), self.receiver.state()) {
            (Some(fault), _) => fault.into(),
            (None, State::Ended) => Error::Closed,
            (None, _) => Error::WouldBlock,
        };
        let received = self.receiver.received();
        drop(self.receiver);
        assert_eq!(ledger.live(), Vec::<u64>::new(), "closed once the receiver is gone");
        Rehearsed { log: self.kernel.log, heard: self.heard, answer, received, met: self.met }
    }
}

/// What the machine sees of what the kernel had, in room for so many bytes and descriptors.
fn met(event: &Event, (bytes, descriptors): (usize, usize)) -> Met {
    let Event::Read(read) = event else { return Met::Block };
    Met::Read {
        bytes: read.bytes[..bytes.min(read.bytes.len())].to_vec(),
        length: read.bytes.len(),
        descriptors: read.descriptors.iter().copied().take(descriptors).collect(),
        cut: read.cut || read.descriptors.len() > descriptors,
        unknown: read.unknown,
        end: read.end,
    }
}
