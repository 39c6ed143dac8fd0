//! The core alone: no socket, no system call.

use std::time::Duration;

use fdpost::machine::{Receiver, Sender};
use fdpost::message::Message;
use fdpost::{Limits, Profile};

use crate::clock::Clock;
use crate::count::counted;
use crate::measure::Contestant;
use crate::way::template;

/// What a wire makes of one message: its packets or datagrams.
pub fn encoded<P: Profile>(payload: &[u8]) -> Vec<Vec<u8>> {
    let mut sender = Sender::<P, u32>::new();
    assert!(sender.push(Message::new(payload)).is_ok());
    sender.transmits().map(|transmit| transmit.slices().collect::<Vec<_>>().concat()).collect()
}

/// A receiver that is fed one 64-byte message over and over, into a message that is used again.
struct Decoder<P: Profile> {
    receiver: Receiver<P, u32>,
    message: Message<u32>,
    packets: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

impl<P: Profile> Decoder<P> {
    const BYTES: usize = 64;

    fn new() -> Self {
        let payload = template(Self::BYTES);
        let mut decoder = Self {
            receiver: Receiver::new(Limits::new().payload(Self::BYTES as u32)).expect("limits"),
            message: Message::default(),
            packets: encoded::<P>(&payload),
            payload,
        };
        // Buffers come with the first message, and the message's own with the second.
        (0..3).for_each(|_| decoder.decode());
        decoder
    }

    fn decode(&mut self) {
        for packet in &self.packets {
            assert_eq!(self.receiver.poll_into(&mut self.message), Ok(false));
            let hunks = self.receiver.windows().expect("no fault").expect("not the end");
            hunks[0].fill(packet, []);
            self.receiver.handle(Duration::ZERO, 1);
        }
        assert_eq!(self.receiver.poll_into(&mut self.message), Ok(true));
        assert!(self.message.payload() == self.payload);
    }
}

/// Decodes one 64-byte message.
pub fn decoding<P: Profile + 'static>() -> Contestant {
    let mut decoder = Decoder::<P>::new();
    Contestant::timed(format!("decoding, {}", P::NAME), 1, move |turns| {
        Clock::Cpu.time(|| (0..turns).for_each(|_| decoder.decode()))
    })
}

/// Allocations in a thousand of them.
pub fn allocations<P: Profile>() -> u64 {
    let mut decoder = Decoder::<P>::new();
    let ((), count) = counted(|| (0..1000).for_each(|_| decoder.decode()));
    count.allocations
}
