//! What passes between two sides, one line each: for people, or as JSON.

use std::io;
use std::time::Duration;

use fdpost::transcript::Direction;
use fdpost::{Head, Message, Violation};
use serde_json::json;

use crate::event::{self, Fields};
use crate::kinds::kind;
use crate::numbers::numbers;
use crate::options::Profile;

/// Bytes of a payload that JSON shows,
const SHOWN: usize = 64;
/// and that a line for people does.
const GLANCE: usize = 16;

/// Something that happened between two sides.
pub(crate) enum Item {
    Ready,
    Message(Passed),
    Violation {
        direction: Direction,
        at: Duration,
        violation: Violation,
    },
    /// This side's own trouble, with its stable name.
    Error {
        direction: Direction,
        at: Duration,
        rule: &'static str,
        text: String,
    },
    /// The sender of this direction closed, or its receiver is gone.
    Closed {
        direction: Direction,
        at: Duration,
        by_sender: bool,
    },
    Idle {
        at: Duration,
    },
}

/// A message on its way.
pub(crate) struct Passed {
    pub(crate) direction: Direction,
    pub(crate) at: Duration,
    pub(crate) head: Head,
    pub(crate) bytes: usize,
    pub(crate) kinds: Vec<String>,
    /// Its first bytes.
    pub(crate) first: Vec<u8>,
}

impl Passed {
    pub(crate) fn of(direction: Direction, at: Duration, message: &Message) -> Self {
        let descriptors = (0..message.descriptor_count()).filter_map(|index| message.descriptor(index));
        let kinds = descriptors.map(|descriptor| kind(descriptor).to_owned()).collect();
        Self::new(direction, at, *message.head(), message.payload(), kinds)
    }

    pub(crate) fn new(
        direction: Direction,
        at: Duration,
        head: Head,
        payload: &[u8],
        kinds: Vec<String>,
    ) -> Self {
        let first = payload[..payload.len().min(SHOWN)].to_vec();
        Self { direction, at, head, bytes: payload.len(), kinds, first }
    }

    /// Sizes and kinds in words.
    pub(crate) fn summary(&self, profile: Profile) -> String {
        let mut text = format!("{} bytes", self.bytes);
        match self.kinds.len() {
            0 => {}
            count => text += &format!(", {count} fd ({})", squeezed(&self.kinds)),
        }
        let Head { kind, correlation, .. } = self.head;
        if matches!(profile, Profile::Packet | Profile::Stream) {
            text += &format!(", kind {kind}");
        }
        if profile == Profile::Packet && correlation != 0 {
            text += &format!(", correlation {correlation}");
        }
        text
    }

    /// The first bytes as hexadecimal digits and as text.
    pub(crate) fn glance(&self, most: usize) -> String {
        let shown = &self.first[..self.first.len().min(most)];
        if shown.is_empty() {
            return String::new();
        }
        let digits: Vec<String> = shown.iter().map(|byte| format!("{byte:02x}")).collect();
        let more = if shown.len() < self.bytes { " .." } else { "" };
        format!("{}{more}  |{}|", digits.join(" "), printable(shown))
    }
}

pub(crate) fn printable(bytes: &[u8]) -> String {
    let show = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
    bytes.iter().map(show).collect()
}

/// `memfd, socket, 3 pipe`.
fn squeezed(kinds: &[String]) -> String {
    let runs: Vec<String> = kinds
        .chunk_by(|one, two| one == two)
        .map(|run| if run.len() > 1 { format!("{} {}", run.len(), run[0]) } else { run[0].clone() })
        .collect();
    runs.join(", ")
}

/// Prints items.
pub(crate) struct Show {
    pub(crate) profile: Profile,
    pub(crate) json: bool,
    pub(crate) names: [String; 2],
}

