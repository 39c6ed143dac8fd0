//! Honest conversations: the same code on either side, each knowing from the seed what is due.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use fdpost::calls::{CallId, Correlate};
use fdpost::driver::{Event, FdReply, receive_fd_accepting, send_error, send_fd};
use fdpost::profile::Profile;
use fdpost::{Calls, Channel, Deadline, Error, Head, Limits, Message, Receiving, Sending, Sent};

use crate::content::{Due, Tally, policy};
use crate::support::Random;

/// A wire whose channels may go to another thread.
pub(crate) trait Wire: Profile<Declared: Send> + Correlate + Send + 'static {}
impl<P: Profile<Declared: Send> + Correlate + Send + 'static> Wire for P {}

/// Who somebody is in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The lasting process, or whoever answers.
    Server,
    Peer,
}

/// Why a conversation did not come to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// What the crate said.
    Error(Error),
    /// What must never happen, whoever is killed.
    Wrong(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => write!(f, "{error} ({error:?})"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

pub(crate) type Talked = Result<Tally, Stop>;

/// Longer than anything here may take.
pub(crate) fn soon() -> Deadline {
    Deadline::after(crate::PATIENCE)
}

/// Threads on each side of a split channel.
const SENDERS: u8 = 3;

/// Bursts to and fro. What passed so far is kept when it stops early.
pub(crate) fn whole<P: Wire>(
    channel: &mut Channel<P>,
    seed: u64,
    side: Side,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let mut plan = Random(seed);
    channel.set_policy(policy());
    channel.set_batch([1, 4, 16][plan.below(3)]);
    let mut numbers = [0_u32; 2];
    for _ in 0..=plan.below(6) {
        for (who, sender) in [Side::Server, Side::Peer].into_iter().enumerate() {
            // The peer has the last word: nobody then sends to somebody who is gone.
            let count = plan.below(60) + who;
            let at_once = plan.below(2) == 0;
            let due = |number| Due { seed, who: who as u8, number };
            let range = numbers[who]..numbers[who] + count as u32;
            numbers[who] = range.end;
            if sender != side {
                let mut message = Message::default();
                for number in range {
                    channel.receive_into(&mut message, soon())?;
                    tally.count(message.payload().len(), message.descriptor_count());
                    due(number).check(&mut message).map_err(Stop::Wrong)?;
                }
            } else if at_once {
                let mut burst: Vec<Message> = range.clone().map(|number| due(number).message()).collect();
                for message in &burst {
                    tally.count(message.payload().len(), message.descriptor_count());
                }
                if channel.send_all_by(&mut burst, soon())? != Sent::Complete {
                    channel.flush_by(soon())?;
                }
            } else {
                for number in range {
                    let message = due(number).message();
                    tally.count(message.payload().len(), message.descriptor_count());
                    if channel.send_by(message, soon())? != Sent::Complete {
                        channel.flush_by(soon())?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// All that comes behind the last message is the end.
pub(crate) fn end<T>(received: Result<T, Error>) -> Result<(), Stop> {
    match received {
        Err(Error::Closed) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Stop::Wrong("a message behind the last one".into())),
    }
}

/// Several threads on each side send at once.
pub(crate) fn split<P: Wire>(
    channel: Channel<P>,
    seed: u64,
    side: Side,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let mut plan = Random(seed);
    let (sending, mut receiving) = channel.split();
    receiving.set_policy(policy());
    receiving.set_batch([1, 4, 16][plan.below(3)]);
    let counts: [usize; 2] = std::array::from_fn(|_| 1 + plan.below(100));
    let (ours, theirs) = if side == Side::Server { (0, 1) } else { (1, 0) };
    let whose = |side: usize, thread: u8| side as u8 * SENDERS + thread;
    let sent = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|thread| {
                let (sending, who) = (sending.clone(), whose(ours, thread));
                scope.spawn(move || say(&sending, seed, who, counts[ours]))
            })
            .collect();
        let heard = hear(&mut receiving, seed, |thread| whose(theirs, thread), counts[theirs], tally);
        if heard.is_err() {
            // Nobody may wait for room that nobody will make.
            sending.shutdown();
        }
        let sent: Vec<Talked> = senders
            .into_iter()
            .map(|sender| sender.join().unwrap_or_else(|_| Err(Stop::Wrong("a sender panicked".into()))))
            .collect();
        heard.map(|()| sent)
    })?;
    for one in sent {
        tally.add(one?);
    }
    sending.flush_by(soon())?;
    drop(sending);
    if side == Side::Server { end(receiving.receive_by(soon())) } else { Ok(()) }
}

fn say<P: Wire>(sending: &Sending<P>, seed: u64, who: u8, count: usize) -> Talked {
    let mut tally = Tally::default();
    for number in 0..count as u32 {
        let message = Due { seed, who, number }.message();
        tally.count(message.payload().len(), message.descriptor_count());
        let _accepted = sending.send_by(message, soon())?;
    }
    Ok(tally)
}

fn hear<P: Wire>(
    receiving: &mut Receiving<P>,
    seed: u64,
    whose: impl Fn(u8) -> u8,
    count: usize,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let mut next = [0_u32; SENDERS as usize];
    for _ in 0..count * usize::from(SENDERS) {
        let mut message = receiving.receive_by(soon())?;
        tally.count(message.payload().len(), message.descriptor_count());
        let who = message.payload().get(16).copied().unwrap_or(u8::MAX);
        let thread = (0..SENDERS).find(|thread| whose(*thread) == who);
        let Some(thread) = thread else {
            return Err(Stop::Wrong(format!("a message of {who}, who is nobody")));
        };
        let number = &mut next[usize::from(thread)];
        Due { seed, who, number: *number }.check(&mut message).map_err(Stop::Wrong)?;
        *number += 1;
    }
    Ok(())
}

/// Calls in flight together, where the wire has ids.
const IN_FLIGHT: usize = 12;

/// One side calls, and checks each answer.
pub(crate) fn call<P: Wire>(calls: &mut Calls<P>, seed: u64, tally: &mut Tally) -> Result<(), Stop> {
    let total = 1 + Random(seed).below(120) as u32;
    let most = if P::NAME == "stream" { 1 } else { IN_FLIGHT };
    let mut waiting: Vec<(CallId, u32)> = Vec::new();
    let mut begun = 0;
    while begun < total || !waiting.is_empty() {
        while begun < total && waiting.len() < most {
            let answer = Due { seed, who: 1, number: begun };
            let reply_descriptors = answer.descriptors() as u8;
            let message = Due { seed, who: 0, number: begun }.message();
            tally.count(message.payload().len(), message.descriptor_count());
            let message = message.with_head(Head { reply_descriptors, ..Head::default() });
            waiting.push((calls.start(message, soon())?, begun));
            begun += 1;
        }
        match calls.receive_by(soon())? {
            Event::Answered { call, answer } => {
                let Some(place) = waiting.iter().position(|(waiting, _)| *waiting == call) else {
                    return Err(Stop::Wrong(format!("call {call} was answered and never made")));
                };
                let (_, number) = waiting.swap_remove(place);
                let mut answer = answer.into_message();
                tally.count(answer.payload().len(), answer.descriptor_count());
                tally.calls += 1;
                Due { seed, who: 1, number }.check(&mut answer).map_err(Stop::Wrong)?;
            }
            Event::Failed { error, .. } => return Err(error.into()),
            other => return Err(Stop::Wrong(format!("{other:?} where an answer was due"))),
        }
    }
    Ok(())
}

/// The other one answers until the end.
pub(crate) fn answer<P: Wire>(calls: &mut Calls<P>, seed: u64, tally: &mut Tally) -> Result<(), Stop> {
    for number in 0..=Random(seed).below(120) as u32 {
        match calls.receive_by(soon())? {
            Event::Request { mut request, mut message } => {
                tally.count(message.payload().len(), message.descriptor_count());
                Due { seed, who: 0, number }.check(&mut message).map_err(Stop::Wrong)?;
                let reply = Due { seed, who: 1, number }.message();
                tally.count(reply.payload().len(), reply.descriptor_count());
                if calls.reply(&mut request, reply, soon())? != Sent::Complete {
                    calls.flush_by(soon())?;
                }
                tally.calls += 1;
            }
            other => return Err(Stop::Wrong(format!("{other:?} where a call was due"))),
        }
    }
    Ok(())
}

/// The classic two bytes, one way.
pub(crate) fn hand_over(socket: &OwnedFd, seed: u64, tally: &mut Tally) -> Result<(), Stop> {
    for number in 0..=Random(seed).below(200) as u32 {
        let due = Due { seed, who: 1, number };
        if number % 3 == 0 {
            send_error(socket, (number % 255 + 1) as u8, text(number))?;
            tally.count(text(number).len() + 2, 0);
        } else {
            let picture = due.picture_alone();
            send_fd(socket, &picture)?;
            tally.count(2, 1);
        }
    }
    Ok(())
}

/// `wait`: how long one look may take; `gone` says whether there is any use in looking again.
pub(crate) fn take_over(
    socket: &OwnedFd,
    seed: u64,
    tally: &mut Tally,
    wait: std::time::Duration,
    mut gone: impl FnMut() -> bool,
) -> Result<(), Stop> {
    for number in 0..=Random(seed).below(200) as u32 {
        let due = Due { seed, who: 1, number };
        let received = loop {
            // Asked before the look: what was sent before a death is there behind it.
            let last = gone();
            match receive_fd_accepting(socket, &TEXT, &policy(), Deadline::after(wait)) {
                Err(Error::TimedOut) if !last => {}
                other => break other,
            }
        };
        match received? {
            FdReply::Error { status, text: said } if number % 3 == 0 => {
                tally.count(said.len() + 2, 0);
                if (u32::from(status), &*said) != (number % 255 + 1, text(number).as_bytes()) {
                    return Err(Stop::Wrong(format!("another error than that of {due:?}")));
                }
            }
            FdReply::Descriptor(picture) if number % 3 != 0 => {
                tally.count(2, 1);
                due.check_picture(0, &picture).map_err(Stop::Wrong)?;
            }
            other => return Err(Stop::Wrong(format!("{other:?} where {due:?} was due"))),
        }
    }
    Ok(())
}

/// What is accepted of the text of an error.
pub(crate) const TEXT: Limits = crate::content::LIMITS.payload(1000);

fn text(number: u32) -> String {
    "no. ".repeat((number % 200) as usize)
}

/// Waits, without any deadline but a kill, until there is something to read.
pub(crate) fn readable(socket: impl AsFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    while poll(&mut sockets, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
}
