//! Who comes and who goes.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::event::{BrokerEvent, Departure};
use super::line::Line;
use super::watch::{Interest, Token};
use super::{Broker, Credentials};
use crate::broker::sorted::NoMemory;
use crate::broker::{Answer, Id, Refusal};
use crate::driver::channel::Channel;
use crate::driver::error::Error;
use crate::profile::Packet;

/// Connections of one turn: those who are here already wait no longer than that.
const ACCEPTS: usize = 16;

/// Between two tries to accept where this process has no descriptor left, or to read where there is
/// no memory: the socket is "readable" all the while.
const PAUSE: Duration = Duration::from_millis(20);

impl Broker {
    /// Accepts whoever waits, a few at a time.
    pub(super) fn accept(&mut self) -> Result<(), Error> {
        for _ in 0..ACCEPTS {
            match self.listener.try_accept() {
                Ok(Some(channel)) => self.admit(channel),
                Ok(None) => break,
                Err(Error::PeerRefused { pid, uid, gid }) => {
                    self.turned_away(Credentials { pid, uid, gid }, None);
                }
                Err(Error::Pressure { .. }) => {
                    self.watch.change(&self.listener, Token::Listener, Interest::Nothing)?;
                    self.accept_again = Instant::now().checked_add(PAUSE);
                    break;
                }
                Err(error @ (Error::Closed | Error::Io { call: "accept4", .. })) => return Err(error),
                // What failed concerns the one connection, which is closed.
                Err(_) => self.stats.turned_away = self.stats.turned_away.saturating_add(1),
            }
        }
        Ok(())
    }

    /// There is no memory to read what a line has to say: it is not the party's fault, and its names
    /// are not lost for it.
    pub(super) fn pause(&mut self, id: Id) {
        // A hang-up is reported during a pause too.
        if self.paused.iter().any(|(_, paused)| *paused == id) {
            return;
        }
        let Some(line) = self.lines.get(&id) else { return };
        match (
            self.watch.change(&line.channel, Token::Line(id), Interest::Nothing),
            Instant::now().checked_add(PAUSE),
        ) {
            (Ok(()), Some(at)) => self.paused.push_back((at, id)),
            (Ok(()), None) => {}
            (Err(error), _) => self.close(id, Departure::Failed(error)),
        }
    }

    /// After a pause the listener, and who was not read, are watched again.
    pub(super) fn resume(&mut self) -> Result<(), Error> {
        if self.accept_again.take_if(|at| Instant::now() >= *at).is_some() {
            self.watch.change(&self.listener, Token::Listener, Interest::Reading)?;
        }
        while self.paused.front().is_some_and(|(at, _)| Instant::now() >= *at) {
            let Some((_, id)) = self.paused.pop_front() else { break };
            // Who has no room is watched for that already.
            let Some(line) = self.lines.get_mut(&id).filter(|line| !line.full) else { continue };
            // What there was no memory for may have left the socket, which would never tell of it.
            if !line.queued {
                line.queued = true;
                self.ready.push_back(id);
            }
            if let Err(error) = self.watch.change(&line.channel, Token::Line(id), Interest::Reading) {
                self.close(id, Departure::Failed(error));
            }
        }
        Ok(())
    }

    fn admit(&mut self, mut channel: Channel<Packet>) {
        let Ok(party) = channel.peer() else { return self.hang_up(channel) };
        self.settle(&mut channel);
        let room = self.make_room().map_err(|NoMemory| Refusal::Exhausted);
        let admitted = room.and_then(|()| self.registry.connect(party.into())).and_then(|id| {
            let watched = self.watch.add(&channel, Token::Line(id), Interest::Reading);
            watched.map(|()| id).map_err(|_| {
                self.registry.gone(id);
                Refusal::Exhausted
            })
        });
        match admitted {
            Ok(id) => {
                // There is room.
                let _never = self.lines.insert(id, Line::new(channel));
                self.stats.connected = self.stats.connected.saturating_add(1);
                self.tell(&BrokerEvent::Connected { id, party });
            }
            Err(refusal) => {
                // A new socket has room, and who is gone already needs no answer.
                let _nobody_there = channel.try_send(Answer::TurnedAway(refusal).message(0, 0));
                self.hang_up(channel);
                self.turned_away(party, Some(refusal));
            }
        }
    }

    /// Memory for one connection more, wherever it may come to stand: what a stranger makes grow must
    /// be able to say "no memory" (P4).
    fn make_room(&mut self) -> Result<(), NoMemory> {
        self.lines.make_room()?;
        // Each line stands there once at most; beside them those of lines that are gone.
        let all = self.lines.len().saturating_add(1);
        self.ready.try_reserve(all).map_err(|_| NoMemory)?;
        self.paused.try_reserve(all).map_err(|_| NoMemory)
    }

    /// Its room for what is unread, and who closes what it should not have sent.
    fn settle(&self, channel: &mut Channel<Packet>) {
        // The kernel doubles what it is told (socket(7)) and keeps its own least.
        let bytes = self.registry.quotas().unread_bytes as usize / 2;
        let _kernels_own_least = setsockopt(&channel.as_fd(), sockopt::SndBuf, &bytes);
        if let Some(reaper) = &self.reaper {
            let reaper = Arc::clone(reaper);
            channel.set_reaper(move |descriptor| {
                reaper.lock().unwrap_or_else(PoisonError::into_inner).reap(descriptor);
            });
        }
    }

    fn turned_away(&mut self, party: Credentials, refusal: Option<Refusal>) {
        self.stats.turned_away = self.stats.turned_away.saturating_add(1);
        self.tell(&BrokerEvent::TurnedAway { party, refusal });
    }

    /// A connection is over.
    pub(super) fn close(&mut self, id: Id, why: Departure) {
        let party = self.registry.party(id).copied();
        self.registry.gone(id);
        if let Some(line) = self.lines.remove(&id) {
            self.watch.remove(&line.channel);
            if let Some(process) = &line.process {
                self.watch.remove(process);
            }
            self.hang_up(line.channel);
        }
        match why {
            Departure::Failed(Error::Violation(_)) => {
                self.stats.violations = self.stats.violations.saturating_add(1);
            }
            Departure::Unread => self.stats.unread = self.stats.unread.saturating_add(1),
            Departure::Closed | Departure::Died | Departure::Exhausted | Departure::Failed(_) => {}
        }
        if let Some(party) = party {
            let (names, party) = (party.names, party.credentials.into());
            self.tell(&BrokerEvent::Left { id, party, names, why });
        }
    }
}
