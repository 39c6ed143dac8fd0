//! The reference model of calls: what `docs/PROTOCOL.md` says (CA-1 and on), slow and obvious. It
//! keeps every call that is out in a list, and answers with names.

use crate::log::Wire;

/// A call that is out.
#[derive(Clone, Debug)]
pub struct Out {
    pub id: u32,
    pub command: u32,
    pub grant: u8,
    pub deadline: Option<u64>,
    pub given_up: bool,
}

/// What a message is on its wire, before calls are thought of.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// `packet`: flag 1.
    pub reply: bool,
    /// `packet`: the correlation; `libcamera`: the cookie.
    pub id: u32,
    /// `libcamera`: the first word.
    pub command: u32,
    /// `libcamera`: it has no room for these two.
    pub short: bool,
    pub descriptors: u8,
}

/// One side.
#[derive(Debug)]
pub struct Model {
    pub wire: Wire,
    pub answers: bool,
    pub most: usize,
    pub out: Vec<Out>,
    pub over: bool,
    /// `stream`: a call of the peer's waits for its answer.
    pub asked: bool,
    pub begun: u64,
    pub answered: u64,
    pub late: u64,
}

/// What a message comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    Answered(u32),
    Late,
    Request,
    Plain,
    /// One of these rules is broken.
    Broken(Vec<&'static str>),
}

impl Model {
    pub const fn new(wire: Wire, answers: bool, most: usize) -> Self {
        Self {
            wire,
            answers,
            most,
            out: Vec::new(),
            over: false,
            asked: false,
            begun: 0,
            answered: 0,
            late: 0,
        }
    }

    /// Why a call cannot be made: one of these, or none.
    pub fn refuses_call(&self, grant: u8, accepted: u8, preset: bool, short: bool) -> Vec<&'static str> {
        let mut why = Vec::new();
        let one_side = self.wire != Wire::Packet;
        let most = if self.wire == Wire::Stream { self.most.min(1) } else { self.most };
        why.extend((one_side && self.answers).then_some("one-side-calls"));
        why.extend(self.over.then_some("call-given-up"));
        why.extend((grant > accepted).then_some("reply-descriptors-asked"));
        why.extend((self.out.len() >= most).then_some("calls-in-flight")); // CA-8, CA-12
        why.extend((self.wire == Wire::Packet && preset).then_some("call-field"));
        why.extend((self.wire == Wire::Libcamera && short).then_some("call-header"));
        why
    }

    /// Why a call of the peer's cannot be answered so: CA-16.
    pub fn refuses_answer(
        &self,
        answered: bool,
        (allowed, descriptors): (u8, u8),
        error: bool,
        preset: bool,
        short: bool,
    ) -> Vec<&'static str> {
        let mut why = Vec::new();
        why.extend(answered.then_some("answered-before"));
        why.extend((descriptors > allowed).then_some("reply-descriptors"));
        why.extend((self.wire == Wire::Packet && preset).then_some("call-field"));
        why.extend((self.wire != Wire::Packet && error).then_some("head-unsupported"));
        why.extend((self.wire == Wire::Libcamera && short).then_some("call-header"));
        why
    }

    pub fn begin(&mut self, call: Out) {
        assert!(call.id != 0 || self.wire == Wire::Stream, "id 0 answers nothing");
        assert!(self.out.iter().all(|other| other.id != call.id), "id {} is out already", call.id); // CA-8
        self.out.push(call);
        self.begun += 1;
    }

    pub fn judge(&mut self, came: Came) -> Judged {
        let answers = match self.wire {
            Wire::Packet if came.reply => true,
            Wire::Packet if came.id != 0 => return Judged::Request,
            Wire::Packet => return Judged::Plain,
            Wire::Libcamera if came.short => return Judged::Broken(vec!["header-length"]), // CA-5
            Wire::Libcamera if !self.answers && came.id == 0 => return Judged::Plain,      // CA-6
            _ => !self.answers,
        };
        if !answers {
            if self.asked {
                return Judged::Broken(vec!["call-overlap"]); // CA-12
            }
            self.asked = self.wire == Wire::Stream;
            return Judged::Request;
        }
        let found = match self.wire {
            Wire::Stream => self.out.first().map(|_| 0), // CA-10
            _ => self.out.iter().position(|call| call.id == came.id),
        };
        let Some(place) = found else { return Judged::Broken(vec!["reply-unknown"]) }; // CA-2
        let call = &self.out[place];
        let mut broken = Vec::new();
        let repeats = self.wire != Wire::Libcamera || call.command == came.command;
        broken.extend((!repeats).then_some("reply-command")); // CA-4
        broken.extend((came.descriptors > call.grant).then_some("reply-descriptors")); // CA-3
        if !broken.is_empty() {
            return Judged::Broken(broken);
        }
        let call = self.out.remove(place);
        if call.given_up {
            self.late += 1; // CA-7
            return Judged::Late;
        }
        self.answered += 1;
        Judged::Answered(call.id)
    }

    /// `false`: it does not wait.
    pub fn give_up(&mut self, id: u32) -> bool {
        let waits = self.out.iter_mut().find(|call| call.id == id && !call.given_up);
        let Some(call) = waits else { return false };
        call.given_up = true;
        self.over |= self.wire == Wire::Stream; // CA-11
        true
    }

    /// The calls that wait, in the order of their ids.
    pub fn waiting(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.out.iter().filter(|call| !call.given_up).map(|call| call.id).collect();
        ids.sort_unstable();
        ids
    }

    /// When the next call is overdue.
    pub fn deadline(&self) -> Option<u64> {
        self.out.iter().filter(|call| !call.given_up).filter_map(|call| call.deadline).min()
    }
}
