//! What must hold of a sender, whatever the kernel takes of what it transmits.

use arbitrary::{Arbitrary, Unstructured};
use fdpost::machine::{Failure, Leftover, Outcome, Sender};
use fdpost::message::Message;
use fdpost::{Fault, Head, Libcamera, Misuse, Packet, Profile, Stream};
use std::collections::VecDeque;
use std::time::Duration;

use crate::log::{Heard, Wire};
use crate::oracle::converse;
use crate::peer::{Act, BUDGET, Said, Sent, encode, said};
use crate::script::{Script, Spec};
use crate::token::{Ledger, Token};
use crate::wires::VhostUser;

/// The largest datagram or packet that the socket takes here.
const PACKET_LIMIT: usize = 6_000;

/// What is to be sent, and what the kernel answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub wire: u8,
    pub ops: Vec<Op>,
}

/// One thing that happens to a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A message; its `corruption` says what the sender cannot take about it.
    Push(Spec),
    /// The kernel takes some: datagrams, or bytes. With the highest bit, what is queued is packed
    /// before.
    Take(u16),
    /// The kernel takes none.
    Fail(u8),
    /// The newest is taken back.
    Recall,
    /// The direction is closed.
    Close,
}

impl<'a> Arbitrary<'a> for Plan {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut plan = Self { wire: u.arbitrary()?, ops: Vec::new() };
        while !u.is_empty() && plan.ops.len() < 64 {
            plan.ops.push(match u.arbitrary::<u8>()? {
                0..100 => Op::Push(u.arbitrary()?),
                100..224 => Op::Take(u.arbitrary()?),
                224..248 => Op::Fail(u.arbitrary()?),
                248..255 => Op::Recall,
                255 => Op::Close,
            });
        }
        Ok(plan)
    }
}

/// Any bytes as a plan: what the fuzz target `sender` and the corpus call.
pub fn check_bytes(bytes: &[u8]) {
    check(&Unstructured::new(bytes).arbitrary().unwrap_or_default());
}

/// Runs a plan.
pub fn check(plan: &Plan) {
    match plan.wire % 4 {
        0 => Sending::<Libcamera>::run(plan, Wire::Libcamera),
        1 => Sending::<Packet>::run(plan, Wire::Packet),
        2 => Sending::<Stream>::run(plan, Wire::Stream),
        _ => Sending::<VhostUser>::run(plan, Wire::VhostUser),
    }
}

/// A message that the sender has, as it was handed in.
struct Pushed {
    heard: Heard,
    /// What is to be transmitted of it: bytes and descriptors.
    parts: VecDeque<(Vec<u8>, Vec<u64>)>,
    begun: bool,
}

/// A sender, and what it should do.
pub struct Sending<P: Profile> {
    tx: Sender<P, Token>,
    wire: Wire,
    ledger: Ledger,
    issued: u64,
    queue: VecDeque<Pushed>,
    /// Messages that left whole.
    sent: Vec<Heard>,
    /// What the kernel took, send by send.
    taken: Vec<(Vec<u8>, Vec<u64>)>,
    now: Duration,
    back_off: u64,
    /// When to transmit again, after the kernel was short of something.
    retry: Option<Duration>,
    closed: bool,
    /// Bytes that may still be said.
    budget: usize,
    /// So many go out one by one, because their packet was refused.
    singly: usize,
}

impl<P: Profile> Sending<P> {
    /// With nothing to be sent.
    pub fn new(wire: Wire) -> Self {
        let mut this = Self {
            tx: Sender::new(),
            wire,
            ledger: Ledger::default(),
            issued: 0,
            queue: VecDeque::new(),
            sent: Vec::new(),
            taken: Vec::new(),
            now: Duration::from_secs(1),
            back_off: 1,
            retry: None,
            closed: false,
            budget: BUDGET,
            singly: 0,
        };
        if !this.streams() {
            this.tx.set_packet_limit(Some(PACKET_LIMIT));
        }
        this
    }

    fn run(plan: &Plan, wire: Wire) {
        let mut this = Self::new(wire);
        for op in &plan.ops {
            this.op(*op);
            this.balance();
        }
        this.finish();
    }

    /// Lets one thing happen, and compares what comes of it.
    pub fn op(&mut self, op: Op) {
        match op {
            Op::Push(spec) => self.push(&spec),
            Op::Take(_) if self.queue.is_empty() => {}
            Op::Take(count) if self.streams() => self.take_bytes(usize::from(count)),
            Op::Take(count) if self.wire == Wire::Packet && count >> 15 == 1 => self.pack(count),
            Op::Take(count) => self.take_packets(usize::from(count)),
            Op::Fail(_) if self.queue.is_empty() => {}
            Op::Fail(which) => self.fail(which),
            Op::Recall => self.recall(),
            Op::Close => {
                let back = self.tx.close();
                self.closed(back);
            }
        }
    }

