//! A conversation as a sequence diagram.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use fdpost::transcript::Direction;

use crate::exit::{Failure, Outcome};
use crate::inspect_show::{Item, Passed};
use crate::options::Profile;

/// Rows that are drawn; beyond that nobody looks, and a long session must not fill the memory.
const ROWS_MOST: usize = 2000;
const WIDTH: u32 = 960;
/// Where the lifelines stand, and what is beside them.
const LINES: [u32; 2] = [150, 590];
const TIME: u32 = 120;
const BYTES: u32 = 620;
const TOP: u32 = 64;
const ROW: u32 = 30;
/// Characters that fit on an arrow, into a name's box, and on a line of text below a fault.
const LABEL: usize = 58;
const NAME: usize = 26;
const COLUMNS: usize = 62;
/// Bytes of a payload that are shown.
const GLANCE: usize = 8;

/// What is drawn of each item, as it will be: nothing else of the conversation is kept.
pub(crate) struct Diagram {
    wire: String,
    names: [String; 2],
    rows: String,
    drawn: usize,
    left_out: usize,
    y: u32,
}

impl Diagram {
    pub(crate) fn new(wire: &str, names: [String; 2]) -> Self {
        Self { wire: wire.to_owned(), names, rows: String::new(), drawn: 0, left_out: 0, y: TOP + 20 }
    }

    pub(crate) fn add(&mut self, item: &Item) {
        if matches!(item, Item::Ready | Item::Idle { .. }) {
            return;
        }
        if self.drawn == ROWS_MOST && matches!(item, Item::Message(_)) {
            self.left_out += 1;
            return;
        }
        self.drawn += usize::from(matches!(item, Item::Message(_)));
        match item {
            Item::Ready | Item::Idle { .. } => {}
            Item::Message(passed) => self.message(passed),
            Item::Violation { direction, at, violation } => {
                self.fault(*direction, *at, violation.rule(), &violation.to_string());
            }
            Item::Error { direction, at, rule, text } => self.fault(*direction, *at, rule, text),
            Item::Closed { direction, at, by_sender } => {
                let drawn = if *by_sender { *direction } else { direction.reverse() };
                self.arrow(drawn, *at, "closed", "end");
            }
        }
    }

    fn message(&mut self, passed: &Passed) {
        let profile = match self.wire.as_str() {
            "packet" => Profile::Packet,
            "stream" => Profile::Stream,
            _ => Profile::Libcamera,
        };
        let y = self.y;
        self.arrow(passed.direction, passed.at, &passed.summary(profile), "message");
        self.text(BYTES, y + 4, "bytes", &passed.glance(GLANCE));
    }

    /// One row: time, arrow, what stands on it.
    fn arrow(&mut self, direction: Direction, at: Duration, label: &str, class: &str) {
        let [from, to] = ends(direction);
        let (y, tip) = (self.y, if to > from { to - 9 } else { to + 9 });
        self.text(TIME, y + 4, "time", &seconds(at));
        self.text((from + to) / 2, y - 5, &format!("label {class}"), &shortened(label, LABEL));
        let _a_string_takes_it = writeln!(
            self.rows,
            "<path class=\"{class}\" d=\"M{from} {y}H{tip}\"/>\
             <path class=\"{class} tip\" d=\"M{to} {y}L{tip} {}V{}Z\"/>",
            y - 4,
            y + 4
        );
        self.y += ROW;
    }

    /// An arrow that does not arrive, and why, in red.
    fn fault(&mut self, direction: Direction, at: Duration, rule: &str, text: &str) {
        let [from, to] = ends(direction);
        let (y, end) = (self.y, (from + to) / 2);
        self.text(TIME, y + 4, "time", &seconds(at));
        self.text(end, y - 9, "label fault", rule);
        let _a_string_takes_it = writeln!(
            self.rows,
            "<path class=\"fault\" d=\"M{from} {y}H{end}M{} {}l12 12m0 -12l-12 12\"/>",
            end - 6,
            y - 6
        );
        self.y += 20;
        for line in wrapped(text) {
            self.text(end, self.y, "label why", &line);
            self.y += 15;
        }
        self.y += 20;
    }

    fn text(&mut self, x: u32, y: u32, class: &str, text: &str) {
        let text = escaped(text);
        let _a_string_takes_it =
            writeln!(self.rows, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>");
    }

    pub(crate) fn render(&self) -> String {
        let (bottom, [one, two]) = (self.y, LINES);
        let height = bottom + 50;
        let [left, right] = [0, 1].map(|index| escaped(&shortened(&self.names[index], NAME)));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <path class=\"life\" d=\"M{one} {TOP}V{bottom}M{two} {TOP}V{bottom}\"/>\n"
        );
        for (x, name) in [(one, left), (two, right)] {
            let box_left = x - 110;
            svg += &format!(
                "<rect class=\"side\" x=\"{box_left}\" y=\"28\" width=\"220\" height=\"30\" rx=\"4\"/>\
                 <text class=\"name\" x=\"{x}\" y=\"48\">{name}</text>\n"
            );
        }
        svg += &format!(
            "<text class=\"time\" x=\"{TIME}\" y=\"18\">seconds</text>\
             <text class=\"label\" x=\"{}\" y=\"18\">{} messages, wire {}</text>\
             <text class=\"bytes\" x=\"{BYTES}\" y=\"18\">first bytes</text>\n",
            (one + two) / 2,
            self.drawn + self.left_out,
            escaped(&self.wire)
        );
        svg += &self.rows;
        if self.left_out > 0 {
            let (x, y) = ((one + two) / 2, bottom + 25);
            svg += &format!(
                "<text class=\"label why\" x=\"{x}\" y=\"{y}\">{} more messages are not drawn</text>\n",
                self.left_out
            );
        }
        svg + "</svg>\n"
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome {
        std::fs::write(path, self.render())
            .map_err(|error| Failure::io(format_args!("writing {}", path.display()), &error))
    }
}

const STYLE: &str = "text{font:13px sans-serif;fill:#222}.name{font-weight:bold;text-anchor:middle}\
.time{font:11px monospace;fill:#777;text-anchor:end}.bytes{font:11px monospace;fill:#777;white-space:pre}\
.label{text-anchor:middle}path{fill:none;stroke:#246;stroke-width:1.5}.life{stroke:#bbb;stroke-width:1}\
.side{fill:#eef3f8;stroke:#246}path.tip{fill:#246;stroke:none}path.end{stroke:#999;stroke-dasharray:5 4}\
path.end.tip{fill:#999;stroke:none}text.end{fill:#777}path.fault{stroke:#c00;stroke-width:2}\
text.fault{fill:#c00;font-weight:bold}text.why{fill:#c00;font-size:12px}";

const fn ends(direction: Direction) -> [u32; 2] {
    match direction {
        Direction::Forth => LINES,
        Direction::Back => [LINES[1], LINES[0]],
    }
}

fn seconds(at: Duration) -> String {
    format!("{:.6}", at.as_secs_f64())
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        text.to_owned()
    } else {
        text.chars().take(most - 2).chain("..".chars()).collect()
    }
}

/// Lines of at most [`COLUMNS`] characters, cut between words.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Text as it may stand between tags and in attributes.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            other if other.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}
