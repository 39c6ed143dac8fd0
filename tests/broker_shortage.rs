//! A broker whose kernel has no memory for a while: it is no party's fault.

#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use fdpost::broker::{Answer, Audience, Quotas};
use fdpost::driver::Departure;
use fdpost::{Broker, BrokerEvent, Channel, Deadline, Packet, Refusal, Stream};
use nix::errno::Errno;
use nix::libc;
use support::Ledger;
use support_broker::{Turned, ask, register};

/// So long a call fails: several of the broker's tries.
const SHORT: Duration = Duration::from_millis(100);

/// Turns a broker for which `call` fails, which it notices a few times at most.
fn starve(broker: &mut Broker, call: libc::c_long, errno: Errno) {
    let filtered = thread::scope(|scope| {
        let starved = scope.spawn(move || {
            seccomp::filter(call, None, seccomp::Fate::Fails(errno))?;
            let until = Deadline::after(SHORT);
            let mut turns = 0;
            while !until.has_passed() {
                broker.turn(until).unwrap();
                turns += 1;
            }
            Ok::<_, std::io::Error>(turns)
        });
        starved.join().unwrap()
    });
    match filtered {
        Err(error) => eprintln!("skipped: seccomp(2) is forbidden here: {error}"),
        Ok(turns) => assert!(turns < 50, "the broker tried {turns} times, and paused never"),
    }
}

#[test] // P4, P5; case 46
fn a_party_that_cannot_be_read_for_want_of_memory_stays() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut service, _) = turned.connected();
    let registration = register::<Packet>("pictures", 0, Audience::SameUser);
    assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
    // More is to be read, and cannot be.
    service.send(register::<Packet>("sounds", 0, Audience::SameUser).message(2, true)).unwrap();
    starve(&mut turned.broker, libc::SYS_recvmsg, Errno::ENOMEM);
    let left = |event| matches!(event, BrokerEvent::Left { .. });
    assert!(!turned.events.try_iter().any(left), "the service was let go");
    // Once there is memory, what it said is heard, and its first name is still its own.
    let answered = turned.until(&mut service);
    assert_eq!(support_broker::decode(&answered), Answer::Done);
    let (mut client, _) = turned.connected();
    let refused = turned.answer(&mut client, &ask::<Stream>("pictures", 0), true);
    assert!(matches!(refused, Answer::Refused(Refusal::WireMismatch(_))), "{refused:?}");
    drop((service, client, turned));
    ledger.close();
}

/// epoll(7) reports a hang-up whatever is asked for.
#[test] // P4, P5; case 46
fn a_party_that_left_while_it_could_not_be_read_is_no_reason_to_spin() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let (mut party, id) = turned.connected();
    party.send(register::<Packet>("pictures", 0, Audience::SameUser).message(1, true)).unwrap();
    drop(party);
    starve(&mut turned.broker, libc::SYS_recvmsg, Errno::ENOMEM);
    // Heard to the end once there is memory, and only then let go.
    let departure = loop {
        if let Some(BrokerEvent::Left { id: who, why, .. }) =
            turned.events.try_iter().find(|event| matches!(event, BrokerEvent::Left { .. }))
        {
            break (who, why);
        }
        turned.broker.turn(support_broker::soon()).unwrap();
    };
    assert_eq!(departure, (id, Departure::Closed));
    drop(turned);
    ledger.close();
}

#[test] // P5
fn a_party_that_cannot_be_accepted_waits_and_the_broker_does_not_spin() {
    for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOBUFS] {
        let ledger = Ledger::open();
        let mut turned = Turned::new(Quotas::new());
        let mut party = turned.raw();
        starve(&mut turned.broker, libc::SYS_accept4, errno);
        // Once there is a descriptor it is let in, and answered.
        let registration = register::<Packet>("pictures", 0, Audience::SameUser);
        assert_eq!(turned.answer(&mut party, &registration, true), Answer::Done, "{errno}");
        drop((party, turned));
        ledger.close();
    }
}

#[test] // P5: a process that was forked holds the sockets that the broker closed, which epoll(7) reports on still
#[allow(unsafe_code, reason = "a copy of every descriptor is what fork(2) is for")]
fn a_party_that_left_costs_no_turns_where_a_forked_process_has_its_socket() {
    let ledger = Ledger::open();
    let mut turned = Turned::new(Quotas::new());
    let party = Channel::<Packet>::connect(&turned.address, support_broker::LIMITS).unwrap();
    turned.broker.turn(Deadline::after(SHORT)).unwrap();
    // SAFETY: the child calls nothing that takes a lock: close(2), pause(2), and is killed.
    let child = match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => loop {
            // SAFETY: the number is that of the party's end, which the child does not use.
            unsafe { libc::close(party.as_fd().as_raw_fd()) };
            // SAFETY: has no preconditions.
            unsafe { libc::pause() };
        },
        nix::unistd::ForkResult::Parent { child } => child,
    };
    thread::sleep(SHORT);
    drop(party);
    let begun = Deadline::after(Duration::from_secs(10));
    let mut left = false;
    while !left && !begun.has_passed() {
        turned.broker.turn(Deadline::after(SHORT)).unwrap();
        left = turned.events.try_iter().any(|event| matches!(event, BrokerEvent::Left { .. }));
    }
    let (until, mut turns) = (Deadline::after(Duration::from_millis(400)), 0);
    while !until.has_passed() {
        turned.broker.turn(until).unwrap();
        turns += 1;
    }
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(child, None).unwrap();
    assert!(left, "the party is not seen to leave");
    assert!(turns < 20, "{turns} turns for nothing");
    drop(turned);
    ledger.close();
}