    /// How many messages are queued, and the bytes of what is transmitted next.
    pub fn waiting(&self) -> (usize, usize) {
        let next = self.queue.front().and_then(|first| first.parts.front());
        (self.queue.len(), next.map_or(0, |part| part.0.len()))
    }

    /// All that what the sender does next depends on: what is left of each message, whether the first
    /// has begun, the back-off and its time from now, how many go singly, and whether it is closed.
    /// Not what was sent: of that only counters are left in it.
    pub fn key(&self) -> String {
        let shape = |pushed: &Pushed| {
            let parts: Vec<_> = pushed.parts.iter().map(|(bytes, ids)| (bytes.len(), ids.len())).collect();
            (parts, pushed.begun)
        };
        let queue: Vec<_> = self.queue.iter().map(shape).collect();
        let retry = self.retry.map(|retry| retry.saturating_sub(self.now));
        format!("{queue:?} {} {retry:?} {} {}", self.back_off, self.closed, self.singly)
    }

    const fn streams(&self) -> bool {
        matches!(self.wire, Wire::Stream | Wire::VhostUser)
    }

    /// What is too much is refused, and comes back as it was.
    fn push(&mut self, spec: &Spec) {
        let limits = fdpost::Limits::new().payload(5_000).descriptors(20);
        let mut said = said(&spec.within(self.budget), self.wire, &limits);
        said.payload.truncate(5_000);
        self.budget = self.budget.saturating_sub(said.payload.len());
        let mut misuse = self.closed.then_some(Misuse::DirectionClosed);
        let wire = P::NAME;
        let taken = spec.wrong() == 0 && said.count > 0;
        match spec.wrong() {
            0 if taken => _ = misuse.get_or_insert(Misuse::DescriptorTaken { index: 0 }),
            1 => {
                said.count = 254 + usize::from(spec.argument);
                let descriptors = said.count as u64;
                misuse.get_or_insert(Misuse::TooManyDescriptors { descriptors, limit: 253 });
            }
            2 if !self.streams() => {
                let around = if self.wire == Wire::Packet { 16 } else { 0 };
                let (bytes, limit) = (PACKET_LIMIT + 1 - around, (PACKET_LIMIT - around) as u64);
                said.payload = vec![7; bytes];
                misuse.get_or_insert(Misuse::PayloadTooLarge { bytes: bytes as u64, limit });
            }
            3 if self.wire == Wire::Libcamera => {
                (said.payload, said.count) = (Vec::new(), 0);
                misuse.get_or_insert(Misuse::EmptyMessage { wire });
            }
            3 => {
                let value = 8 + u32::from(spec.argument);
                let (field, head) = match self.wire {
                    Wire::Packet => ("flags", Head { flags: value << 2, ..Head::default() }),
                    _ => ("correlation", Head { correlation: value, ..Head::default() }),
                };
                let value = if self.wire == Wire::Packet { value << 2 } else { value };
                said.head = head;
                misuse.get_or_insert(Misuse::HeadUnsupported { wire, field, value });
            }
            _ => {}
        }
        let first = self.issued;
        self.issued += said.count as u64;
        let ids: Vec<u64> = (first..self.issued).collect();
        let mut message = Message::new(said.payload.clone()).with_head(said.head);
        message = ids.iter().fold(message, |message, id| message.with(self.ledger.issue(*id)));
        if taken {
            drop(message.take(0));
        }
        let heard = Heard { head: said.head, payload: said.payload.clone(), descriptors: ids };
        match (self.tx.push(message), misuse) {
            (Ok(()), None) => self.queue.push_back(Pushed::new(heard, self.wire)),
            (Err((fault, back)), Some(misuse)) => {
                assert_eq!(fault, Fault::Misuse(misuse));
                assert_eq!(back.descriptor_count(), heard.descriptors.len());
                if !taken {
                    self.same(back, &heard);
                }
            }
            (result, misuse) => panic!("{result:?} where {misuse:?} was expected"),
        }
    }

    /// How many of the first messages leave in one packet: docs/PROTOCOL.md, "Several frames".
    fn lot(&self) -> usize {
        let fits = |lot: &usize| {
            let parts = || self.queue.iter().take(*lot).flat_map(|pushed| &pushed.parts);
            let bytes: usize = parts().map(|part| part.0.len()).sum();
            bytes <= PACKET_LIMIT && parts().map(|part| part.1.len()).sum::<usize>() <= 16
        };
        let lot = (2..=self.queue.len().min(64)).take_while(fits).last();
        lot.filter(|_| self.singly == 0).unwrap_or(0)
    }

