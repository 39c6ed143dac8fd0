//! What a way to carry messages is, and what all of them are made to carry.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// What a scene's messages look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a payload, at least 16.
    pub size: usize,
    pub descriptors: usize,
    /// How many are ready to be sent together.
    pub burst: usize,
}

impl Shape {
    pub const fn new(size: usize, descriptors: usize) -> Self {
        Self { size, descriptors, burst: 1 }
    }

    pub const fn burst(self, burst: usize) -> Self {
        Self { burst, ..self }
    }

    /// How many a socket of the default size (SO_SNDBUF 212,992) holds in any of the ways, counted
    /// as the kernel does: by memory, and two datagrams a message. One thread plays both ends, so a
    /// burst goes in lots of this many.
    pub fn lot(&self) -> usize {
        let slab = if self.size <= 16 * 1024 { (self.size + 320).next_power_of_two() } else { self.size };
        (212_992 / (slab + 1024)).clamp(1, self.burst)
    }
}

/// The bytes of every payload: a number at both ends, between them a pattern.
pub fn template(size: usize) -> Vec<u8> {
    (0..size).map(|place| (place * 31 + 7) as u8).collect()
}

/// Writes the message's number over both ends of a payload.
pub fn stamp(payload: &mut [u8], number: u64) {
    let bytes = number.to_le_bytes();
    let end = payload.len() - bytes.len();
    payload[..bytes.len()].copy_from_slice(&bytes);
    payload[end..].copy_from_slice(&bytes);
}

/// The numbers at the beginning and at the end.
fn stamps(payload: &[u8]) -> (u64, u64) {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    (word(&payload[..8]), word(&payload[payload.len() - 8..]))
}

/// What the receiving user does with a message: the same in every way.
pub trait Check {
    fn message(&mut self, payload: &[u8], descriptors: usize);
}

/// Length, number of descriptors, and the next number at both ends of the payload; byte by byte
/// where `whole` asks for it.
pub struct InOrder {
    pub shape: Shape,
    pub next: u64,
    /// From this number on payloads are compared with this template.
    pub whole: Option<(u64, Vec<u8>)>,
}

impl InOrder {
    pub const fn new(shape: Shape) -> Self {
        Self { shape, next: 0, whole: None }
    }
}

impl Check for InOrder {
    fn message(&mut self, payload: &[u8], descriptors: usize) {
        assert_eq!((payload.len(), descriptors), (self.shape.size, self.shape.descriptors));
        assert_eq!(stamps(payload), (self.next, self.next));
        if let Some((number, template)) = &self.whole
            && *number <= self.next
        {
            assert!(payload[8..payload.len() - 8] == template[8..template.len() - 8], "bytes differ");
        }
        self.next += 1;
    }
}

/// As [`InOrder`], for the messages of several senders: each one's own order. The number's upper
/// 16 bits say whose it is.
pub struct PerSender {
    pub shape: Shape,
    pub next: Vec<u64>,
}

/// The number of a sender's message.
pub const fn numbered(sender: usize, number: u64) -> u64 {
    ((sender as u64) << 48) | number
}

impl Check for PerSender {
    fn message(&mut self, payload: &[u8], descriptors: usize) {
        assert_eq!((payload.len(), descriptors), (self.shape.size, self.shape.descriptors));
        let (first, last) = stamps(payload);
        assert_eq!(first, last);
        let next = &mut self.next[(first >> 48) as usize];
        assert_eq!(first & ((1 << 48) - 1), *next);
        *next += 1;
    }
}

/// Who answers each message with its own number until it is told to stop.
#[derive(Default)]
pub struct Echo {
    pub number: u64,
}

/// The number that ends an echo.
pub const STOP: u64 = u64::MAX;

impl Check for Echo {
    fn message(&mut self, payload: &[u8], _: usize) {
        let (first, last) = stamps(payload);
        assert_eq!(first, last);
        self.number = first;
    }
}

/// What a user has in hand: before it is sent, and when it was received.
pub trait Load: Send + 'static {
    /// Ready to be sent once more, however much sending took out of it. Descriptors stay away.
    fn renew(&mut self, template: &[u8]) -> &mut [u8];
}

