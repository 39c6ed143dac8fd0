//! Calls, answers, and other messages, on their way out.

use super::{CallId, Calls, Correlate, Deadline, Error, Framing, Owned, PendingCalls, Request, SendError};
use crate::calls::Prepared;
use crate::driver::channel::Sent;
use crate::error::Fault;

/// How long a send may wait.
#[derive(Clone, Copy)]
enum Wait {
    Not,
    Until(Deadline),
}

impl<P: Correlate> Calls<P> {
    /// Starts a call that is to be answered before the deadline, and does not wait for the answer:
    /// [`receive`](Self::receive) tells it. Waits for room in the socket, at most until the
    /// deadline; what comes meanwhile is read, so that two sides which call each other do not
    /// wait for each other, as far as [`Bounds`](crate::calls::Bounds) allow.
    ///
    /// # Errors
    /// The message comes back as it was, and there is no call: [`Error::TimedOut`], when the
    /// deadline passed before the message left, whatever the kernel was short of; one that had
    /// passed before is answered so before anything else is tried. [`Exhausted::CallsInFlight`](crate::Exhausted::CallsInFlight). [`Error::Misuse`]:
    /// among others [`Misuse::OneSideCalls`](crate::Misuse::OneSideCalls), [`Misuse::ReplyDescriptorsAsked`](crate::Misuse::ReplyDescriptorsAsked), and
    /// [`Misuse::CallField`](crate::Misuse::CallField) for a head whose correlation or flags are set. Else as
    /// [`Channel::send_by`](crate::Channel::send_by).
    pub fn start(&mut self, message: Owned, deadline: Deadline) -> Result<CallId, SendError> {
        self.begin(message, deadline, Wait::Until(deadline))
    }

    /// As [`start`](Self::start), but does not wait for room.
    ///
    /// # Errors
    /// As [`start`](Self::start), and as [`Channel::try_send`](crate::Channel::try_send).
    pub fn try_start(&mut self, message: Owned, deadline: Deadline) -> Result<CallId, SendError> {
        self.begin(message, deadline, Wait::Not)
    }

    /// Answers a call of the peer's, waiting for room as [`start`](Self::start) does. The answer's
    /// correlation, flags, and on `libcamera` the first eight bytes, are set here.
    ///
    /// # Errors
    /// The message comes back as it was, and may be sent again: [`Misuse::AnsweredBefore`](crate::Misuse::AnsweredBefore),
    /// [`Misuse::ReplyDescriptors`](crate::Misuse::ReplyDescriptors) where the call does not permit that many,
    /// [`Misuse::CallHeader`](crate::Misuse::CallHeader), [`Misuse::CallField`](crate::Misuse::CallField). Else as [`Channel::send_by`](crate::Channel::send_by).
    pub fn reply(
        &mut self,
        request: &mut Request,
        message: Owned,
        deadline: Deadline,
    ) -> Result<Sent, SendError> {
        self.answer(request, message, false, Wait::Until(deadline))
    }

    /// As [`reply`](Self::reply), saying that the call failed; only on `packet`.
    ///
    /// # Errors
    /// As [`reply`](Self::reply); [`Misuse::HeadUnsupported`](crate::Misuse::HeadUnsupported) on other wires.
    pub fn reply_error(
        &mut self,
        request: &mut Request,
        message: Owned,
        deadline: Deadline,
    ) -> Result<Sent, SendError> {
        self.answer(request, message, true, Wait::Until(deadline))
    }

    /// As [`reply`](Self::reply), or where `error` as [`reply_error`](Self::reply_error), but does
    /// not wait for room.
    ///
    /// # Errors
    /// As [`reply`](Self::reply), and as [`Channel::try_send`](crate::Channel::try_send).
    pub fn try_reply(
        &mut self,
        request: &mut Request,
        message: Owned,
        error: bool,
    ) -> Result<Sent, SendError> {
        self.answer(request, message, error, Wait::Not)
    }

    /// Sends a message that asks for nothing and answers nothing, waiting for room as
    /// [`start`](Self::start) does.
    ///
    /// # Errors
    /// As [`Channel::send_by`](crate::Channel::send_by); [`Misuse::CallField`](crate::Misuse::CallField) where the message would be taken for a call
    /// or an answer, and [`Misuse::CallsOnly`](crate::Misuse::CallsOnly) on `stream`, where any message would be.
    pub fn send(&mut self, message: Owned, deadline: Deadline) -> Result<Sent, SendError> {
        self.post(message, Wait::Until(deadline), |pending, message| Ok(pending.check_plain(message)?))
            .map(|(sent, ())| sent)
    }

