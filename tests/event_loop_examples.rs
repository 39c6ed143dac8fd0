//! `examples/epoll.rs` and, with the feature, `examples/tokio.rs`: what they say is what happens.

#[path = "../examples/epoll.rs"]
mod epoll;
mod support;
#[cfg(feature = "tokio")]
#[path = "../examples/tokio.rs"]
mod tokio_example;

use support::Ledger;

#[test] // P1, P5
fn an_event_loop_of_ones_own() {
    let ledger = Ledger::open();
    let mut told = Vec::new();
    epoll::serve(|line| told.push(line)).unwrap();
    told.sort();
    let bytes = "1990000 bytes came back";
    let ends =
        [0, 1, 2].map(|number| format!("client {number}: 200 answers, then: the conversation is over"));
    assert_eq!(told, [&[bytes.into(), bytes.into(), bytes.into()], &ends[..]].concat());
    ledger.close();
}

#[cfg(feature = "tokio")]
#[test] // P1, P5, P7
fn tasks_in_tokios_reactor() {
    let ledger = Ledger::open();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut told = Vec::new();
    runtime.block_on(tokio_example::converse(|line| told.push(line))).unwrap();
    assert_eq!(told, ["1: 11", "2: 22", "3: 33", "4: 44", "silence", "served 4"]);
    drop(runtime);
    ledger.close();
}
