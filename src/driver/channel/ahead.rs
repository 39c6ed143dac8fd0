//! What is read before it is asked for, so that a send does not throw it away; and what could not be
//! judged yet.

use std::collections::VecDeque;

use super::receive::Wait;
use super::{Channel, Owned};
use crate::limits::Limits;
use crate::machine::Held;
use crate::profile::{Framing, Profile};

/// The most messages that are read ahead.
const MOST: usize = 255;

/// Whole messages, in their order.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Before all others. A place of its own: it is put here where memory is short.
    first: Option<Owned>,
    messages: VecDeque<Owned>,
    held: Held,
    held_most: Held,
}

impl Ahead {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.messages.is_empty()
    }

    /// Payload bytes and descriptors.
    pub(super) const fn held(&self) -> Held {
        self.held
    }

    pub(super) const fn held_most(&self) -> Held {
        self.held_most
    }

    pub(super) fn pop(&mut self) -> Option<Owned> {
        let message = self.first.take().or_else(|| self.messages.pop_front())?;
        self.held.bytes = self.held.bytes.saturating_sub(message.payload().len());
        self.held.descriptors = self.held.descriptors.saturating_sub(message.descriptor_count());
        if self.messages.is_empty() {
            // An idle channel holds almost nothing (P4).
            self.messages = VecDeque::new();
        }
        Some(message)
    }

    /// Whether one more message is within what may be held in batches, and there is memory for it (P4).
    fn make_room(&mut self, limits: &Limits) -> bool {
        let Held { bytes, descriptors } = self.held;
        self.messages.len() < MOST
            && bytes.saturating_add(limits.payload as usize)
                <= (limits.held_bytes as usize).max(limits.payload as usize)
            && descriptors.saturating_add(limits.descriptors.into())
                <= usize::from(limits.held_descriptors).max(limits.descriptors.into())
            && self.messages.try_reserve(1).is_ok()
    }

    /// Room was made.
    fn push(&mut self, message: Owned) {
        self.count(&message);
        self.messages.push_back(message);
    }

    /// Puts back what was popped last.
    pub(super) fn put_back(&mut self, message: Owned) {
        self.count(&message);
        self.first = Some(message);
    }

    fn count(&mut self, message: &Owned) {
        self.held.bytes = self.held.bytes.saturating_add(message.payload().len());
        self.held.descriptors = self.held.descriptors.saturating_add(message.descriptor_count());
        self.held_most.bytes = self.held_most.bytes.max(self.held.bytes);
        self.held_most.descriptors = self.held_most.descriptors.max(self.held.descriptors);
    }
}

impl<P: Profile> Channel<P> {
    /// Reads what is there of a watched datagram peer, before something is sent to it: if it has
    /// closed its socket, the send fails, and the kernel throws away what it left unread
    /// (net/unix/af_unix.c, unix_dgram_disconnected). Its pidfd does not tell in time: the socket
    /// is closed before the process has ended.
    pub(super) fn read_ahead(&mut self) {
        if self.socket.watched().is_some() {
            self.read_what_is_there();
        }
    }

    /// The same, of any datagram peer: who receives and sends a rest meanwhile loses nothing by that.
    pub(super) fn read_what_is_there(&mut self) {
        if !matches!(P::FRAMING, Framing::PartPerDatagram) {
            return;
        }
        while self.ahead.make_room(self.receiver.limits()) {
            let mut message = Owned::default();
            match self.receiver.poll_into(&mut message) {
                Ok(true) => self.ahead.push(message),
                Ok(false) if matches!(self.read(Wait::Not), Ok(true)) => {}
                // Nothing more, or a fault: the receiver says it again when its turn comes.
                Ok(false) | Err(_) => return,
            }
        }
    }
}