impl Show {
    pub(crate) fn item(&self, item: &Item) -> io::Result<()> {
        match item {
            Item::Ready => {
                let between = format!("ready: between {} and {}", self.names[0], self.names[1]);
                self.line(vec![("event", json!("ready")), ("sides", json!(self.names))], &between)
            }
            Item::Message(passed) => self.message(passed),
            Item::Violation { direction, at, violation } => {
                let (rule, what) = (violation.rule(), violation.to_string());
                let mut fields = self.fields("violation", *direction, *at);
                fields.push(("rule", json!(rule)));
                fields.extend(numbers(violation));
                fields.push(("text", json!(what)));
                let text =
                    format!("{}violation: {rule}: {what}; both sides are ended", self.begin(*direction, *at));
                self.line(fields, &text)
            }
            Item::Error { direction, at, rule, text } => {
                let mut fields = self.fields("error", *direction, *at);
                fields.extend([("rule", json!(rule)), ("text", json!(text))]);
                self.line(fields, &format!("{}error: {rule}: {text}", self.begin(*direction, *at)))
            }
            Item::Closed { direction, at, by_sender } => {
                let by = if *by_sender { *direction } else { direction.reverse() };
                let mut fields = self.fields("closed", *direction, *at);
                fields.push(("by", json!(self.names[by as usize])));
                let text = format!("{}closed by {}", self.begin(*direction, *at), self.names[by as usize]);
                self.line(fields, &text)
            }
            Item::Idle { at } => {
                let fields = vec![("event", json!("idle")), ("micros", json!(micros(*at)))];
                self.line(fields, &format!("{:>12.6}  idle", at.as_secs_f64()))
            }
        }
    }

    fn message(&self, passed: &Passed) -> io::Result<()> {
        if self.profile == Profile::SendFd && passed.kinds.is_empty() {
            return self.peer_error(passed);
        }
        let mut fields = self.fields("message", passed.direction, passed.at);
        let data: String = passed.first.iter().map(|byte| format!("{byte:02x}")).collect();
        fields.extend([
            ("bytes", json!(passed.bytes)),
            ("descriptors", json!(passed.kinds.len())),
            ("kinds", json!(passed.kinds)),
            ("data", json!(data)),
        ]);
        if matches!(self.profile, Profile::Packet | Profile::Stream) {
            fields.push(("kind", json!(passed.head.kind)));
        }
        if self.profile == Profile::Packet {
            fields.push(("correlation", json!(passed.head.correlation)));
        }
        let (summary, glance) = (passed.summary(self.profile), passed.glance(GLANCE));
        let text = format!("{}{summary:<32}  {glance}", self.begin(passed.direction, passed.at));
        self.line(fields, text.trim_end())
    }

    /// `send_fd` with an error in place of a descriptor.
    fn peer_error(&self, passed: &Passed) -> io::Result<()> {
        let mut fields = self.fields("peer-error", passed.direction, passed.at);
        let data: String = passed.first.iter().map(|byte| format!("{byte:02x}")).collect();
        fields.extend([("status", json!(passed.head.kind)), ("data", json!(data))]);
        let begin = self.begin(passed.direction, passed.at);
        let text = format!("{begin}peer-error: status {}  {}", passed.head.kind, passed.glance(GLANCE));
        self.line(fields, text.trim_end())
    }

    fn fields(&self, event: &'static str, direction: Direction, at: Duration) -> Fields {
        vec![
            ("event", json!(event)),
            ("from", json!(self.names[direction as usize])),
            ("to", json!(self.names[direction.reverse() as usize])),
            ("micros", json!(micros(at))),
        ]
    }

    /// Time and direction.
    fn begin(&self, direction: Direction, at: Duration) -> String {
        let [one, two] = &self.names;
        let arrow = match direction {
            Direction::Forth => "-->",
            Direction::Back => "<--",
        };
        format!("{:>12.6}  {one} {arrow} {two}  ", at.as_secs_f64())
    }

    pub(crate) fn line(&self, fields: Fields, text: &str) -> io::Result<()> {
        event::print(self.json, fields, text)
    }
}

pub(crate) fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(u64::MAX)
}