    /// What is queued is packed; then the kernel takes the packet, refuses it as a whole, or has
    /// no room.
    fn pack(&mut self, which: u16) {
        self.tx.pack();
        let lot = self.lot();
        if lot == 0 {
            return;
        }
        let parts = || self.queue.iter().take(lot).flat_map(|pushed| &pushed.parts);
        let bytes: Vec<u8> = parts().flat_map(|part| part.0.clone()).collect();
        let ids: Vec<u64> = parts().flat_map(|part| part.1.clone()).collect();
        let transmits: Vec<_> = self.tx.transmits().collect();
        let [packet] = &transmits[..] else { panic!("{} transmits of a packet", transmits.len()) };
        assert_eq!(packet.slices().collect::<Vec<_>>().concat(), bytes);
        assert_eq!(packet.descriptors().map(Token::id).collect::<Vec<_>>(), ids);
        assert_eq!(packet.descriptor_count(), ids.len());
        match which % 4 {
            0 | 1 => {
                self.taken.push((bytes, ids));
                self.sent.extend(self.queue.drain(..lot).map(|pushed| pushed.heard));
                self.tx.transmitted(1);
                (self.back_off, self.retry) = (1, None);
            }
            2 => {
                assert!(matches!(self.tx.failed(self.now, Failure::Refused), Outcome::Again));
                (self.singly, self.retry) = (lot, None);
            }
            _ => {
                assert!(matches!(self.tx.failed(self.now, Failure::WouldBlock), Outcome::Wait));
                self.retry = None;
            }
        }
    }

    /// sendmmsg(2): whole datagrams or packets.
    fn take_packets(&mut self, count: usize) {
        let count = self.tx.transmits().take(1 + count % 5).count();
        for _ in 0..count {
            let first = self.queue.front_mut().expect("transmits end with the queue");
            self.taken.extend(first.parts.pop_front());
            first.begun = true;
            self.retire();
        }
        self.tx.transmitted(count);
        (self.back_off, self.retry) = (1, None);
    }

    /// sendmsg(2) on a stream: any number of bytes; all descriptors leave with the first.
    fn take_bytes(&mut self, count: usize) {
        let first = self.queue.front_mut().expect("asked before");
        let part = first.parts.front_mut().expect("a message in the queue has parts left");
        let count = 1 + count % part.0.len();
        let bytes = part.0.drain(..count).collect();
        self.taken.push((bytes, std::mem::take(&mut part.1)));
        first.begun = true;
        if part.0.is_empty() {
            first.parts.pop_front();
        }
        self.retire();
        self.tx.transmitted(count);
        (self.back_off, self.retry) = (1, None);
    }

    /// The first message left, if nothing is left of it.
    fn retire(&mut self) {
        if self.queue.front().is_some_and(|first| first.parts.is_empty()) {
            self.sent.extend(self.queue.pop_front().map(|first| first.heard));
            self.singly = self.singly.saturating_sub(1);
            self.rest();
        }
    }

    /// With nothing queued nothing is left to go out singly.
    fn rest(&mut self) {
        if self.queue.is_empty() {
            self.singly = 0;
        }
    }

    fn fail(&mut self, which: u8) {
        self.now += Duration::from_micros(which.into());
        let failure = match which % 16 {
            0..7 => Failure::WouldBlock,
            7..13 => Failure::Pressure,
            13..15 => Failure::Refused,
            _ => Failure::Gone,
        };
        let begun = self.queue.front().is_some_and(|first| first.begun);
        self.retry = None;
        match (failure, self.tx.failed(self.now, failure)) {
            (Failure::WouldBlock, Outcome::Wait) => {}
            (Failure::Pressure, Outcome::BackOff) => {
                self.retry = Some(self.now + Duration::from_millis(self.back_off));
                self.back_off = (self.back_off * 2).min(64);
            }
            (Failure::Refused, Outcome::Returned(back)) if !begun => {
                let first = self.queue.pop_front().expect("asked before");
                self.same(back, &first.heard);
                self.singly = 0; // past the message at fault
            }
            (Failure::Refused, Outcome::Closed(back)) if begun => self.closed(back),
            (Failure::Gone, Outcome::Closed(back)) => self.closed(back),
            (failure, outcome) => panic!("{outcome:?} of {failure:?}"),
        }
    }

