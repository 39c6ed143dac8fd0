//! What `docs/PROTOCOL.md` says of a broker, slow and obvious: lists, walked from the front.

use std::time::Duration;

use fdpost::Head;
use fdpost::broker::{Outcome, Quotas};
use fdpost::wire::control::Credentials;

/// What a broker does about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Pair,
    /// With the service's end, the client's, or none.
    Send {
        to: usize,
        head: Head,
        payload: Vec<u8>,
        end: Option<char>,
    },
    /// `true`: for a broken rule.
    Close(usize, bool),
}

/// A message as a party sent it, and whether the broker's own rule forbids it.
pub struct Said<'a> {
    pub head: Head,
    pub payload: &'a [u8],
    pub forbidden: bool,
}

/// What comes of what the broker tries.
#[derive(Clone)]
pub struct Fates {
    fates: Vec<u8>,
    next: usize,
}

impl Fates {
    pub fn new(fates: &[u8]) -> Self {
        Self { fates: if fates.is_empty() { vec![255] } else { fates.to_vec() }, next: 0 }
    }

    fn take(&mut self) -> u8 {
        self.next += 1;
        self.fates[(self.next - 1) % self.fates.len()]
    }

    pub fn pair(&mut self) -> bool {
        self.take() >= 20
    }

    pub fn send(&mut self) -> Outcome {
        match self.take() {
            0..=9 => Outcome::Full,
            10..=19 => Outcome::Refused,
            20..=29 => Outcome::Gone,
            30..=39 => Outcome::Short,
            _ => Outcome::Sent,
        }
    }
}

struct Party {
    who: Credentials,
    here: bool,
    full_since: Option<Duration>,
}

struct Service {
    name: Vec<u8>,
    party: usize,
    wire: (u8, Vec<u8>),
    accepts: u8,
    audience: (u8, u32),
}

pub struct Model {
    quotas: Quotas,
    parties: Vec<Party>,
    services: Vec<Service>,
}

/// A request, field by field.
struct Request {
    socket: u8,
    accepts: u8,
    audience: u8,
    id: u32,
    wire: Vec<u8>,
    name: Vec<u8>,
}

/// BR-1 to BR-4; `None`: no request.
fn read(head: &Head, payload: &[u8]) -> Option<Request> {
    if head.flags != 0 || head.correlation == 0 || !(1..=3).contains(&head.kind) {
        return None;
    }
    let word = |bytes: &[u8], most: usize| {
        let fits = !bytes.is_empty() && bytes.len() <= most;
        (fits && bytes.iter().all(|byte| (0x21..=0x7e).contains(byte))).then(|| bytes.to_vec())
    };
    if head.kind == 2 {
        let (wire, name) = (Vec::new(), word(payload, 64)?);
        return Some(Request { socket: 0, accepts: 0, audience: 0, id: 0, wire, name });
    }
    if payload.len() < 8 || payload.len() < 8 + usize::from(payload[3]) {
        return None;
    }
    let (wire, name) = payload[8..].split_at(payload[3].into());
    let request = Request {
        socket: payload[0],
        accepts: payload[1],
        audience: payload[2],
        id: u32::from_le_bytes([payload[4], payload[5], payload[6], payload[7]]),
        wire: word(wire, 32)?,
        name: word(name, 64)?,
    };
    let Request { socket, accepts, audience, id, .. } = request;
    let has_id = head.kind == 1 && matches!(audience, 1 | 2);
    let sound = [1, 2, 5].contains(&socket)
        && accepts <= 253
        && (audience == 0 || (head.kind == 1 && audience <= 3))
        && (id == 0 || has_id);
    sound.then_some(request)
}

/// The sixteen bytes before the text.
fn fixed(status: u8, socket: u8, other: Option<(Credentials, u8)>) -> Vec<u8> {
    let (who, accepts) = other.unwrap_or((Credentials { pid: 0, uid: 0, gid: 0 }, 0));
    let mut bytes = vec![status, socket, accepts, 0];
    bytes.extend(who.pid.to_le_bytes());
    bytes.extend(who.uid.to_le_bytes());
    bytes.extend(who.gid.to_le_bytes());
    bytes
}

impl Model {
    pub const fn new(quotas: Quotas) -> Self {
        Self { quotas, parties: Vec::new(), services: Vec::new() }
    }

    fn here(&self) -> impl Iterator<Item = (usize, &Party)> {
        self.parties.iter().enumerate().filter(|(_, party)| party.here)
    }

    fn service(&self, name: &[u8]) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// BR-20: the status, where somebody is turned away.
    pub fn connect(&mut self, who: Credentials) -> Result<(), u8> {
        let of_user = self.here().filter(|(_, party)| party.who.uid == who.uid).count();
        if of_user >= self.quotas.user_connections as usize {
            return Err(9);
        }
        if self.here().count() >= self.quotas.connections as usize {
            return Err(10);
        }
        self.parties.push(Party { who, here: true, full_since: None });
        Ok(())
    }

    pub fn gone(&mut self, party: usize) {
        self.parties[party].here = false;
        self.parties[party].full_since = None;
        self.services.retain(|service| service.party != party);
    }

    pub fn full(&mut self, party: usize, now: Duration) {
        let party = &mut self.parties[party];
        if party.here && party.full_since.is_none() {
            party.full_since = Some(now);
        }
    }