/// For ways that borrow what they send.
#[derive(Default)]
pub struct Parcel {
    pub payload: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Parcel {
    pub fn new(shape: &Shape) -> Self {
        let descriptors = (0..shape.descriptors).map(|_| crate::sys::descriptor()).collect();
        Self { payload: template(shape.size), descriptors }
    }
}

impl Load for Parcel {
    fn renew(&mut self, template: &[u8]) -> &mut [u8] {
        if self.payload.len() != template.len() {
            self.payload.clear();
            self.payload.extend_from_slice(template);
        }
        &mut self.payload
    }
}

/// A way to carry messages between two ends.
///
/// Messages travel: what was received is what is sent next, its descriptors included, so no way
/// pays for making up messages. What is sent is gone from the sender (its descriptors are closed
/// there), what is received is the receiver's. A way keeps its buffers between messages where its
/// interface lets it.
pub trait Way: 'static {
    const NAME: &'static str;

    type Load: Load;
    /// An end that has not come to its thread yet.
    type Seed: Send;
    type End;

    fn seeds(shape: &Shape) -> (Self::Seed, Self::Seed);
    /// Called within [`run`](Self::run).
    fn end(seed: Self::Seed) -> Self::End;
    /// A message to begin with.
    fn load(shape: &Shape) -> Self::Load;
    /// Where the first message is received to.
    fn blank(shape: &Shape) -> Self::Load;

    async fn send(end: &mut Self::End, load: &mut Self::Load);

    async fn receive(end: &mut Self::End, load: &mut Self::Load, check: &mut impl Check);

    /// Sends all. What is left in the vector is nobody's business.
    async fn send_all(end: &mut Self::End, loads: &mut Vec<Self::Load>) {
        for load in loads {
            Self::send(end, load).await;
        }
    }

    /// Receives `count`, into what the vector holds as far as it goes.
    async fn receive_all(
        end: &mut Self::End,
        loads: &mut Vec<Self::Load>,
        count: usize,
        check: &mut impl Check,
        shape: &Shape,
    ) {
        for place in 0..count {
            if place == loads.len() {
                loads.push(Self::blank(shape));
            }
            Self::receive(end, &mut loads[place], check).await;
        }
    }

    /// Runs an end's work on this thread.
    fn run<F: Future>(work: F) -> F::Output {
        now(work)
    }
}

/// Runs what never waits for a waker: its calls block.
pub fn now<F: Future>(work: F) -> F::Output {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("blocking calls leave nothing pending"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(payload: &[u8], descriptors: usize) -> bool {
        let mut check = InOrder::new(Shape::new(32, 1));
        check.next = 5;
        check.whole = Some((5, template(32)));
        std::panic::catch_unwind(move || check.message(payload, descriptors)).is_ok()
    }

    #[test]
    fn whatever_differs_is_seen() {
        let mut payload = template(32);
        stamp(&mut payload, 5);
        assert!(checked(&payload, 1));
        assert!(!checked(&payload, 0));
        assert!(!checked(&payload[..31], 1));
        for place in 0..32 {
            let mut other = payload.clone();
            other[place] ^= 1;
            assert!(!checked(&other, 1), "byte {place}");
        }
        stamp(&mut payload, 6);
        assert!(!checked(&payload, 1));
    }

    #[test]
    fn each_senders_own_order_is_checked() {
        let mut check = PerSender { shape: Shape::new(16, 0), next: vec![0; 2] };
        let mut payload = template(16);
        for number in [numbered(1, 0), numbered(0, 0), numbered(1, 1)] {
            stamp(&mut payload, number);
            check.message(&payload, 0);
        }
        stamp(&mut payload, numbered(1, 3));
        let skipped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check.message(&payload, 0)));
        assert!(skipped.is_err());
    }

    #[test]
    fn lots_fit_the_socket() {
        assert_eq!(Shape::new(64, 0).burst(64).lot(), 64);
        assert_eq!(Shape::new(4096, 0).burst(16).lot(), 16);
        assert_eq!(Shape::new(65_536, 0).burst(16).lot(), 3);
        assert_eq!(Shape::new(64, 0).lot(), 1);
    }
}
