//! Which rules a target's inputs broke, and which they should: a table of target by rule. Reach is
//! what a fuzzer is for; how often it ran says little.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::wires::FLAGS;
use crate::{broker, calls, control, conversation, oracle, send_fd, sender, transcript};

thread_local! {
    static BROKEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// An oracle saw this rule broken, as it should be.
pub fn note(rule: &'static str) {
    BROKEN.with_borrow_mut(|broken| *broken.entry(rule).or_default() += 1);
}

/// What was noted on this thread since the last time, and how often.
pub fn take() -> BTreeMap<&'static str, u64> {
    BROKEN.take()
}

/// What a receiver finds in what it reads.
const READ: [&str; 19] = [
    "header-length",
    "header-reserved",
    "header-version",
    "empty-message",
    "payload-too-large",
    "too-many-descriptors",
    "payload-length",
    "payload-truncated",
    "payload-missing",
    "descriptor-count",
    "descriptor-unexpected",
    "control-malformed",
    "control-unknown",
    "control-truncated",
    "frame-overrun",
    "empty-packet",
    "too-many-frames",
    "packet-too-large",
    "marker",
];
/// A rule of a wire written elsewhere: the one of [`crate::wires`]; and what is nobody's fault.
const ELSEWHERE: [&str; 2] = [FLAGS, "descriptors-lost"];
const KIND: [&str; 1] = ["descriptor-kind"];
const HANDSHAKE: [&str; 1] = ["handshake"];
/// What two bytes and a number of descriptors can be wrong in.
const COUNTED: [&str; 4] =
    ["control-truncated", "descriptor-count", "descriptor-unexpected", "descriptors-lost"];
const STATUS: [&str; 1] = ["status"];
const REPLIES: [&str; 4] = ["reply-unknown", "reply-command", "reply-descriptors", "call-overlap"];
const BROKER: [&str; 1] = ["broker-message"];

/// Every rule there is.
pub fn rules() -> impl Iterator<Item = &'static str> {
    let machine = READ.iter().chain(&ELSEWHERE).chain(&KIND);
    machine.chain(&HANDSHAKE).chain(&STATUS).chain(&REPLIES).chain(&BROKER).copied()
}

/// A fuzz target.
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
    /// The rules that its inputs can break.
    pub reaches: &'static [&'static [&'static str]],
    /// Why others cannot be broken by it. What stands nowhere is [`Self::otherwise`].
    pub not: &'static [(&'static [&'static str], &'static str)],
    pub otherwise: &'static str,
}

impl Target {
    /// The rules that its inputs can break, sorted.
    pub fn reachable(&self) -> Vec<&'static str> {
        let mut rules: Vec<_> = self.reaches.iter().flat_map(|rules| rules.iter().copied()).collect();
        rules.sort_unstable();
        rules
    }
}

const SOCKET: &str = "the driver's: it takes a socket and a clock";
const ABOVE: &str = "stands above the receiver, in the target that bears its name";

/// The targets, in the order of their names.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "broker",
        check: broker::check_bytes,
        // The last two: in what a client reads of the broker's answers.
        reaches: &[&BROKER, &["descriptor-count", "payload-length"]],
        not: &[],
        otherwise: "a receiver comes before the broker's own judgement: the target `receiver`",
    },
    Target {
        name: "calls",
        check: calls::check_bytes,
        reaches: &[&REPLIES, &["header-length"]],
        not: &[],
        otherwise: "a receiver comes before the calls: the target `receiver`",
    },
    Target {
        name: "control",
        check: control::check_bytes,
        reaches: &[&["control-malformed", "control-unknown"]],
        not: &[],
        otherwise: "control data alone: no header, no payload, no limit and no time",
    },
    Target {
        name: "conversation",
        check: conversation::check_bytes,
        reaches: &[&[
            "payload-too-large",
            "too-many-descriptors",
            "payload-missing",
            "descriptor-count",
            "descriptor-unexpected",
            "descriptors-lost",
            // Where some of more than are accepted are lost.
            "control-truncated",
        ]],
        not: &[(&KIND, SOCKET), (&HANDSHAKE, SOCKET)],
        otherwise: "both ends are this crate's, and its sender breaks no rule of its wire",
    },
    Target {
        name: "receiver",
        check: oracle::check_bytes,
        reaches: &[&READ, &ELSEWHERE, &KIND],
        not: &[(&HANDSHAKE, SOCKET)],
        otherwise: ABOVE,
    },
    Target {
        name: "send_fd",
        check: send_fd::check_bytes,
        reaches: &[&STATUS, &["payload-too-large"], &COUNTED],
        not: &[(&KIND, SOCKET)],
        otherwise: "two bytes have neither headers nor frames",
    },
    Target {
        name: "sender",
        check: sender::check_bytes,
        reaches: &[],
        not: &[],
        otherwise: "what is wrong with a message to be sent is its caller's misuse; the receiver that hears \
                    what left finds nothing",
    },
    Target {
        name: "transcript",
        check: transcript::check_bytes,
        reaches: &[&READ, &ELSEWHERE],
        not: &[(&KIND, "a transcript has no descriptors to look at"), (&HANDSHAKE, SOCKET)],
        otherwise: ABOVE,
    },
];
