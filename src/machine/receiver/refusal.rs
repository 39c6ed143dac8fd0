//! What was refused: by the machine, or by a judgement that it cannot make.

use core::mem;

use super::{Receiver, State};
use crate::error::Fault;
use crate::machine::hunk::reserve;
use crate::message::Message;
use crate::profile::Profile;

impl<P: Profile, F> Receiver<P, F> {
    /// Takes the descriptors of what was refused, and of what was read behind the end, to be closed
    /// where that may block. Those not taken close when the receiver is dropped. Yields nothing before
    /// the conversation is over.
    pub fn refused(&mut self) -> impl Iterator<Item = F> + use<'_, P, F> {
        let finished = matches!(self.state, State::Ended | State::Failed);
        let hunks = self.hunks.iter_mut().filter(move |_| finished);
        let parted = Some(&mut self.assembly.descriptors).filter(|_| finished);
        let parted = parted.into_iter().flat_map(|held| held.drain(..)).flatten();
        parted.chain(hunks.flat_map(|hunk| mem::take(&mut hunk.descriptors)))
    }

    /// Takes back the message that [`poll`](Self::poll) gave last, because something about it that
    /// only its user can see breaks a rule (what kinds its descriptors are takes system calls). From
    /// now on `fault` is the answer, and nothing more is read, as with a breach that the machine
    /// found itself; the message's descriptors are the first that [`refused`](Self::refused) yields,
    /// and it no longer counts as [`received`](Self::received).
    ///
    /// Where the conversation has ended already, the message is emptied and nothing else happens.
    pub fn refuse(&mut self, message: &mut Message<F>, fault: Fault) {
        if self.breach(fault).is_none() {
            return message.clear();
        }
        self.withdraw(message);
        let mut back = mem::take(&mut message.descriptors);
        message.clear();
        // Without memory those of a message that has begun since close here.
        if reserve(&mut back, self.assembly.descriptors.len()).is_ok() {
            back.append(&mut self.assembly.descriptors);
        }
        self.assembly.descriptors = back;
    }

    /// A message that [`poll`](Self::poll) gave does not count as [`received`](Self::received): it
    /// will not come to its user.
    pub(crate) fn withdraw(&mut self, message: &Message<F>) {
        let (bytes, descriptors) = (message.payload.len() as u64, message.descriptors.len() as u64);
        self.received.messages = self.received.messages.saturating_sub(1);
        self.received.bytes = self.received.bytes.saturating_sub(bytes);
        self.received.descriptors = self.received.descriptors.saturating_sub(descriptors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Violation;
    use crate::limits::Limits;
    use crate::machine::Received;
    use crate::profile::Packet;
    use alloc::rc::Rc;
    use alloc::vec::Vec;
    use core::time::Duration;

    /// A frame of one descriptor and no payload.
    const FRAME: [u8; 16] = [1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test] // P2, P3
    fn what_is_taken_back_is_refused_first_and_not_counted() {
        let tokens = [Rc::new(0), Rc::new(1), Rc::new(2)];
        let mut receiver = Receiver::<Packet, Rc<i32>>::new(Limits::new().descriptors(1)).unwrap();
        let hunk = &mut receiver.windows().unwrap().unwrap()[0];
        hunk.fill(&[FRAME; 3].concat(), tokens.iter().cloned());
        receiver.handle(Duration::ZERO, 1);
        let first = receiver.poll().unwrap().unwrap();
        let mut second = receiver.poll().unwrap().unwrap();
        let fault = Fault::Violation(Violation::EmptyMessage);
        receiver.refuse(&mut second, fault);
        assert_eq!((second.descriptor_count(), receiver.received().messages), (0, 1));
        assert_eq!(receiver.received(), Received { messages: 1, bytes: 0, descriptors: 1 });
        assert_eq!(receiver.refused().map(|token| *token).collect::<Vec<_>>(), [1, 2]);
        for _ in 0..3 {
            assert_eq!(receiver.poll().unwrap_err(), fault);
            assert_eq!(receiver.windows().map(drop).unwrap_err(), fault);
        }
        assert_eq!(Rc::strong_count(&tokens[0]), 2, "what was delivered before is the user's");
        drop(first);
        assert!(tokens.iter().all(|token| Rc::strong_count(token) == 1));
    }
}