    /// Waits until nothing is pending: the rest of what was [`Sent::Pending`], or of a call that
    /// was started and did not fit. A receive sends it too.
    ///
    /// # Errors
    /// As [`Channel::flush_by`](crate::Channel::flush_by).
    pub fn flush_by(&mut self, deadline: Deadline) -> Result<(), SendError> {
        if matches!(P::FRAMING, Framing::PartPerDatagram) && self.channel.has_pending() {
            self.take_in().map_err(|error| SendError::new(error, Vec::new()))?;
        }
        self.channel.flush_by(deadline)
    }

    fn begin(&mut self, message: Owned, deadline: Deadline, wait: Wait) -> Result<CallId, SendError> {
        // Before anything else, so that the answer does not depend on the kernel's mood.
        if deadline.has_passed() {
            let over = self.ended.or(self.gone());
            return Err(SendError::new(over.unwrap_or(Error::TimedOut), vec![message]));
        }
        let accepted = self.channel.limits().descriptors;
        let (_, prepared) =
            self.post(message, wait, |pending, message| pending.prepare(message, accepted))?;
        let due = deadline.instant().map(|instant| instant.saturating_duration_since(self.epoch));
        Ok(self.pending.begin(prepared, due))
    }

    fn answer(
        &mut self,
        request: &mut Request,
        message: Owned,
        error: bool,
        wait: Wait,
    ) -> Result<Sent, SendError> {
        let asked = &*request;
        let (sent, _left) =
            self.post(message, wait, |pending, message| Ok(pending.answer(asked, message, error)?))?;
        self.pending.answered(request);
        Ok(sent)
    }

    /// Marks a message and hands it to the kernel. What does not leave comes back unmarked.
    fn post<M: Mark>(
        &mut self,
        mut message: Owned,
        wait: Wait,
        mark: impl Fn(&mut PendingCalls<P>, &mut Owned) -> Result<M, Fault>,
    ) -> Result<(Sent, M), SendError> {
        // What a dead peer had said is thrown away by the kernel when a datagram is sent to it
        // (net/unix/af_unix.c, unix_dgram_disconnected): it is read before.
        let mut read_first = matches!(P::FRAMING, Framing::PartPerDatagram);
        loop {
            if read_first {
                if let Err(error) = self.take_in() {
                    return Err(SendError::new(error, vec![message]));
                }
            }
            if let Some(error) = self.ended.or(self.gone()) {
                // Behind what a receive could not send, if nobody has it yet.
                let mut messages =
                    self.channel.check_alive().err().map_or_else(Vec::new, |dead| dead.messages);
                messages.push(message);
                return Err(SendError::new(error, messages));
            }
            let marked = match mark(&mut self.pending, &mut message) {
                Ok(marked) => marked,
                Err(fault) => return Err(SendError::new(fault, vec![message])),
            };
            let sent = match wait {
                Wait::Not => self.channel.try_send(message),
                Wait::Until(deadline) if self.unread.make_room().is_ok() => {
                    self.channel.send_unless_readable(message, deadline)
                }
                Wait::Until(deadline) => self.channel.send_by(message, deadline),
            };
            let SendError { error, mut messages } = match sent {
                Ok(sent) => return Ok((sent, marked)),
                Err(refused) => refused,
            };
            // The last one is ours; without any, ours is on its way.
            let Some(mut ours) = messages.pop() else { return Ok((Sent::Pending, marked)) };
            marked.restore(&mut ours);
            if matches!((error, wait), (Error::WouldBlock, Wait::Until(_))) {
                (message, read_first) = (ours, true);
                continue;
            }
            messages.push(ours);
            return Err(SendError { error, messages });
        }
    }

    /// Reads what is there, as far as it may wait to be received. What ends the conversation is
    /// remembered.
    fn take_in(&mut self) -> Result<(), Error> {
        while self.ended.is_none() && self.unread.make_room().is_ok() {
            match self.channel.try_receive() {
                Ok(Some(message)) => {
                    if let Some(event) = self.judge(message) {
                        self.unread.push(event);
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => self.note(error)?,
            }
        }
        Ok(())
    }
}

/// What was done to a message that may have to be undone.
trait Mark {
    fn restore(self, message: &mut Owned);
}

impl Mark for Prepared {
    fn restore(self, message: &mut Owned) {
        Self::restore(self, message);
    }
}

impl Mark for () {
    fn restore(self, _: &mut Owned) {}
}
