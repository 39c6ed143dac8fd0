//! The reference model: what `docs/PROTOCOL.md` says, and the head of [`crate::wires`]. Slow and
//! obvious: it knows neither buffers nor batches, and keeps whole parts until they are looked at.
use crate::log::{Event, Heard, Judgement, Read, Wire};
use crate::wires::FLAGS;
use fdpost::machine::table::Input;
use fdpost::{Head, Limits};
use std::time::Duration;

/// Judges a whole conversation.
pub fn judge(wire: Wire, limits: &Limits, log: &[Event]) -> Judgement {
    follow(wire, limits, log).judgement
}

/// A conversation, and how far it came.
#[derive(Debug)]
pub struct Followed {
    pub judgement: Judgement,
    /// What it amounts to in the words of the receiver's table.
    pub inputs: Vec<Input>,
    /// The message that is not whole, unless the conversation is over.
    pub half: Option<Half>,
}

/// Judges a whole conversation, and says how far it came.
pub fn follow(wire: Wire, limits: &Limits, log: &[Event]) -> Followed {
    let mut judge = Judge::new(wire, *limits);
    judge.listen(log);
    judge.followed()
}

/// Judges a conversation while it goes on.
pub struct Judge {
    model: Model,
    /// Events that were judged.
    seen: usize,
    verdict: Option<&'static str>,
}

impl Judge {
    pub const fn new(wire: Wire, limits: Limits) -> Self {
        let model = Model { wire, limits, messages: Vec::new(), half: None, inputs: Vec::new() };
        Self { model, seen: 0, verdict: None }
    }

    /// Looks at what is new in the log. Nothing is, once a rule was broken.
    pub fn listen(&mut self, log: &[Event]) {
        for event in &log[self.seen..] {
            self.verdict = self.verdict.or_else(|| self.model.event(event).err());
        }
        self.seen = log.len();
    }

    /// When the message that has begun is overdue.
    pub fn deadline(&self) -> Option<Duration> {
        if self.verdict.is_none() { self.model.deadline() } else { None }
    }

    /// What came of it all: asked once, at the end.
    pub fn followed(&mut self) -> Followed {
        let (deadline, verdict) = (self.deadline(), self.verdict);
        let model = &mut self.model;
        let half = model.half.take().filter(|_| verdict.is_none());
        match verdict {
            Some("end") => model.inputs.push(Input::End),
            // Every other row of that input has been noted where it was met.
            Some("payload-missing") | None => {}
            Some(_) => model.inputs.push(Input::Breach),
        }
        let (messages, inputs) = (std::mem::take(&mut model.messages), std::mem::take(&mut model.inputs));
        Followed {
            judgement: Judgement { messages, verdict: verdict.unwrap_or("more"), deadline },
            inputs,
            half,
        }
    }

    /// The messages and the verdict of it: asked once, at the end.
    pub fn judgement(&mut self) -> Judgement {
        self.followed().judgement
    }
}

struct Model {
    wire: Wire,
    limits: Limits,
    messages: Vec<Heard>,
    half: Option<Half>,
    inputs: Vec<Input>,
}

/// A message begun. `parts`: its bytes so far, part by part.
#[derive(Debug, Default)]
pub struct Half {
    pub begun: Duration,
    pub moved: Duration,
    /// Bytes read since it was found overdue, until nothing was there.
    pub late: u64,
    pub parts: Vec<Vec<u8>>,
    pub head: Head,
    pub size: usize,
    pub count: usize,
    pub descriptors: Vec<u64>,
}

