//! What a receiver met, in a text that stays readable: what `fdpost inspect --record` writes,
//! `fdpost replay` reads, and the property tests hold against the machine. The format stands in
//! `docs/TRANSCRIPT.md`.
//!
//! ```
//! use fdpost::transcript::{Transcript, replay};
//!
//! let text = "fdpost-transcript 1
//! wire packet
//! sides client server
//! limits payload=65536 descriptors=0 held-bytes=0 held-descriptors=0 timeout=1.000000000 rate=1048576
//! > 0.000020000 read bytes=01000000020000000000000000000000 cut-bytes=0
//! ";
//! let transcript: Transcript = text.parse()?;
//! let mut said = String::new();
//! replay::<fdpost::Packet>(&transcript, &mut |step| said = step.to_string())?;
//! assert!(said.contains("frame-overrun"), "{said}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod parse;
mod replay;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::error::{Malformed, Misuse};
use crate::limits::Limits;

pub use parse::{ParseError, Rule};
pub use replay::{Decision, ReplayError, Step, Verdict, replay};

/// The first line of every transcript.
pub const FIRST_LINE: &str = "fdpost-transcript 1";

/// The most descriptors of one read. A kernel installs at most 253 (SCM_MAX_FD) and a pidfd.
pub const DESCRIPTORS_MOST: u16 = 262;

/// The longest name of a wire, of a side, of a descriptor's kind.
const WORD_MOST: usize = 64;

/// A conversation between two sides as their receivers met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    wire: String,
    sides: [String; 2],
    limits: Limits,
    /// What happened, in the order in which it was seen.
    pub events: Vec<Event>,
}

/// Who sent what was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The first side: `>`.
    Forth,
    /// The second: `<`.
    Back,
}

/// One thing that a receiver met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who sent it.
    pub direction: Direction,
    /// When, since any moment that is the same for the whole transcript.
    pub at: Duration,
    /// What.
    pub happened: Happened,
}

/// What a receiver meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// recvmsg(2) brought this.
    Read(Read),
    /// Nothing was there to be read.
    Block,
}

/// What one recvmsg(2) brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The bytes that were stored.
    pub bytes: Vec<u8>,
    /// Bytes that the kernel cut off behind them (MSG_TRUNC).
    pub cut_bytes: u64,
    /// Descriptors, at most [`DESCRIPTORS_MOST`].
    pub descriptors: u16,
    kinds: String,
    /// Control data was cut (MSG_CTRUNC).
    pub control_cut: bool,
    /// Control data was malformed.
    pub malformed: Option<Malformed>,
    /// Level and type of a control message that no wire has.
    pub unknown: Option<(i32, i32)>,
    /// The driver knew that nothing more comes.
    pub end: bool,
}

impl Transcript {
    /// A transcript without events. Names become words of at most 64 printable characters.
    ///
    /// # Errors
    /// [`Misuse::LimitOutOfRange`], as [`Limits::check`] says.
    pub fn new(wire: &str, sides: [&str; 2], limits: Limits) -> Result<Self, Misuse> {
        limits.check()?;
        Ok(Self { wire: word(wire), sides: sides.map(word), limits, events: Vec::new() })
    }

    /// The wire's name.
    pub fn wire(&self) -> &str {
        &self.wire
    }

    /// Who speaks.
    pub fn sides(&self) -> [&str; 2] {
        let [one, two] = &self.sides;
        [one, two]
    }

    /// What both receivers accepted.
    pub const fn limits(&self) -> Limits {
        self.limits
    }
}

impl Direction {
    /// Its sign in the text.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Forth => ">",
            Self::Back => "<",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Forth => Self::Back,
            Self::Back => Self::Forth,
        }
    }
}

impl Read {
    /// What the descriptors are, for who reads the text; the machine does not look at it. Each
    /// kind is letters, digits and hyphens.
    #[must_use]
    pub fn with_kinds<'a>(mut self, kinds: impl IntoIterator<Item = &'a str>) -> Self {
        self.kinds.clear();
        for kind in kinds.into_iter().take(self.descriptors.into()) {
            if !self.kinds.is_empty() {
                self.kinds.push(',');
            }
            self.kinds.extend(word(kind).chars().map(|one| if is_of_kind(one) { one } else { '-' }));
        }
        self
    }

    /// The kinds, as far as they are known.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.split(',').filter(|kind| !kind.is_empty())
    }
}

const fn is_of_kind(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-'
}

/// One word that the text can hold.
fn word(name: &str) -> String {
    let printable = |one: char| if one.is_ascii_graphic() { one } else { '_' };
    let word: String = name.chars().take(WORD_MOST).map(printable).collect();
    if word.is_empty() { "_".to_owned() } else { word }
}

/// Seconds with all nine decimals: exact, so that a deadline is judged as it was.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

impl fmt::Display for Transcript {
    /// The text. Without events it is the head that events may be appended to, line by line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, two] = &self.sides;
        let Limits { payload, descriptors, held_bytes, held_descriptors, assembly_timeout, minimum_rate } =
            self.limits;
        writeln!(f, "{FIRST_LINE}\nwire {}\nsides {one} {two}", self.wire)?;
        write!(f, "limits payload={payload} descriptors={descriptors} held-bytes={held_bytes}")?;
        write!(f, " held-descriptors={held_descriptors} timeout={}", Seconds(assembly_timeout))?;
        writeln!(f, " rate={minimum_rate}")?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl fmt::Display for Event {
    /// Its line, without the end of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.direction.sign(), Seconds(self.at))?;
        match &self.happened {
            Happened::Block => f.write_str("block"),
            Happened::Read(read) => write!(f, "{read}"),
        }
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("read")?;
        if !self.bytes.is_empty() {
            f.write_str(" bytes=")?;
            self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        if self.cut_bytes > 0 {
            write!(f, " cut-bytes={}", self.cut_bytes)?;
        }
        if self.descriptors > 0 {
            write!(f, " descriptors={}", self.descriptors.min(DESCRIPTORS_MOST))?;
        }
        if !self.kinds.is_empty() {
            write!(f, " kinds={}", self.kinds)?;
        }
        if self.control_cut {
            f.write_str(" control-cut")?;
        }
        if let Some(malformed) = self.malformed {
            let (name, one, two) = parse::malformed_numbers(malformed);
            write!(f, " malformed={name}/{one}/{two}")?;
        }
        if let Some((level, kind)) = self.unknown {
            write!(f, " unknown={level}/{kind}")?;
        }
        if self.end {
            f.write_str(" end")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "transcript/tests.rs"]
mod tests;
