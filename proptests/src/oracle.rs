//! What must hold of a receiver, whatever its peer and its user do.

use fdpost::accept::{Accept, Found, Kind};
use fdpost::machine::{Held, Receiver, table::State};
use fdpost::message::Message;
use fdpost::{Fault, Libcamera, Limits, Misuse, Packet, Profile, Stream, Violation};
use std::time::Duration;

use crate::kernel::Kernel;
use crate::log::{Event, Heard, Wire};
use crate::model::Judge;
use crate::peer::{Act, Sent, acts};
use crate::reach::note;
use crate::script::{Habits, Script};
use crate::token::{ALONE, Ledger, Token};
use crate::wires::VhostUser;

/// What came of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub heard: Vec<Heard>,
    /// A rule's name, "end" or "more".
    pub verdict: &'static str,
    pub fault: Option<Fault>,
}

/// Any bytes as a script: what the fuzz target `receiver` and the corpus call.
pub fn check_bytes(bytes: &[u8]) {
    let script = Script::from_bytes(bytes);
    run(&script, Some(usize::from(script.batch / 20)));
}

/// Runs a script against the wire that it names, and with other batches and cuts.
pub fn check(script: &Script) -> Outcome {
    run(script, None)
}

/// `other`: which of the other batches and cuts alone; a fuzzer's next script has another one.
fn run(script: &Script, other: Option<usize>) -> Outcome {
    match script.wire() {
        Wire::Libcamera => check_wire::<Libcamera>(script, other),
        Wire::Packet => check_wire::<Packet>(script, other),
        Wire::Stream => check_wire::<Stream>(script, other),
        Wire::VhostUser => check_wire::<VhostUser>(script, other),
    }
}

/// All of them, or the one.
fn some<T>(all: &[T], one: Option<usize>) -> &[T] {
    one.map_or(all, |one| std::slice::from_ref(&all[one % all.len()]))
}

fn check_wire<P: Profile>(script: &Script, other: Option<usize>) -> Outcome {
    let acts = acts(script);
    let cuts: Vec<usize> = script.cuts.iter().map(|cut| usize::from(*cut)).collect();
    let batch = u16::from(script.batch % 20);
    let outcome = converse::<P>(script, &acts, batch, &cuts);
    let sends = || acts.iter().filter_map(|act| if let Act::Send(sent) = act { Some(sent) } else { None });
    match script.wire() {
        Wire::Libcamera | Wire::Packet => {
            for &batch in some(&[1, 3, 16], other) {
                let again = converse::<P>(script, &acts, batch, &[]);
                assert_eq!(again, outcome, "in batches of {batch}");
            }
        }
        wire @ (Wire::Stream | Wire::VhostUser) if sends().all(|sent| is_certain(wire, sent)) => {
            let many = sends().map(|sent| sent.bytes.len()).sum::<usize>() > 5_000;
            let cuts: [&[usize]; 4] = [&[], &[if many { 997 } else { 1 }], &[5, 4096], &[11, 1, 13, 700]];
            for &cuts in some(&cuts, other) {
                let again = converse::<P>(script, &acts, batch, cuts);
                // The numbers may differ: "at least so many" depends on what one read brought.
                assert_eq!((again.verdict, &again.heard), (outcome.verdict, &outcome.heard), "cut {cuts:?}");
            }
        }
        Wire::Stream | Wire::VhostUser => {}
    }
    outcome
}

/// Whether it cannot matter how reads cut this send. Where the wire reads ahead, a descriptor on
/// more than one byte belongs to whatever byte the read happens to end with.
fn is_certain(wire: Wire, sent: &Sent) -> bool {
    let carries = sent.descriptors > 0 || sent.cut || sent.malformed || sent.unknown;
    wire == Wire::VhostUser || !carries || sent.bytes.len() == 1
}

/// One receiver, its user and its kernel.
struct Conversation<P: Profile> {
    rx: Receiver<P, Token>,
    limits: Limits,
    habits: Habits,
    most: Held,
    kernel: Kernel,
    judge: Judge,
    ledger: Ledger,
    now: Duration,
    heard: Vec<Heard>,
    kept: Vec<Message<Token>>,
    /// The message that is polled into.
    spare: Message<Token>,
}

