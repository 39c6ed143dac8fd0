//! Calls over a channel.

mod sending;
mod unread;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::deadline::Deadline;
use super::error::{Error, SendError};
use crate::calls::{
    Answer, Bounds, CallId, Correlate, Counters, Incoming, PendingCalls, Refused, Request, Role,
};
use crate::error::Misuse;
use crate::message::Message;
use crate::profile::Framing;
use unread::Unread;

type Owned = Message<OwnedFd>;

/// Messages that may be read one after the other, none of them the answer, before calls that are
/// overdue are given up although there is more to read: who floods us does not stop the clock.
/// Thrice what the default SO_SNDBUF holds of small packets.
const OVERDUE_READS: u32 = 1024;

/// What happened on a channel with calls.
#[derive(Debug)]
#[must_use = "it may be an answer, or a request that waits for one"]
#[non_exhaustive]
pub enum Event {
    /// A call was answered.
    Answered {
        /// Which.
        call: CallId,
        /// How.
        answer: Answer<OwnedFd>,
    },
    /// A call ended without an answer.
    Failed {
        /// Which.
        call: CallId,
        /// [`Error::TimedOut`], or what ended the conversation: then the same for every call.
        error: Error,
    },
    /// The peer calls; answer it with [`Calls::reply`].
    Request {
        /// What the answer is to.
        request: Request,
        /// What it asks.
        message: Owned,
    },
    /// A message that asks for nothing and answers nothing.
    Message(Owned),
}

/// Calls over a [`Channel`], any number of them in flight: one thread starts them and receives
/// what comes, in whatever order the peer answers. Rules CA-1.. of `docs/PROTOCOL.md`.
///
/// - `packet`: both sides call; the frame carries the call's id, and how many descriptors its answer
///   may bring.
/// - `libcamera`: one side calls ([`Calls::new`]), the other answers ([`Calls::answering`]). The
///   payload's bytes 0..4 are the command and 4..8 the cookie, in native order: leave room for
///   them, the cookie is set by [`start`](Self::start), and both by [`reply`](Self::reply).
/// - `stream`: as `libcamera`, but without any id. One call is in flight, and one that is given
///   up ends the conversation.
///
/// How many descriptors an answer may bring is what the call's head says (`reply_descriptors`,
/// also on wires that do not carry it): by default none. More is the peer's violation.
///
/// **Several threads**: a `Calls` is `Send` and needs `&mut`. Either each thread has a channel of
/// its own, or one thread owns the `Calls` and the others hand it their messages (and wake it, by
/// whatever it polls beside [`AsFd`]), or they share a mutex around it and use
/// [`try_start`](Self::try_start) and [`try_receive`](Self::try_receive), so that nobody sleeps with
/// the lock held.
///
/// ```
/// use fdpost::calls::Answer;
/// use fdpost::driver::{Event, Sent};
/// use fdpost::{Calls, Channel, Deadline, Limits, Message, Packet};
/// use std::time::Duration;
///
/// let (ours, theirs) = Channel::<Packet>::pair(Limits::new())?;
/// let mut ours = Calls::new(ours);
/// std::thread::spawn(move || -> Result<(), fdpost::Error> {
///     let mut theirs = Calls::new(Channel::<Packet>::from_fd(theirs, Limits::new())?);
///     let soon = Deadline::after(Duration::from_secs(10));
///     if let Event::Request { mut request, message } = theirs.receive()? {
///         let sent = theirs.reply(&mut request, Message::new(message.into_payload()), soon)?;
///         assert_eq!(sent, Sent::Complete);
///     }
///     Ok(())
/// });
/// let answer = ours.call(Message::new(b"who are you?"), Deadline::after(Duration::from_secs(10)))?;
/// assert!(matches!(answer, Answer::Reply(message) if message.payload() == b"who are you?"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Many in flight, and what else comes meanwhile:
///
/// ```
/// use fdpost::calls::Correlate;
/// use fdpost::driver::Event;
/// use fdpost::{Calls, Deadline, Error, Message};
/// use std::time::Duration;
///
/// fn ask<P: Correlate>(calls: &mut Calls<P>, questions: Vec<Message>) -> Result<Vec<Message>, Error> {
///     let deadline = Deadline::after(Duration::from_secs(10));
///     let mut waiting = std::collections::HashSet::new();
///     for question in questions {
///         waiting.insert(calls.start(question, deadline)?);
///     }
///     let mut answers = Vec::new();
///     while !waiting.is_empty() {
///         match calls.receive()? {
///             Event::Answered { call, answer } if waiting.remove(&call) => {
///                 answers.push(answer.into_message());
///             }
///             Event::Failed { call, error } if waiting.remove(&call) => eprintln!("{call}: {error}"),
///             Event::Request { mut request, message } => {
///                 calls.try_reply(&mut request, Message::new(message.into_payload()), false).map(drop)?;
///             }
///             _ => {}
///         }
///     }
///     Ok(answers)
/// }
/// # let (ours, _theirs) = fdpost::Channel::<fdpost::Packet>::pair(fdpost::Limits::new())?;
/// # assert!(ask(&mut Calls::new(ours), Vec::new())?.is_empty());
/// # Ok::<(), Error>(())
/// ```
pub struct Calls<P: Correlate> {
    channel: Channel<P>,
    pending: PendingCalls<P>,
    unread: Unread,
    epoch: Instant,
    /// Messages read since the channel last had none.
    reads: u32,
    /// The conversation ended: the answer to everything.
    ended: Option<Error>,
}

