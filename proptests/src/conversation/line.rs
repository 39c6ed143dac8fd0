//! One direction: its sender, its kernel, its receiver, and all that is known of the messages.

use std::collections::VecDeque;
use std::time::Duration;

use fdpost::machine::{Failure, Leftover, Outcome, Receiver, Sender, Transmit, table::State};
use fdpost::message::Message;
use fdpost::{Fault, Limits, Profile};

use super::Plan;
use crate::kernel::Kernel;
use crate::log::{Event, Heard, Wire};
use crate::model::judge;
use crate::oracle::rule;
use crate::peer::{BUDGET, Said, Sent, said};
use crate::reach::note;
use crate::script::Spec;
use crate::token::{Ledger, Token};

/// When a conversation begins.
pub(super) const START: Duration = Duration::from_secs(1);
/// The largest datagram or packet that the socket takes.
const PACKET_LIMIT: usize = 60_000;
/// Datagrams that wait for one reader: net.unix.max_dgram_qlen is 10, and the queue is full beyond
/// it (net/unix/af_unix.c, unix_recvq_full).
const DATAGRAMS: usize = 11;
/// The fewest bytes that a socket holds.
const CAPACITY: usize = 600;

pub(super) struct Line<P: Profile> {
    wire: Wire,
    limits: Limits,
    tx: Sender<P, Token>,
    rx: Receiver<P, Token>,
    kernel: Kernel,
    capacity: usize,
    /// The tokens of the sender's side and of the receiver's.
    ledgers: [Ledger; 2],
    issued: u64,
    /// The sender's number of each descriptor that the kernel took, by the kernel's own.
    carried: Vec<u64>,
    /// Accepted, and not wholly gone.
    queue: VecDeque<Heard>,
    /// Left whole.
    left: Vec<Heard>,
    heard: Vec<Heard>,
    /// Bytes and sends that the kernel took, and events of its log that were counted as taken out.
    sent: (usize, usize),
    read: (usize, usize),
    counted: usize,
    /// "Would block", so often.
    blocks: usize,
    /// Bytes that may still be said.
    budget: usize,
    /// Descriptors that the receiver's process will not install next.
    lose: usize,
    has_lost: bool,
    /// The sending direction is closed; in the middle of a message.
    shut: bool,
    torn: bool,
    /// Nobody reads any more, by his own will or after a fault.
    left_alone: bool,
    deaf: bool,
}

impl<P: Profile> Line<P> {
    pub(super) fn new(wire: Wire, limits: Limits, plan: &Plan) -> Self {
        let ledgers = [Ledger::default(), Ledger::default()];
        let cuts = plan.cuts.map(usize::from);
        let mut tx = Sender::new();
        if matches!(wire, Wire::Libcamera | Wire::Packet) {
            tx.set_packet_limit(Some(PACKET_LIMIT));
        }
        Self {
            wire,
            limits,
            tx,
            rx: Receiver::new(limits).expect("limits within range").batch((plan.batch % 20).into()),
            kernel: Kernel::new(wire, ledgers[1].clone(), &cuts),
            capacity: CAPACITY + usize::from(plan.capacity),
            ledgers,
            issued: 0,
            carried: Vec::new(),
            queue: VecDeque::new(),
            left: Vec::new(),
            heard: Vec::new(),
            sent: (0, 0),
            read: (0, 0),
            counted: 0,
            blocks: 0,
            budget: BUDGET,
            lose: 0,
            has_lost: false,
            shut: false,
            torn: false,
            left_alone: false,
            deaf: false,
        }
    }

    const fn streams(&self) -> bool {
        matches!(self.wire, Wire::Stream | Wire::VhostUser)
    }

    fn make(&mut self, spec: &Spec) -> (Message<Token>, Heard) {
        let Said { head, mut payload, count } = said(&spec.within(self.budget), self.wire, &self.limits);
        payload.truncate(70_000);
        self.budget = self.budget.saturating_sub(payload.len());
        let ids: Vec<u64> = (self.issued..).take(count).collect();
        self.issued += count as u64;
        let message = Message::new(payload.clone()).with_head(head);
        let message = ids.iter().fold(message, |message, id| message.with(self.ledgers[0].issue(*id)));
        (message, Heard { head, payload, descriptors: ids })
    }

