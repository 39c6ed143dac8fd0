//! One of those who talk, each in a thread of its own; a fault may be meant for it.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

use fdpost::driver::Sent;
use fdpost::profile::Profile;
use fdpost::{Channel, Closer, Deadline, Error, Memfd, Message, SendError};

use crate::shim::{self, Fault};

/// Longer than anything here may take. Who waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PICTURE: usize = 4096;

pub(crate) fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

/// Why a party did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// An error that was said twice.
    Final(Error),
    /// What no fault may cause.
    Broken(String),
    /// The one that this one was to talk to never came so far.
    Alone,
}

/// What it met on its way.
#[derive(Debug, Default)]
pub(crate) struct Party {
    pub(crate) errors: Vec<Error>,
}

/// How its part ended.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) end: Result<(), Stop>,
    pub(crate) errors: Vec<Error>,
    pub(crate) struck: bool,
}

/// Plays a part, with this fault on its way.
pub(crate) fn play(
    name: &'static str,
    fault: Option<Fault>,
    part: impl FnOnce(&mut Party) -> Result<(), Stop>,
) -> Report {
    let mut party = Party::default();
    fault.into_iter().for_each(shim::arm);
    let end = part(&mut party);
    let struck = shim::disarm();
    Report { name, end, errors: party.errors, struck }
}

pub(crate) fn broken<T>(what: impl Debug) -> Result<T, Stop> {
    Err(Stop::Broken(format!("{what:?}")))
}

impl Party {
    /// Does it, and once more after an error: either that passed, or it is said again.
    pub(crate) fn twice<T>(&mut self, mut what: impl FnMut() -> Result<T, Error>) -> Result<T, Stop> {
        match what() {
            Ok(value) => Ok(value),
            Err(first) => {
                self.errors.push(first);
                what().map_err(|second| self.again(first, second))
            }
        }
    }

    /// An error where there is no second try.
    pub(crate) fn once<T>(&mut self, done: Result<T, Error>) -> Result<T, Stop> {
        done.map_err(|error| {
            self.errors.push(error);
            if error == Error::TimedOut {
                Stop::Broken("slept until its deadline".into())
            } else {
                Stop::Final(error)
            }
        })
    }

    pub(crate) fn again(&mut self, first: Error, second: Error) -> Stop {
        if second == Error::TimedOut {
            return Stop::Broken(format!("slept until its deadline after {first:?}"));
        }
        if second != first {
            self.errors.push(second);
        }
        Stop::Final(second)
    }

    /// A picture of these pixels.
    pub(crate) fn picture(&mut self, pixel: u8) -> Result<OwnedFd, Stop> {
        self.twice(|| Memfd::sealed("fdpost-faults", &[pixel; PICTURE]))
    }

    /// Whether the picture came whole.
    pub(crate) fn look(&mut self, message: &mut Message, index: usize, pixel: u8) -> Result<(), Stop> {
        let Some(picture) = message.take(index) else { return broken("a picture is missing") };
        let mut second = self.twice(|| Memfd::map(&picture, PICTURE))?;
        let pixels: &[u8] = &mut second;
        if pixels.iter().any(|found| *found != pixel) { broken("another picture came") } else { Ok(()) }
    }

    /// Sends, and once more what came back.
    pub(crate) fn send<P: Profile>(
        &mut self,
        channel: &mut Channel<P>,
        message: Message,
    ) -> Result<(), Stop> {
        let (descriptors, length) = (message.descriptor_count(), message.payload().len());
        match channel.send_by(message, soon()) {
            Ok(Sent::Complete) => Ok(()),
            Ok(other) => broken(other),
            Err(SendError { error: first, mut messages }) => {
                self.errors.push(first);
                let Some(message) = messages.pop().filter(|_| messages.is_empty()) else {
                    return broken(format!("{first:?}, and {} messages came back", messages.len()));
                };
                if (message.descriptor_count(), message.payload().len()) != (descriptors, length) {
                    return broken(format!("{first:?}, and the message came back in part"));
                }
                match channel.send_by(message, soon()) {
                    Ok(Sent::Complete) => Ok(()),
                    Ok(other) => broken(other),
                    Err(second) => Err(self.again(first, second.error)),
                }
            }
        }
    }

    /// Receives what must be this.
    pub(crate) fn receive<P: Profile>(
        &mut self,
        channel: &mut Channel<P>,
        deadline: Deadline,
        payload: &[u8],
    ) -> Result<Message, Stop> {
        let message = self.twice(|| channel.receive_by(deadline))?;
        if message.payload() == payload { Ok(message) } else { broken("another message came") }
    }

    /// The peer ends the conversation, and that is all that comes.
    pub(crate) fn end<P: Profile>(&mut self, channel: &mut Channel<P>) -> Result<(), Stop> {
        loop {
            match channel.receive_by(soon()) {
                Err(Error::Closed) => return Ok(()),
                // A fault in the very last call; what is final is said again.
                Err(error) if !self.errors.contains(&error) => self.errors.push(error),
                Err(error) => return Err(Stop::Final(error)),
                Ok(message) => return broken(message),
            }
        }
    }
}

/// Who is told when somebody's end cannot be seen through the socket.
#[derive(Default)]
pub(crate) struct Closers(Mutex<(bool, Vec<Closer>)>);

impl Closers {
    pub(crate) fn add(&self, closer: Closer) {
        if let Ok(mut all) = self.0.lock() {
            if all.0 {
                closer.shutdown();
            }
            all.1.push(closer);
        }
    }

    pub(crate) fn shut(&self) {
        if let Ok(mut all) = self.0.lock() {
            all.0 = true;
            all.1.iter().for_each(Closer::shutdown);
        }
    }
}
