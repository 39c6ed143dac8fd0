//! Draws the receiver's state table as an SVG on standard output: `docs/states.svg` is this.

use fdpost::machine::table::{Action, Input, ROWS, State};

const STATES: [State; 5] = [State::Idle, State::Header, State::Body, State::Ended, State::Failed];
const HALF_WIDTH: i32 = 62;
const HALF_HEIGHT: i32 = 24;

fn place(state: State) -> (i32, i32) {
    match state {
        State::Idle => (110, 230),
        State::Header => (450, 100),
        State::Body => (450, 380),
        State::Failed => (800, 230),
        State::Ended => (110, 440),
    }
}

fn main() {
    println!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 500\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title>The receiver's states</title>\n<rect width=\"900\" height=\"500\" fill=\"white\"/>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0L10 5L0 10z\"/></marker></defs>"
    );
    for from in STATES {
        for to in STATES {
            let labels: Vec<String> = ROWS
                .iter()
                .filter(|row| row.state == from && row.next == to)
                .map(|row| format!("{} / {}", input(row.input), action(row.action)))
                .collect();
            if !labels.is_empty() {
                edge(place(from), place(to), &labels);
            }
        }
    }
    for state in STATES {
        let (x, y) = place(state);
        let last = !ROWS.iter().any(|row| row.state == state);
        println!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"12\" fill=\"{}\" stroke=\"black\" \
             stroke-width=\"{}\"/>\n<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" font-weight=\"bold\">{state:?}</text>",
            x - HALF_WIDTH,
            y - HALF_HEIGHT,
            2 * HALF_WIDTH,
            2 * HALF_HEIGHT,
            if last { "#eeeeee" } else { "white" },
            if last { 3 } else { 1 },
            y + 5,
        );
    }
    println!("</svg>");
}

/// A bent arrow, so that there and back do not lie on each other, with its labels at the bend.
fn edge(from: (i32, i32), to: (i32, i32), labels: &[String]) {
    let (path, x, y) = if from == to {
        let up = if from.1 > 230 { 1 } else { -1 };
        let (x, y) = (from.0, from.1 + up * HALF_HEIGHT);
        let bend = y + up * 50;
        let path = format!("M{} {y}C{} {bend} {} {bend} {} {y}", x - 20, x - 50, x + 50, x + 20);
        (path, x, bend + if up > 0 { 12 } else { -16 * (labels.len() as i32 - 1) })
    } else {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let (x, y) = ((from.0 + to.0) / 2 - dy / 8, (from.1 + to.1) / 2 + dx / 8);
        let (start, end) = (border(from, (x, y)), border(to, (x, y)));
        let path = format!("M{} {}Q{x} {y} {} {}", start.0, start.1, end.0, end.1);
        (path, (x + (from.0 + to.0) / 2) / 2, (y + (from.1 + to.1) / 2) / 2 - 7 * (labels.len() as i32 - 1))
    };
    println!("<path d=\"{path}\" fill=\"none\" stroke=\"black\" marker-end=\"url(#tip)\"/>");
    for (line, label) in labels.iter().enumerate() {
        println!(
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" stroke=\"white\" stroke-width=\"5\" \
             paint-order=\"stroke\">{label}</text>",
            y + 4 + 16 * line as i32
        );
    }
}

/// Where the line from the middle of a box towards `aim` leaves it.
fn border(middle: (i32, i32), aim: (i32, i32)) -> (i32, i32) {
    let (dx, dy) = (f64::from(aim.0 - middle.0), f64::from(aim.1 - middle.1));
    let scale = (f64::from(HALF_WIDTH) / dx.abs()).min(f64::from(HALF_HEIGHT) / dy.abs());
    (middle.0 + (dx * scale).round() as i32, middle.1 + (dy * scale).round() as i32)
}

fn input(input: Input) -> &'static str {
    match input {
        Input::Bytes => "bytes",
        Input::Part => "part whole",
        Input::Message => "last part whole",
        Input::End => "peer closed",
        Input::Overdue => "overdue",
        Input::Breach => "rule broken",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Begin => "start the deadline",
        Action::Continue => "go on",
        Action::Deliver => "deliver",
        Action::Finish => "finish",
        Action::Miss => "payload-missing",
        Action::Refuse => "refuse for ever",
    }
}
