//! A conversation as a list of steps, and its form as bytes: what a fuzzer mutates, a corpus
//! keeps, and proptest shrinks is the same [`Script`].
//!
//! Any bytes are a script, and nearly all of it is valid conversation: what is to go wrong is one
//! field of a [`Spec`], so that random bytes come far into the core.

use arbitrary::{Arbitrary, Unstructured};
use fdpost::Limits;
use std::time::Duration;

use super::log::Wire;

/// Steps that are looked at; a fuzzer's longer ones only cost time.
const STEPS: usize = 48;

/// Who listens and how, and what happens to him.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub wire: u8,
    pub batch: u8,
    /// How the user of the receiver behaves: see [`Habits`].
    pub habits: u8,
    pub descriptors: u8,
    pub payload: u32,
    pub held_kib: u16,
    pub held_descriptors: u16,
    pub timeout_ms: u16,
    pub rate: u16,
    /// Reads of a stream bring at most so many bytes, in turn; 0 = what there is.
    pub cuts: [u8; 2],
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The peer sends a message, more or less as it should.
    Say(Spec),
    /// The peer sends these bytes and so many descriptors.
    Raw(Vec<u8>, u8, u8),
    /// The receiver reads until "would block".
    Drain,
    /// Milliseconds pass.
    Wait(u16),
    /// The peer closes.
    Close,
}

/// A message and what is wrong with it. [`super::peer`] says what each value means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    pub size: u16,
    pub count: u8,
    /// See [`Spec::wrong`].
    pub corruption: u8,
    pub argument: u8,
    pub head: u8,
    /// Lowest bit: in one packet with the one before, or its parts in one send. From 225 on, on
    /// the wire `packet`: said more than once.
    pub joined: u8,
}

impl Spec {
    /// Below 16 what is wrong; 16 is slowly, and nothing is wrong otherwise. Of a fuzzer's random
    /// bytes every fourth is wrong: often, and not before the third message.
    pub const fn wrong(self) -> u8 {
        self.corruption % 64
    }

    /// As it is, or small where nothing is left of a budget of bytes.
    pub const fn within(self, budget: usize) -> Self {
        if budget > 0 { self } else { Self { size: self.size % 100, ..self } }
    }
}

/// The bits of [`Script::habits`].
#[derive(Clone, Copy, Debug)]
pub struct Habits(pub u8);

impl Habits {
    /// Asks for windows, and says that one was filled, while there is input to poll.
    pub const fn early(self) -> bool {
        self.0 & 1 != 0
    }
    /// Asks for windows twice.
    pub const fn twice(self) -> bool {
        self.0 & 2 != 0
    }
    /// Claims to have filled more than was lent.
    pub const fn overfill(self) -> bool {
        self.0 & 4 != 0
    }
    /// Polls into one message again and again.
    pub const fn reuse(self) -> bool {
        self.0 & 8 != 0
    }
    /// Keeps the messages to the end.
    pub const fn keep(self) -> bool {
        self.0 & 16 != 0
    }
    /// Takes the refused descriptors.
    pub const fn refused(self) -> bool {
        self.0 & 32 != 0
    }
    /// Accepts no descriptor: a policy of the user's refuses the first message that has one.
    pub const fn refuses(self) -> bool {
        self.0 & 192 == 192
    }
}

impl Script {
    pub fn wire(&self) -> Wire {
        [Wire::Libcamera, Wire::Packet, Wire::Stream, Wire::VhostUser][usize::from(self.wire % 4)]
    }

    pub fn limits(&self) -> Limits {
        Limits::new()
            .payload(self.payload % 140_001)
            .descriptors(self.descriptors.min(253))
            .held_bytes(u32::from(self.held_kib) * 1024)
            .held_descriptors(self.held_descriptors)
            .assembly_timeout(Duration::from_millis(self.timeout_ms.into()))
            .minimum_rate(u32::from(self.rate) + 1)
    }

    /// The script that [`Arbitrary`] makes of these bytes; what is missing is 0.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Unstructured::new(bytes).arbitrary().unwrap_or_default()
    }

    /// The bytes of which [`Arbitrary`] makes this script.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![self.wire, self.batch, self.habits, self.descriptors];
        out.extend(self.payload.to_le_bytes());
        for field in [self.held_kib, self.held_descriptors, self.timeout_ms, self.rate] {
            out.extend(field.to_le_bytes());
        }
        out.extend(self.cuts);
        for step in &self.steps {
            step.write(&mut out);
        }
        out
    }
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut script = Self {
            wire: u.arbitrary()?,
            batch: u.arbitrary()?,
            habits: u.arbitrary()?,
            descriptors: u.arbitrary()?,
            payload: u.arbitrary()?,
            held_kib: u.arbitrary()?,
            held_descriptors: u.arbitrary()?,
            timeout_ms: u.arbitrary()?,
            rate: u.arbitrary()?,
            cuts: u.arbitrary()?,
            steps: Vec::new(),
        };
        while !u.is_empty() && script.steps.len() < STEPS {
            script.steps.push(u.arbitrary()?);
        }
        Ok(script)
    }
}

impl Step {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Say(spec) => {
                let [low, high] = spec.size.to_le_bytes();
                out.extend([
                    0,
                    low,
                    high,
                    spec.count,
                    spec.corruption,
                    spec.argument,
                    spec.head,
                    spec.joined,
                ]);
            }
            Self::Raw(bytes, count, flags) => {
                let length = u8::try_from(bytes.len()).expect("raw bytes are few");
                out.extend([160, length, *count, *flags]);
                out.extend(bytes);
            }
            Self::Drain => out.push(192),
            Self::Wait(milliseconds) => {
                out.push(224);
                out.extend(milliseconds.to_le_bytes());
            }
            Self::Close => out.push(248),
        }
    }
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u.arbitrary::<u8>()? {
            0..160 => Self::Say(u.arbitrary()?),
            160..192 => {
                let (length, count, flags) = (u.arbitrary::<u8>()?, u.arbitrary()?, u.arbitrary()?);
                let length = usize::from(length).min(u.len());
                Self::Raw(u.bytes(length)?.to_vec(), count, flags)
            }
            192..224 => Self::Drain,
            224..248 => Self::Wait(u.arbitrary()?),
            248.. => Self::Close,
        })
    }
}

impl<'a> Arbitrary<'a> for Spec {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            size: u.arbitrary()?,
            count: u.arbitrary()?,
            corruption: u.arbitrary()?,
            argument: u.arbitrary()?,
            head: u.arbitrary()?,
            joined: u.arbitrary()?,
        })
    }
}
