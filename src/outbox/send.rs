//! A sender's call: what it brings is accepted, and flushed or left to whom it can be left.

use std::collections::VecDeque;

use super::call::{Brought, Own};
use super::tenure::{Goal, Left, Tenure};
use super::waiting::Awaited;
use super::{Done, Outbox, Patience, Sink, Unsent, Why};
use crate::error::{Exhausted, Fault};
use crate::machine::Outgoing;
use crate::message::Message;
use crate::profile::Profile;
use crate::sync::{broken, lock};

impl<P: Profile, F, E: Copy> Outbox<P, F, E> {
    /// Puts a message into the queue, and flushes if nobody does. See the module's head for when
    /// this returns before the message has left.
    ///
    /// # Errors
    /// The message comes back: it was not accepted, or it did not leave while this call was
    /// there. What does not leave after its sender has returned is closed and counted as
    /// [lost](Self::lost).
    pub fn send(
        &self,
        message: Message<F>,
        packet_limit: Option<usize>,
        patience: Patience,
        sink: &mut impl Sink<P, F, Error = E>,
    ) -> Result<Done, Unsent<F, E>> {
        let mut brought = match Outgoing::new::<P>(message, packet_limit) {
            Ok(entry) => Some(entry),
            Err((misuse, message)) => {
                return Err(Unsent { why: Why::Fault(misuse.into()), message: Some(message) });
            }
        };
        let mut back = None;
        let done = self.bring(&mut brought, |message| back = Some(message), patience, sink);
        done.map_err(|why| Unsent { why, message: back.or_else(|| brought.map(Outgoing::into_message)) })
    }

    /// As [`send`](Self::send), for several: they are accepted in their order, as there is room,
    /// and each that was is taken out of `messages`.
    ///
    /// # Errors
    /// `messages` then holds, in order, what came back: what did not leave while this call was
    /// there, and what was not accepted. What is not there left, or leaves in its turn. On a
    /// [`Why::Fault`] the first of what was not accepted is the message at fault.
    pub fn send_all(
        &self,
        messages: &mut Vec<Message<F>>,
        packet_limit: Option<usize>,
        patience: Patience,
        sink: &mut impl Sink<P, F, Error = E>,
    ) -> Result<Done, Why<E>> {
        let (mut brought, fault) = check_all::<P, F>(messages, packet_limit);
        let behind = messages.len();
        let done = self.bring(&mut brought, |message| messages.push(message), patience, sink);
        messages.extend(brought.into_iter().map(Outgoing::into_message));
        messages.rotate_left(behind);
        done.and_then(|done| fault.map_or(Ok(done), |fault| Err(Why::Fault(fault))))
    }

    /// Accepts what a call brought and flushes, or leaves both to whom they can be left.
    fn bring(
        &self,
        brought: &mut impl Brought<F>,
        back: impl FnMut(Message<F>),
        mut patience: Patience,
        sink: &mut impl Sink<P, F, Error = E>,
    ) -> Result<Done, Why<E>> {
        let ran_out = if patience == Patience::None { Why::Full } else { Why::TimedOut };
        let (mut own, mut stopped, mut handed_over) = (Own::new(), None, false);
        let mut shared = lock(&self.shared);
        let why = loop {
            if shared.dead.is_none() && stopped.is_none() && !shared.has_returned(&own) {
                let accepted = shared.accept(brought, &mut own, &self.bounds);
                stopped = accepted.err().map(|short| Why::Fault(short.into()));
            }
            // No more is accepted behind what did not leave.
            let ended = stopped.is_some() || shared.has_returned(&own) || brought.first().is_none();
            let settled = shared.is_settled(own.last());
            let successor = patience == Patience::Forever && !handed_over && !broken("does-not-take-over");
            if shared.role_is_free() && shared.is_pending() && (!settled || !ended || successor) {
                let tenure = Tenure::begin(self, &mut shared, patience);
                let goal = if ended { None } else { brought.first() };
                let left;
                (shared, left) = tenure.run(shared, goal.map_or(Goal::Own, Goal::Room), &own, sink);
                match left {
                    Left::Over => handed_over = false,
                    Left::HandedOver => handed_over = true,
                    // Accepted before it was the turn of what does not fit: it stays so.
                    Left::Blocked => break if ended { stopped } else { Some(ran_out) },
                }
                continue;
            }
            if settled && ended {
                break stopped;
            }
            if let Some(error) = shared.dead {
                // A flusher at work finds out by itself, and gives back what is ours.
                if settled || patience == Patience::None {
                    break Some(Why::Sink(error));
                }
            } else if ended && stopped.is_none() && shared.is_in_good_hands() && !shared.has_returned(&own) {
                break None;
            }
            if patience == Patience::None {
                break if ended { stopped } else { Some(ran_out) };
            }
            let awaits_room = !ended && shared.dead.is_none();
            let awaited = if awaits_room { Awaited::Room } else { Awaited::Settled(own.last()) };
            let in_time;
            (shared, in_time) = self.wait(shared, awaited, &own, patience, true);
            if !in_time {
                // One look more, without waiting: what came meanwhile counts, however late.
                patience = Patience::None;
            }
        };
        let returned = shared.give_back(&own, back).map(Why::Sink);
        let done = match returned.or(why) {
            Some(why) => Err(why),
            None if shared.is_settled(own.last()) => Ok(Done::Complete),
            None => Ok(Done::Pending),
        };
        Self::depart(shared, patience, sink);
        done
    }
}

/// Takes those from the front that pass the check, up to the first that does not: why that is.
fn check_all<P: Profile, F>(
    messages: &mut Vec<Message<F>>,
    packet_limit: Option<usize>,
) -> (VecDeque<Outgoing<F>>, Option<Fault>) {
    let bytes = (messages.len() as u64).saturating_mul(size_of::<Outgoing<F>>() as u64);
    let (mut brought, mut fault) = (VecDeque::new(), None);
    if brought.try_reserve_exact(messages.len()).is_err() {
        return (brought, Some(Exhausted::OutOfMemory { bytes }.into()));
    }
    messages.reverse();
    while let Some(message) = messages.pop() {
        match Outgoing::new::<P>(message, packet_limit) {
            Ok(entry) => brought.push_back(entry),
            Err((misuse, message)) => {
                messages.push(message);
                fault = Some(misuse.into());
                break;
            }
        }
    }
    messages.reverse();
    (brought, fault)
}
