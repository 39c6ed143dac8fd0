//! What must hold of calls, whatever the peer answers, in whatever order, and when.

mod closed;
mod model;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use fdpost::calls::{Answer, CallId, Correlate, Incoming, PendingCalls, Request, Role};
use fdpost::message::Message;
use fdpost::profile::packet::{ERROR, REPLY};
use fdpost::{Exhausted, Fault, Head, Libcamera, Misuse, Packet, Stream, Violation};

use crate::log::Wire;
use crate::reach::note;
use crate::token::{Ledger, Token};
pub use closed::closed;
use model::{Came, Judged, Model, Out};

/// Descriptors that this side accepts with one message.
const ACCEPTED: u8 = 4;

/// One side of a conversation, and what happens to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub wire: u8,
    /// Whether this is the side that is called.
    pub answers: bool,
    /// Calls that may be out.
    pub most: u8,
    pub ops: Vec<Op>,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A call of ours.
    Start(Content),
    /// The peer says something.
    Come(Content),
    /// A call of the peer's is answered; `which` says which of those that came.
    Answer(Content),
    /// Time passes, and nothing is there to be read.
    Wait(u8),
    /// A caller gives up.
    GiveUp(u8),
}

/// A message; each kind of [`Op`] looks at what concerns it.
#[derive(Arbitrary, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Below 200 one of the calls that were made, else a number of the peer's own, from 0.
    pub which: u8,
    pub command: u8,
    /// In a call, for its answer; 0 to 5.
    pub grant: u8,
    /// 0 to 7.
    pub descriptors: u8,
    /// After so long; 0: never.
    pub deadline: u8,
    /// 1: says a reply. 2: says that it failed. 4: has set what calls set. 8: has no room for command and
    /// cookie. 16: does not leave. 32: a reply to what is out, if anything is.
    pub bits: u8,
}

impl<'a> Arbitrary<'a> for Plan {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut plan =
            Self { wire: u.arbitrary()?, answers: u.arbitrary()?, most: u.arbitrary()?, ops: Vec::new() };
        while !u.is_empty() && plan.ops.len() < 64 {
            plan.ops.push(match u.arbitrary::<u8>()? {
                0..90 => Op::Start(u.arbitrary()?),
                90..170 => Op::Come(u.arbitrary()?),
                170..215 => Op::Answer(u.arbitrary()?),
                215..245 => Op::Wait(u.arbitrary()?),
                245.. => Op::GiveUp(u.arbitrary()?),
            });
        }
        Ok(plan)
    }
}

/// Any bytes as a plan: what the fuzz target `calls` and the corpus call.
pub fn check_bytes(bytes: &[u8]) {
    if let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(bytes)) {
        check(&plan);
    }
}

/// How a plan ended: a rule, or "more". For who wants to see what is reached.
pub fn check(plan: &Plan) -> &'static str {
    match plan.wire % 3 {
        0 => run::<Packet>(plan, Wire::Packet),
        1 => run::<Libcamera>(plan, Wire::Libcamera),
        _ => run::<Stream>(plan, Wire::Stream),
    }
}

struct Side<P> {
    core: PendingCalls<P>,
    model: Model,
    ledger: Ledger,
    issued: u64,
    now: u64,
    /// Every id that was ever given to a call.
    made: Vec<CallId>,
    requests: Vec<Request>,
}

fn run<P: Correlate>(plan: &Plan, wire: Wire) -> &'static str {
    let mut side = Side::<P>::new(wire, plan.answers, plan.most % 9);
    let mut broken = None;
    for op in &plan.ops {
        broken = side.step(*op);
        side.agrees();
        if broken.is_some() {
            break;
        }
    }
    side.ends();
    broken.unwrap_or("more")
}

