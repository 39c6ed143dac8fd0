//! The receiver's states as data. The receiver executes this table: what no row names does not
//! happen. `docs/states.svg` is drawn from it (`cargo run --example states`), and
//! `tests/states.rs` walks every pair of state and input.

/// Where a receiver stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Between messages.
    Idle,
    /// Some bytes of a message's first part came (streams only).
    Header,
    /// The first part is whole; another is awaited.
    Body,
    /// The peer closed between two messages.
    Ended,
    /// A rule was broken, or descriptors were lost. Final (P3).
    Failed,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes of a part that is not whole yet.
    Bytes,
    /// A part is whole and another follows.
    Part,
    /// The last part is whole.
    Message,
    /// The peer closed.
    End,
    /// "Would block" at or after the assembly deadline (P5).
    Overdue,
    /// A rule was broken, or descriptors were lost.
    Breach,
}

/// What is to be done on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The assembly deadline starts to run.
    Begin,
    /// Nothing.
    Continue,
    /// The message goes to the user.
    Deliver,
    /// A clean end.
    Finish,
    /// `payload-missing`.
    Miss,
    /// The breach is kept and returned for ever.
    Refuse,
}

/// One transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// From here
    pub state: State,
    /// by this
    pub input: Input,
    /// to there,
    pub next: State,
    /// doing this.
    pub action: Action,
}

const fn row(state: State, input: Input, next: State, action: Action) -> Row {
    Row { state, input, next, action }
}

/// Every transition. `Ended` and `Failed` have none: they are final. `Idle` x `Overdue` has none:
/// between messages no deadline runs.
pub const ROWS: [Row; 17] = [
    row(State::Idle, Input::Bytes, State::Header, Action::Begin),
    row(State::Idle, Input::Part, State::Body, Action::Begin),
    row(State::Idle, Input::Message, State::Idle, Action::Deliver),
    row(State::Idle, Input::End, State::Ended, Action::Finish),
    row(State::Idle, Input::Breach, State::Failed, Action::Refuse),
    row(State::Header, Input::Bytes, State::Header, Action::Continue),
    row(State::Header, Input::Part, State::Body, Action::Continue),
    row(State::Header, Input::Message, State::Idle, Action::Deliver),
    row(State::Header, Input::End, State::Failed, Action::Miss),
    row(State::Header, Input::Overdue, State::Failed, Action::Miss),
    row(State::Header, Input::Breach, State::Failed, Action::Refuse),
    row(State::Body, Input::Bytes, State::Body, Action::Continue),
    row(State::Body, Input::Part, State::Body, Action::Continue),
    row(State::Body, Input::Message, State::Idle, Action::Deliver),
    row(State::Body, Input::End, State::Failed, Action::Miss),
    row(State::Body, Input::Overdue, State::Failed, Action::Miss),
    row(State::Body, Input::Breach, State::Failed, Action::Refuse),
];

const STATES: usize = State::Failed as usize + 1;
const INPUTS: usize = Input::Breach as usize + 1;

/// [`ROWS`] by state and input, so that a look-up is two steps and not seventeen.
static BY_STATE: [[Option<(State, Action)>; INPUTS]; STATES] = by_state();

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler: an index out of bounds does not build"
)]
const fn by_state() -> [[Option<(State, Action)>; INPUTS]; STATES] {
    let mut table = [[None; INPUTS]; STATES];
    let mut index = 0;
    while index < ROWS.len() {
        let Row { state, input, next, action } = ROWS[index];
        table[state as usize][input as usize] = Some((next, action));
        index += 1;
    }
    table
}

/// Where `input` leads from `state`; `None` where no row says so.
#[inline]
pub fn step(state: State, input: Input) -> Option<(State, Action)> {
    *BY_STATE.get(state as usize)?.get(input as usize)?
}
