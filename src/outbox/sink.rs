//! Where the flusher writes to: the outbox never meets a socket.

use crate::machine::{Leftover, Sender};
use crate::message::Message;
use crate::profile::Profile;

/// What one attempt to hand something to the kernel came to.
#[derive(Debug)]
pub enum Step<F, E> {
    /// The kernel took some, and the sender knows.
    Took,
    /// Not now.
    Full,
    /// The kernel does not take the first message; the direction lives on.
    Refused(Message<F>, E),
    /// The direction is over. What did not leave, in order.
    Over(Leftover<F>, E),
}

/// Where the flusher writes to.
pub trait Sink<P: Profile, F> {
    /// Why the kernel did not take it, in words that every sender is told.
    type Error: Copy;

    /// One attempt, without waiting.
    fn transmit(&mut self, sender: &mut Sender<P, F>) -> Step<F, Self::Error>;

    /// Waits until another attempt may succeed. `false`: the caller's patience has ended. Where
    /// that cannot be waited for it waits by time: others rely on a flusher that said it stays.
    fn wait(&mut self, sender: &Sender<P, F>) -> bool;

    /// Wakes the receiver that said it is [asleep](super::Outbox::asleep): something was left
    /// behind that nobody else looks after.
    fn wake_receiver(&mut self) {}
}
