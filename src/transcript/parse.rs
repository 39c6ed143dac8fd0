//! From text to a transcript. A transcript may come from a stranger: nothing in it is believed,
//! and what is allocated is bounded by a small multiple of the text's own length.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::{FromStr, SplitAsciiWhitespace};
use core::time::Duration;

use super::{
    DESCRIPTORS_MOST, Direction, Event, FIRST_LINE, Happened, Read, Transcript, WORD_MOST, is_of_kind,
};
use crate::error::{Malformed, Misuse};
use crate::limits::Limits;

/// Where a text is no transcript, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {rule}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub rule: Rule,
}

/// A rule of the text that a line breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// The first line is another.
    #[error("no transcript: the first line is not \"{FIRST_LINE}\"")]
    Version,
    /// Bytes that are no UTF-8.
    #[error("bytes that are no text")]
    Text,
    /// Another line belongs here.
    #[error("a line that begins with \"{expected}\" belongs here")]
    Line {
        /// How it begins.
        expected: &'static str,
    },
    /// A field is missing, or another stands in its place.
    #[error("\"{expected}\" belongs here")]
    Field {
        /// The field.
        expected: &'static str,
    },
    /// Something follows where the line should end.
    #[error("the line goes on where it should end: an unknown field, or one out of its order")]
    Surplus,
    /// A name that is too long.
    #[error("a name of more than 64 characters, or of unprintable ones")]
    Name,
    /// No number, or one too large for its field.
    #[error("\"{field}\" is no number that fits")]
    Number {
        /// The field.
        field: &'static str,
    },
    /// A time without its nine decimals, or too large a one.
    #[error("\"{field}\" is no time: seconds, a point, nine decimals")]
    Time {
        /// The field.
        field: &'static str,
    },
    /// Bytes that are no pairs of hexadecimal digits.
    #[error("\"bytes\" are no pairs of hexadecimal digits")]
    Hex,
    /// More descriptors than a kernel installs.
    #[error("more than {DESCRIPTORS_MOST} descriptors in one read")]
    Descriptors,
    /// Kinds that are none, or more than descriptors.
    #[error("\"kinds\" are names of letters, digits and hyphens, at most one a descriptor")]
    Kinds,
    /// An unknown way of being malformed.
    #[error("\"malformed\" is a name and two numbers")]
    Malformed,
    /// A limit without a meaning.
    #[error(transparent)]
    Limit(Misuse),
}

impl FromStr for Transcript {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text)
    }
}

impl Transcript {
    /// Parses a file's bytes.
    ///
    /// # Errors
    /// The first line that breaks a rule.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        match core::str::from_utf8(bytes) {
            Ok(text) => parse(text),
            Err(_) if !bytes.starts_with(FIRST_LINE.as_bytes()) => {
                Err(ParseError { line: 1, rule: Rule::Version })
            }
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let ends = before.iter().filter(|byte| **byte == b'\n').count();
                Err(ParseError { line: ends.saturating_add(1), rule: Rule::Text })
            }
        }
    }
}

/// The lines that say something, numbered from 1.
struct Lines<'a> {
    lines: core::iter::Enumerate<core::str::Lines<'a>>,
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        for (index, line) in self.lines.by_ref() {
            self.line = index.saturating_add(1);
            if self.line == 1 || !(line.starts_with('#') || line.trim().is_empty()) {
                return Some(line);
            }
        }
        self.line = self.line.saturating_add(1);
        None
    }

    /// The next line, which must begin with this word, without it.
    fn expect(&mut self, expected: &'static str) -> Result<Words<'a>, Rule> {
        let mut words = Words(self.next().unwrap_or_default().split_ascii_whitespace());
        match words.0.next() {
            Some(first) if first == expected => Ok(words),
            _ => Err(Rule::Line { expected }),
        }
    }
}

fn parse(text: &str) -> Result<Transcript, ParseError> {
    let mut lines = Lines { lines: text.lines().enumerate(), line: 0 };
    parse_lines(&mut lines).map_err(|rule| ParseError { line: lines.line, rule })
}

fn parse_lines(lines: &mut Lines<'_>) -> Result<Transcript, Rule> {
    if lines.next() != Some(FIRST_LINE) {
        return Err(Rule::Version);
    }
    let mut words = lines.expect("wire")?;
    let wire = words.name("wire")?;
    words.finish()?;
    let mut words = lines.expect("sides")?;
    let sides = [words.name("sides")?, words.name("sides")?];
    words.finish()?;
    let mut words = lines.expect("limits")?;
    let limits = words.limits()?;
    words.finish()?;
    limits.check().map_err(Rule::Limit)?;
    let mut events = Vec::new();
    while let Some(line) = lines.next() {
        events.push(event(Words(line.split_ascii_whitespace()))?);
    }
    Ok(Transcript { wire, sides, limits, events })
}

fn event(mut words: Words<'_>) -> Result<Event, Rule> {
    let direction = match words.0.next() {
        Some(">") => Direction::Forth,
        Some("<") => Direction::Back,
        _ => return Err(Rule::Line { expected: "> or <" }),
    };
    let at = time("time", words.0.next().unwrap_or_default())?;
    let happened = match words.0.next() {
        Some("block") => Happened::Block,
        Some("read") => Happened::Read(words.read()?),
        _ => return Err(Rule::Field { expected: "read or block" }),
    };
    words.finish()?;
    Ok(Event { direction, at, happened })
}

