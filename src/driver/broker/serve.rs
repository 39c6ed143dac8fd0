//! One turn: what came is answered.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::SockType;

use super::event::{BrokerEvent, Departure};
use super::line::{Handed, Line};
use super::watch::{Interest, Token};
use super::{Broker, Credentials};
use crate::broker::{Action, Answer, Id, Order, Outcome, Receipt, Refusal, Request, SocketKind, Why};
use crate::driver::deadline::Deadline;
use crate::driver::error::Error;
use crate::driver::socket;
use crate::message::Message;

impl Broker {
    /// Waits until something happens, at most until the deadline, and does what is to be done:
    /// for event loops, when the broker is readable or its [`timeout`](Self::timeout) has passed.
    /// One message of each party in a turn.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`closer`](Self::closer) shut it down; as [`run`](Self::run).
    pub fn turn(&mut self, deadline: Deadline) -> Result<(), Error> {
        for (token, seen) in self.watch.wait(deadline.min(self.own_deadline()))? {
            match token {
                Token::Listener if seen.contains(EpollFlags::EPOLLHUP) => return Err(Error::Closed),
                Token::Listener => self.accept()?,
                Token::Line(id) => self.wake(id),
                Token::Process(id) => self.close(id, Departure::Died),
            }
        }
        self.resume()?;
        for _ in 0..self.ready.len() {
            let Some(id) = self.ready.pop_front() else { break };
            let more = self.serve(id);
            if let Some(line) = self.lines.get_mut(&id) {
                line.queued = more;
                if more {
                    self.ready.push_back(id);
                }
            }
        }
        while let Some(id) = self.registry.overdue(self.epoch.elapsed()) {
            self.close(id, Departure::Unread);
        }
        while std::mem::take(&mut self.has_overdue) {
            let overdue = self.lines.iter().find(|(_, line)| line.overdue).map(|(id, _)| *id);
            if let Some(id) = overdue {
                self.close(id, Departure::Unread);
                self.has_overdue = true;
            }
        }
        Ok(())
    }

