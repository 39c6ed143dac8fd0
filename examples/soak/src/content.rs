//! What an honest message holds: both sides know it from the conversation's seed.

use std::os::fd::OwnedFd;

use fdpost::{Accept, Limits, Memfd, Message, Policy, Seals};

use crate::support::Random;

/// What every side accepts. Patient: a loaded machine may halt an honest side in the middle of a
/// message, and nobody may be blamed for that.
pub(crate) const LIMITS: Limits = Limits::new().descriptors(4).assembly_timeout(crate::PATIENCE);

/// Bytes that calls write into: command and cookie, on `libcamera`.
pub(crate) const FREE: usize = 8;

pub(crate) const PICTURE: usize = 16;

/// Every descriptor is a memfd that nobody can change any more.
pub(crate) fn policy() -> Policy {
    Policy::new().every(Accept::memfd_of(PICTURE as u64, Seals::STEADY).readable())
}

/// What passed, in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) calls: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.descriptors += other.descriptors;
        self.calls += other.calls;
    }

    pub(crate) fn count(&mut self, bytes: usize, descriptors: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
        self.descriptors += descriptors as u64;
    }
}

/// Message `number` of sender `who`, as the seed says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) seed: u64,
    pub(crate) who: u8,
    pub(crate) number: u32,
}

impl Due {
    fn random(self) -> Random {
        Random(self.seed ^ (u64::from(self.who) << 56) ^ (u64::from(self.number) << 24))
    }

    pub(crate) fn descriptors(self) -> usize {
        let mut random = self.random();
        if random.below(8) == 0 { 1 + random.below(4) } else { 0 }
    }

    /// Most are small; one in fifty is as large as may be.
    fn payload(self) -> Vec<u8> {
        let mut random = self.random();
        random.0 ^= 1;
        let filler = match random.below(50) {
            0 => 65_536 - FREE - 13,
            1..10 => random.below(4096),
            _ => random.below(100),
        };
        let mut payload = vec![0; FREE];
        payload.extend(self.seed.to_le_bytes());
        payload.push(self.who);
        payload.extend(self.number.to_le_bytes());
        let first = random.below(256);
        payload.extend((first..first + filler).map(|byte| byte as u8));
        payload
    }

    fn picture(self, slot: usize) -> [u8; PICTURE] {
        let mut picture = [0; PICTURE];
        picture[..8].copy_from_slice(&self.seed.to_le_bytes());
        picture[8..12].copy_from_slice(&self.number.to_le_bytes());
        picture[12] = self.who;
        picture[13] = slot as u8;
        picture
    }

    pub(crate) fn message(self) -> Message {
        (0..self.descriptors())
            .fold(Message::new(self.payload()), |message, slot| message.with(self.memfd(slot)))
    }

    /// The first picture without a message, for `send_fd`.
    pub(crate) fn picture_alone(self) -> OwnedFd {
        self.memfd(0)
    }

    fn memfd(self, slot: usize) -> OwnedFd {
        Memfd::sealed("fdpost-soak", &self.picture(slot)).expect("a memfd of a few bytes")
    }

    /// Whether this is the message, to the last byte of its pictures.
    pub(crate) fn check(self, message: &mut Message) -> Result<(), String> {
        let (expected, payload) = (self.payload(), message.payload());
        if payload.get(FREE..) != expected.get(FREE..) {
            let came = |from: usize, to: usize| {
                payload.get(from..to).map_or(0, |bytes| {
                    bytes.iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte))
                })
            };
            return Err(format!(
                "{} bytes, message {} of {} in {:x}, where {} bytes of {self:x?} were due",
                payload.len(),
                came(17, 21),
                came(16, 17),
                came(8, 16),
                expected.len()
            ));
        }
        let pictures: Vec<OwnedFd> = message.take_all().collect();
        if pictures.len() != self.descriptors() {
            return Err(format!("{} descriptors with {self:?}, not {}", pictures.len(), self.descriptors()));
        }
        for (slot, picture) in pictures.iter().enumerate() {
            self.check_picture(slot, picture)?;
        }
        Ok(())
    }

    pub(crate) fn check_picture(self, slot: usize, picture: &OwnedFd) -> Result<(), String> {
        let picture = Memfd::map(picture, PICTURE).map_err(|error| format!("a picture: {error}"))?;
        if picture[..] == self.picture(slot) { Ok(()) } else { Err(format!("another picture with {self:?}")) }
    }
}