/// Plays `acts` to one receiver and holds it against the model.
pub(crate) fn converse<P: Profile>(script: &Script, acts: &[Act], batch: u16, cuts: &[usize]) -> Outcome {
    let (wire, limits, ledger) = (script.wire(), script.limits(), Ledger::default());
    let mut talk = Conversation::<P> {
        rx: Receiver::new(limits).expect("a script's limits are within range").batch(batch),
        limits,
        habits: Habits(script.habits),
        most: Receiver::<P, Token>::most_held(&limits, batch),
        kernel: Kernel::new(wire, ledger.clone(), cuts),
        judge: Judge::new(wire, limits),
        // What a user's message brings in must not stay: neither memory nor descriptors.
        spare: if Habits(script.habits).reuse() {
            Message::new(Vec::with_capacity(200_000)).with(ledger.issue(ALONE))
        } else {
            Message::default()
        },
        ledger,
        now: Duration::from_secs(1),
        heard: Vec::new(),
        kept: Vec::new(),
    };
    for act in acts {
        match act {
            Act::Send(sent) => talk.kernel.send(sent.clone()),
            Act::Close => talk.kernel.close(),
            Act::Wait(milliseconds) => talk.now += Duration::from_millis((*milliseconds).into()),
            Act::Drain => talk.drain(),
        }
    }
    talk.finish()
}

impl<P: Profile> Conversation<P> {
    /// Reads until "would block", the end or a fault.
    fn drain(&mut self) {
        while self.poll_all() && self.read() {}
    }

    /// Takes every message that is whole. `false` after a fault.
    fn poll_all(&mut self) -> bool {
        loop {
            let polled = if self.habits.reuse() {
                let polled = self.rx.poll_into(&mut self.spare);
                polled.map(|whole| whole.then(|| self.spare.take_all().collect::<Vec<_>>()))
            } else {
                self.rx.poll().map(|message| {
                    message.map(|message| {
                        self.spare = message;
                        self.spare.take_all().collect()
                    })
                })
            };
            match polled {
                Ok(Some(tokens)) => self.hear(tokens),
                Ok(None) => {
                    self.balance();
                    return true;
                }
                Err(fault) => {
                    assert_eq!(self.rx.fault(), Some(fault), "only a final fault is an answer here");
                    self.balance();
                    return false;
                }
            }
            self.balance();
        }
    }

    fn hear(&mut self, tokens: Vec<Token>) {
        if self.habits.refuses() && !tokens.is_empty() {
            return self.refuse(tokens);
        }
        let descriptors = tokens.iter().map(Token::id).collect();
        let (head, payload) = (*self.spare.head(), self.spare.payload().to_vec());
        assert!(payload.len() <= self.limits.payload as usize);
        assert!(tokens.len() <= usize::from(self.limits.descriptors));
        self.heard.push(Heard { head, payload, descriptors });
        if self.habits.keep() {
            let message = Message::new([]);
            self.kept.push(tokens.into_iter().fold(message, Message::with));
        }
    }

    /// What the driver does where a policy accepts no descriptor.
    fn refuse(&mut self, tokens: Vec<Token>) {
        let message = Message::new(self.spare.payload()).with_head(*self.spare.head());
        let mut message = tokens.into_iter().fold(message, Message::with);
        let found = Found { kind: Kind::Other, readable: true, writable: true };
        let violation = Violation::DescriptorKind { slot: 0, required: Accept::nothing(), found };
        self.rx.refuse(&mut message, violation.into());
        assert_eq!((message.descriptor_count(), message.payload().len()), (0, 0), "all of it is refused");
        assert_eq!(self.rx.fault(), Some(violation.into()));
    }

    /// One read. `false` if nothing more can be read now.
    fn read(&mut self) -> bool {
        if self.habits.twice() {
            let lent = self.rx.windows().map(|hunks| hunks.is_some());
            assert_eq!(lent, Ok(self.rx.state() != State::Ended));
        }
        let Some(hunks) = self.rx.windows().expect("poll saw all input and no fault") else {
            assert_eq!(self.rx.state(), State::Ended, "None is the end");
            return false;
        };
        assert!(!hunks.is_empty());
        let lent = hunks.len();
        let filled = self.kernel.receive(self.now, hunks);
        self.balance();
        if filled == 0 {
            return self.would_block();
        }
        let said = if self.habits.overfill() && filled == lent { lent + 7 } else { filled };
        self.rx.handle(self.now, said);
        assert_eq!(self.rx.fault(), None, "faults come from poll, after the messages before them");
        if self.habits.early() {
            assert_eq!(self.rx.windows().err(), Some(Misuse::InputPending.into()));
            self.rx.handle(self.now + Duration::from_secs(1_000_000), 0);
            self.rx.handle(self.now, 1);
        }
        self.balance();
        true
    }

