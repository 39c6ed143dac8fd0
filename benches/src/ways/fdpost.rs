//! This crate, over each of its wires.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use fdpost::{Channel, Deadline, Libcamera, Limits, Message, Packet, Profile, Receiving, Sending, Stream};

use super::Shared;
use crate::way::{Check, Load, Parcel, Shape, Way};

/// The largest payload that is worth a batch.
const BATCHED: usize = 4096;

/// A wire of the crate's.
pub struct Fdpost<P>(PhantomData<P>);

pub trait Wire: Profile + 'static {
    const WAY: &'static str;
    /// Datagrams to read at a time where messages come in bursts. Large ones want one hot buffer
    /// instead.
    const BATCH: u16 = 1;
}

impl Wire for Packet {
    const WAY: &'static str = "packet";
}

impl Wire for Libcamera {
    const WAY: &'static str = "libcamera";
    const BATCH: u16 = 16;
}

impl Wire for Stream {
    const WAY: &'static str = "stream";
}

impl Load for Message {
    fn renew(&mut self, template: &[u8]) -> &mut [u8] {
        // Sent, it left its payload with the channel; a user makes the next one.
        if self.payload().len() != template.len() {
            *self = Self::new(template);
        }
        self.payload_mut()
    }
}

fn limits(shape: &Shape) -> Limits {
    Limits::new().payload(shape.size as u32).descriptors(shape.descriptors as u8)
}

impl<P: Wire> Way for Fdpost<P>
where
    Channel<P>: Send,
{
    const NAME: &'static str = P::WAY;

    type Load = Message;
    type Seed = Channel<P>;
    type End = Channel<P>;

    fn seeds(shape: &Shape) -> (Self::Seed, Self::Seed) {
        let (ours, theirs) = Channel::<P>::pair(limits(shape)).expect("a pair");
        let theirs = Channel::from_fd(theirs, limits(shape)).expect("its other end");
        let mut ends = [ours, theirs];
        if shape.burst > 1 && shape.size <= BATCHED {
            ends.iter_mut().for_each(|end| end.set_batch(P::BATCH));
        }
        ends.into()
    }

    fn end(seed: Self::Seed) -> Self::End {
        seed
    }

    fn load(shape: &Shape) -> Message {
        let Parcel { payload, descriptors } = Parcel::new(shape);
        descriptors.into_iter().fold(Message::new(payload), Message::with)
    }

    fn blank(_: &Shape) -> Message {
        Message::default()
    }

    async fn send(channel: &mut Channel<P>, message: &mut Message) {
        channel.send(std::mem::take(message)).expect("sent");
    }

    async fn receive(channel: &mut Channel<P>, message: &mut Message, check: &mut impl Check) {
        channel.receive_into(message, Deadline::NEVER).expect("received");
        check.message(message.payload(), present(message));
    }

    async fn send_all(channel: &mut Channel<P>, messages: &mut Vec<Message>) {
        channel.send_all(messages).expect("sent");
    }
}

/// Descriptors that the message came with and still has.
fn present(message: &Message) -> usize {
    (0..message.descriptor_count()).filter(|&place| message.descriptor(place).is_some()).count()
}

impl<P: Wire> Shared for Fdpost<P>
where
    Channel<P>: Send,
    Sending<P>: Send + Sync,
    Receiving<P>: Send,
{
    // The receiving half is kept: without it the channel would be half closed.
    type Handle = (Sending<P>, Arc<Mutex<Receiving<P>>>);

    fn share(channel: Self::Seed) -> Self::Handle {
        let (sending, receiving) = channel.split();
        (sending, Arc::new(Mutex::new(receiving)))
    }

    fn send_shared((sending, _): &Self::Handle, message: &mut Message) {
        sending.send(std::mem::take(message)).expect("accepted");
    }
}