impl<P: Correlate> Calls<P> {
    /// The side that calls; on `packet`, where both do, either.
    pub fn new(channel: Channel<P>) -> Self {
        Self::within(channel, Role::Caller, Bounds::new())
    }

    /// The side that is called. On `packet` it may call as well.
    pub fn answering(channel: Channel<P>) -> Self {
        Self::within(channel, Role::Answerer, Bounds::new())
    }

    /// As [`new`](Self::new) or [`answering`](Self::answering), with bounds of one's own.
    pub fn within(channel: Channel<P>, role: Role, bounds: Bounds) -> Self {
        Self {
            channel,
            pending: PendingCalls::new(role, bounds.in_flight),
            unread: Unread::new(bounds),
            epoch: Instant::now(),
            reads: 0,
            ended: None,
        }
    }

    /// Calls, and waits for the answer. What else comes meanwhile waits for
    /// [`receive`](Self::receive), in its order.
    ///
    /// # Errors
    /// As [`start`](Self::start), with the message where it did not leave. Without it, the call had
    /// left: [`Error::TimedOut`], or what ended the conversation; and
    /// [`Exhausted::MessagesUnread`](crate::Exhausted::MessagesUnread), when more came meanwhile than [`Bounds`] allow: the call is
    /// given up, and its answer will be dropped.
    pub fn call(&mut self, message: Owned, deadline: Deadline) -> Result<Answer<OwnedFd>, SendError> {
        let ours = self.start(message, deadline)?;
        let failed = |error: Error| SendError::new(error, Vec::new());
        loop {
            if let Err(exhausted) = self.unread.make_room() {
                self.give_up(ours);
                return Err(failed(exhausted.into()));
            }
            match self.advance(Some(Deadline::NEVER)) {
                Ok(Event::Answered { call, answer }) if call == ours => return Ok(answer),
                Ok(Event::Failed { call, error }) if call == ours => return Err(failed(error)),
                Ok(event) => self.unread.push(event),
                Err(error) => {
                    self.give_up(ours);
                    return Err(failed(error));
                }
            }
        }
    }