    /// P5: an overdue message is the peer's fault at a "would block", and nowhere else.
    fn would_block(&mut self) -> bool {
        self.judge.listen(&self.kernel.log);
        let deadline = self.judge.deadline();
        assert_eq!(self.rx.deadline(), deadline, "the deadline");
        let overdue = deadline.is_some_and(|due| self.now >= due);
        self.rx.handle(self.now, 0);
        self.kernel.log.push(Event::Block(self.now));
        let missing = |fault| matches!(fault, Fault::Violation(Violation::PayloadMissing { .. }));
        assert_eq!(self.rx.fault().is_some_and(missing), overdue);
        self.balance();
        false
    }

    /// P2 and P4: who lives is held by the receiver or by the user, and never more than the formula.
    fn balance(&self) {
        let held = self.rx.held();
        let kept: usize = self.kept.iter().map(Message::descriptor_count).sum();
        let spare = (0..self.spare.descriptor_count()).filter(|at| self.spare.descriptor(*at).is_some());
        assert_eq!(self.ledger.count(), held.descriptors + kept + spare.count(), "owners");
        assert!(held.bytes <= self.most.bytes, "{held:?} above {:?}", self.most);
        assert!(held.descriptors <= self.most.descriptors, "{held:?} above {:?}", self.most);
    }

    fn finish(mut self) -> Outcome {
        self.judge.listen(&self.kernel.log);
        let judged = self.judge.judgement();
        let fault = self.rx.fault();
        let verdict = match (fault, self.rx.state()) {
            (Some(fault), state) => {
                assert_eq!(state, State::Failed);
                note(rule(&fault));
                rule(&fault)
            }
            (None, State::Ended) => "end",
            (None, _) => "more",
        };
        if verdict == "descriptor-kind" {
            let (heard, next) = judged.messages.split_at(self.heard.len());
            assert_eq!(self.heard, heard, "what came before");
            assert!(
                next.first().is_some_and(|next| !next.descriptors.is_empty()),
                "the one with descriptors"
            );
            assert_eq!(self.rx.deadline(), None);
        } else {
            assert_eq!((verdict, &self.heard), (judged.verdict, &judged.messages), "the model's answer");
            assert_eq!(self.rx.deadline(), judged.deadline, "the deadline");
        }
        let received = self.rx.received();
        let bytes: usize = self.heard.iter().map(|heard| heard.payload.len()).sum();
        let descriptors: usize = self.heard.iter().map(|heard| heard.descriptors.len()).sum();
        let counted = (received.messages, received.bytes, received.descriptors);
        assert_eq!(counted, (self.heard.len() as u64, bytes as u64, descriptors as u64));
        self.for_ever(fault);
        drop(std::mem::take(&mut self.spare));
        self.kept.clear();
        let refused: Vec<Token> =
            if self.habits.refused() { self.rx.refused().collect() } else { Vec::new() };
        if self.habits.refused() && fault.is_some() {
            assert_eq!(refused.len(), self.ledger.count(), "all that was refused can be taken");
        } else {
            assert!(refused.is_empty(), "nothing is refused before a fault");
        }
        drop((refused, self.rx));
        assert_eq!(self.ledger.live(), Vec::<u64>::new(), "closed once the receiver is gone");
        Outcome { heard: self.heard, verdict, fault }
    }

    /// P3: final is final, and nothing is asked for again.
    fn for_ever(&mut self, fault: Option<Fault>) {
        for _ in 0..3 {
            match fault {
                Some(fault) => {
                    assert_eq!(self.rx.windows().err(), Some(fault));
                    self.rx.handle(self.now + Duration::from_secs(1), 1);
                    assert_eq!(self.rx.poll().err(), Some(fault));
                }
                None => {
                    assert!(self.rx.poll().is_ok_and(|message| message.is_none()));
                    let lent = self.rx.windows().map(|hunks| hunks.is_some());
                    assert_eq!(lent, Ok(self.rx.state() != State::Ended));
                }
            }
        }
    }
}

/// A fault's stable name.
pub fn rule(fault: &Fault) -> &'static str {
    match fault {
        Fault::Violation(violation) => violation.rule(),
        Fault::Exhausted(exhausted) => exhausted.rule(),
        _ => "misuse",
    }
}
