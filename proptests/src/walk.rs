//! The real machines walked over every state and input under a stated alphabet (`make model`).
//!
//! No machine can be copied, because none that owns descriptors may be: so a state is kept as the
//! shortest script that leads to it, and each input is given to a fresh machine that has played that
//! script. Two scripts lead to the same state when their [keys](Machine::key) are equal. Each machine
//! says in a comment why what its key leaves out cannot matter; a key may well tell apart what is the
//! same, which costs time and proves no less.

pub mod policies;
pub mod receiver;
pub mod scripts;
pub mod sender;

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};

/// A machine with the harness around it, which knows what must hold.
pub trait Machine: Sized {
    type Input: Clone + Debug;

    /// What can happen in this state.
    fn inputs(&self) -> Vec<Self::Input>;

    /// Lets it happen.
    fn play(&mut self, input: &Self::Input);

    /// Panics if a promise is broken. Called once for every step, when it was played.
    fn check(&mut self);

    /// All that what happens from here on depends on.
    fn key(&self) -> String;

    /// Checks what must hold when it is dropped, and drops it. `fresh`: nobody came here before, so
    /// what is slow to check may be.
    fn finish(self, fresh: bool);
}

/// What a walk saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    pub states: usize,
    pub steps: u64,
    /// Inputs of the longest script.
    pub depth: usize,
    /// Nothing was left out: no script of any length leads to another state.
    pub closed: bool,
}

/// A broken promise: where, and what the harness said.
#[derive(Debug)]
pub struct Broken {
    pub walked: Walked,
    pub script: Vec<String>,
    pub said: String,
}

struct Node<I> {
    /// The script before, and its last input. The first node has none.
    last: Option<(usize, I)>,
    depth: usize,
}

/// Walks every state that a script of at most `depth` inputs reaches.
///
/// # Errors
/// The first promise that was broken, with the script that broke it.
pub fn walk<M: Machine>(start: &dyn Fn() -> M, depth: usize) -> Result<Walked, Box<Broken>> {
    let first = start();
    let mut seen = HashSet::from([first.key()]);
    first.finish(true);
    let mut nodes: Vec<Node<M::Input>> = vec![Node { last: None, depth: 0 }];
    let mut walked = Walked { states: 1, steps: 0, depth: 0, closed: true };
    let mut at = 0;
    while at < nodes.len() {
        let path = path(&nodes, at);
        let reach = || {
            let mut machine = start();
            path.iter().for_each(|input| machine.play(input));
            machine
        };
        let machine = reach();
        let inputs = machine.inputs();
        machine.finish(false);
        if nodes[at].depth == depth {
            walked.closed &= inputs.is_empty();
            at += 1;
            continue;
        }
        for input in inputs {
            walked.steps += 1;
            let key = quietly(|| {
                let mut machine = reach();
                machine.play(&input);
                machine.check();
                let key = machine.key();
                machine.finish(!seen.contains(&key));
                key
            });
            let key = key.map_err(|said| {
                let script = path.iter().chain([&input]).map(|input| format!("{input:?}")).collect();
                Box::new(Broken { walked, script, said })
            })?;
            if seen.insert(key) {
                let depth = nodes[at].depth + 1;
                nodes.push(Node { last: Some((at, input)), depth });
                (walked.states, walked.depth) = (nodes.len(), walked.depth.max(depth));
            }
        }
        at += 1;
    }
    Ok(walked)
}

fn path<I: Clone>(nodes: &[Node<I>], at: usize) -> Vec<I> {
    let mut path = Vec::new();
    let mut node = &nodes[at];
    while let Some((before, input)) = &node.last {
        path.push(input.clone());
        node = &nodes[*before];
    }
    path.reverse();
    path
}

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs it; what a panic said, and where, is the error.
pub fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| SAID.take().unwrap_or_else(|| "a panic without words".to_owned()))
}

/// From now on what a panic says is kept for [`quietly`] and not printed.
pub fn keep_panics() {
    panic::set_hook(Box::new(|info| {
        let said = info.to_string().replace('\n', " ");
        // The first is the cause.
        SAID.with_borrow_mut(|kept| _ = kept.get_or_insert(said));
    }));
}
