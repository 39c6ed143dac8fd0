//! `examples/broker.rs`, with this test's own binary as each of its four processes.

#[path = "../examples/broker.rs"]
#[allow(dead_code, reason = "its main is the example's")]
mod example;
mod support;

use std::process::Command;

use fdpost::Address;
use support::{Ledger, child_value};

const TEST: &str = "four_processes_meet";

#[test] // P1, P2
fn four_processes_meet() {
    if let Some(part) = child_value() {
        let (role, address) = part.split_once('=').unwrap();
        return example::part(role, &Address::parse(address)).unwrap();
    }
    let ledger = Ledger::open();
    let become_part = |role: &str, address: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
        command.env("FDPOST_CHILD", format!("{role}={address}"));
        command
    };
    let mut told = Vec::new();
    example::play(become_part, |line| told.push(line)).unwrap();
    let expected = [
        "broker: listens",
        "service: serves \"pictures\"",
        "client one: its pixels add up to 4096",
        "client two: its pixels add up to 4096",
        "service: a picture of 4096 bytes",
        "service: a picture of 4096 bytes",
        "broker: 2 channels handed out, 0 refused",
    ];
    assert_eq!(told, expected);
    ledger.close();
}
