//! Many messages at once: the burst's own door.

use std::collections::VecDeque;
use std::iter;

use nix::poll::PollFlags;

use super::send::{Flush, Sent};
use super::{Channel, Owned};
use crate::driver::deadline::Deadline;
use crate::driver::error::{Error, SendError, classify};
use crate::error::Misuse;
use crate::machine::{Failure, Outcome, Transmit};
use crate::profile::{Framing, Profile};

/// Messages queued at a time on wires that do not pack: enough for several system calls.
const LOT: usize = 64;

impl<P: Profile> Channel<P> {
    /// Hands all of `messages` to the kernel, waiting for room for ever if need be. See
    /// [`send_all_by`](Self::send_all_by).
    ///
    /// # Errors
    /// As [`send_all_by`](Self::send_all_by), without [`Error::TimedOut`].
    pub fn send_all(&mut self, messages: &mut Vec<Owned>) -> Result<(), Error> {
        match self.send_all_by(messages, Deadline::NEVER)? {
            Sent::Complete | Sent::Pending => Ok(()),
        }
    }

    /// Hands all of `messages` to the kernel, in order and in as few system calls as the wire
    /// allows, waiting for room until the deadline: `packet` puts up to 64 of them into one
    /// packet, `libcamera` hands several datagrams to one sendmmsg(2). What left is taken out of
    /// the vector, and its memory stays; what did not leave stays in it, whole and in order.
    ///
    /// [`Sent::Pending`], if only a part of the last message left before the deadline.
    ///
    /// ```
    /// use fdpost::{Channel, Limits, Message, Packet};
    ///
    /// let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new())?;
    /// let mut theirs = Channel::<Packet>::from_fd(theirs, Limits::new())?;
    /// let mut burst: Vec<_> = (0..100_u8).map(|number| Message::new([number])).collect();
    /// ours.send_all(&mut burst)?; // two packets
    /// assert!(burst.is_empty());
    /// for number in 0..100 {
    ///     assert_eq!(theirs.receive()?.payload(), [number]);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`send_by`](Self::send_by), of the first message in the vector then; those behind it
    /// were not tried, except that a packet refused as a whole is tried message by message. A
    /// message of which a part left before the deadline is in the vector no more: it leaves first
    /// from now on. One that an earlier call had left pending, and that comes back because the
    /// direction died, stands before those of this call.
    pub fn send_all_by(&mut self, messages: &mut Vec<Owned>, deadline: Deadline) -> Result<Sent, Error> {
        let ready = self.check_alive().and_then(|()| self.flush_until(deadline, PollFlags::empty()));
        if let Err(SendError { error, messages: pending }) = ready {
            if messages.try_reserve(pending.len()).is_ok() {
                messages.splice(0..0, pending);
            } else {
                self.strand(pending);
            }
            return Err(error);
        }
        let sent = if matches!(P::FRAMING, Framing::MessagesPerPacket(_)) {
            let mut gone = 0;
            let sent = self.send_packed(messages, &mut gone, deadline);
            messages.drain(..gone.min(messages.len()));
            sent.map(|()| Sent::Complete)
        } else {
            let mut rest = VecDeque::from(std::mem::take(messages));
            let sent = self.send_queued(&mut rest, deadline);
            *messages = rest.into();
            sent
        };
        self.sender.burst_over();
        sent
    }

    /// Packs messages where they stand: `gone` of them have left and are still in the vector.
    fn send_packed(
        &mut self,
        messages: &mut Vec<Owned>,
        gone: &mut usize,
        deadline: Deadline,
    ) -> Result<(), Error> {
        while let Some(rest @ [first, ..]) = messages.get(*gone..) {
            let packed = self.sender.pack_burst(rest);
            let result = if let Some(packet) = self.sender.burst(rest) {
                self.socket.send(P::FRAMING, &mut self.scratch, iter::once(packet))
            } else {
                let outline = match self.sender.check(first) {
                    // SO_SNDBUF may have been raised.
                    Err(Misuse::PayloadTooLarge { .. }) if self.ask_packet_limit() => {
                        self.sender.check(first)?
                    }
                    checked => checked?,
                };
                let alone = Transmit::of_message::<P>(first, &outline);
                self.socket.send(P::FRAMING, &mut self.scratch, alone)
            };
            let errno = match result {
                Ok(_) => {
                    *gone += self.sender.burst_left(rest);
                    continue;
                }
                Err(errno) => errno,
            };
            let failure = classify(errno);
            if failure == Failure::Refused && packed == 0 {
                return Err(self.refusal(errno, first));
            }
            let flush = match self.sender.failed(self.epoch.elapsed(), failure) {
                Outcome::Again => continue,
                Outcome::Wait => Flush::Full,
                Outcome::BackOff => Flush::Pressure(errno),
                Outcome::Returned(_) | Outcome::Closed(_) => return Err(self.died(errno, None)),
            };
            // Their descriptors are the kernel's now: they need not stay open while we wait.
            messages.drain(..std::mem::take(gone));
            self.wait_for_room(&flush, deadline, PollFlags::empty())?;
        }
        Ok(())
    }

    /// Queues some, flushes, and so on.
    fn send_queued(&mut self, rest: &mut VecDeque<Owned>, deadline: Deadline) -> Result<Sent, Error> {
        while !rest.is_empty() {
            let mut refused = None;
            for _ in 0..LOT {
                let Some(message) = rest.pop_front() else { break };
                if let Err(mut error) = self.push(message) {
                    error.messages.drain(..).rev().for_each(|message| rest.push_front(message));
                    refused = Some(error.error);
                    break;
                }
            }
            if let Err(SendError { error, messages }) = self.flush_until(deadline, PollFlags::empty()) {
                while let Some(message) = self.sender.recall() {
                    rest.push_front(message);
                }
                messages.into_iter().rev().for_each(|message| rest.push_front(message));
                let all_but_a_part = error == Error::TimedOut && rest.is_empty();
                return if all_but_a_part { Ok(Sent::Pending) } else { Err(error) };
            }
            if let Some(error) = refused {
                return Err(error);
            }
        }
        Ok(Sent::Complete)
    }
}
