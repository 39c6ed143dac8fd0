//! A descriptor that is none: it knows its number, and a ledger knows who lives (P2, P8).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

/// Who was issued, and who of them lives.
#[derive(Clone, Default)]
pub struct Ledger(Rc<RefCell<Books>>);

#[derive(Default)]
struct Books {
    issued: BTreeSet<u64>,
    live: BTreeSet<u64>,
}

impl Ledger {
    /// Issues the one token of this number.
    pub fn issue(&self, id: u64) -> Token {
        let mut books = self.0.borrow_mut();
        assert!(books.issued.insert(id), "token {id} is issued twice");
        books.live.insert(id);
        Token { id, ledger: self.clone() }
    }

    /// The tokens that have an owner.
    pub fn live(&self) -> Vec<u64> {
        self.0.borrow().live.iter().copied().collect()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.borrow().live.len()
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
        let lived = self.ledger.0.borrow_mut().live.remove(&self.id);
        // A second panic while one unwinds would abort and hide the first.
        assert!(lived || std::thread::panicking(), "token {} is closed twice", self.id);
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}
