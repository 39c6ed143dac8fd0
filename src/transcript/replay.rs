//! A transcript fed to the machine, step by step.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use super::{Direction, Event, Happened, Read, Seconds, Transcript};
use crate::error::{Fault, Misuse};
use crate::machine::{Receiver, table::State};
use crate::message::Message;
use crate::profile::{Framing, Profile};

/// What the machine made of one event, or of one message of several in it.
#[derive(Debug)]
pub struct Step<'a> {
    /// The event's number, from 1.
    pub number: usize,
    /// The event.
    pub event: &'a Event,
    /// The state of this direction's receiver before
    pub before: State,
    /// and after it.
    pub after: State,
    /// When the message that has begun is overdue.
    pub deadline: Option<Duration>,
    /// What was decided.
    pub decision: Decision<'a>,
}

/// What a receiver decided.
#[derive(Debug)]
pub enum Decision<'a> {
    /// A message is whole. Its descriptors are numbers: the n-th of this direction, from 0.
    Message(&'a Message<u64>),
    /// Nothing yet: more must come.
    More,
    /// The peer closed between two messages.
    End,
    /// A rule was broken, or this side ran out of something. Final here.
    Fault(Fault),
    /// Not looked at: the conversation was over.
    Ignored,
}

/// How one direction of a transcript ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The conversation could go on.
    More,
    /// The peer closed between two messages.
    End,
    /// A rule was broken, or this side ran out of something.
    Fault(Fault),
}

impl Verdict {
    /// The rule's name, "end" or "more".
    pub const fn name(&self) -> &'static str {
        match self {
            Self::More => "more",
            Self::End => "end",
            Self::Fault(fault) => fault_name(fault),
        }
    }
}

const fn fault_name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Violation(violation) => violation.rule(),
        Fault::Exhausted(exhausted) => exhausted.rule(),
        Fault::Misuse(_) => "misuse",
    }
}

/// Why a transcript cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It is of another wire.
    #[error("a transcript of the wire {found}, not of {expected}")]
    Wire {
        /// The wire asked for.
        expected: &'static str,
        /// The transcript's.
        found: String,
    },
    /// Its limits have no meaning.
    #[error(transparent)]
    Limits(#[from] Misuse),
}

