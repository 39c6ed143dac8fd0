//! What must hold of a whole conversation: two machines, both directions, joined by a kernel that
//! cuts, fills up, refuses and loses descriptors as the real one may.
//!
//! What was accepted and left arrives whole, in order, once, with its descriptors; or the side that
//! has the reason for it gets one typed error, and the other one the end.

mod line;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use fdpost::machine::Failure;
use fdpost::{Libcamera, Limits, Packet, Profile, Stream};

use crate::log::Wire;
use crate::script::Spec;
use crate::wires::VhostUser;
use line::Line;

/// Ops that are looked at; a fuzzer's longer plans only cost time.
const OPS: usize = 64;

/// Two sides of a conversation, and what happens to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub wire: u8,
    pub batch: u8,
    /// What both sides accept.
    pub descriptors: u8,
    pub payload: u16,
    pub timeout_ms: u16,
    /// Bytes that wait in the kernel, beyond the fewest.
    pub capacity: u16,
    /// Reads of a stream bring at most so many bytes, in turn; 0 = what there is.
    pub cuts: [u8; 2],
    pub ops: Vec<Op>,
}

/// One thing that happens. `side`, by its lowest bit, is who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A message is queued.
    Say { side: u8, spec: Spec },
    /// So many are handed over at once (`send_all`); `fates` says what the kernel does with each
    /// packet, and what comes of those that did not leave.
    Burst { side: u8, count: u8, spec: Spec, fates: u16 },
    /// The kernel takes some of what is queued, which is packed before if `how` is odd.
    Send { side: u8, how: u16 },
    /// The kernel takes none of it.
    Fail { side: u8, failure: u8 },
    /// The newest is taken back.
    Recall { side: u8 },
    /// So many reads; 0 = until "would block".
    Read { side: u8, times: u8 },
    /// Of the next descriptors sent to this side, so many cannot be installed.
    Lose { side: u8, count: u8 },
    /// Milliseconds pass.
    Wait { milliseconds: u16 },
    /// Closes its socket, or only the direction in which it sends.
    Close { side: u8, half: bool },
}

impl<'a> Arbitrary<'a> for Plan {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut plan = Self {
            wire: u.arbitrary()?,
            batch: u.arbitrary()?,
            descriptors: u.arbitrary()?,
            payload: u.arbitrary()?,
            timeout_ms: u.arbitrary()?,
            capacity: u.arbitrary()?,
            cuts: u.arbitrary()?,
            ops: Vec::new(),
        };
        while !u.is_empty() && plan.ops.len() < OPS {
            plan.ops.push(u.arbitrary()?);
        }
        Ok(plan)
    }
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        // The lowest bit of the tag is the side.
        let tag = u.arbitrary::<u8>()?;
        let side = tag & 1;
        Ok(match tag {
            0..80 => Self::Say { side, spec: u.arbitrary()? },
            80..104 => {
                Self::Burst { side, count: u.arbitrary()?, spec: u.arbitrary()?, fates: u.arbitrary()? }
            }
            104..168 => Self::Send { side, how: u.arbitrary()? },
            168..188 => Self::Fail { side, failure: u.arbitrary()? },
            188..194 => Self::Recall { side },
            194..236 => Self::Read { side, times: u.arbitrary()? },
            236..240 => Self::Lose { side, count: u.arbitrary()? },
            240..250 => Self::Wait { milliseconds: u.arbitrary()? },
            250.. => Self::Close { side, half: tag & 2 != 0 },
        })
    }
}

/// What came of a conversation: per direction the messages heard, and a rule's name, "end", "more",
/// or "closed" where the reader left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub heard: [usize; 2],
    pub verdicts: [&'static str; 2],
}

/// Any bytes as a plan: what the fuzz target `conversation` and the corpus call.
pub fn check_bytes(bytes: &[u8]) {
    check(&Unstructured::new(bytes).arbitrary().unwrap_or_default());
}

/// Runs a plan.
pub fn check(plan: &Plan) -> Outcome {
    match plan.wire % 4 {
        0 => Conversation::<Libcamera>::run(plan, Wire::Libcamera),
        1 => Conversation::<Packet>::run(plan, Wire::Packet),
        2 => Conversation::<Stream>::run(plan, Wire::Stream),
        _ => Conversation::<VhostUser>::run(plan, Wire::VhostUser),
    }
}

/// Side 0 sends on line 0 and reads from line 1.
struct Conversation<P: Profile> {
    lines: [Line<P>; 2],
    now: Duration,
}

impl<P: Profile> Conversation<P> {
    fn run(plan: &Plan, wire: Wire) -> Outcome {
        let limits = Limits::new()
            .payload(plan.payload.into())
            .descriptors(plan.descriptors.min(253))
            .assembly_timeout(Duration::from_millis(plan.timeout_ms.into()));
        let line = || Line::new(wire, limits, plan);
        let mut this = Self { lines: [line(), line()], now: line::START };
        for op in &plan.ops {
            this.step(op);
            this.spread();
        }
        this.settle();
        let now = this.now;
        let [one, two] = this.lines.map(|line| line.finish(now));
        Outcome { heard: [one.0, two.0], verdicts: [one.1, two.1] }
    }

    fn step(&mut self, op: &Op) {
        let now = self.now;
        // What this side sends on, and what it reads from.
        let [zero, one] = &mut self.lines;
        let to = |side: u8| if side & 1 == 0 { zero } else { one };
        match *op {
            Op::Say { side, spec } => to(side).say(&spec),
            Op::Burst { side, count, spec, fates } => to(side).burst(now, count, &spec, fates),
            Op::Send { side, how } => to(side).send(now, how),
            Op::Fail { side, failure } => to(side).fail(
                now,
                [Failure::WouldBlock, Failure::Pressure, Failure::Refused][usize::from(failure % 3)],
            ),
            Op::Recall { side } => to(side).recall(),
            Op::Read { side, times } => to(side ^ 1).read(now, times),
            Op::Lose { side, count } => to(side ^ 1).lose(count),
            Op::Wait { milliseconds } => self.now += Duration::from_millis(milliseconds.into()),
            Op::Close { side, half } => {
                self.lines[usize::from(side & 1)].close();
                if !half {
                    self.lines[usize::from(side & 1 ^ 1)].leave();
                }
            }
        }
    }

    /// P3: whose reading failed has its socket shut down both ways.
    fn spread(&mut self) {
        for line in 0..2 {
            if self.lines[line].has_failed() && self.lines[1 - line].close() {
                self.lines[line].deafen();
            }
        }
    }

    /// Everybody sends and reads what he can, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let before = self.lines.each_ref().map(Line::progress);
            for line in 0..2 {
                if let Some(due) = self.lines[line].retry() {
                    self.now = self.now.max(due);
                }
                self.lines[line].send(self.now, u16::MAX);
                self.spread();
                self.lines[line].read(self.now, 0);
                self.spread();
            }
            if self.lines.each_ref().map(Line::progress) == before {
                return;
            }
        }
        panic!("the conversation does not end");
    }
}