impl Model {
    fn event(&mut self, event: &Event) -> Result<(), &'static str> {
        let over = Err(if self.half.is_some() { "payload-missing" } else { "end" });
        let read = match event {
            Event::Block(now) if self.deadline().is_some_and(|due| *now >= due) => {
                self.inputs.push(Input::Overdue);
                return over;
            }
            Event::Block(_) => {
                self.half.iter_mut().for_each(|half| half.late = 0);
                return Ok(());
            }
            Event::Read(read) => read,
        };
        // Room is for one more than may come. What several frames share may be 16 (PROTOCOL.md).
        let limit = usize::from(self.limits.descriptors);
        let room = if self.wire == Wire::Packet && limit > 0 { limit.max(16) } else { limit } + 1;
        let mut pool = read.descriptors.clone();
        pool.truncate(room);
        let cut = read.cut || read.descriptors.len() > room;
        let void = read.bytes.is_empty() && pool.is_empty() && !cut;
        let whole = read.bytes.is_empty() || matches!(self.wire, Wire::Libcamera | Wire::Packet);
        check(!(whole && read.malformed), "control-malformed")?; // CO-4
        check(!(whole && read.unknown), "control-unknown")?; // CO-5
        let ends = void && (read.end || self.wire != Wire::Libcamera);
        self.inputs.extend((ends && self.half.is_some()).then_some(Input::End));
        match self.wire {
            _ if ends => over, // CO-9, CO-10
            Wire::Libcamera => self.datagram(read, pool, cut),
            Wire::Packet => self.packet(read, pool, cut),
            _ => {
                check(!read.bytes.is_empty(), "descriptor-unexpected")?;
                self.late(read);
                self.stream(read, &pool, cut)
            }
        }
    }

    fn datagram(&mut self, read: &Read, pool: Vec<u64>, cut: bool) -> Result<(), &'static str> {
        self.belongs(read, &pool, cut)?;
        let length = read.bytes.len();
        let half = self.half.as_mut().unwrap();
        if half.parts.len() == 1 {
            check(length == 8, "header-length")?; // LC-1
        } else {
            check(length == half.size || length <= self.limits.payload as usize, "payload-truncated")?; // LC-7
            check(length == half.size, "payload-length")?; // LC-6
        }
        *half.parts.last_mut().unwrap() = read.bytes.clone();
        self.whole()
    }

    fn stream(&mut self, read: &Read, pool: &[u64], cut: bool) -> Result<(), &'static str> {
        let mut rest = read.bytes.as_slice();
        while !rest.is_empty() {
            let got = |half: &Half| half.parts.last().unwrap().len();
            let missing = self.half.as_ref().map_or(12, |half| self.part(half).0 - got(half));
            let piece;
            (piece, rest) = rest.split_at(missing.min(rest.len()));
            // Control data belongs to the part that holds the read's last byte.
            let last = rest.is_empty();
            check(!(last && read.malformed), "control-malformed")?;
            check(!(last && read.unknown), "control-unknown")?;
            self.belongs(read, if last { pool } else { &[] }, last && cut)?;
            self.half.as_mut().unwrap().parts.last_mut().unwrap().extend(piece);
            while self.half.as_ref().is_some_and(|half| got(half) == self.part(half).0) {
                self.whole()?;
            }
        }
        let partial = self.half.as_ref().is_some_and(|half| !half.parts.last().unwrap().is_empty());
        self.inputs.extend(partial.then_some(Input::Bytes));
        Ok(())
    }

    /// Bytes and the most descriptors of the part that is awaited.
    fn part(&self, half: &Half) -> (usize, usize) {
        match (self.wire, half.parts.len()) {
            (Wire::Libcamera, 1) => (8, 0),
            (Wire::VhostUser, 1) => (12, usize::from(self.limits.descriptors.min(8))),
            (_, 1) => (12, 0),
            (Wire::Libcamera, 2) => (half.size, half.count),
            (_, 2) => (half.size, 0),
            _ => (1, half.count),
        }
    }

    /// CO-6, CO-7, CO-8: gives the awaited part the descriptors of a read. Begins a message.
    fn belongs(&mut self, read: &Read, pool: &[u64], cut: bool) -> Result<(), &'static str> {
        let new = || Half { begun: read.at, parts: vec![Vec::new()], ..Half::default() };
        let mut half = self.half.take().unwrap_or_else(new);
        half.descriptors.extend(pool);
        let (most, total) = (self.part(&half).1, half.descriptors.len());
        self.half = Some(half);
        check(pool.is_empty() || most > 0, "descriptor-unexpected")?;
        check(pool.is_empty() || total <= most, "descriptor-count")?;
        check(!cut || total < most, "control-truncated")?;
        check(!cut, "descriptors-lost")
    }

    /// The awaited part is whole.
    fn whole(&mut self) -> Result<(), &'static str> {
        let mut half = self.half.take().unwrap();
        let bytes = half.parts.last().unwrap().as_slice();
        let stage = half.parts.len();
        let native = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        if stage == 1 {
            (half.head.kind, half.head.flags, half.size, half.count) = match self.wire {
                Wire::Libcamera => (0, 0, native(0) as usize, bytes[4].into()),
                Wire::Stream => (native(0), 0, native(4) as usize, bytes[8].into()),
                _ => (native(0), native(4), native(8) as usize, 0),
            };
            let reserved = self.wire == Wire::VhostUser && half.head.flags >> 24 != 0;
            check(!reserved, FLAGS)?;
            let legal = self.wire != Wire::Libcamera || half.size > 0 || half.count > 0;
            check(legal, "empty-message")?; // LC-3
            check(half.size <= self.limits.payload as usize, "payload-too-large")?; // CO-1
        } else if self.part(&half).1 > 0 {
            check(half.descriptors.len() == half.count, "descriptor-count")?; // CO-8
            check(self.wire != Wire::Stream || bytes == [0x77], "marker")?;
        }
        let grants_now = if self.wire == Wire::Libcamera { stage == 1 } else { stage == 2 };
        check(!grants_now || half.count <= self.limits.descriptors.into(), "too-many-descriptors")?; // CO-2
        let another = match self.wire {
            Wire::Stream => stage == 1 || (stage == 2 && half.count > 0),
            Wire::VhostUser => stage == 1 && half.size > 0,
            _ => stage == 1,
        };
        self.inputs.push(if another { Input::Part } else { Input::Message });
        if another {
            half.parts.push(Vec::new());
            self.half = Some(half);
        } else {
            let payload = half.parts.into_iter().nth(1).unwrap_or_default();
            self.messages.push(Heard { head: half.head, payload, descriptors: half.descriptors });
        }
        Ok(())
    }

    /// P5: the timeout plus, on streams, the bytes of the parts that are known over the rate.
    fn deadline(&self) -> Option<Duration> {
        let half = self.half.as_ref()?;
        let known = [12, half.size as u64, 1].into_iter().take(half.parts.len()).sum::<u64>();
        let bytes = if self.wire == Wire::Libcamera { 0 } else { known };
        let extra = Duration::from_micros(bytes * 1_000_000 / u64::from(self.limits.minimum_rate));
        Some((half.begun + self.limits.assembly_timeout + extra).max(half.moved))
    }

    /// ST-15: who reads late gives the bytes that were there their time at the minimum rate.
    fn late(&mut self, read: &Read) {
        let overdue = self.deadline().is_some_and(|due| read.at >= due);
        let Some(half) = self.half.as_mut().filter(|half| overdue || half.late > 0) else { return };
        half.late += read.bytes.len() as u64;
        half.moved =
            read.at + Duration::from_micros(half.late * 1_000_000 / u64::from(self.limits.minimum_rate));
    }

    fn packet(&mut self, read: &Read, mut pool: Vec<u64>, cut: bool) -> Result<(), &'static str> {
        let (all, mut rest) = (read.bytes.len(), read.bytes.as_slice());
        check(all > 0, "empty-packet")?; // PK-12
        let (mut frames, mut claimed) = (0, 0);
        while !rest.is_empty() {
            check(frames < 64, "too-many-frames")?; // PK-7
            check(frames == 0 || all <= 65_536, "packet-too-large")?; // PK-8
            check(frames == 0 || claimed <= 16, "too-many-descriptors")?; // PK-9
            let (h, body) = rest.split_at_checked(16).ok_or("header-length")?; // PK-1
            let little = |at: usize| u32::from_le_bytes(h[at..at + 4].try_into().unwrap());
            let (flags, count, reply_descriptors) = (u32::from(h[1]), usize::from(h[2]), h[3]);
            let (size, kind, correlation) = (little(4) as usize, little(8), little(12));
            check(h[0] == 1, "header-version")?; // PK-2
            check(flags < 4 && flags != 2, "header-reserved")?; // PK-3
            check(flags == 0 || correlation != 0, "header-reserved")?; // PK-4
            let may_reply = flags == 0 && correlation != 0 && reply_descriptors <= 253;
            check(reply_descriptors == 0 || may_reply, "header-reserved")?; // PK-5
            check(size <= self.limits.payload.min(4_194_288) as usize, "payload-too-large")?; // CO-1, PK-15
            check(count <= self.limits.descriptors.into(), "too-many-descriptors")?; // CO-2
            self.inputs.extend((size > 0 || count > 0).then_some(Input::Part));
            let (payload, after) = body.split_at_checked(size).ok_or("frame-overrun")?; // PK-6
            claimed += count;
            check(frames == 0 || claimed <= 16, "too-many-descriptors")?; // PK-9
            check(count <= pool.len() || !cut, "descriptors-lost")?;
            check(count <= pool.len(), "descriptor-count")?; // PK-10
            let head = Head { kind, correlation, flags, reply_descriptors };
            let descriptors = pool.drain(..count).collect();
            self.messages.push(Heard { head, payload: payload.to_vec(), descriptors });
            self.inputs.push(Input::Message);
            (frames, rest) = (frames + 1, after);
        }
        check(pool.is_empty() || claimed > 0, "descriptor-unexpected")?; // PK-11
        check(pool.is_empty(), "descriptor-count")?; // CO-8
        check(!cut, "control-truncated") // CO-6
    }
}

fn check(holds: bool, rule: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(rule) }
}
