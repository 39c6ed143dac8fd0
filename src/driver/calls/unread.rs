//! What came while something else was waited for.

use std::collections::VecDeque;

use super::Event;
use crate::calls::Bounds;
use crate::error::Exhausted;
use crate::message::Message;
use std::os::fd::OwnedFd;

/// Events in the order in which they came.
#[derive(Debug)]
pub(super) struct Unread {
    events: VecDeque<Event>,
    /// Of these events, those that brought one. Calls that failed are as few as are in flight.
    messages: u64,
    bytes: u64,
    descriptors: u64,
    bounds: Bounds,
}

impl Unread {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self { events: VecDeque::new(), messages: 0, bytes: 0, descriptors: 0, bounds }
    }

    /// Whether one event more may come; asked before anything is read.
    pub(super) fn make_room(&mut self) -> Result<(), Exhausted> {
        let (messages, bounds) = (self.messages, &self.bounds);
        let full = messages >= bounds.messages.max(1).into()
            || self.bytes >= bounds.bytes.max(1)
            || self.descriptors >= bounds.descriptors.max(1).into();
        if full {
            let (bytes, descriptors) = (self.bytes, self.descriptors);
            return Err(Exhausted::MessagesUnread { messages, bytes, descriptors });
        }
        let bytes = size_of::<Event>() as u64;
        self.events.try_reserve(1).map_err(|_| Exhausted::OutOfMemory { bytes })
    }

    /// Room was made.
    pub(super) fn push(&mut self, event: Event) {
        if let Some(message) = message(&event) {
            self.messages = self.messages.saturating_add(1);
            self.bytes = self.bytes.saturating_add(message.payload().len() as u64);
            self.descriptors = self.descriptors.saturating_add(message.descriptor_count() as u64);
        }
        self.events.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Some(message) = message(&event) {
            self.messages = self.messages.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(message.payload().len() as u64);
            self.descriptors = self.descriptors.saturating_sub(message.descriptor_count() as u64);
        }
        if self.events.is_empty() {
            // An idle channel holds almost nothing (P4).
            self.events = VecDeque::new();
        }
        Some(event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

fn message(event: &Event) -> Option<&Message<OwnedFd>> {
    match event {
        Event::Answered { answer, .. } => Some(answer.message()),
        Event::Request { message, .. } | Event::Message(message) => Some(message),
        Event::Failed { .. } => None,
    }
}