    /// What the socket can take is accepted; the rest comes back as it was.
    fn push(&mut self, message: Message<Token>, heard: Heard) {
        let around = if self.wire == Wire::Packet { 16 } else { 0 };
        let fits = self.streams() || heard.payload.len() + around <= PACKET_LIMIT;
        match self.tx.push(message) {
            Ok(()) => {
                assert!(fits && !self.shut, "accepted: {} bytes", heard.payload.len());
                self.queue.push_back(heard);
            }
            Err((Fault::Misuse(misuse), back)) => {
                assert!(!fits || self.shut, "refused: {misuse:?}");
                same(back, &heard);
            }
            Err((fault, _)) => panic!("{fault:?}"),
        }
    }

    pub(super) fn say(&mut self, spec: &Spec) {
        let (message, heard) = self.make(spec);
        self.push(message, heard);
        self.balance(0);
    }

    /// As `send_all` does: packets where they stand, if nothing is queued and the wire has them.
    pub(super) fn burst(&mut self, now: Duration, count: u8, spec: &Spec, mut fates: u16) {
        let (mut rest, mut known) = (Vec::new(), VecDeque::new());
        for number in 0..1 + count % 70 {
            let spec = Spec { head: spec.head.wrapping_add(number), ..*spec };
            let (message, heard) = self.make(&spec);
            rest.push(message);
            known.push_back(heard);
        }
        let keep = fates & 1 != 0;
        while self.wire == Wire::Packet && self.queue.is_empty() && !self.shut && !rest.is_empty() {
            fates = fates.rotate_right(3);
            let packed = self.tx.pack_burst(&rest);
            let (bytes, ids) = match self.tx.burst(&rest) {
                Some(packet) => copied(&packet),
                None => {
                    let Ok(outline) = self.tx.check(&rest[0]) else { break };
                    let transmits: Vec<_> = Transmit::of_message::<P>(&rest[0], &outline).collect();
                    assert_eq!(transmits.len(), 1, "a message alone is one packet");
                    copied(&transmits[0])
                }
            };
            let failure = match fates % 8 {
                _ if self.deaf => Failure::Gone,
                _ if !self.has_room(bytes.len()) => Failure::WouldBlock,
                0..6 => {
                    self.take(bytes, ids);
                    let gone = self.tx.burst_left(&rest);
                    assert_eq!(gone, packed.max(1));
                    rest.drain(..gone);
                    self.left.extend(known.drain(..gone));
                    self.balance(rest.iter().map(Message::descriptor_count).sum());
                    continue;
                }
                6 => Failure::Refused,
                _ => Failure::Pressure,
            };
            if failure == Failure::Refused && packed == 0 {
                break;
            }
            match (failure, self.tx.failed(now, failure)) {
                (Failure::Refused, Outcome::Again) => {}
                (Failure::WouldBlock, Outcome::Wait) | (Failure::Pressure, Outcome::BackOff) => break,
                (Failure::Gone, Outcome::Closed(back)) => {
                    self.closed(back, false);
                    break;
                }
                (failure, outcome) => panic!("{outcome:?} of {failure:?}"),
            }
        }
        self.tx.burst_over();
        // What did not leave is the caller's: queued then, or dropped, and never heard.
        for (message, heard) in rest.into_iter().zip(known) {
            if keep {
                self.push(message, heard);
            } else {
                same(message, &heard);
            }
        }
        self.balance(0);
    }

    fn has_room(&self, bytes: usize) -> bool {
        let waiting = (self.sent.0 - self.read.0, self.sent.1 - self.read.1);
        let few = self.wire != Wire::Libcamera || waiting.1 < DATAGRAMS;
        few && (waiting.0 == 0 || waiting.0 + bytes <= self.capacity)
    }

    /// The kernel takes this.
    fn take(&mut self, bytes: Vec<u8>, ids: Vec<u64>) {
        let lost = if ids.is_empty() { 0 } else { std::mem::take(&mut self.lose).min(ids.len()) };
        self.has_lost |= lost > 0;
        self.sent = (self.sent.0 + bytes.len(), self.sent.1 + 1);
        self.kernel.send(Sent { bytes, descriptors: ids.len(), lost, ..Sent::default() });
        self.carried.extend(ids);
    }

