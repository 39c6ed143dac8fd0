//! What the models share: a socket that is none, and descriptors that count their owners.
//!
//! Built only with `--cfg fdpost_loom`: `make loom`.
#![cfg(fdpost_loom)]

use std::sync::Mutex as Plain;

use fdpost::Libcamera;
use fdpost::machine::{Failure, Outcome, Sender};
use fdpost::message::Message;
use fdpost::outbox::{Bounds, Done, Outbox, Patience, Sink, Step, Unsent};
use loom::sync::{Arc, Condvar, Mutex};

/// Why the socket failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Gone,
    Refused,
    Closed,
}

/// Runs a model with at most so many preemptions; without a bound, all. Says how many schedules
/// that were.
pub fn model(preemptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    // Not loom's: the count is of schedules, and no part of any.
    let schedules = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = schedules.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
    let bound = preemptions
        .map_or("any number of preemptions".to_owned(), |most| format!("at most {most} preemptions"));
    println!("schedules: {}, {bound}", schedules.load(std::sync::atomic::Ordering::Relaxed));
}

/// Who has an owner. Not loom's: looking at it is no step of the model.
#[derive(Clone, Debug, Default)]
pub struct Ledger(std::sync::Arc<Plain<Vec<u32>>>);

/// A descriptor that is none.
#[derive(Debug)]
pub struct Token {
    pub id: u32,
    ledger: Ledger,
}

impl Ledger {
    pub fn issue(&self, id: u32) -> Token {
        self.0.lock().unwrap().push(id);
        Token { id, ledger: self.clone() }
    }

    pub fn live(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut live = self.ledger.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let place = live.iter().position(|id| *id == self.id);
        if !std::thread::panicking() {
            live.swap_remove(place.expect("a descriptor is closed once"));
        }
    }
}

/// One socket of which the models see every send: libcamera's, whose messages leave in two parts.
#[derive(Default)]
pub struct Socket {
    state: Mutex<State>,
    writable: Condvar,
}

#[derive(Default)]
struct State {
    room: usize,
    gone: bool,
    parts: Vec<Vec<u8>>,
    /// Whose line each part took.
    who: Vec<u8>,
    tokens: usize,
    /// A line waits for room.
    waited_for: bool,
    /// Somebody called the receiver.
    rings: bool,
}

impl Socket {
    pub fn with_room(parts: usize) -> Arc<Self> {
        let state = State { room: parts, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), writable: Condvar::new() })
    }

    /// The peer reads: there is room for so many parts more.
    pub fn read(&self, parts: usize) {
        self.state.lock().unwrap().room += parts;
        self.writable.notify_all();
    }

    /// Waits until a line waits for room: then somebody flushes, and cannot go on.
    pub fn until_waited_for(&self) {
        let mut state = self.state.lock().unwrap();
        while !state.waited_for {
            state = self.writable.wait(state).unwrap();
        }
    }

    /// A receiver asleep, to whom the peer says nothing: until it is called or, if it has
    /// something to send, there is room.
    pub fn sleep(&self, wants_write: bool) {
        let mut state = self.state.lock().unwrap();
        let has_reason = |state: &State| state.rings || wants_write && state.room > 0;
        while !has_reason(&state) {
            state = self.writable.wait(state).unwrap();
        }
        state.rings = false;
    }

    /// The peer closes.
    pub fn close(&self) {
        self.state.lock().unwrap().gone = true;
        self.writable.notify_all();
    }

    /// The payloads that left, after a look at the order of headers and payloads: they come in
    /// turn, each header with its own payload.
    pub fn payloads(&self) -> Vec<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let whole = state.parts.chunks_exact(2);
        assert!(whole.remainder().is_empty() || state.gone, "a header without its payload");
        whole
            .map(|message| {
                let declared = u32::from_ne_bytes(message[0][..4].try_into().expect("a header"));
                assert_eq!(message[0].len(), 8, "a header comes first");
                assert_eq!(declared as usize, message[1].len(), "a header and its own payload");
                message[1].clone()
            })
            .collect()
    }

    /// Whether this part left.
    pub fn has(&self, part: &[u8]) -> bool {
        self.state.lock().unwrap().parts.iter().any(|left| left == part)
    }

    /// Whose line each part took.
    pub fn who(&self) -> Vec<u8> {
        self.state.lock().unwrap().who.clone()
    }

    pub fn tokens(&self) -> usize {
        self.state.lock().unwrap().tokens
    }
}

/// A thread's way to the socket.
pub struct Line {
    pub socket: Arc<Socket>,
    pub name: u8,
    /// Refuses a message whose payload begins so.
    pub refuses: Option<u8>,
    /// Panics once.
    pub panics: bool,
}

impl Line {
    pub fn to(socket: &Arc<Socket>) -> Self {
        Self::named(socket, 0)
    }

    pub fn named(socket: &Arc<Socket>, name: u8) -> Self {
        Self { socket: socket.clone(), name, refuses: None, panics: false }
    }
}

impl Sink<Libcamera, Token> for Line {
    type Error = Broken;

    fn transmit(&mut self, sender: &mut Sender<Libcamera, Token>) -> Step<Token, Broken> {
        assert!(!std::mem::take(&mut self.panics), "planted");
        let (part, tokens) = {
            let transmit = sender.transmits().next().expect("something to send");
            (transmit.slices().collect::<Vec<_>>().concat(), transmit.descriptor_count())
        };
        let mut state = self.socket.state.lock().unwrap();
        let failure = if state.gone {
            Some(Failure::Gone)
        } else if state.room == 0 {
            Some(Failure::WouldBlock)
        } else {
            self.refuses.filter(|size| part.len() == 8 && part[0] == *size).map(|_| Failure::Refused)
        };
        let Some(failure) = failure else {
            state.room -= 1;
            state.parts.push(part);
            state.who.push(self.name);
            state.tokens += tokens;
            drop(state);
            sender.transmitted(1);
            return Step::Took;
        };
        drop(state);
        match sender.failed(std::time::Duration::ZERO, failure) {
            Outcome::Returned(message) => Step::Refused(message, Broken::Refused),
            Outcome::Closed(messages) => Step::Over(messages, Broken::Gone),
            _ => Step::Full,
        }
    }

    fn wait(&mut self, _: &Sender<Libcamera, Token>) -> bool {
        let mut state = self.socket.state.lock().unwrap();
        state.waited_for = true;
        self.socket.writable.notify_all();
        while state.room == 0 && !state.gone {
            state = self.socket.writable.wait(state).unwrap();
        }
        true
    }

    fn wake_receiver(&mut self) {
        self.socket.state.lock().unwrap().rings = true;
        self.socket.writable.notify_all();
    }
}

pub type Box = Outbox<Libcamera, Token, Broken>;

pub fn outbox(bounds: Bounds) -> Arc<Box> {
    Arc::new(Outbox::new(Sender::new(), bounds))
}

/// Sends a message whose payload says who it is: `who`, `number`, and as many bytes more as make
/// its length its own.
pub fn send(
    outbox: &Box,
    line: &mut Line,
    patience: Patience,
    payload: &[u8],
) -> Result<Done, Unsent<Token, Broken>> {
    outbox.send(Message::new(payload), None, patience, line)
}
