//! One line per event: what programs read (docs/COMMAND.md), and what people do.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use fdpost::{Error, Message, Violation};
use serde_json::{Value, json};

use crate::kinds::kind;
use crate::numbers::numbers;
use crate::options::Profile;

/// Bytes of a payload that are shown.
const SHOWN: usize = 64;

/// Prints events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    pub(crate) profile: Profile,
    pub(crate) json: bool,
    /// Which client of a listener it is about, from 1.
    pub(crate) client: Option<u64>,
}

/// Fields in the order in which they are printed: `serde_json`'s own map would sort them.
pub(crate) type Fields = Vec<(&'static str, Value)>;

impl Printer {
    pub(crate) fn plain(self, event: &'static str) -> io::Result<()> {
        self.line(vec![("event", json!(event))], event)
    }

    pub(crate) fn message(self, message: &Message) -> io::Result<()> {
        self.answer(message, false)
    }

    /// A message that answers a call; `error`: by saying that it failed.
    pub(crate) fn answer(self, message: &Message, error: bool) -> io::Result<()> {
        let descriptors = (0..message.descriptor_count()).filter_map(|index| message.descriptor(index));
        let kinds: Vec<&str> = descriptors.map(kind).collect();
        let head = message.head();
        let mut fields = arrived(message.payload(), &kinds);
        let mut text = said(message.payload(), &kinds);
        if matches!(self.profile, Profile::Packet | Profile::Stream) {
            fields.push(("kind", json!(head.kind)));
            text += &format!(", kind {}", head.kind);
        }
        if self.profile == Profile::Packet {
            fields.push(("correlation", json!(head.correlation)));
            text += &format!(", correlation {}", head.correlation);
        }
        if error {
            fields.push(("error", json!(true)));
            text += ", error";
        }
        self.line(fields, &text)
    }

    pub(crate) fn descriptor(self, descriptor: &OwnedFd) -> io::Result<()> {
        let kinds = [kind(descriptor)];
        self.line(arrived(b"", &kinds), &said(b"", &kinds))
    }

    pub(crate) fn peer_error(self, status: u8, text: &[u8]) -> io::Result<()> {
        let fields =
            vec![("event", json!("peer-error")), ("status", json!(status)), ("data", json!(hex(text)))];
        self.line(fields, &format!("peer-error: status {status}, \"{}\"", text.escape_ascii()))
    }

    pub(crate) fn violation(self, violation: Violation) -> io::Result<()> {
        let mut fields = vec![("event", json!("violation")), ("rule", json!(violation.rule()))];
        fields.extend(numbers(&violation));
        fields.push(("text", json!(violation.to_string())));
        self.line(fields, &format!("violation: {}: {violation}", violation.rule()))
    }

    pub(crate) fn error(self, error: &Error) -> io::Result<()> {
        let rule = match error {
            Error::Exhausted(exhausted) => exhausted.rule(),
            Error::Misuse(_) => "misuse",
            _ => "io",
        };
        let text = match error {
            // Its own text begins with the rule.
            Error::Exhausted(exhausted) => exhausted.to_string(),
            other => other.to_string(),
        };
        let fields = vec![("event", json!("error")), ("rule", json!(rule)), ("text", json!(text))];
        self.line(fields, &format!("error: {rule}: {text}"))
    }

    /// Somebody connected whom `--peer-uid` does not let pass.
    pub(crate) fn refused(self, pid: i32, uid: u32, gid: u32) -> io::Result<()> {
        let fields =
            vec![("event", json!("refused")), ("pid", json!(pid)), ("uid", json!(uid)), ("gid", json!(gid))];
        self.line(fields, &format!("refused: process {pid}, user {uid}, group {gid}"))
    }

    fn line(self, mut fields: Fields, text: &str) -> io::Result<()> {
        let Some(client) = self.client else { return print(self.json, fields, text) };
        // Behind the event's name.
        fields.insert(1, ("client", json!(client)));
        print(self.json, fields, &format!("client {client}: {text}"))
    }
}

/// One line on standard output: the fields as an object, or the text.
pub(crate) fn print(json: bool, fields: Fields, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        // In this order: `serde_json`'s own map would sort them.
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        writeln!(out, "{{{}}}", fields.join(","))?;
    } else {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

fn arrived(payload: &[u8], kinds: &[&str]) -> Fields {
    let shown = payload.get(..SHOWN).unwrap_or(payload);
    vec![
        ("event", json!("message")),
        ("bytes", json!(payload.len())),
        ("descriptors", json!(kinds.len())),
        ("kinds", json!(kinds)),
        ("data", json!(hex(shown))),
    ]
}

fn said(payload: &[u8], kinds: &[&str]) -> String {
    let shown = payload.get(..SHOWN).unwrap_or(payload);
    let more = if shown.len() < payload.len() { "..." } else { "" };
    let mut text = format!("message: {}", count(payload.len(), "byte"));
    if !payload.is_empty() {
        text += &format!(" \"{}\"{more}", shown.escape_ascii());
    }
    text += &format!(", {}", count(kinds.len(), "descriptor"));
    if !kinds.is_empty() {
        text += &format!(" ({})", kinds.join(", "));
    }
    text
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
