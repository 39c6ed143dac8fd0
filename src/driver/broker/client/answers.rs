//! What the broker says, and what becomes of it.

use std::os::fd::OwnedFd;

use super::{BrokerClient, HAND_OVERS_MOST, Handed, OVERDUE_READS, Pending, Served};
use crate::broker::{Answer, Name, Peer, Refusal, Registration, Request};
use crate::driver::deadline::Deadline;
use crate::driver::error::Error;
use crate::error::{Exhausted, Violation};
use crate::message::{Head, Message};

/// An answer: to which request, what, and the end that came with it.
pub(super) type Heard = (u32, Answer, Option<OwnedFd>);

impl BrokerClient {
    /// As [`hear`](Self::hear), and late where too much came that is not what is waited for.
    pub(super) fn hear_in_time(
        &mut self,
        reads: &mut u32,
        deadline: Deadline,
    ) -> Result<Option<Heard>, Error> {
        if *reads >= OVERDUE_READS && deadline.has_passed() {
            return Err(Error::TimedOut);
        }
        *reads = reads.saturating_add(1);
        self.hear(deadline)
    }

    /// The next answer; `None`: something came that answers no request, and was dealt with.
    fn hear(&mut self, deadline: Deadline) -> Result<Option<Heard>, Error> {
        // Before anything is taken out of the socket: a hand-over is not lost for want of memory.
        let bytes = size_of::<Handed>() as u64;
        self.handed.try_reserve(1).map_err(|_| Exhausted::OutOfMemory { bytes })?;
        let mut message = match self.channel.receive_by(deadline) {
            Ok(message) => message,
            Err(Error::Closed) => return Err(self.turned_away.map_or(Error::Closed, Error::BrokerRefused)),
            Err(error) => return Err(error),
        };
        self.take(&mut message).map_err(|violation| self.channel.end_with(violation.into()))
    }

    fn take(&mut self, message: &mut Message<OwnedFd>) -> Result<Option<Heard>, Violation> {
        let head = *message.head();
        let answer = Answer::decode(&head, message.payload(), message.descriptor_count())?;
        match answer {
            Answer::HandOver(name, peer) => {
                self.hand_over(name, peer, message.take(0))?;
                Ok(None)
            }
            Answer::TurnedAway(refusal) => {
                self.turned_away = Some(refusal);
                Ok(None)
            }
            Answer::Done | Answer::Granted(_) | Answer::Refused(_) => {
                let Pending { correlation, request } = self.answered(&head)?;
                self.note(&request, &answer)?;
                Ok(Some((correlation, answer, message.take(0))))
            }
        }
    }

    /// Answers come in the order of the requests (BR-7).
    fn answered(&mut self, head: &Head) -> Result<Pending, Violation> {
        let broken = |field, value| Violation::BrokerMessage { field, value };
        let pending = self.pending.pop_front().ok_or(broken("correlation", head.correlation))?;
        if pending.correlation != head.correlation {
            return Err(broken("correlation", head.correlation));
        }
        if pending.request.kind() != head.kind {
            return Err(broken("kind", head.kind));
        }
        Ok(pending)
    }

    /// What this connection serves from now on, whether or not somebody still waits for the answer.
    fn note(&mut self, request: &Request, answer: &Answer) -> Result<(), Violation> {
        if let Answer::Refused(refusal) = answer {
            return fits(request, refusal);
        }
        match request {
            Request::Register(it) => self.names.push(Served { registration: *it, told: false }),
            Request::Withdraw(name) => self.names.retain(|served| served.registration.name != *name),
            Request::Ask(_) => {}
        }
        Ok(())
    }

    /// Keeps the end for who accepts it.
    fn hand_over(&mut self, name: Name, peer: Peer, end: Option<OwnedFd>) -> Result<(), Violation> {
        // Between its answers to a registration and to a withdrawal the broker hands over, and
        // never else.
        let known = self.names.iter().map(|served| &served.registration).find(|known| known.name == name);
        let (Some(&Registration { wire, .. }), Some(end)) = (known, end) else {
            return Err(Violation::BrokerMessage { field: "name", value: 0 });
        };
        if self.handed.len() >= HAND_OVERS_MOST {
            self.missed = self.missed.saturating_add(1);
            return Ok(());
        }
        self.handed.push_back(Handed { name, wire, peer, end });
        Ok(())
    }
}

/// A mismatch names another wire than the one that was asked for.
fn fits(request: &Request, refusal: &Refusal) -> Result<(), Violation> {
    match (request, refusal) {
        (Request::Ask(ask), Refusal::WireMismatch(wire)) if *wire == ask.wire => {
            Err(Violation::BrokerMessage { field: "wire", value: 0 })
        }
        _ => Ok(()),
    }
}
