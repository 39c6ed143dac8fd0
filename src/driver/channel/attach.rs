//! A channel over a channel.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::Channel;
use crate::driver::error::Error;
use crate::driver::socket;
use crate::error::Misuse;
use crate::limits::Limits;
use crate::message::Message;
use crate::profile::Profile;

/// A channel that was not attached to a message: why, and the channel as it was.
pub struct Unattached<P: Profile> {
    /// Why.
    pub misuse: Misuse,
    /// The channel.
    pub channel: Box<Channel<P>>,
}

impl Message<OwnedFd> {
    /// Appends a channel's socket to the message's descriptors: whoever receives it makes a channel
    /// of it ([`take_channel`](Self::take_channel)), or speaks the wire by its own means. What the
    /// peer has sent and nobody has read goes along, in the socket's queue.
    ///
    /// Only the socket goes. The channel's limits, policy, reaper, observer and counters end here.
    ///
    /// ```
    /// use fdpost::{Channel, Limits, Message, Packet};
    ///
    /// let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new())?;
    /// let mut theirs = Channel::<Packet>::from_fd(theirs, Limits::new().descriptors(1))?;
    /// // A second conversation for the other side of the first.
    /// let (mut here, there) = Channel::<Packet>::pair(Limits::new())?;
    /// let there = Channel::<Packet>::from_fd(there, Limits::new())?;
    /// let mut message = Message::new(b"take this");
    /// message.attach_channel(there)?;
    /// ours.send(message)?;
    ///
    /// let mut there = theirs.receive()?.take_channel::<Packet>(0, Limits::new())?;
    /// here.send(Message::new(b"hello"))?;
    /// assert_eq!(there.receive()?.payload(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::ChannelBusy`] while something would be left behind: a part of a message that came or
    /// is to be sent, input that was read and not delivered, messages of a dead direction that were
    /// not handed back; [`Misuse::DirectionClosed`] for a conversation that is over. The channel comes
    /// back, and the message is as it was.
    pub fn attach_channel<P: Profile>(&mut self, channel: Channel<P>) -> Result<(), Unattached<P>> {
        self.descriptors.push(Some(channel.into_socket()?));
        Ok(())
    }

    /// Takes the descriptor at `index` as a channel of the wire `P`, as
    /// [`Channel::from_fd`](crate::Channel::from_fd) makes one: it must be a connected socket of the
    /// wire's domain and type. What it was before to whoever sent it, limits and policy among it,
    /// means nothing here: where `limits` accept no descriptor the peer's attempt to send one is
    /// refused by the kernel (Linux 6.16, SO_PASSRIGHTS), as with a channel that was made here, and
    /// else it is not.
    ///
    /// That it is such a socket is the sender's word. [`Accept::socket_of`](crate::Accept::socket_of)
    /// in a [`Policy`](crate::Policy) makes another the sender's violation; here it is an error of
    /// this call.
    ///
    /// # Errors
    /// As [`Channel::from_fd`](crate::Channel::from_fd), and the descriptor stays in the message;
    /// [`Misuse::NoDescriptor`], [`Misuse::DescriptorTaken`].
    pub fn take_channel<P: Profile>(&mut self, index: usize, limits: Limits) -> Result<Channel<P>, Error> {
        let count = self.descriptors.len() as u64;
        let Some(place) = self.descriptors.get_mut(index) else {
            return Err(Misuse::NoDescriptor { index: index as u64, count }.into());
        };
        let taken = Misuse::DescriptorTaken { index: index as u64 }.into();
        let Some(descriptor) = place.as_ref() else { return Err(taken) };
        limits.check()?;
        socket::check::<P>(descriptor)?;
        // What was checked cannot change but for the connection, whose end is found by the first read.
        let Some(descriptor) = place.take() else { return Err(taken) };
        // It is ours alone now, so that it refuses descriptors or not as we do.
        match limits.descriptors {
            0 => socket::refuse_descriptors(descriptor.as_fd()),
            _ => socket::admit_descriptors(descriptor.as_fd()),
        }
        Channel::from_fd(descriptor, limits)
    }
}

impl<P: Profile> Channel<P> {
    /// The socket alone, if nothing else would be lost.
    fn into_socket(mut self) -> Result<OwnedFd, Unattached<P>> {
        if let Some(misuse) = self.holds_back() {
            return Err(Unattached { misuse, channel: Box::new(self) });
        }
        match Arc::try_unwrap(self.socket) {
            Ok(socket) => {
                // As the kernel made it: who gets it need not be of this crate.
                socket::admit_descriptors(socket.as_fd());
                Ok(socket.into_descriptor())
            }
            // A `Closer` holds it for the moment of its shutdown, and for nothing else.
            Err(socket) => {
                self.socket = socket;
                Err(Unattached { misuse: Misuse::DirectionClosed, channel: Box::new(self) })
            }
        }
    }

    fn holds_back(&self) -> Option<Misuse> {
        let holds = if !self.stranded.is_empty() || self.unlisted.len() > 0 {
            "messages that did not leave"
        } else if self.ended().or(self.dead).is_some() || self.was_shut_down() {
            return Some(Misuse::DirectionClosed);
        } else if self.has_pending() {
            "a part of a message that is to be sent"
        } else if !self.ahead.is_empty() || !self.receiver.is_between() {
            "input that was not received"
        } else {
            return None;
        };
        Some(Misuse::ChannelBusy { holds })
    }
}

impl<P: Profile> fmt::Debug for Unattached<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unattached").field("misuse", &self.misuse).field("channel", &self.channel).finish()
    }
}

impl<P: Profile> fmt::Display for Unattached<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.misuse.fmt(f)
    }
}

impl<P: Profile> std::error::Error for Unattached<P> {}

impl<P: Profile> From<Unattached<P>> for Error {
    /// Keeps the reason and closes the channel.
    fn from(unattached: Unattached<P>) -> Self {
        unattached.misuse.into()
    }
}