/// Feeds a transcript to two receivers of the wire `P`, one for each direction, and tells what
/// they decide. Reads of a stream that are longer than what a receiver asks for are fed in pieces;
/// their descriptors come with the last byte, as the kernel has it.
///
/// # Errors
/// [`ReplayError`], before the first step.
pub fn replay<P: Profile>(
    transcript: &Transcript,
    tell: &mut impl FnMut(Step<'_>),
) -> Result<[Verdict; 2], ReplayError> {
    if transcript.wire() != P::NAME {
        return Err(ReplayError::Wire { expected: P::NAME, found: transcript.wire().to_owned() });
    }
    let side = || Receiver::new(transcript.limits()).map(Side::<P>::new);
    let [mut forth, mut back] = [side()?, side()?];
    for (index, event) in transcript.events.iter().enumerate() {
        let side = match event.direction {
            Direction::Forth => &mut forth,
            Direction::Back => &mut back,
        };
        let number = index.saturating_add(1);
        side.meet(event, &mut |deadline, [before, after], decision| {
            tell(Step { number, event, before, after, deadline, decision });
        });
    }
    Ok([forth.verdict(), back.verdict()])
}

/// One direction.
struct Side<P: Profile> {
    receiver: Receiver<P, u64>,
    /// Its next descriptor's number.
    next: u64,
    fault: Option<Fault>,
}

impl<P: Profile> Side<P> {
    const fn new(receiver: Receiver<P, u64>) -> Self {
        Self { receiver, next: 0, fault: None }
    }

    fn verdict(&self) -> Verdict {
        match (self.fault, self.receiver.state()) {
            (Some(fault), _) => Verdict::Fault(fault),
            (None, State::Ended) => Verdict::End,
            (None, _) => Verdict::More,
        }
    }

    fn meet(&mut self, event: &Event, tell: &mut impl FnMut(Option<Duration>, [State; 2], Decision<'_>)) {
        let state = self.receiver.state();
        if self.fault.is_some() || state == State::Ended {
            return tell(None, [state; 2], Decision::Ignored);
        }
        match &event.happened {
            Happened::Block => {
                self.receiver.handle(event.at, 0);
                self.poll(state, true, tell);
            }
            Happened::Read(read) => self.read(event.at, read, tell),
        }
    }

    fn read(
        &mut self,
        at: Duration,
        read: &Read,
        tell: &mut impl FnMut(Option<Duration>, [State; 2], Decision<'_>),
    ) {
        let first = self.next;
        self.next = first.saturating_add(read.descriptors.into());
        let mut rest = read.bytes.as_slice();
        loop {
            let state = self.receiver.state();
            let room = match self.receiver.windows() {
                Ok(Some([hunk, ..])) => hunk.room(),
                Ok(_) => return tell(None, [state; 2], Decision::Ignored),
                Err(fault) => return self.fail(state, fault, tell),
            };
            let in_pieces = matches!(P::FRAMING, Framing::Stream { .. }) && rest.len() > room && room > 0;
            let (piece, later) = rest.split_at(if in_pieces { room } else { rest.len() });
            self.fill(read, piece, in_pieces, first..self.next);
            self.receiver.handle(at, 1);
            self.poll(state, !in_pieces, tell);
            if !in_pieces || self.fault.is_some() {
                return;
            }
            rest = later;
        }
    }

    fn fill(&mut self, read: &Read, piece: &[u8], more: bool, descriptors: Range<u64>) {
        // The same windows as a moment ago: nothing was filled in between.
        let Ok(Some([hunk, ..])) = self.receiver.windows() else { return };
        if more {
            return hunk.fill(piece, []);
        }
        hunk.fill(piece, descriptors);
        let cut = usize::try_from(read.cut_bytes).unwrap_or(usize::MAX);
        hunk.set_length(piece.len().saturating_add(cut));
        if read.control_cut {
            hunk.set_control_cut();
        }
        if let Some(malformed) = read.malformed {
            hunk.set_malformed(malformed);
        }
        if let Some((level, kind)) = read.unknown {
            hunk.set_unknown(level, kind);
        }
        if read.end {
            hunk.set_end();
        }
    }

    /// Everything that can be decided now. `last`: no other piece of the same read follows.
    fn poll(
        &mut self,
        mut before: State,
        last: bool,
        tell: &mut impl FnMut(Option<Duration>, [State; 2], Decision<'_>),
    ) {
        let mut told = false;
        loop {
            let polled = self.receiver.poll();
            let (deadline, after) = (self.receiver.deadline(), self.receiver.state());
            match polled {
                Ok(Some(message)) => tell(deadline, [before, after], Decision::Message(&message)),
                Ok(None) if after == State::Ended => return tell(deadline, [before, after], Decision::End),
                Ok(None) if last && !(told && after == State::Idle) => {
                    return tell(deadline, [before, after], Decision::More);
                }
                Ok(None) => return,
                Err(fault) => return self.fail(before, fault, tell),
            }
            told = true;
            before = after;
        }
    }

    fn fail(
        &mut self,
        before: State,
        fault: Fault,
        tell: &mut impl FnMut(Option<Duration>, [State; 2], Decision<'_>),
    ) {
        self.fault = Some(fault);
        tell(None, [before, self.receiver.state()], Decision::Fault(fault));
    }
}

const fn name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Header => "header",
        State::Body => "body",
        State::Ended => "ended",
        State::Failed => "failed",
    }
}

impl Step<'_> {
    /// The states' names before and after, as in `docs/states.svg`.
    pub const fn states(&self) -> [&'static str; 2] {
        [name(self.before), name(self.after)]
    }

    /// What was decided, and why, in words.
    pub fn reason(&self) -> impl fmt::Display + '_ {
        Reason(self)
    }
}

struct Reason<'a>(&'a Step<'a>);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.0;
        let blocked = matches!(step.event.happened, Happened::Block);
        match &step.decision {
            Decision::Message(message) => {
                let (bytes, descriptors) = (message.payload().len(), message.descriptor_count());
                write!(f, "a message is whole and delivered: {bytes} bytes, {descriptors} descriptors")
            }
            Decision::More => {
                f.write_str(match step.after {
                    State::Header => "part of a header is here, more of it must come",
                    State::Body => "the header is whole, the rest of its message must come",
                    _ => "between two messages, nothing is awaited",
                })?;
                match step.deadline {
                    Some(deadline) if blocked => {
                        write!(f, "; not overdue before {}", Seconds(deadline))
                    }
                    Some(deadline) => write!(f, " before {}", Seconds(deadline)),
                    None => Ok(()),
                }
            }
            Decision::End => f.write_str("the peer closed between two messages: a clean end"),
            Decision::Fault(fault) if blocked => {
                write!(
                    f,
                    "{}: {fault}; its time is over and nothing more is there to be read",
                    fault_name(fault)
                )
            }
            Decision::Fault(fault) => write!(f, "{}: {fault}", fault_name(fault)),
            Decision::Ignored => f.write_str("not looked at: this direction is over"),
        }
    }
}

impl fmt::Display for Step<'_> {
    /// One line: event, states, decision and reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.states();
        let (sign, at) = (self.event.direction.sign(), Seconds(self.event.at));
        write!(f, "{:>4} {sign} {at} ", self.number)?;
        match &self.event.happened {
            Happened::Block => f.write_str("would block")?,
            Happened::Read(Read { bytes, descriptors, .. }) => {
                write!(f, "read of {} bytes, {descriptors} descriptors", bytes.len())?;
            }
        }
        write!(f, "; {before} -> {after}: {}", self.reason())
    }
}
