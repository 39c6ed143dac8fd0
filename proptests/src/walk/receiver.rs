//! The receiver, on every wire.
//!
//! # The abstraction
//! What a receiver does next depends on its fields. [`Walk::key`] has of them: the state, the fault
//! with its numbers, the windows that it lends, what they and the payload hold in bytes and
//! descriptors, and the message begun as the reference model sees it, which is the machine's
//! `Assembly`: the bytes of its frames one by one, how many bytes came of the payload and descriptors
//! of each part, and its times, relative to now. Left out are
//!
//! - the *values* of payload bytes and descriptors: they are copied and moved and never looked at
//!   (`Assembly::gather` and `deliver` are the only places), and compared at every step all the same;
//! - the counters of what was delivered, which nothing reads but the test;
//! - times that lie so far back that no deadline can come of them any more;
//! - the payload length of the last message (`last`), where no payload is long enough to change a
//!   window: it is in the key where one is.

pub mod alphabet;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use fdpost::error::Malformed;
use fdpost::machine::table::{self, Input as Word, ROWS, State};
use fdpost::machine::{Held, Receiver};
use fdpost::message::Message;
use fdpost::{Fault, Limits, Misuse, Profile, Violation};

use super::Machine;
use crate::log::{Event, Heard, Read, Wire};
use crate::model::{Followed, follow};
use crate::oracle::rule;
use crate::token::{Ledger, Token};
use alphabet::Alphabet;

/// When something happens: at once, 1 ns before the deadline of the message begun, or at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    Before,
    At,
}

/// What a read brought besides bytes and descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// MSG_CTRUNC for a reason of the kernel's own.
    pub cut: bool,
    pub malformed: bool,
    pub unknown: bool,
    /// The driver knows that nothing more comes.
    pub end: bool,
}

/// What one hunk is filled with.
#[derive(Clone, Debug)]
pub struct Datum {
    pub bytes: Rc<[u8]>,
    pub descriptors: usize,
    pub flags: Flags,
}

/// One turn of a driver.
#[derive(Clone, Debug)]
pub enum Input {
    Read(When, Vec<Datum>),
    WouldBlock(When),
    /// The machine is finished, and its user goes on as if it were not.
    Insist,
}

/// What a walk is about.
pub struct Scope {
    pub wire: Wire,
    pub limits: Limits,
    pub batch: u16,
    /// The user polls into one message again and again.
    pub reuse: bool,
    pub alphabet: Alphabet,
    /// Rows of the table that were taken, and rules that were broken.
    pub rows: std::cell::RefCell<BTreeSet<usize>>,
    pub rules: std::cell::RefCell<BTreeSet<&'static str>>,
}

pub struct Walk<'a, P: Profile> {
    scope: &'a Scope,
    rx: Receiver<P, Token>,
    ledger: Ledger,
    issued: u64,
    now: Duration,
    log: Vec<Event>,
    heard: Vec<Heard>,
    kept: Vec<Token>,
    spare: Message<Token>,
    most: Held,
    /// Held while the windows were lent, the most of it.
    lent: Held,
    shape: Vec<(usize, usize, usize)>,
    /// Payload bytes of the last message.
    last: usize,
    /// What the reference says of it all.
    followed: Option<Followed>,
}

impl<'a, P: Profile> Walk<'a, P> {
    pub fn new(scope: &'a Scope) -> Self {
        let rx = Receiver::<P, Token>::new(scope.limits).expect("limits within range").batch(scope.batch);
        let mut walk = Self {
            scope,
            rx,
            ledger: Ledger::default(),
            issued: 0,
            now: Duration::from_secs(1),
            log: Vec::new(),
            heard: Vec::new(),
            kept: Vec::new(),
            spare: Message::default(),
            most: Receiver::<P, Token>::most_held(&scope.limits, scope.batch),
            lent: Held::default(),
            shape: Vec::new(),
            last: 0,
            followed: None,
        };
        walk.lend();
        walk
    }

    /// What a driver does before it reads: asks where to. Done behind every input, so that the key
    /// has the windows.
    fn lend(&mut self) {
        self.shape.clear();
        if self.rx.fault().is_some() {
            return;
        }
        if let Some(hunks) = self.rx.windows().expect("P3: poll saw all input and no fault") {
            assert!(!hunks.is_empty(), "P5: nothing is lent, so nothing will ever come");
            let shape =
                |hunk: &fdpost::machine::Hunk<Token>| (hunk.room(), hunk.head_room(), hunk.descriptor_room());
            self.shape.extend(hunks.iter().map(shape));
        } else {
            assert_eq!(self.rx.state(), State::Ended, "P3: None is the end");
        }
        let held = self.rx.held();
        self.lent = Held { bytes: self.lent.bytes.max(held.bytes), descriptors: held.descriptors };
    }

    fn pass(&mut self, when: When) {
        let Some(due) = self.rx.deadline() else { return };
        let to = match when {
            When::Now => self.now,
            When::Before => due.saturating_sub(Duration::from_nanos(1)),
            When::At => due,
        };
        self.now = self.now.max(to);
    }

