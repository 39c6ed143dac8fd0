use super::*;
use crate::profile::{Packet, Stream};
use alloc::vec::Vec;

type Calls = PendingCalls<Packet>;

fn begin<P: Correlate>(calls: &mut PendingCalls<P>, deadline: Option<u64>) -> Result<CallId, Fault> {
    let prepared = calls.prepare(&mut Message::<()>::new([]), 0)?;
    Ok(calls.begin(prepared, deadline.map(Duration::from_secs)))
}

fn reply(id: u32) -> Message<()> {
    let head = Head { correlation: id, flags: crate::profile::packet::REPLY, ..Head::default() };
    Message::new([]).with_head(head)
}

#[test] // CA-8
fn ids_go_round_past_0_and_past_those_that_are_out() {
    let mut calls = Calls::new(Role::Caller, 4);
    let one = begin(&mut calls, None).unwrap();
    let two = begin(&mut calls, None).unwrap();
    assert!(calls.give_up(two));
    calls.next = u32::MAX;
    let ids: Vec<u32> = (0..2).map(|_| begin(&mut calls, None).unwrap().get()).collect();
    assert_eq!((one.get(), two.get(), &ids[..]), (1, 2, &[u32::MAX, 3][..]));
    let full = begin(&mut calls, None).unwrap_err();
    assert_eq!(full, Exhausted::CallsInFlight { pending: 3, given_up: 1, limit: 4 }.into());
    for id in [2, u32::MAX, 3, 1] {
        let late = matches!(calls.handle(reply(id)), Ok(Incoming::Late(_)));
        assert_eq!(late, id == 2);
    }
    assert!(calls.handle(reply(1)).is_err());
}

#[test] // P5
fn the_earliest_deadline_is_kept_as_calls_come_and_go() {
    let mut calls = Calls::new(Role::Caller, 8);
    let never = begin(&mut calls, None).unwrap();
    assert_eq!((calls.deadline(), calls.expired(Duration::MAX)), (None, None));
    let late = begin(&mut calls, Some(9)).unwrap();
    let soon = begin(&mut calls, Some(4)).unwrap();
    let also = begin(&mut calls, Some(4)).unwrap();
    assert_eq!(calls.deadline(), Some(Duration::from_secs(4)));
    assert_eq!(calls.expired(Duration::from_millis(3999)), None);
    assert_eq!(calls.expired(Duration::from_secs(4)), Some(soon));
    assert!(matches!(calls.handle(reply(also.get())), Ok(Incoming::Answered(call, _)) if call == also));
    assert_eq!(calls.deadline(), Some(Duration::from_secs(9)));
    assert!(calls.give_up(late));
    assert_eq!((calls.deadline(), calls.expired(Duration::MAX)), (None, None));
    assert_eq!((calls.abandon(), calls.abandon()), (Some(never), None));
    assert_eq!((calls.counters().pending, calls.counters().given_up), (0, 0));
}

#[test] // P4
fn memory_of_a_burst_is_given_back() {
    // Miri takes a minute for a thousand.
    let many = if cfg!(miri) { 100 } else { 1000 };
    let mut calls = Calls::new(Role::Caller, many);
    let all: Vec<CallId> = (0..many).map(|_| begin(&mut calls, None).unwrap()).collect();
    all.iter().for_each(|call| drop(calls.handle(reply(call.get())).unwrap()));
    assert!(calls.entries.capacity() <= KEPT);
}

#[test] // CA-11
fn without_ids_one_is_out_and_giving_up_is_the_end() {
    let mut calls = PendingCalls::<Stream>::new(Role::Caller, 8);
    let one = begin(&mut calls, Some(1)).unwrap();
    let full = begin(&mut calls, None).unwrap_err();
    assert_eq!(full, Exhausted::CallsInFlight { pending: 1, given_up: 0, limit: 1 }.into());
    assert_eq!(calls.expired(Duration::from_secs(1)), Some(one));
    assert!(calls.is_poisoned());
    let given_up = begin(&mut calls, None).unwrap_err();
    assert_eq!(given_up, Misuse::CallGivenUp { wire: "stream" }.into());
}