    /// Waits for whatever comes next, for ever if need be. See [`receive_by`](Self::receive_by).
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by), without [`Error::TimedOut`].
    pub fn receive(&mut self) -> Result<Event, Error> {
        self.receive_by(Deadline::NEVER)
    }

    /// Waits for whatever comes next: an answer, a call that failed, a call of the peer's, any
    /// other message. Each call that was started comes to exactly one event.
    ///
    /// # Errors
    /// As [`Channel::receive_by`]; what ends the conversation is first told to every call in
    /// flight ([`Event::Failed`]) and then returned for ever. [`Misuse::CallGivenUp`] on a wire without ids.
    pub fn receive_by(&mut self, deadline: Deadline) -> Result<Event, Error> {
        self.unread.pop().map_or_else(|| self.advance(Some(deadline)), Ok)
    }

    /// The next event if there is one.
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by), without [`Error::TimedOut`].
    pub fn try_receive(&mut self) -> Result<Option<Event>, Error> {
        match self.unread.pop().map_or_else(|| self.advance(None), Ok) {
            Ok(event) => Ok(Some(event)),
            Err(Error::WouldBlock) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a call up: there will be no event of it, and its answer is dropped when it comes.
    /// `false`: it is not in flight. On a wire without ids this ends the conversation.
    pub fn give_up(&mut self, call: CallId) -> bool {
        let was_awaited = self.pending.give_up(call);
        self.end_if_poisoned();
        was_awaited
    }

    /// For event loops: how long from now until [`try_receive`](Self::try_receive) should be called
    /// although the socket is silent. `None`: for ever. What is [pending](crate::Sent::Pending) waits
    /// for the socket to be writable ([`Channel::wants_write`]).
    pub fn timeout(&self) -> Option<Duration> {
        // The end that a send found shows on no datagram socket.
        if !self.unread.is_empty() || self.ended.or(self.gone()).is_some() {
            return Some(Duration::ZERO);
        }
        let due = self.pending.deadline().map(|due| due.saturating_sub(self.epoch.elapsed()));
        due.into_iter().chain(self.channel.timeout()).min()
    }

    /// How many calls were made, and what became of them.
    pub const fn counters(&self) -> Counters {
        self.pending.counters()
    }

    /// The channel: for its counters, its closer, and to shut it down.
    pub const fn channel(&self) -> &Channel<P> {
        &self.channel
    }

    /// The next event that the channel brings. `None`: do not wait.
    fn advance(&mut self, until: Option<Deadline>) -> Result<Event, Error> {
        loop {
            if let Some(error) = self.ended {
                return self.pending.abandon().map_or(Err(error), |call| Ok(Event::Failed { call, error }));
            }
            if self.reads >= OVERDUE_READS {
                if let Some(event) = self.overdue() {
                    return Ok(event);
                }
                self.reads = 0;
            }
            let received = match until {
                // All that a peer which is gone has said is there.
                Some(until) if self.gone().is_none() => self.channel.receive_by(until.min(self.due())),
                _ => self.channel.try_receive().and_then(|received| received.ok_or(Error::WouldBlock)),
            };
            match received {
                Ok(message) => {
                    self.reads = self.reads.saturating_add(1);
                    if let Some(event) = self.judge(message) {
                        return Ok(event);
                    }
                }
                Err(error @ (Error::TimedOut | Error::WouldBlock)) => {
                    self.reads = 0;
                    if let Some(gone) = self.gone() {
                        self.ended = Some(gone);
                    } else if let Some(event) = self.overdue() {
                        return Ok(event);
                    } else if until.is_none_or(Deadline::has_passed) {
                        return Err(error);
                    }
                }
                Err(error) => self.note(error)?,
            }
        }
    }

    /// What a message is; `None`: nobody's, or the end.
    fn judge(&mut self, message: Owned) -> Option<Event> {
        match self.pending.handle(message) {
            Ok(Incoming::Answered(call, answer)) => Some(Event::Answered { call, answer }),
            Ok(Incoming::Request(request, message)) => Some(Event::Request { request, message }),
            Ok(Incoming::Message(message)) => Some(Event::Message(message)),
            Ok(Incoming::Late(message)) => {
                self.channel.discard(message);
                None
            }
            Err(Refused { violation, message }) => {
                self.ended = Some(self.channel.end_with(violation.into()));
                self.channel.discard(message);
                None
            }
        }
    }

    /// A call that is overdue now.
    fn overdue(&mut self) -> Option<Event> {
        let call = self.pending.expired(self.epoch.elapsed())?;
        self.end_if_poisoned();
        Some(Event::Failed { call, error: Error::TimedOut })
    }

    fn due(&self) -> Deadline {
        let due = self.pending.deadline().and_then(|due| self.epoch.checked_add(due));
        due.map_or(Deadline::NEVER, Deadline::at)
    }

    /// The peer is gone, says a send; what it had sent is still to be read.
    fn gone(&self) -> Option<Error> {
        self.channel.unsendable().filter(|error| matches!(error, Error::PeerGone { .. }))
    }

    fn end_if_poisoned(&mut self) {
        if self.pending.is_poisoned() && self.ended.is_none() {
            self.ended = Some(self.channel.end_with(Misuse::CallGivenUp { wire: P::NAME }.into()));
        }
    }

    /// What a receive said: the end is kept, and anything else is for now.
    fn note(&mut self, error: Error) -> Result<(), Error> {
        self.ended = match error {
            // A send knew more of it.
            Error::Closed => self.gone().or(Some(error)),
            _ => self.channel.ended(),
        };
        if self.ended.is_some() { Ok(()) } else { Err(error) }
    }
}

impl<P: Correlate> AsFd for Calls<P> {
    /// For poll(2) and the like. Reading or writing it directly breaks the conversation.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl<P: Correlate> fmt::Debug for Calls<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("channel", &self.channel)
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}