impl<P: Correlate> Side<P> {
    fn new(wire: Wire, answers: bool, most: u8) -> Self {
        let role = if answers { Role::Answerer } else { Role::Caller };
        Self {
            core: PendingCalls::new(role, most.into()),
            model: Model::new(wire, answers, most.into()),
            ledger: Ledger::default(),
            issued: 0,
            now: 0,
            made: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// CA-13: whatever waits is told, once.
    fn ends(&mut self) {
        let waiting = self.model.waiting();
        let told: Vec<u32> = std::iter::from_fn(|| self.core.abandon()).map(CallId::get).collect();
        assert_eq!(told, waiting);
        assert_eq!((self.core.abandon(), self.core.deadline()), (None, None));
        assert_eq!((self.core.counters().pending, self.core.counters().given_up), (0, 0));
        assert_eq!(self.ledger.count(), 0, "descriptors are still owned: {:?}", self.ledger.live());
    }

    fn step(&mut self, op: Op) -> Option<&'static str> {
        match op {
            Op::Start(content) => self.start(content),
            Op::Come(content) => return self.come(content),
            Op::Answer(content) => self.answer(content),
            Op::Wait(time) => self.wait(time),
            Op::GiveUp(which) => {
                if let Some(call) = self.which(which) {
                    assert_eq!(self.core.give_up(call), self.model.give_up(call.get()));
                }
            }
        }
        None
    }

    /// What can be asked of the core is what the model says.
    fn agrees(&self) {
        let (counters, model) = (self.core.counters(), &self.model);
        let pending = model.waiting().len();
        assert_eq!(
            (counters.begun, counters.answered, counters.late),
            (model.begun, model.answered, model.late)
        );
        assert_eq!(
            (counters.pending as usize, counters.given_up as usize),
            (pending, model.out.len() - pending)
        );
        assert_eq!(self.core.deadline(), model.deadline().map(Duration::from_millis));
        assert_eq!(self.core.is_poisoned(), model.over);
    }

    fn which(&self, which: u8) -> Option<CallId> {
        self.made.get(usize::from(which).checked_rem(self.made.len())?).copied()
    }

    fn message(&mut self, content: Content, head: Head, id: u32) -> Message<Token> {
        let mut payload = [u32::from(content.command % 4).to_ne_bytes(), id.to_ne_bytes()].concat();
        payload.push(content.which);
        if content.bits & 8 != 0 {
            payload.truncate(usize::from(content.which % 8));
        }
        let mut message = Message::new(payload).with_head(head);
        for _ in 0..content.descriptors % 8 {
            message = message.with(self.ledger.issue(self.issued));
            self.issued += 1;
        }
        message
    }

    fn start(&mut self, content: Content) {
        let (grant, preset, short) = (content.grant % 6, content.bits & 4 != 0, content.bits & 8 != 0);
        let mut head = Head { kind: 7, reply_descriptors: grant, ..Head::default() };
        if preset && self.model.wire == Wire::Packet {
            (head.correlation, head.flags) =
                (content.which.into(), if content.which == 0 { REPLY } else { 0 });
        }
        let mut message = self.message(content, head, 99);
        let before = shape(&message);
        let refused = self.model.refuses_call(grant, ACCEPTED, preset, short);
        let prepared = match self.core.prepare(&mut message, ACCEPTED) {
            Ok(prepared) => prepared,
            Err(fault) => {
                assert!(refused.contains(&name(fault)), "{fault:?} is none of {refused:?}");
                return assert_eq!(shape(&message), before, "refused, and changed");
            }
        };
        assert!(refused.is_empty(), "{refused:?}");
        if content.bits & 16 != 0 {
            prepared.restore(&mut message);
            return assert_eq!(shape(&message), before); // CA-15
        }
        let deadline = (content.deadline > 0).then(|| self.now + u64::from(content.deadline));
        let call = self.core.begin(prepared, deadline.map(Duration::from_millis));
        let id = call.get();
        match self.model.wire {
            Wire::Packet => assert_eq!(*message.head(), Head { correlation: id, ..head }),
            Wire::Libcamera => assert_eq!(message.payload()[4..8], id.to_ne_bytes()),
            _ => assert_eq!(message.payload(), before.1),
        }
        self.made.push(call);
        let command = (content.command % 4).into();
        self.model.begin(Out { id, command, grant, deadline, given_up: false });
    }

    fn come(&mut self, content: Content) -> Option<&'static str> {
        let id = match self.which(content.which) {
            _ if content.bits & 32 != 0 && !self.model.out.is_empty() => {
                self.model.out[usize::from(content.which) % self.model.out.len()].id
            }
            Some(call) if content.which < 200 => call.get(),
            _ => u32::from(content.which.saturating_sub(200)),
        };
        let reply = content.bits & 1 != 0 && id != 0;
        let mut head = Head::default();
        if self.model.wire == Wire::Packet {
            let flags = if !reply {
                0
            } else if content.bits & 2 != 0 {
                REPLY | ERROR
            } else {
                REPLY
            };
            let reply_descriptors = if reply || id == 0 { 0 } else { content.grant };
            head = Head { kind: 1, correlation: id, flags, reply_descriptors };
        }
        let message = self.message(content, head, id);
        let shape_before = shape(&message);
        let came = Came {
            reply,
            id,
            command: (content.command % 4).into(),
            short: message.payload().len() < 8,
            descriptors: content.descriptors % 8,
        };
        let judged = self.model.judge(came);
        match (self.core.handle(message), judged) {
            (Ok(Incoming::Answered(call, answer)), Judged::Answered(expected)) => {
                assert_eq!(call.get(), expected);
                let failed = self.model.wire == Wire::Packet && content.bits & 2 != 0;
                assert_eq!(matches!(answer, Answer::Error(_)), failed);
                assert_eq!(shape(answer.message()), shape_before);
            }
            (Ok(Incoming::Late(message)), Judged::Late) => assert_eq!(shape(&message), shape_before),
            (Ok(Incoming::Message(message)), Judged::Plain) => assert_eq!(shape(&message), shape_before),
            (Ok(Incoming::Request(request, message)), Judged::Request) => {
                assert_eq!(shape(&message), shape_before);
                let permitted = if self.model.wire == Wire::Packet { content.grant } else { 253 };
                assert_eq!(request.reply_descriptors(), permitted);
                self.requests.push(request);
            }
            (Err(refused), Judged::Broken(rules)) => {
                assert_eq!(shape(&refused.message), shape_before);
                assert!(
                    rules.contains(&refused.violation.rule()),
                    "{:?} is none of {rules:?}",
                    refused.violation
                );
                if let Violation::ReplyDescriptors { allowed, received } = refused.violation {
                    assert!(allowed < received);
                }
                note(refused.violation.rule());
                return Some(refused.violation.rule());
            }
            (core, model) => panic!("{core:?}, and {model:?}"),
        }
        None
    }

