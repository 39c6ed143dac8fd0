//! Calls, walked to the end: every state of one side, under every input of [`Walk::inputs`].
//!
//! # The abstraction
//! What a side does next depends on the calls that are out, on whether a call of the peer's waits
//! for its answer and on whether the conversation is over. [`Walk::key`] has these as the model sees
//! them, which is asked after every step about all that can be asked of both. Left out are
//!
//! - the *numbers* of ids: they are handed out upwards, so that of two ids only which is older can
//!   matter. That they begin anew at 2^32 is for a unit test, and out of this walk's reach. The
//!   peer's own are repeated and never looked at;
//! - *times* but those from now to a deadline: they are compared with now and with each other;
//! - the counters, which nothing reads but the test;
//! - ids that are no longer out, but for whether there is one: no rule tells one from another.
//!
//! A user holds two calls of the peer's at most here, the oldest first; nothing in the side knows how
//! many there are.

use super::{Content, Correlate, Op, Side};
use crate::log::Wire;
use crate::walk::{Broken, Machine, Walked, walk};
use fdpost::{Libcamera, Packet, Stream};

/// Calls that may be out, and calls of the peer's that the user holds.
const MOST: usize = 2;

struct Walk<P> {
    side: Side<P>,
    over: bool,
}

/// Both roles over every wire that has calls.
///
/// # Errors
/// The first step after which the side and its model differ.
pub fn closed() -> Result<Walked, Box<Broken>> {
    let mut sum = Walked { closed: true, ..Walked::default() };
    for answers in [false, true] {
        let (packet, libcamera, stream) = (
            walk(&|| Walk::<Packet>::new(Wire::Packet, answers), usize::MAX)?,
            walk(&|| Walk::<Libcamera>::new(Wire::Libcamera, answers), usize::MAX)?,
            walk(&|| Walk::<Stream>::new(Wire::Stream, answers), usize::MAX)?,
        );
        for walked in [packet, libcamera, stream] {
            sum.states += walked.states;
            sum.steps += walked.steps;
            sum.depth = sum.depth.max(walked.depth);
            sum.closed &= walked.closed;
        }
    }
    Ok(sum)
}

impl<P: Correlate> Walk<P> {
    fn new(wire: Wire, answers: bool) -> Self {
        Self { side: Side::new(wire, answers, MOST as u8), over: false }
    }

    /// The place among all calls ever made of one that is out, or is no more.
    fn made(&self, out: bool) -> impl Iterator<Item = u8> {
        let is_out = |id| self.side.model.out.iter().any(|call| call.id == id);
        let places = self.side.made.iter().zip(0..);
        places.filter(move |(call, _)| is_out(call.get()) == out).map(|(_, place)| place)
    }
}

impl<P: Correlate> Machine for Walk<P> {
    type Input = Op;

    fn inputs(&self) -> Vec<Op> {
        if self.over {
            return Vec::new();
        }
        let content = Content { command: 1, grant: 1, ..Content::default() };
        let mut inputs = Vec::new();
        // Deadlines: none, soon, later. Not sent, with a field of its own, too short, asking for more
        // than is accepted.
        inputs.extend([0, 3, 5].map(|deadline| Op::Start(Content { deadline, ..content })));
        inputs.extend([16, 4, 8].map(|bits| Op::Start(Content { bits, ..content })));
        inputs.push(Op::Start(Content { grant: 5, ..content }));
        // To each that is out, and to one that was: right, with as many descriptors as may come, with
        // one more, another command, failed, too short, not a reply at all.
        let gone = self.made(false).last();
        for which in self.made(true).chain(gone) {
            let reply = Content { which, bits: 1, ..content };
            inputs.extend([0, 1, 2].map(|descriptors| Op::Come(Content { descriptors, ..reply })));
            inputs.push(Op::Come(Content { command: 2, ..reply }));
            inputs.extend([3, 9, 0].map(|bits| Op::Come(Content { bits, ..reply })));
            inputs.push(Op::GiveUp(which));
        }
        // Of ids that were never given: 0, and one that is far.
        inputs.extend([0, 1].map(|bits| Op::Come(Content { which: 200, bits, ..content })));
        inputs.push(Op::Come(Content { which: 255, bits: 1, ..content }));
        if self.side.requests.len() < MOST {
            inputs.push(Op::Come(Content { which: 255, ..content }));
        }
        for which in 0..self.side.requests.len() as u8 {
            let answer = Content { which, ..content };
            inputs.extend([0, 1, 2].map(|descriptors| Op::Answer(Content { descriptors, ..answer })));
            inputs.extend([2, 4, 8, 16].map(|bits| Op::Answer(Content { bits, ..answer })));
        }
        inputs.extend([1, 2, 5].map(Op::Wait));
        inputs
    }

    fn play(&mut self, input: &Op) {
        self.over = self.side.step(*input).is_some();
        // The user lets go of what it answered, and holds as many as it may.
        if self.side.requests.len() > MOST {
            self.side.requests.truncate(MOST);
        }
        let answered = self.side.requests.iter().filter(|request| request.is_answered()).count();
        if answered == MOST {
            self.side.requests.clear();
        }
    }

    fn check(&mut self) {
        self.side.agrees();
    }

    fn key(&self) -> String {
        let Side { model, requests, made, now, .. } = &self.side;
        let mut out: Vec<_> = model.out.iter().collect();
        out.sort_by_key(|call| call.id);
        let out: Vec<_> = out
            .iter()
            .map(|call| {
                // What is overdue is given up at once; what was given up has no deadline any more.
                let left = call.deadline.filter(|_| !call.given_up).map(|deadline| deadline - now);
                (call.command, call.grant, left, call.given_up)
            })
            .collect();
        let held: Vec<_> = requests
            .iter()
            .map(|request| {
                let (command, most) = (request.command(), request.reply_descriptors());
                (command, most, request.is_answered())
            })
            .collect();
        let gone = made.len() > out.len();
        format!("{out:?} {held:?} {gone} {} {} {}", model.asked, model.over, self.over)
    }

    fn finish(mut self, _: bool) {
        self.side.ends();
    }
}