    /// Something is to be read on a line, or it has room again.
    fn wake(&mut self, id: Id) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if line.full {
            line.full = false;
            self.registry.has_room(id);
            if let Err(error) = self.watch.change(&line.channel, Token::Line(id), Interest::Reading) {
                return self.close(id, Departure::Failed(error));
            }
        }
        if !line.queued {
            line.queued = true;
            self.ready.push_back(id);
        }
    }

    /// A line's socket has no room: until it has, nothing is read from it (BR-18).
    fn is_full(&mut self, id: Id) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if line.full {
            return;
        }
        line.full = true;
        self.registry.full(id, self.epoch.elapsed());
        if let Err(error) = self.watch.change(&line.channel, Token::Line(id), Interest::Writing) {
            self.close(id, Departure::Failed(error));
        }
    }

    /// One message, if one is there and its answer would find room. Whether there may be more.
    fn serve(&mut self, id: Id) -> bool {
        let now = Deadline::at(self.epoch);
        let Some(line) = self.lines.get_mut(&id) else { return false };
        if line.full {
            return false;
        }
        let received = match line.has_room(now) {
            Ok(true) => line.channel.try_receive(),
            Ok(false) => {
                self.is_full(id);
                return false;
            }
            Err(error) => Err(error),
        };
        match received {
            Ok(Some(message)) => {
                self.answer(id, &message);
                true
            }
            Ok(None) => false,
            Err(Error::Closed | Error::PeerGone { .. }) => {
                self.close(id, Departure::Closed);
                false
            }
            Err(error) if error.is_passing() => {
                self.pause(id);
                false
            }
            Err(error) => {
                self.close(id, Departure::Failed(error));
                false
            }
        }
    }

    /// From a request to its answer.
    fn answer(&mut self, id: Id, message: &Message<OwnedFd>) {
        let Self { registry, rule, lines, watch, .. } = self;
        let mut action = registry.request(id, message.head(), message.payload(), |party, request| {
            let who = Credentials::from(party.credentials);
            if !rule.as_mut().is_none_or(|rule| rule(&who, request)) {
                return Err(Refusal::NotPermitted);
            }
            match (request, lines.get_mut(&id)) {
                (Request::Register(_), Some(line)) => watch_process(line, id, watch),
                _ => Ok(()),
            }
        });
        // Kept until it is over: ours are not the last copies where a close may block.
        let mut kept = [None, None];
        loop {
            action = match action {
                Action::Nothing => break,
                Action::Pair(order) => {
                    let ends = self.pair(&order, &mut kept).ok();
                    self.registry.paired(order, ends)
                }
                Action::Send { to, message, receipt } => {
                    let outcome = self.send(to, message);
                    if outcome == Outcome::Sent {
                        self.tell_answered(id, &receipt);
                    }
                    self.registry.sent(receipt, outcome)
                }
                Action::Close(id, why) => {
                    self.close(id, departure(why));
                    break;
                }
            };
        }
        kept.into_iter().flatten().for_each(|end| self.bury(end));
        if message.head().kind != crate::broker::ASK {
            self.forget_process(id);
        }
    }

    fn send(&mut self, to: Id, message: Message<OwnedFd>) -> Outcome {
        let Some(line) = self.lines.get_mut(&to) else { return Outcome::Gone };
        let Handed { outcome, too_many } = line.send(message);
        if outcome == Outcome::Full {
            self.is_full(to);
        }
        if too_many {
            self.short_of_flights();
        }
        outcome
    }

    /// What is sent and not read counts for the broker's user: whoever has left an end unread for too
    /// long keeps others from theirs, even though its socket has room (BR-18).
    fn short_of_flights(&mut self) {
        let patience = self.registry.quotas().patience;
        for line in self.lines.values_mut() {
            line.overdue = line.unread_since().is_some_and(|since| since.elapsed() >= patience);
        }
        self.has_overdue = true;
    }

    fn pair(&self, order: &Order, kept: &mut [Option<OwnedFd>; 2]) -> Result<(OwnedFd, OwnedFd), Error> {
        let (service, client) = socket::pair_of(socket_type(order.ask().wire.socket))?;
        for (end, accepts) in [(&service, order.service_accepts()), (&client, order.ask().accepts)] {
            // Before anybody has the other end (BR-10).
            if accepts == 0 {
                socket::refuse_descriptors(end.as_fd());
            }
        }
        if self.reaper.is_some() {
            for (place, end) in kept.iter_mut().zip([&service, &client]) {
                *place = Some(end.try_clone().map_err(|error| Error::of_io("fcntl", &error))?);
            }
        }
        Ok((service, client))
    }

    fn tell_answered(&mut self, id: Id, receipt: &Receipt<OwnedFd>) {
        let Some((request, answer)) = receipt.answered() else { return };
        match answer {
            Answer::Granted(_) => self.stats.granted = self.stats.granted.saturating_add(1),
            Answer::Refused(_) => self.stats.refused = self.stats.refused.saturating_add(1),
            _ => {}
        }
        if let Some(party) = self.registry.party(id) {
            let party = party.credentials.into();
            self.tell(&BrokerEvent::Answered { id, party, request, answer });
        }
    }

    /// Who serves no name needs no watching: that is a descriptor less.
    fn forget_process(&mut self, id: Id) {
        if self.registry.party(id).is_some_and(|party| party.names > 0) {
            return;
        }
        if let Some(process) = self.lines.get_mut(&id).and_then(|line| line.process.take()) {
            self.watch.remove(&process);
        }
    }
}

/// Watches the process behind a service: its connection may outlive it in another's hands.
fn watch_process(line: &mut Line, id: Id, watch: &super::Watch) -> Result<(), Refusal> {
    if line.process.is_some() {
        return Ok(());
    }
    let process = match line.channel.peer_pidfd() {
        Ok(process) => process,
        Err(Error::Io { errno, .. }) => match Errno::from_raw(errno) {
            // Before Linux 6.5 only the socket shows an end.
            Errno::ENOPROTOOPT => return Ok(()),
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => return Err(Refusal::Exhausted),
            // It is gone already.
            _ => return Err(Refusal::ServiceGone),
        },
        Err(_) => return Err(Refusal::ServiceGone),
    };
    watch.add(&process, Token::Process(id), Interest::Reading).map_err(|_| Refusal::Exhausted)?;
    line.process = Some(process);
    Ok(())
}

fn departure(why: Why) -> Departure {
    match why {
        Why::Violation(violation) => Departure::Failed(violation.into()),
        Why::Unread => Departure::Unread,
        Why::Exhausted => Departure::Exhausted,
    }
}

const fn socket_type(kind: SocketKind) -> SockType {
    match kind {
        SocketKind::Stream => SockType::Stream,
        SocketKind::Datagram => SockType::Datagram,
        SocketKind::SeqPacket => SockType::SeqPacket,
    }
}