#[derive(Clone)]
struct Words<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn name(&mut self, expected: &'static str) -> Result<String, Rule> {
        let name = self.0.next().ok_or(Rule::Field { expected })?;
        let fits = name.len() <= WORD_MOST && name.chars().all(|one| one.is_ascii_graphic());
        fits.then(|| name.to_owned()).ok_or(Rule::Name)
    }

    /// The value of `field=value`, if that comes next.
    fn optional(&mut self, field: &'static str) -> Option<&'a str> {
        let mut ahead = self.clone();
        let value = ahead.0.next()?.strip_prefix(field)?.strip_prefix('=')?;
        *self = ahead;
        Some(value)
    }

    fn flag(&mut self, name: &'static str) -> bool {
        let mut ahead = self.clone();
        let found = ahead.0.next() == Some(name);
        if found {
            *self = ahead;
        }
        found
    }

    fn field(&mut self, expected: &'static str) -> Result<&'a str, Rule> {
        self.optional(expected).ok_or(Rule::Field { expected })
    }

    fn limits(&mut self) -> Result<Limits, Rule> {
        let limits = Limits::new()
            .payload(number("payload", self.field("payload")?)?)
            .descriptors(number("descriptors", self.field("descriptors")?)?)
            .held_bytes(number("held-bytes", self.field("held-bytes")?)?)
            .held_descriptors(number("held-descriptors", self.field("held-descriptors")?)?)
            .assembly_timeout(time("timeout", self.field("timeout")?)?);
        Ok(limits.minimum_rate(number("rate", self.field("rate")?)?))
    }

    fn read(&mut self) -> Result<Read, Rule> {
        let mut read = Read::default();
        if let Some(digits) = self.optional("bytes") {
            read.bytes = unhex(digits).ok_or(Rule::Hex)?;
        }
        if let Some(count) = self.optional("cut-bytes") {
            read.cut_bytes = number("cut-bytes", count)?;
        }
        if let Some(count) = self.optional("descriptors") {
            read.descriptors = number("descriptors", count)?;
        }
        if read.descriptors > DESCRIPTORS_MOST {
            return Err(Rule::Descriptors);
        }
        if let Some(kinds) = self.optional("kinds") {
            let fits =
                |kind: &str| !kind.is_empty() && kind.len() <= WORD_MOST && kind.chars().all(is_of_kind);
            if kinds.split(',').count() > read.descriptors.into() || !kinds.split(',').all(fits) {
                return Err(Rule::Kinds);
            }
            read.kinds = kinds.to_owned();
        }
        read.control_cut = self.flag("control-cut");
        if let Some(text) = self.optional("malformed") {
            read.malformed = Some(malformed(text).ok_or(Rule::Malformed)?);
        }
        if let Some(text) = self.optional("unknown") {
            let (level, kind) = text.split_once('/').ok_or(Rule::Number { field: "unknown" })?;
            read.unknown = Some((number("unknown", level)?, number("unknown", kind)?));
        }
        read.end = self.flag("end");
        Ok(read)
    }

    fn finish(mut self) -> Result<(), Rule> {
        if self.0.next().is_some() { Err(Rule::Surplus) } else { Ok(()) }
    }
}

fn number<T: FromStr>(field: &'static str, text: &str) -> Result<T, Rule> {
    // `FromStr` would take a plus sign.
    let plain = !text.starts_with('+');
    text.parse().ok().filter(|_| plain).ok_or(Rule::Number { field })
}

fn time(field: &'static str, text: &str) -> Result<Duration, Rule> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (seconds, nanos) = text
        .split_once('.')
        .filter(|(seconds, nanos)| digits(seconds) && digits(nanos) && nanos.len() == 9)
        .ok_or(Rule::Time { field })?;
    let time = seconds.parse().ok().zip(nanos.parse().ok());
    // Nine digits are below a second: no carry.
    time.map(|(seconds, nanos)| Duration::new(seconds, nanos)).ok_or(Rule::Time { field })
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.as_bytes().chunks(2) {
        let [high, low] = pair else { return None };
        let (high, low) = (char::from(*high).to_digit(16)?, char::from(*low).to_digit(16)?);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    Some(bytes)
}

/// The name of a way of being malformed, and its numbers.
pub(super) fn malformed_numbers(malformed: Malformed) -> (&'static str, i128, u64) {
    match malformed {
        Malformed::HeaderCut { remaining, header } => ("header-cut", remaining.into(), header),
        Malformed::LengthBelowHeader { length, header } => ("length-below-header", length.into(), header),
        Malformed::LengthBeyondBuffer { length, remaining } => {
            ("length-beyond-buffer", length.into(), remaining)
        }
        Malformed::ArrayLength { length, element } => ("array-length", length.into(), element),
        Malformed::NegativeDescriptor { value } => ("negative-descriptor", value.into(), 0),
    }
}

fn malformed(text: &str) -> Option<Malformed> {
    let (name, numbers) = text.split_once('/')?;
    let (first, second) = numbers.split_once('/')?;
    let signed: i128 = number("malformed", first).ok()?;
    let (one, two) = (u64::try_from(signed), number("malformed", second).ok()?);
    Some(match name {
        "header-cut" => Malformed::HeaderCut { remaining: one.ok()?, header: two },
        "length-below-header" => Malformed::LengthBelowHeader { length: one.ok()?, header: two },
        "length-beyond-buffer" => Malformed::LengthBeyondBuffer { length: one.ok()?, remaining: two },
        "array-length" => Malformed::ArrayLength { length: one.ok()?, element: two },
        "negative-descriptor" => Malformed::NegativeDescriptor { value: i32::try_from(signed).ok()? },
        _ => return None,
    })
}
