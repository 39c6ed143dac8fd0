//! The handshake of the `stream` wire.

use std::time::Duration;

use super::channel::Channel;
use super::deadline::Deadline;
use super::error::Error;
use crate::error::Violation;
use crate::message::Message;
use crate::profile::Stream;

/// What the creating side sends, and what it expects.
const HELLO: u8 = 0x1f;
const WELCOME: u8 = 0xf1;
/// How long either side waits for the other's.
const PATIENCE: Duration = Duration::from_millis(500);

impl Channel<Stream> {
    /// The creating side's handshake: sends a message of the single byte 0x1f and expects one of
    /// the single byte 0xf1 within 500 ms. To be called before anything else is sent or received.
    ///
    /// # Errors
    /// [`Violation::Handshake`] for anything else, which ends the conversation like any violation;
    /// as [`send_by`](Self::send_by) and [`receive_by`](Self::receive_by).
    pub fn greet(&mut self) -> Result<(), Error> {
        let deadline = Deadline::after(PATIENCE);
        self.say(HELLO, deadline)?;
        self.expect(WELCOME, deadline)
    }

    /// The other side's: expects 0x1f within 500 ms and answers 0xf1.
    ///
    /// # Errors
    /// As [`greet`](Self::greet).
    pub fn welcome(&mut self) -> Result<(), Error> {
        let deadline = Deadline::after(PATIENCE);
        self.expect(HELLO, deadline)?;
        self.say(WELCOME, deadline)
    }

    fn say(&mut self, byte: u8, deadline: Deadline) -> Result<(), Error> {
        let _pending_goes_first_later = self.send_by(Message::new([byte]), deadline)?;
        Ok(())
    }

    fn expect(&mut self, expected: u8, deadline: Deadline) -> Result<(), Error> {
        if let Some(error) = self.ended() {
            return Err(error);
        }
        let bytes = match self.receive_by(deadline) {
            Ok(message) if handshake(&message, expected) => return Ok(()),
            Ok(message) => message.payload().len() as u64,
            // Our own shutdown is nobody's fault.
            Err(Error::Closed) if self.was_shut_down() => return Err(Error::Closed),
            // A first message that breaks a rule of the wire is as little the one expected.
            Err(Error::TimedOut | Error::Closed | Error::Violation(_)) => 0,
            Err(error) => return Err(error),
        };
        Err(self.end_with(Violation::Handshake { expected, bytes }.into()))
    }
}

fn handshake<F>(message: &Message<F>, expected: u8) -> bool {
    message.payload() == [expected] && message.descriptor_count() == 0
}
