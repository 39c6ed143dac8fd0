//! A descriptor that is none: it knows its number, and a ledger knows who lives (P2, P8).

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Who was issued, and who of them lives.
#[derive(Clone, Default)]
pub struct Ledger(Rc<RefCell<Books>>);

/// A fuzzer writes here for every descriptor of every message, so there are no trees: numbers are
/// given out from 0, but for [`ALONE`].
#[derive(Default)]
struct Books {
    entries: Vec<Entry>,
    live: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Entry {
    #[default]
    Free,
    Live,
    Closed,
}

/// A number that no kernel gives out: for a token that is not of the conversation.
pub const ALONE: u64 = u64::MAX;

impl Books {
    fn entry(&mut self, id: u64) -> &mut Entry {
        let place = id.wrapping_add(1) as usize;
        if self.entries.len() <= place {
            self.entries.resize(place + 1, Entry::Free);
        }
        &mut self.entries[place]
    }
}

impl Ledger {
    /// Issues the one token of this number.
    pub fn issue(&self, id: u64) -> Token {
        let mut books = self.0.borrow_mut();
        let before = std::mem::replace(books.entry(id), Entry::Live);
        assert!(before == Entry::Free, "token {id} is issued twice");
        books.live += 1;
        Token { id, ledger: self.clone() }
    }

    /// The tokens that have an owner, but for [`ALONE`].
    pub fn live(&self) -> Vec<u64> {
        let books = self.0.borrow();
        let live = books.entries.iter().skip(1).zip(0..).filter(|(entry, _)| **entry == Entry::Live);
        live.map(|(_, id)| id).collect()
    }

    /// How many have one.
    pub fn count(&self) -> usize {
        self.0.borrow().live
    }
}

/// Owns one number of its ledger, as an `OwnedFd` owns a descriptor.
pub struct Token {
    id: u64,
    ledger: Ledger,
}

impl Token {
    /// Its number.
    pub const fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut books = self.ledger.0.borrow_mut();
        let lived = std::mem::replace(books.entry(self.id), Entry::Closed) == Entry::Live;
        books.live -= usize::from(lived);
        drop(books);
        // A second panic while one unwinds would abort and hide the first.
        assert!(lived || std::thread::panicking(), "token {} is closed twice", self.id);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}