    pub(super) fn send(&mut self, now: Duration, how: u16) {
        if self.queue.is_empty() || self.tx.deadline().is_some_and(|due| now < due) {
            return;
        }
        if self.deaf {
            return self.fail(now, Failure::Gone);
        }
        if how & 1 != 0 {
            self.tx.pack();
        }
        let how = usize::from(how / 2);
        let mut count = 0;
        if self.streams() {
            let (mut bytes, ids) = copied(&self.tx.transmits().next().expect("something is queued"));
            let room = (self.capacity + self.read.0).saturating_sub(self.sent.0);
            bytes.truncate(if how > 30_000 { usize::MAX } else { 1 + how % bytes.len() }.min(room));
            count = bytes.len();
            if count > 0 {
                self.take(bytes, ids);
            }
        } else {
            let transmits: Vec<_> = self.tx.transmits().take(1 + how % 5).map(|it| copied(&it)).collect();
            for (bytes, ids) in transmits {
                if !self.has_room(bytes.len()) {
                    break;
                }
                self.take(bytes, ids);
                count += 1;
            }
        }
        if count == 0 {
            return self.fail(now, Failure::WouldBlock);
        }
        self.tx.transmitted(count);
        let whole = self.queue.len() - self.tx.queued().messages as usize;
        self.left.extend(self.queue.drain(..whole));
        self.balance(0);
    }

    pub(super) fn fail(&mut self, now: Duration, failure: Failure) {
        if self.queue.is_empty() {
            return;
        }
        let begun = self.tx.begun();
        match (failure, self.tx.failed(now, failure)) {
            (Failure::WouldBlock, Outcome::Wait) => {}
            (Failure::Pressure, Outcome::BackOff) => assert!(self.tx.deadline() > Some(now)),
            (Failure::Refused, Outcome::Again) => assert!(self.wire == Wire::Packet && self.queue.len() > 1),
            (Failure::Refused, Outcome::Returned(back)) if !begun => {
                same(back, &self.queue.pop_front().expect("asked before"));
            }
            (Failure::Refused, Outcome::Closed(back)) if begun => self.closed(back, begun),
            (Failure::Gone, Outcome::Closed(back)) => self.closed(back, begun),
            (failure, outcome) => panic!("{outcome:?} of {failure:?}"),
        }
        self.balance(0);
    }

    pub(super) fn recall(&mut self) {
        if let Some(back) = self.tx.recall() {
            same(back, &self.queue.pop_back().expect("what is recalled was queued"));
        }
        self.balance(0);
    }

    /// The sender's end of it is closed; `false` if it was.
    pub(super) fn close(&mut self) -> bool {
        let was = self.shut;
        let begun = self.tx.begun();
        let back = self.tx.close();
        self.closed(back, begun);
        !was
    }

    /// What did not leave came back, whole and in order; what did is read, and then the end.
    fn closed(&mut self, back: Leftover<Token>, begun: bool) {
        assert_eq!(back.len(), self.queue.len());
        back.into_iter().zip(self.queue.drain(..)).for_each(|(back, heard)| same(back, &heard));
        self.shut = true;
        self.torn |= begun;
        self.kernel.close();
    }

    /// The reader closes: what is in the kernel is lost, and the sender told at its next send.
    pub(super) fn leave(&mut self) {
        (self.left_alone, self.deaf) = (true, true);
    }

    pub(super) fn deafen(&mut self) {
        self.deaf = true;
    }

    pub(super) fn has_failed(&self) -> bool {
        self.rx.fault().is_some()
    }

    pub(super) fn lose(&mut self, count: u8) {
        self.lose = (count % 8).into();
    }

    pub(super) fn retry(&self) -> Option<Duration> {
        self.tx.deadline()
    }

    /// What grows as long as something moves.
    pub(super) fn progress(&self) -> (usize, usize, usize, bool, bool) {
        (self.sent.0, self.sent.1, self.kernel.log.len() - self.blocks, self.shut, self.has_failed())
    }

    /// Reads and polls.
    pub(super) fn read(&mut self, now: Duration, times: u8) {
        let mut times = if times == 0 { usize::MAX } else { times.into() };
        while !self.left_alone && self.poll() && times > 0 {
            times -= 1;
            let Some(hunks) = self.rx.windows().expect("no fault") else { break };
            let filled = self.kernel.receive(now, hunks);
            self.rx.handle(now, filled);
            if filled == 0 {
                self.kernel.log.push(Event::Block(now));
                self.blocks += 1;
                break;
            }
            for event in &self.kernel.log[self.counted..] {
                if let Event::Read(read) = event {
                    self.read.0 += read.bytes.len();
                    self.read.1 += usize::from(!read.end);
                }
            }
            self.counted = self.kernel.log.len();
        }
        self.balance(0);
    }