    fn read(&mut self, data: &[Datum]) {
        let hunks = self.rx.lent();
        let filled = data.len().min(hunks.len());
        for (hunk, datum) in hunks.iter_mut().zip(data) {
            let streams = matches!(self.scope.wire, Wire::Stream | Wire::VhostUser);
            // A stream's read stops at the room; the rest is not read.
            let most = if streams { hunk.room() } else { usize::MAX };
            let bytes = &datum.bytes[..datum.bytes.len().min(most)];
            let first = self.issued;
            self.issued += datum.descriptors as u64;
            let (apart, rest) = bytes.split_at(hunk.head_room().min(bytes.len()));
            hunk.set_head(apart);
            hunk.fill(rest, (first..self.issued).map(|id| self.ledger.issue(id)));
            let Flags { cut, malformed, unknown, end } = datum.flags;
            if cut {
                hunk.set_control_cut();
            }
            if malformed {
                hunk.set_malformed(Malformed::NegativeDescriptor { value: -1 });
            }
            if unknown {
                hunk.set_unknown(41, 3);
            }
            if end {
                hunk.set_end();
            }
            self.log.push(Event::Read(Read {
                at: self.now,
                bytes: bytes.to_vec(),
                descriptors: (first..self.issued).collect(),
                cut,
                malformed,
                unknown,
                end,
            }));
        }
        self.rx.handle(self.now, filled);
        self.poll();
    }

    /// Every message that is whole.
    fn poll(&mut self) {
        loop {
            let polled = if self.scope.reuse {
                self.rx.poll_into(&mut self.spare)
            } else {
                self.spare = Message::default();
                self.rx.poll().map(|message| message.map(|message| self.spare = message).is_some())
            };
            match polled {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => return assert_eq!(self.rx.fault(), Some(fault), "P3: the fault that is kept"),
            }
            let tokens: Vec<Token> = self.spare.take_all().collect();
            self.heard.push(Heard {
                head: *self.spare.head(),
                payload: self.spare.payload().to_vec(),
                descriptors: tokens.iter().map(Token::id).collect(),
            });
            self.last = self.spare.payload().len();
            self.kept.extend(tokens);
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.rx.state(), State::Ended | State::Failed)
    }

    /// The rows that the reference model's words lead over; they must lead where the machine is.
    fn rows(&self, followed: &Followed) {
        let mut state = State::Idle;
        let mut rows = self.scope.rows.borrow_mut();
        for word in &followed.inputs {
            let row = ROWS.iter().position(|row| (row.state, row.input) == (state, *word));
            let row = row.unwrap_or_else(|| panic!("table: no row for {state:?} x {word:?}"));
            rows.insert(row);
            state = ROWS[row].next;
            assert_eq!(table::step(ROWS[row].state, *word), Some((state, ROWS[row].action)), "table");
        }
        assert_eq!(self.rx.state(), state, "table: the rows of {:?} lead there", followed.inputs);
    }

    /// The bound of P4, for what is held between turns and for what was lent.
    fn bounded(&self) {
        for held in [self.rx.held(), self.lent, self.rx.held_most()] {
            assert!(held.bytes <= self.most.bytes, "P4: {held:?} above {:?}", self.most);
            assert!(held.descriptors <= self.most.descriptors, "P4: {held:?} above {:?}", self.most);
        }
    }

    /// Final is final: whatever its user does, the answer is the same and nothing is asked for.
    fn for_ever(&mut self) {
        let (fault, live) = (self.rx.fault(), self.ledger.count());
        for _ in 0..2 {
            match fault {
                Some(fault) => {
                    assert_eq!(self.rx.windows().err(), Some(fault), "P3: the same for ever");
                    assert_eq!(self.rx.poll().err(), Some(fault), "P3: the same for ever");
                }
                None => {
                    assert!(self.rx.windows().is_ok_and(|hunks| hunks.is_none()), "P3: nothing read after");
                    assert!(self.rx.poll().is_ok_and(|message| message.is_none()), "P3: the end");
                }
            }
            assert!(self.rx.lent().is_empty(), "P3: nothing is lent after the end");
            self.rx.handle(self.now + Duration::from_secs(1_000_000), 1);
            self.rx.handle(self.now, 0);
        }
        assert_eq!(self.rx.deadline(), None, "P5: nothing is awaited");
        assert_eq!(self.ledger.count(), live, "P2: nothing is lost or found after the end");
    }
}

