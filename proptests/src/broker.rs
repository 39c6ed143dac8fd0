//! What must hold of a broker's judgement and of its messages.

mod closed;
mod codec;
mod model;

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use fdpost::broker::{Action, Id, Outcome, Quotas, Registry, Why};
use fdpost::wire::control::Credentials;
use fdpost::{Head, Refusal};

use crate::reach::note;
use crate::token::{Ledger, Token};
pub use closed::closed;
use model::{Effect, Fates, Model, Said};

/// Any bytes, as a [`Script`] and as messages: what the fuzz target `broker` and the corpus call.
pub fn check_bytes(bytes: &[u8]) {
    codec::check(bytes);
    if let Ok(script) = Unstructured::new(bytes).arbitrary::<Script>() {
        check(&script);
    }
}

/// What happens to a broker.
#[derive(Clone, Debug, Arbitrary)]
pub struct Script {
    /// Connections and names, of all and of one user.
    pub quotas: [u8; 4],
    /// What comes of each pair to be made and each message to be sent, over and over.
    pub fates: Vec<u8>,
    pub steps: Vec<Step>,
}

/// Parties are counted in the order of their coming, modulo their number.
#[derive(Clone, Debug, Arbitrary)]
pub enum Step {
    Connect {
        uid: u8,
        gid: u8,
    },
    Say(u8, Spec),
    Raw(u8, [u8; 4], Vec<u8>),
    Gone(u8),
    Full(u8),
    Room(u8),
    Wait(u8),
    /// The broker's own rule forbids the party's next request.
    Forbid(u8),
}

/// A request that means something, unless it is damaged.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Spec {
    pub kind: u8,
    pub accepts: u8,
    pub audience: u8,
    pub id: u8,
    pub wire: u8,
    pub name: u8,
    pub takes_ends: bool,
    /// In one of some: a byte is changed, or the end is cut off.
    pub damage: [u8; 2],
}

const WIRES: [(u8, &str); 4] = [(5, "packet"), (1, "stream"), (1, "vhost-user"), (5, "stream")];
const NAMES: [&str; 4] =
    ["a", "camera/0", "camera/1", "a-name-of-some-length-that-still-fits-into-sixty-four-characters"];

impl Spec {
    /// The frame's head and the payload, written as `docs/PROTOCOL.md` has them.
    pub fn bytes(&self, correlation: u32) -> (Head, Vec<u8>) {
        let kind = u32::from(self.kind % 3) + 1;
        let (socket, wire) = WIRES[usize::from(self.wire) % WIRES.len()];
        let name = NAMES[usize::from(self.name) % NAMES.len()];
        let audience = if kind == 1 { self.audience % 4 } else { 0 };
        let id = if matches!(audience, 1 | 2) { self.id % 3 } else { 0 };
        let mut payload = Vec::new();
        if kind != 2 {
            payload.extend([socket, self.accepts % 254, audience, wire.len() as u8, id, 0, 0, 0]);
            payload.extend(wire.bytes());
        }
        payload.extend(name.bytes());
        let [how, what] = self.damage;
        let place = usize::from(what) % payload.len();
        match how {
            0..=9 => payload.truncate(place),
            10..=19 => payload[place] = payload[place].wrapping_add(how),
            20..=22 => payload.extend([b'x'; 70]),
            _ => {}
        }
        (Head { kind, correlation, flags: 0, reply_descriptors: self.takes_ends.into() }, payload)
    }
}

/// Runs the script on the registry and on the model, and compares all that they do (P1, P2, P4).
/// How many requests were granted.
pub fn check(script: &Script) -> usize {
    let mut play = Play::new(script.quotas, &script.fates);
    for (step, number) in script.steps.iter().take(200).zip(1..) {
        play.step(step, number);
        play.compare();
    }
    play.ends();
    play.granted
}

struct Play {
    ledger: Ledger,
    ends: u64,
    granted: usize,
    registry: Registry<Token>,
    model: Model,
    ids: Vec<Id>,
    now: Duration,
    fates: Fates,
    forbidden: Option<usize>,
}

impl Play {
    fn new(quotas: [u8; 4], fates: &[u8]) -> Self {
        let [connections, user_connections, names, user_names] = quotas.map(|it| u32::from(it % 8) + 1);
        let patience = Duration::from_secs(10);
        let quotas = Quotas::new()
            .connections(connections, user_connections)
            .names(names, user_names)
            .patience(patience);
        Self {
            ledger: Ledger::default(),
            ends: 0,
            granted: 0,
            registry: Registry::new(quotas).expect("quotas above 0"),
            model: Model::new(quotas),
            ids: Vec::new(),
            now: Duration::ZERO,
            fates: Fates::new(fates),
            forbidden: None,
        }
    }

    fn ends(&mut self) {
        for party in 0..self.ids.len() {
            self.gone(party);
        }
        assert_eq!(self.registry.counts(), (0, 0), "everybody left");
        assert_eq!(self.ledger.count(), 0, "an end outlived its messages");
    }