    pub fn has_room(&mut self, party: usize) {
        self.parties[party].full_since = None;
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.here().count(), self.services.len())
    }

    pub fn names_of(&self, party: usize) -> Option<u32> {
        let names = self.services.iter().filter(|service| service.party == party).count() as u32;
        self.parties[party].here.then_some(names)
    }

    pub fn deadline(&self) -> Option<Duration> {
        self.here().filter_map(|(_, party)| party.full_since).min().map(|since| since + self.quotas.patience)
    }

    pub fn overdue(&self, now: Duration) -> Option<usize> {
        let late = |party: &Party| party.full_since.is_some_and(|since| since + self.quotas.patience <= now);
        self.here().find(|(_, party)| late(party)).map(|(index, _)| index)
    }

    /// The parties that are here, by their numbers.
    pub fn present(&self) -> Vec<usize> {
        self.here().map(|(party, _)| party).collect()
    }

    /// All that is known, with what the walk says it leaves out.
    pub fn key(&self, now: Duration) -> String {
        let parties: Vec<_> = self
            .here()
            .map(|(number, party)| {
                let full = party.full_since.map(|since| (now - since).min(self.quotas.patience));
                let services = self.services.iter().filter(|service| service.party == number);
                let mut names: Vec<_> =
                    services.map(|one| (&one.name, &one.wire, one.accepts, one.audience)).collect();
                names.sort();
                (party.who.uid, party.who.gid, full, names)
            })
            .collect();
        format!("{parties:?}")
    }

    /// All that is done about one message.
    pub fn request(&mut self, from: usize, said: &Said<'_>, fates: &mut Fates) -> Vec<Effect> {
        if !self.parties[from].here {
            return Vec::new();
        }
        let Some(request) = read(&said.head, said.payload) else { return vec![Effect::Close(from, true)] };
        let takes_ends = said.head.reply_descriptors > 0;
        let status = match said.head.kind {
            _ if said.forbidden => 4,
            1 => self.register(from, &request, takes_ends),
            2 => self.withdraw(from, &request),
            _ => return self.ask(from, said, &request, fates),
        };
        self.plain(from, said, status, fates)
    }

    /// An answer without an end.
    fn plain(&self, from: usize, said: &Said<'_>, status: u8, fates: &mut Fates) -> Vec<Effect> {
        let mut payload = fixed(status, 0, None);
        if status == 3 {
            let (_, name) = said.payload[8..].split_at(said.payload[3].into());
            let service = self.service(name).expect("a mismatch has a service");
            payload[1] = service.wire.0;
            payload.extend(&service.wire.1);
        }
        let flags = if status == 0 { 1 } else { 3 };
        let head = Head { flags, reply_descriptors: 0, ..said.head };
        let mut effects = vec![Effect::Send { to: from, head, payload, end: None }];
        match fates.send() {
            Outcome::Sent | Outcome::Gone => {}
            // BR-18: nothing is queued.
            Outcome::Full | Outcome::Refused | Outcome::Short => effects.push(Effect::Close(from, false)),
        }
        effects
    }

    fn register(&mut self, from: usize, request: &Request, takes_ends: bool) -> u8 {
        let user = self.parties[from].who.uid;
        let of_user = self.services.iter().filter(|one| self.parties[one.party].who.uid == user).count();
        if !takes_ends {
            return 5;
        }
        if self.service(&request.name).is_some() {
            return 1;
        }
        if of_user >= self.quotas.user_names as usize {
            return 9;
        }
        if self.services.len() >= self.quotas.names as usize {
            return 10;
        }
        self.services.push(Service {
            name: request.name.clone(),
            party: from,
            wire: (request.socket, request.wire.clone()),
            accepts: request.accepts,
            audience: (request.audience, request.id),
        });
        0
    }

    fn withdraw(&mut self, from: usize, request: &Request) -> u8 {
        let before = self.services.len();
        self.services.retain(|service| service.party != from || service.name != request.name);
        if self.services.len() < before { 0 } else { 2 }
    }

    fn ask(&self, from: usize, said: &Said<'_>, request: &Request, fates: &mut Fates) -> Vec<Effect> {
        let asker = self.parties[from].who;
        let Some(service) = self.service(&request.name) else { return self.plain(from, said, 2, fates) };
        let owner = self.parties[service.party].who;
        let permitted = match service.audience {
            (0, _) => asker.uid == owner.uid,
            (1, user) => asker.uid == user,
            (2, group) => asker.gid == group,
            _ => true,
        };
        if !permitted {
            return self.plain(from, said, 4, fates);
        }
        if service.wire != (request.socket, request.wire.clone()) {
            return self.plain(from, said, 3, fates);
        }
        if said.head.reply_descriptors == 0 {
            return self.plain(from, said, 5, fates);
        }
        let mut effects = vec![Effect::Pair];
        if !fates.pair() {
            effects.extend(self.plain(from, said, 11, fates));
            return effects;
        }
        let mut payload = fixed(0, 0, Some((asker, request.accepts)));
        payload.extend(&request.name);
        let head = Head { kind: 4, correlation: 0, flags: 0, reply_descriptors: 0 };
        effects.push(Effect::Send { to: service.party, head, payload, end: Some('s') });
        let refused = match fates.send() {
            Outcome::Sent => None,
            Outcome::Full => Some(7),
            Outcome::Refused => Some(6),
            Outcome::Gone => Some(8),
            Outcome::Short => Some(11),
        };
        if let Some(status) = refused {
            effects.extend(self.plain(from, said, status, fates));
            return effects;
        }
        let head = Head { flags: 1, reply_descriptors: 0, ..said.head };
        let payload = fixed(0, 0, Some((owner, service.accepts)));
        effects.push(Effect::Send { to: from, head, payload, end: Some('c') });
        match fates.send() {
            Outcome::Sent | Outcome::Gone => {}
            Outcome::Full => effects.push(Effect::Close(from, false)),
            Outcome::Refused => effects.extend(self.plain(from, said, 5, fates)),
            Outcome::Short => effects.extend(self.plain(from, said, 11, fates)),
        }
        effects
    }
}
