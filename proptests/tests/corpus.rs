//! What the fuzz targets start from and what they ever found, replayed by an ordinary test.

use fdpost_proptests::{broker, calls, control, conversation, oracle, send_fd, sender, transcript};
use std::fs;
use std::path::Path;

/// Feeds every file of one target's corpus to its oracle, in the order of their names.
fn replay(target: &str, least: usize, oracle: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= least, "the corpus of {target} has {} files", files.len());
    for file in files {
        println!("{}", file.display());
        oracle(&fs::read(&file).unwrap());
    }
}

#[test] // P1, P2, P3, P5, P8
fn calls_corpus() {
    replay("calls", 30, calls::check_bytes);
}

#[test] // P2, P8
fn control_corpus() {
    replay("control", 25, control::check_bytes);
}

#[test] // P1, P2, P3, P5, P6, P8
fn conversation_corpus() {
    replay("conversation", 50, conversation::check_bytes);
}

#[test] // P1, P2, P3, P4, P5, P8
fn receiver_corpus() {
    replay("receiver", 80, oracle::check_bytes);
}

#[test] // P1, P4, P8
fn send_fd_corpus() {
    replay("send_fd", 20, send_fd::check_bytes);
}

#[test] // P1, P2, P6
fn sender_corpus() {
    replay("sender", 40, sender::check_bytes);
}

#[test] // P4, P8
fn transcript_corpus() {
    replay("transcript", 20, transcript::check_bytes);
}

#[test] // P1, P2, P4, P8
fn broker_corpus() {
    replay("broker", 20, broker::check_bytes);
}