    /// The party that a step means, if anybody ever came.
    fn party(&self, party: u8) -> Option<usize> {
        usize::from(party).checked_rem(self.ids.len())
    }

    fn step(&mut self, step: &Step, number: u32) {
        match step {
            Step::Connect { uid, gid } => {
                let who = Credentials { pid: 7, uid: u32::from(uid % 3), gid: u32::from(gid % 3) };
                match (self.registry.connect(who), self.model.connect(who)) {
                    (Ok(id), Ok(())) => self.ids.push(id),
                    (Err(refusal), Err(status)) => assert_eq!(refusal.status(), status),
                    (one, two) => panic!("{one:?}, and {two:?}"),
                }
            }
            Step::Say(party, spec) => {
                if let Some(party) = self.party(*party) {
                    let (head, payload) = spec.bytes(number);
                    self.request(party, head, &payload);
                }
            }
            Step::Raw(party, [kind, flags, correlation, takes], payload) => {
                if let Some(party) = self.party(*party) {
                    let head = Head {
                        kind: (kind % 8).into(),
                        correlation: (*correlation).into(),
                        flags: (flags % 4).into(),
                        reply_descriptors: *takes,
                    };
                    self.request(party, head, payload);
                }
            }
            Step::Gone(party) => {
                if let Some(party) = self.party(*party) {
                    self.gone(party);
                }
            }
            Step::Full(party) => {
                if let Some(party) = self.party(*party) {
                    self.registry.full(self.ids[party], self.now);
                    self.model.full(party, self.now);
                }
            }
            Step::Room(party) => {
                if let Some(party) = self.party(*party) {
                    self.registry.has_room(self.ids[party]);
                    self.model.has_room(party);
                }
            }
            Step::Wait(seconds) => self.now += Duration::from_secs(u64::from(seconds % 12)),
            Step::Forbid(party) => self.forbidden = self.party(*party),
        }
    }

    fn gone(&mut self, party: usize) {
        self.registry.gone(self.ids[party]);
        self.model.gone(party);
    }

    /// One request, to its answer, on both; their effects are the same, one by one.
    fn request(&mut self, party: usize, head: Head, payload: &[u8]) {
        let forbidden = self.forbidden.take() == Some(party);
        let said = Said { head, payload, forbidden };
        let expected = self.model.request(party, &said, &mut self.fates.clone());
        let permit = |_: &_, _: &_| if forbidden { Err(Refusal::NotPermitted) } else { Ok(()) };
        let mut action = self.registry.request(self.ids[party], &head, payload, permit);
        let mut expected = expected.into_iter();
        let mut delivered = Vec::new();
        loop {
            action = match action {
                Action::Nothing => break,
                Action::Pair(order) => {
                    assert_eq!(expected.next(), Some(Effect::Pair), "{order:?}");
                    let ends = self.fates.pair().then(|| {
                        self.ends += 2;
                        (self.ledger.issue(self.ends), self.ledger.issue(self.ends + 1))
                    });
                    self.registry.paired(order, ends)
                }
                Action::Send { to, mut message, receipt } => {
                    let side = message.descriptor(0).map(|end| if end.id() % 2 == 0 { 's' } else { 'c' });
                    let effect = Effect::Send {
                        to: self.index(to),
                        head: *message.head(),
                        payload: message.payload().to_vec(),
                        end: side,
                    };
                    assert_eq!(Some(&effect), expected.next().as_ref());
                    let answered = receipt.answered();
                    let outcome = self.fates.send();
                    if outcome == Outcome::Sent {
                        self.granted += usize::from(side == Some('c'));
                        // What does not arrive is closed with its message.
                        delivered.extend(message.take(0));
                        assert_eq!(answered.is_none(), side == Some('s'), "each answer is told once");
                    }
                    drop(message);
                    self.registry.sent(receipt, outcome)
                }
                Action::Close(id, why) => {
                    let party = self.index(id);
                    let broken = if let Why::Violation(violation) = why {
                        note(violation.rule());
                        true
                    } else {
                        false
                    };
                    assert_eq!(expected.next(), Some(Effect::Close(party, broken)), "{why:?}");
                    self.gone(party);
                    break;
                }
            };
        }
        assert_eq!(expected.next(), None, "the registry stopped early");
        assert_eq!(self.ledger.count(), delivered.len(), "ends that nobody was sent live on");
    }

    fn index(&self, id: Id) -> usize {
        self.ids.iter().position(|known| *known == id).expect("an id that was given out")
    }

    /// Everything that can be asked of both.
    fn compare(&self) {
        assert_eq!(self.registry.counts(), self.model.counts());
        assert_eq!(self.registry.deadline(), self.model.deadline());
        assert_eq!(self.registry.overdue(self.now).map(|id| self.index(id)), self.model.overdue(self.now));
        for (party, id) in self.ids.iter().enumerate() {
            let names = self.registry.party(*id).map(|party| party.names);
            assert_eq!(names, self.model.names_of(party));
        }
    }
}
