//! For senders that do not block a thread: a message is offered, and its number is looked for.
//!
//! Who gave a message to the queue and comes back for it owns its number, like a thread that waits:
//! what the kernel refuses of it goes back to the owner. An owner that will not come back says so.

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
        let entry = match Outgoing::new::<P>(message, packet_limit) {
            Ok(entry) => entry,
            Err((misuse, message)) => return Unsent::new(Why::Fault(misuse.into()), Some(message)),
        };
        let back = |entry: Outgoing<F>, why| Unsent::new(why, Some(entry.into_message()));
        let mut shared = lock(&self.shared);
        if let Some(error) = shared.dead {
            return back(entry, Why::Sink(error));
        }
        if !shared.has_room(&entry, &self.bounds) {
            return back(entry, Why::Full);
        }
        if let Err(short) = shared.reserve() {
            return back(entry, Why::Fault(short.into()));
        }
        let number = shared.accept(entry);
        shared.owners.push(number);
        Ok(number)
    }

    /// How an offered message ended: the kernel has it, or it did not leave. `None`: not yet.
    pub fn look(&self, number: u64) -> Option<Result<(), Unsent<F, E>>> {
        let mut shared = lock(&self.shared);
        let result = match shared.take_returned(number) {
            Some((message, error)) => Unsent::new(Why::Sink(error), Some(message)),
            None if shared.is_settled(number) => Ok(()),
            None => return None,
        };
        shared.disown(number);
        Some(result)
    }

    /// Nobody will look for this number any more. The message leaves in its turn; where the kernel
    /// refused it, it is closed, and the next flush says so.
    pub fn leave(&self, number: u64) {
        let mut shared = lock(&self.shared);
        shared.disown(number);
        let orphan = shared.take_returned(number);
        if let Some((_, error)) = &orphan {
            if !broken("a-refusal-is-forgotten") {
                shared.note_refusal(number, *error);
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