impl<P: Profile> Machine for Walk<'_, P> {
    type Input = Input;

    fn inputs(&self) -> Vec<Input> {
        if self.is_over() {
            return vec![Input::Insist];
        }
        let half = follow(self.scope.wire, &self.scope.limits, &self.log).half;
        let whens: &[When] = match self.rx.deadline() {
            None => &[When::Now],
            Some(due) if due <= self.now => &[When::Now],
            Some(_) => &[When::Now, When::Before, When::At],
        };
        let mut inputs: Vec<Input> = whens.iter().map(|when| Input::WouldBlock(*when)).collect();
        let reads = self.scope.alphabet.reads(half.as_ref());
        // Just before the deadline is where a "would block" leads to.
        let whens = whens.iter().filter(|when| **when != When::Before);
        inputs.extend(whens.flat_map(|when| reads.iter().map(|read| Input::Read(*when, read.clone()))));
        inputs
    }

    fn play(&mut self, input: &Input) {
        match input {
            Input::Read(when, data) => {
                self.pass(*when);
                self.read(data);
            }
            Input::WouldBlock(when) => {
                self.pass(*when);
                self.rx.handle(self.now, 0);
                self.log.push(Event::Block(self.now));
                // P5: it is said by `poll`, which finds nothing else.
                self.poll();
            }
            Input::Insist => self.for_ever(),
        }
        self.lend();
    }

    fn check(&mut self) {
        let followed = follow(self.scope.wire, &self.scope.limits, &self.log);
        let judged = &followed.judgement;
        assert_eq!(self.heard, judged.messages, "P1: what was declared, and nothing else");
        let verdict = match (self.rx.fault(), self.rx.state()) {
            (Some(fault), State::Failed) => rule(&fault),
            (None, State::Ended) => "end",
            (None, State::Idle | State::Header | State::Body) => "more",
            (fault, state) => panic!("P3: {fault:?} in {state:?}"),
        };
        assert_eq!(verdict, judged.verdict, "P1: the verdict");
        self.scope.rules.borrow_mut().insert(verdict);
        self.rows(&followed);
        // P9: what was not allowed is never handed out.
        let limits = &self.scope.limits;
        for heard in &self.heard {
            assert!(heard.descriptors.len() <= usize::from(limits.descriptors), "P9: {heard:?}");
            assert!(heard.payload.len() <= limits.payload as usize, "P4: {heard:?}");
        }
        // P2: who lives is with the user or with the receiver.
        let held = self.rx.held();
        assert_eq!(self.ledger.count(), self.kept.len() + held.descriptors, "P2: the ledger");
        self.bounded();
        assert_eq!(self.rx.deadline(), judged.deadline, "P5: the deadline");
        let begun = matches!(self.rx.state(), State::Header | State::Body);
        assert_eq!(self.rx.deadline().is_some(), begun, "P5: a deadline, and a message begun");
        let missing = self
            .rx
            .fault()
            .is_some_and(|fault| matches!(fault, Fault::Violation(Violation::PayloadMissing { .. })));
        let last = followed.inputs.last();
        assert!(!missing || matches!(last, Some(Word::Overdue | Word::End)), "P5: {last:?}");
        let received = self.rx.received();
        let bytes: usize = self.heard.iter().map(|heard| heard.payload.len()).sum();
        let counted = (received.messages, received.bytes, received.descriptors);
        assert_eq!(
            counted,
            (self.heard.len() as u64, bytes as u64, self.kept.len() as u64),
            "P1: the counters"
        );
        if !self.is_over() {
            let between = self.rx.state() == State::Idle;
            assert_eq!(
                (self.rx.is_between(), self.rx.has_input()),
                (between, false),
                "P1: all was looked at"
            );
            assert_eq!(self.rx.refused().count(), 0, "P2: nothing is refused before a fault");
        }
        self.followed = Some(followed);
    }

    fn key(&self) -> String {
        let half = self.followed.as_ref().and_then(|followed| followed.half.as_ref());
        let half = half.map(|half| {
            let patience = self.scope.limits.assembly_timeout + Duration::from_secs(1);
            let frames = half.parts.iter().enumerate().map(|(place, part)| {
                // The payload's bytes are not looked at.
                (part.len(), if place == 1 { &[][..] } else { part.as_slice() })
            });
            let frames: Vec<_> = frames.collect();
            let times =
                ((self.now - half.begun).min(patience), half.moved.saturating_sub(self.now), half.late);
            format!("{frames:?} {} {times:?}", half.descriptors.len())
        });
        let (fault, held) = (self.rx.fault(), self.rx.held());
        let last = if self.scope.alphabet.is_large() { self.last } else { 0 };
        format!("{:?} {fault:?} {:?} {held:?} {half:?} {last}", self.rx.state(), self.shape)
    }

    fn finish(mut self, _: bool) {
        if self.rx.fault().is_some() {
            let held = self.rx.held().descriptors;
            let refused: Vec<Token> = self.rx.refused().collect();
            assert_eq!(refused.len(), held, "P2: all that was refused can be taken");
            assert_eq!(self.rx.held().descriptors, 0, "P2: and is taken once");
        } else if self.rx.state() != State::Ended {
            // Whatever was lent and not filled may be asked for again, and belongs to nobody.
            assert_ne!(self.rx.windows().err(), Some(Misuse::InputPending.into()), "P1: all was looked at");
        }
        self.kept.clear();
        drop(self.spare);
        drop(self.rx);
        assert_eq!(self.ledger.live(), Vec::<u64>::new(), "P2: closed once the receiver is gone");
    }
}