    fn recall(&mut self) {
        let newest = self.queue.back().filter(|newest| !newest.begun).is_some();
        match (self.tx.recall(), newest) {
            (Some(back), true) => {
                let pushed = self.queue.pop_back().expect("asked before");
                self.same(back, &pushed.heard);
                // Nothing is left to be tried again.
                self.retry = self.retry.filter(|_| !self.queue.is_empty());
                self.rest();
            }
            (None, false) => {}
            (recalled, _) => panic!("recalled {recalled:?}"),
        }
    }

    /// All that did not leave came back, whole and in order.
    fn closed(&mut self, back: Leftover<Token>) {
        (self.closed, self.retry, self.singly) = (true, None, 0);
        assert_eq!(back.len(), self.queue.len());
        for message in back {
            let pushed = self.queue.pop_front().expect("as many as there are");
            self.same(message, &pushed.heard);
        }
    }

    /// The message is the one handed in. It is dropped.
    fn same(&self, mut message: Message<Token>, heard: &Heard) {
        let descriptors: Vec<Token> = message.take_all().collect();
        let ids = descriptors.iter().map(Token::id).collect();
        let payload = message.payload().to_vec();
        assert_eq!(&Heard { head: *message.head(), payload, descriptors: ids }, heard);
    }

    /// After each step: what is to be sent is the rest of what was pushed, in order; who was not
    /// sent lives.
    pub fn balance(&self) {
        let mut transmits = self.tx.transmits();
        for (bytes, ids) in self.queue.iter().flat_map(|pushed| &pushed.parts) {
            let transmit = transmits.next().expect("what is to be sent");
            assert!(transmit.descriptors().map(Token::id).eq(ids.iter().copied()), "what is to be sent");
            assert_eq!((transmit.bytes(), transmit.descriptor_count()), (bytes.len(), ids.len()));
            let mut rest = bytes.as_slice();
            for slice in transmit.slices() {
                rest = rest.strip_prefix(slice).expect("what is to be sent");
            }
            assert!(rest.is_empty(), "what is to be sent");
        }
        assert!(transmits.next().is_none(), "nothing else is to be sent");
        assert_eq!(self.tx.is_empty(), self.queue.is_empty());
        assert_eq!(self.tx.begun(), self.queue.front().is_some_and(|first| first.begun));
        assert_eq!(self.tx.deadline(), self.retry);
        let live = self.queue.iter().flat_map(|pushed| &pushed.heard.descriptors);
        assert!(self.ledger.live().iter().eq(live), "descriptors of the queue live");
        let bytes: usize = self.sent.iter().map(|heard| heard.payload.len()).sum();
        let descriptors: usize = self.sent.iter().map(|heard| heard.descriptors.len()).sum();
        let counted = self.tx.sending();
        let counted = (counted.messages, counted.bytes, counted.descriptors);
        assert_eq!(counted, (self.sent.len() as u64, bytes as u64, descriptors as u64));
    }

    /// P1: what the kernel took, fed to a receiver, gives the messages.
    pub fn finish(self) {
        drop(self.tx);
        assert_eq!(self.ledger.live(), Vec::<u64>::new());
        let script = Script {
            wire: self.wire as u8,
            descriptors: 253,
            payload: 140_000,
            timeout_ms: u16::MAX,
            ..Script::default()
        };
        // The kernel of the other end numbers descriptors as they come.
        let ids: Vec<u64> = self.taken.iter().flat_map(|(_, ids)| ids.iter().copied()).collect();
        let send = |(bytes, ids): (Vec<u8>, Vec<u64>)| {
            Act::Send(Sent { bytes, descriptors: ids.len(), ..Sent::default() })
        };
        let mut acts: Vec<Act> = self.taken.into_iter().map(send).collect();
        acts.push(Act::Drain);
        let mut outcome = converse::<P>(&script, &acts, 1, &[]);
        let number = |id: &mut u64| *id = ids[*id as usize];
        outcome.heard.iter_mut().for_each(|heard| heard.descriptors.iter_mut().for_each(number));
        assert_eq!((outcome.verdict, outcome.heard), ("more", self.sent));
    }
}

impl Pushed {
    fn new(heard: Heard, wire: Wire) -> Self {
        let count = heard.descriptors.len();
        let said = Said { head: heard.head, payload: heard.payload.clone(), count };
        let parts = encode(wire, &said, said.payload.len() as u32, count as u8);
        let number = |(bytes, count)| (bytes, if count > 0 { heard.descriptors.clone() } else { Vec::new() });
        Self { parts: parts.into_iter().map(number).collect(), heard, begun: false }
    }
}