    fn answer(&mut self, content: Content) {
        let Some(at) = usize::from(content.which).checked_rem(self.requests.len()) else { return };
        let (error, preset) = (content.bits & 2 != 0, content.bits & 4 != 0);
        let mut head = Head { kind: 5, ..Head::default() };
        if preset && self.model.wire == Wire::Packet {
            head.reply_descriptors = 1;
        }
        let mut message = self.message(content, head, 98);
        let before = shape(&message);
        let request = &mut self.requests[at];
        let counts = (request.reply_descriptors(), content.descriptors % 8);
        let short = message.payload().len() < 8;
        let refused = self.model.refuses_answer(request.is_answered(), counts, error, preset, short);
        let prepared = match self.core.answer(request, &mut message, error) {
            Ok(prepared) => prepared,
            Err(misuse) => {
                assert!(refused.contains(&name(misuse.into())), "{misuse:?} is none of {refused:?}");
                return assert_eq!(shape(&message), before, "refused, and changed");
            }
        };
        assert!(refused.is_empty(), "{refused:?}");
        let (flags, correlation) = (if error { REPLY | ERROR } else { REPLY }, request.correlation());
        match self.model.wire {
            Wire::Packet => assert_eq!(*message.head(), Head { flags, correlation, ..head }),
            Wire::Libcamera => {
                let start = [request.command().to_ne_bytes(), correlation.to_ne_bytes()].concat();
                assert_eq!(message.payload()[..8], start);
            }
            _ => assert_eq!(shape(&message), before),
        }
        if content.bits & 16 != 0 {
            prepared.restore(&mut message);
            return assert_eq!(shape(&message), before);
        }
        self.core.answered(request);
        self.model.asked = false;
    }

    /// CA-17, as far as it is the core's: what is overdue when nothing is there to be read.
    fn wait(&mut self, time: u8) {
        self.now += u64::from(time);
        let mut due: Vec<u32> = self
            .model
            .out
            .iter()
            .filter(|call| !call.given_up && call.deadline.is_some_and(|deadline| deadline <= self.now))
            .map(|call| call.id)
            .collect();
        let now = Duration::from_millis(self.now);
        let mut expired: Vec<u32> = std::iter::from_fn(|| self.core.expired(now)).map(CallId::get).collect();
        due.sort_unstable();
        expired.sort_unstable();
        assert_eq!(expired, due);
        due.iter().for_each(|id| assert!(self.model.give_up(*id)));
    }
}

/// What of a message can be seen.
fn shape(message: &Message<Token>) -> (Head, Vec<u8>, Vec<Option<u64>>) {
    let tokens = (0..message.descriptor_count()).map(|index| message.descriptor(index).map(Token::id));
    (*message.head(), message.payload().to_vec(), tokens.collect())
}

/// The model's name of what a call or an answer is refused for.
fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Misuse(Misuse::OneSideCalls { .. }) => "one-side-calls",
        Fault::Misuse(Misuse::CallGivenUp { .. }) => "call-given-up",
        Fault::Misuse(Misuse::ReplyDescriptorsAsked { .. }) => "reply-descriptors-asked",
        Fault::Misuse(Misuse::CallField { .. }) => "call-field",
        Fault::Misuse(Misuse::CallHeader { .. }) => "call-header",
        Fault::Misuse(Misuse::AnsweredBefore { .. }) => "answered-before",
        Fault::Misuse(Misuse::ReplyDescriptors { .. }) => "reply-descriptors",
        Fault::Misuse(Misuse::HeadUnsupported { .. }) => "head-unsupported",
        Fault::Exhausted(Exhausted::CallsInFlight { .. }) => "calls-in-flight",
        other => panic!("{other:?}"),
    }
}
