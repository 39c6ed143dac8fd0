//! The receiving half of a channel.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::send::Flush;
use super::{Channel, Owned};
use crate::driver::deadline::Deadline;
use crate::driver::error::Error;
use crate::driver::sys;
use crate::driver::wait::RDHUP;
use crate::error::{Exhausted, Fault, Violation};
use crate::machine::Hunk;
use crate::profile::{Framing, Profile};

/// How a read is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// At once.
    Not,
    /// At once, and the clock said this before it.
    Timed(Duration),
    /// Until something comes.
    Sleep,
}

impl<P: Profile> Channel<P> {
    /// Waits for the next message, for ever if need be. See [`receive_by`](Self::receive_by).
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by), without [`Error::TimedOut`].
    pub fn receive(&mut self) -> Result<Owned, Error> {
        self.receive_by(Deadline::NEVER)
    }

    /// Waits for the next message. Meanwhile what is pending to be sent is sent.
    ///
    /// # Errors
    /// [`Error::Violation`] and [`Exhausted::DescriptorsLost`], for ever, after the messages that
    /// came before; [`Error::Closed`]; [`Error::TimedOut`], when nothing is lost;
    /// [`Exhausted::OutOfMemory`], when nothing is lost either; [`Error::Io`].
    pub fn receive_by(&mut self, deadline: Deadline) -> Result<Owned, Error> {
        let mut message = Owned::default();
        self.receive_into(&mut message, deadline)?;
        Ok(message)
    }

    /// The next message if it is there.
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by), without [`Error::TimedOut`].
    pub fn try_receive(&mut self) -> Result<Option<Owned>, Error> {
        let mut message = Owned::default();
        Ok(self.try_receive_into(&mut message)?.then_some(message))
    }

    /// As [`try_receive`](Self::try_receive); whether the message was there.
    pub(in crate::driver) fn try_receive_into(&mut self, message: &mut Owned) -> Result<bool, Error> {
        match self.receive_until(message, None) {
            Ok(()) => Ok(true),
            Err(Error::WouldBlock) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next message if it was read already, or what stands in its place: nothing is read.
    #[cfg(feature = "tokio")]
    pub(in crate::driver) fn take_held(&mut self, message: &mut Owned) -> Result<bool, Error> {
        message.clear();
        match self.condemned {
            Some(error) => Err(error),
            None => self.deliver(message),
        }
    }

    /// As [`receive_by`](Self::receive_by), into a message whose memory is used again; what it
    /// held is dropped first.
    ///
    /// # Errors
    /// As [`receive_by`](Self::receive_by); the message is empty then.
    pub fn receive_into(&mut self, message: &mut Owned, deadline: Deadline) -> Result<(), Error> {
        self.receive_until(message, Some(deadline))
    }

    /// `None`: do not wait.
    fn receive_until(&mut self, message: &mut Owned, deadline: Option<Deadline>) -> Result<(), Error> {
        if let Some(error) = self.condemned {
            message.clear();
            return Err(error);
        }
        let for_ever = deadline == Some(Deadline::NEVER);
        let mut spin = None;
        let mut first = true;
        self.flush_aside();
        loop {
            // Inside: what is pending may have been sent while this waited.
            if self.deliver(message)? {
                return Ok(());
            }
            if std::mem::take(&mut first) && deadline.is_some() {
                spin = self.spin.moment();
            }
            // Try first, then wait: a poll(2) before each receive costs a third of it.
            let sleeps = for_ever && spin.is_none() && self.may_sleep();
            let how = if sleeps { Wait::Sleep } else { Wait::Not };
            if self.read(how)? {
                continue;
            }
            match deadline {
                Some(deadline) if !deadline.has_passed() => match spin.take() {
                    Some(moment) => self.spin_for(moment)?,
                    None => self.wait_to_receive(deadline)?,
                },
                _ if !self.hung_up && self.has_hung_up()? => self.hung_up = true,
                Some(_) => return Err(Error::TimedOut),
                None => return Err(Error::WouldBlock),
            }
        }
    }

    /// What the machine has of what was read. `false`: nothing whole.
    fn deliver(&mut self, message: &mut Owned) -> Result<bool, Error> {
        if let Some(ahead) = self.ahead.pop() {
            *message = ahead;
            return self.judge(message).map(|()| true);
        }
        match self.receiver.poll_into(message) {
            Ok(true) => self.judge(message).map(|()| true),
            Ok(false) => Ok(false),
            Err(fault) => Err(self.condemn(fault)),
        }
    }

    /// Whether a receive without a deadline may sleep in recvmsg(2): that saves a try and a
    /// poll(2) each time, a fifth of a round trip. Only where nothing else can end the wait: no
    /// sender's bell, no watched peer, nothing to be sent meanwhile; a shutdown wakes it, which
    /// datagram sockets do not say to a reader; and a packet comes whole, where a stream's
    /// SO_RCVLOWAT could hold back what is there. Meanwhile the channel holds the whole window.
    fn may_sleep(&self) -> bool {
        matches!(P::FRAMING, Framing::MessagesPerPacket(_))
            && self.lines.is_none()
            && self.socket.watched().is_none()
            && !self.has_pending()
            && !self.hung_up
    }

    /// Tries for a moment.
    fn spin_for(&mut self, moment: Duration) -> Result<(), Error> {
        let begun = Instant::now();
        while begun.elapsed() < moment {
            if self.read(Wait::Not)? {
                self.spin.hit();
                return Ok(());
            }
        }
        self.spin.missed();
        Ok(())
    }

    /// One read. `false`: it would have to wait.
    pub(super) fn read(&mut self, how: Wait) -> Result<bool, Error> {
        let Some(hunks) = self.receiver.windows()? else {
            self.reap_refused();
            return Err(Error::Closed);
        };
        let socket = self.socket.as_fd();
        let result = match (hunks, how) {
            ([hunk], Wait::Sleep) => sys::sleep(socket, self.extras, &mut self.scratch, hunk),
            (hunks, _) => sys::receive(socket, P::FRAMING, self.extras, &mut self.scratch, hunks),
        };
        match result {
            Ok(filled) => self.filled(filled),
            Err(Errno::EAGAIN) if self.hung_up => {
                // On a datagram socket a shutdown shows in poll(2) alone: recvmsg keeps saying
                // "would block" (net/unix/af_unix.c turns it into 0 for SOCK_SEQPACKET only).
                self.receiver.lent().iter_mut().take(1).for_each(Hunk::set_end);
                self.filled(1);
            }
            Err(Errno::EAGAIN) => return self.would_block(how),
            // The peer closed without having read all that we sent, or on a datagram socket
            // connected elsewhere. The kernel says so once, on SEQPACKET even before what the peer
            // had sent: which is still there to be read.
            Err(Errno::ECONNRESET) => self.hung_up = true,
            Err(errno) => return Err(Error::io("recvmsg", errno)),
        }
        Ok(true)
    }

    /// The machine's, once whoever watches has seen it. The clock is read only where the read can
    /// have begun a message: a packet brings whole ones.
    fn filled(&mut self, filled: usize) {
        let timeless = matches!(P::FRAMING, Framing::MessagesPerPacket(_)) && self.observer.is_none();
        let now = if timeless { Duration::ZERO } else { self.epoch.elapsed() };
        if let Some(observer) = &mut self.observer {
            for hunk in self.receiver.lent().iter_mut().take(filled) {
                hunk.join();
                observer(self.epoch + now, Some(hunk));
            }
        }
        self.receiver.handle(now, filled);
    }

    /// "Would block" is true of a moment during the call: only one before it is certainly not
    /// later, and a thread that was stopped behind the call must not blame its peer (P5). So where
    /// the message that has begun is overdue by now, the read is made once more, after a look at the
    /// clock; elsewhere the clock says nothing.
    fn would_block(&mut self, how: Wait) -> Result<bool, Error> {
        let overdue = |channel: &Self, now| channel.receiver.deadline().is_some_and(|due| now >= due);
        let begun = self.receiver.deadline().is_some() || self.observer.is_some();
        let mut now = if begun { self.epoch.elapsed() } else { Duration::ZERO };
        if let Wait::Timed(before) = how {
            now = before;
        } else if overdue(self, now) {
            return self.read(Wait::Timed(now));
        }
        if let Some(observer) = &mut self.observer {
            observer(self.epoch + now, None);
        }
        self.receiver.handle(now, 0);
        self.scratch.release();
        // "Would block" may just have made a message overdue: that is news for poll.
        Ok(self.receiver.fault().is_some())
    }

    /// Waits for something to read, sending meanwhile what is pending.
    fn wait_to_receive(&mut self, deadline: Deadline) -> Result<(), Error> {
        let until = self.timeout().map_or(Deadline::NEVER, Deadline::after).min(deadline);
        let seen = if let Some(lines) = &self.lines {
            lines.wait_to_receive(until)?
        } else {
            let out = if self.waits_for_room() { PollFlags::POLLOUT } else { PollFlags::empty() };
            self.wait(PollFlags::POLLIN | RDHUP | out, until)?
        };
        self.hung_up |= seen.intersects(PollFlags::POLLHUP | RDHUP);
        self.flush_aside();
        Ok(())
    }

    /// The halves' queue: how many messages it has accepted, and whether one of these is pending.
    #[cfg(feature = "tokio")]
    pub(in crate::driver) fn queued(&self) -> Option<(u64, bool)> {
        let outbox = &self.lines.as_ref()?.outbox;
        // In this order: what is accepted between the two is pending, or somebody else sent it.
        Some((outbox.accepted(), outbox.has_pending()))
    }

    /// Something waits for room in the socket, and nobody else waits with it.
    pub(in crate::driver) fn waits_for_room(&self) -> bool {
        self.lines.as_ref().map_or_else(|| self.wants_write(), |lines| lines.outbox.wants_write())
    }

    /// Sends what is pending, as far as that goes now: whoever works on the channel owns the
    /// progress of what another call left behind. What goes wrong is the next sender's to hear.
    ///
    /// `true`: the socket is full.
    pub(in crate::driver) fn flush_aside(&mut self) -> bool {
        if let Some(lines) = &self.lines {
            return lines.help();
        }
        if self.has_pending() {
            self.read_what_is_there();
        }
        match self.flush() {
            Ok(flushed) => {
                // What a burst that was cut short had queued may all have left since (P4).
                self.sender.release();
                matches!(flushed, Flush::Full)
            }
            Err(error) => {
                // Of a dead peer a datagram socket says nothing but this.
                let gone = matches!(error.error, Error::PeerGone { .. });
                self.hung_up |= gone && matches!(P::FRAMING, Framing::PartPerDatagram);
                self.strand(error.messages);
                false
            }
        }
    }

    /// Whether a datagram socket was shut down, or a watched peer has ended, which reads do not show.
    fn has_hung_up(&self) -> Result<bool, Error> {
        if !matches!(P::FRAMING, Framing::PartPerDatagram) && self.socket.watched().is_none() {
            return Ok(false);
        }
        let now = Deadline::at(self.epoch);
        Ok(self.wait(RDHUP, now)?.intersects(PollFlags::POLLHUP | RDHUP))
    }

    /// Whether a whole message has the kinds of descriptors that are accepted (CO-12). That takes
    /// system calls, so it is not the machine's to find out; what comes of it is.
    fn judge(&mut self, message: &mut Owned) -> Result<(), Error> {
        let Some(policy) = self.policy.as_ref().filter(|_| message.descriptor_count() > 0) else {
            return Ok(());
        };
        let Err(error) = policy.check(message) else { return Ok(()) };
        if error.is_passing() {
            // The kernel had no memory for the question, which is nobody's fault and may be over in a
            // moment: the next receive asks again, and nothing overtakes the message.
            self.ahead.put_back(std::mem::take(message));
            return Err(error);
        }
        let count = u32::try_from(message.descriptor_count()).unwrap_or(u32::MAX);
        let fault = match error {
            Error::Violation(violation) => violation.into(),
            // The machine has no errno: to it they are as good as lost.
            _ => Exhausted::DescriptorsLost { declared: count, received: count }.into(),
        };
        self.receiver.refuse(message, fault);
        Err(self.end_with(error))
    }

    /// The final fault: nothing more passes, and what was refused goes to the reaper (P3).
    fn condemn(&mut self, fault: Fault) -> Error {
        let lasting =
            matches!(fault, Fault::Violation(_) | Fault::Exhausted(Exhausted::DescriptorsLost { .. }));
        match self.condemned {
            None if !lasting => return fault.into(),
            Some(error) => return error,
            None => {}
        }
        // A message that our own shutdown cut off is not the peer's fault.
        let cut_off =
            matches!(fault, Fault::Violation(Violation::PayloadMissing { .. })) && self.was_shut_down();
        self.end_with(if cut_off { Error::Closed } else { fault.into() })
    }

    /// Gives the descriptors of a message that nobody gets to the reaper, or closes them.
    pub(in crate::driver) fn discard(&mut self, mut message: Owned) {
        if let Some(reaper) = &mut self.reaper {
            message.take_all().for_each(|descriptor| reaper.reap(descriptor));
        }
    }

    /// The final answer, if there is one.
    pub(in crate::driver) const fn ended(&self) -> Option<Error> {
        self.condemned
    }

    /// Whether this side shut the socket down.
    pub(in crate::driver) fn was_shut_down(&self) -> bool {
        self.socket.was_shut()
    }

    /// What the machine has of descriptors that nobody gets, and the room for more of them, once nothing
    /// more is read.
    fn reap_refused(&mut self) {
        self.scratch.release();
        let reaper = &mut self.reaper;
        self.receiver.refused().for_each(|descriptor| match reaper {
            Some(reaper) => reaper.reap(descriptor),
            None => drop(descriptor),
        });
    }

    /// Ends the conversation: from now on `error` is the answer to everything.
    pub(in crate::driver) fn end_with(&mut self, error: Error) -> Error {
        self.condemned = Some(error);
        // First: the senders are told this error, and not what the shutdown makes of it.
        if let Some(lines) = &self.lines {
            lines.outbox.close(error);
        }
        self.shutdown();
        self.reap_refused();
        // What was read ahead would have come behind it.
        while let Some(message) = self.ahead.pop() {
            self.receiver.withdraw(&message);
            self.discard(message);
        }
        error
    }
}