    /// P1: the next message heard is the next that left. `false` after a fault or at the end.
    fn poll(&mut self) -> bool {
        loop {
            let mut message = match self.rx.poll() {
                Ok(Some(message)) => message,
                Ok(None) => return self.rx.state() != State::Ended,
                Err(_) => return false,
            };
            let tokens: Vec<Token> = message.take_all().collect();
            let descriptors = tokens.iter().map(|token| self.carried[token.id() as usize]).collect();
            let heard = Heard { head: *message.head(), payload: message.into_payload(), descriptors };
            assert_eq!(Some(&heard), self.left.get(self.heard.len()), "the next that left");
            self.heard.push(heard);
        }
    }

    /// P2, on both sides. `outside`: descriptors that the caller's burst holds.
    fn balance(&self, outside: usize) {
        let queued = self.tx.queued();
        assert_eq!(queued.messages as usize, self.queue.len());
        assert_eq!(self.ledgers[0].count(), queued.descriptors as usize + outside, "the sender's owners");
        assert_eq!(self.ledgers[1].count(), self.rx.held().descriptors, "the receiver's owners");
        assert_eq!(self.tx.sending().messages as usize, self.left.len());
    }

    /// Messages heard, and the verdict, for which there was a reason.
    pub(super) fn finish(self, now: Duration) -> (usize, &'static str) {
        let judged = judge(self.wire, &self.limits, &self.kernel.log);
        let verdict = match (self.rx.fault(), self.rx.state()) {
            (Some(fault), _) => {
                note(rule(&fault));
                rule(&fault)
            }
            (None, State::Ended) => "end",
            (None, _) if self.left_alone => "closed",
            (None, _) => "more",
        };
        let number = |id: u64| self.carried[id as usize];
        if verdict != "closed" {
            let mut messages = judged.messages;
            messages.iter_mut().for_each(|heard| {
                heard.descriptors.iter_mut().for_each(|id| *id = number(*id));
            });
            assert_eq!((verdict, &self.heard), (judged.verdict, &messages), "the model's answer");
            assert_eq!(self.rx.deadline(), judged.deadline, "the deadline");
        }
        // What was left to be read when the reading ended.
        let next = self.left.get(self.heard.len()).or(self.queue.front());
        let beyond = next.is_some_and(|next| {
            next.payload.len() > self.limits.payload as usize
                || next.descriptors.len() > self.limits.descriptors.into()
        });
        let late = now - START >= self.limits.assembly_timeout;
        let reason = match verdict {
            "closed" => true,
            "end" => self.shut && self.heard.len() == self.left.len() && !self.torn,
            "more" => !self.shut && self.heard.len() == self.left.len() && self.queue.is_empty(),
            "descriptors-lost" => self.has_lost,
            "payload-missing" => self.torn || late,
            _ => beyond || self.torn,
        };
        assert!(reason, "{verdict} without a reason: {} left, {} heard", self.left.len(), self.heard.len());
        let Self { tx, rx, ledgers, heard, .. } = self;
        drop((tx, rx));
        assert!(ledgers.iter().all(|ledger| ledger.count() == 0), "nobody outlives the machines");
        (heard.len(), verdict)
    }
}

/// What a transmit lends.
fn copied(transmit: &Transmit<'_, Token>) -> (Vec<u8>, Vec<u64>) {
    let ids: Vec<u64> = transmit.descriptors().map(Token::id).collect();
    let bytes = transmit.slices().collect::<Vec<_>>().concat();
    assert_eq!((transmit.bytes(), transmit.descriptor_count()), (bytes.len(), ids.len()));
    (bytes, ids)
}

/// The message is the one handed in. It is dropped.
fn same(mut message: Message<Token>, heard: &Heard) {
    let descriptors = message.take_all().map(|token| token.id()).collect();
    let (head, payload) = (*message.head(), message.into_payload());
    assert_eq!(&Heard { head, payload, descriptors }, heard);
}
