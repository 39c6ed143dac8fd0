//! For senders that do not block a thread: a message is offered, and its number is looked for.
//!
//! Who gave a message to the queue and comes back for it owns its number, like a thread that waits:
//! what the kernel refuses of it goes back to the owner. An owner that will not come back says so.

use super::call::Own;
use super::{Outbox, Unsent, Why};
use crate::machine::Outgoing;
use crate::message::Message;
use crate::profile::Profile;
use crate::sync::{broken, lock};

impl<P: Profile, F, E: Copy> Outbox<P, F, E> {
    /// Puts a message into the queue and sends nothing; the number to [`look`](Self::look) for,
    /// until that says how it ended, or to [`leave`](Self::leave).
    ///
    /// # Errors
    /// The message comes back. [`Why::Full`]: there is no room.
    pub fn offer(&self, message: Message<F>, packet_limit: Option<usize>) -> Result<u64, Unsent<F, E>> {
        let mut brought = match Outgoing::new::<P>(message, packet_limit) {
            Ok(entry) => Some(entry),
            Err((misuse, message)) => {
                return Err(Unsent { why: Why::Fault(misuse.into()), message: Some(message) });
            }
        };
        let mut own = Own::new();
        let mut shared = lock(&self.shared);
        let why = match shared.dead {
            Some(error) => Why::Sink(error),
            None => match shared.accept(&mut brought, &mut own, &self.bounds) {
                Ok(()) if brought.is_none() => {
                    shared.waiting.own(&own);
                    return Ok(own.last());
                }
                Ok(()) => Why::Full,
                Err(short) => Why::Fault(short.into()),
            },
        };
        drop(shared);
        Err(Unsent { why, message: brought.map(Outgoing::into_message) })
    }

    /// How an offered message ended: the kernel has it, or it did not leave. `None`: not yet.
    pub fn look(&self, number: u64) -> Option<Result<(), Unsent<F, E>>> {
        let own = Own::of(number);
        let mut back = None;
        let mut shared = lock(&self.shared);
        let why = shared.give_back(&own, |message| back = Some(message)).map(Why::Sink);
        if why.is_none() && !shared.is_settled(number) {
            return None;
        }
        shared.waiting.disown(&own);
        Some(why.map_or(Ok(()), |why| Err(Unsent { why, message: back })))
    }

    /// Nobody will look for this number any more. The message leaves in its turn; where the kernel
    /// refused it, it is closed, and the next flush says so.
    pub fn leave(&self, number: u64) {
        let own = Own::of(number);
        let mut orphan = None;
        let mut shared = lock(&self.shared);
        shared.waiting.disown(&own);
        if let Some(error) = shared.give_back(&own, |message| orphan = Some(message)) {
            if !broken("a-refusal-is-forgotten") {
                shared.note_refusal(number, error);
            }
        }
        drop(shared);
        drop(orphan);
    }

    /// The number of the message that was accepted last, for [`look_back`](Self::look_back).
    pub fn accepted(&self) -> u64 {
        lock(&self.shared).accepted()
    }

    /// Whether all up to this number has reached the kernel. `None`: not yet.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn look_back(&self, number: u64) -> Option<Result<(), Why<E>>> {
        let mut shared = lock(&self.shared);
        if let Some(error) = shared.dead.or_else(|| shared.take_refusal(number)) {
            return Some(Err(Why::Sink(error)));
        }
        shared.is_settled(number).then_some(Ok(()))
    }
}
