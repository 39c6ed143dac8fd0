//! Many at once, over real processes: starters, clients that vanish, clients that say nothing.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/meeting.rs"]
mod meeting;
mod support;

use std::io::{Read, Write};
use std::sync::Barrier;
use std::thread;

use driver::{after, soon};
use fdpost::{Address, Channel, Deadline, Error, Limits, Listener, Message, Packet, Stream};
use meeting::{Directory, abstract_name, says, stale, start};
use nix::sys::socket::SockType;
use support::{Ledger, assert_child, child_value};

const LIMITS: Limits = Limits::new();

/// A starter: serves until its standard input ends, or says why not.
fn starter(path: &str) {
    // All at once: every starter waits for the same byte.
    println!("ready");
    let mut go = [0];
    std::io::stdin().read_exact(&mut go).unwrap();
    match Listener::<Packet>::bind(path, LIMITS) {
        Ok(listener) => {
            println!("serving");
            let mut served = listener.accept().unwrap();
            served.send(Message::new(std::process::id().to_string())).unwrap();
            assert_eq!(served.receive().unwrap_err(), Error::Closed);
        }
        Err(error) => {
            assert_eq!(error, Error::AddressInUse);
            println!("in use");
        }
    }
}

#[test]
fn of_fifty_processes_that_start_at_once_exactly_one_serves() {
    const NAME: &str = "of_fifty_processes_that_start_at_once_exactly_one_serves";
    if let Some(path) = child_value() {
        return starter(&path);
    }
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    // Over a dead one's remains, and over nothing.
    for remains in [true, false] {
        if remains {
            stale(&path, SockType::SeqPacket);
        }
        let mut starters: Vec<_> = (0..50).map(|_| start(NAME, path.to_str().unwrap())).collect();
        for starter in &mut starters {
            says(starter, &["ready"]);
        }
        for starter in &mut starters {
            starter.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        }
        let said: Vec<&str> =
            starters.iter_mut().map(|starter| says(starter, &["serving", "in use"])).collect();
        let servers: Vec<usize> = (0..50).filter(|index| said[*index] == "serving").collect();
        assert_eq!(servers.len(), 1, "{said:?}");
        assert_eq!(directory.names(), ["socket"], "no lock is left");
        let mut client = Channel::<Packet>::connect_by(&path, LIMITS, soon()).unwrap();
        let answer = client.receive_by(soon()).unwrap();
        assert_eq!(answer.payload(), starters[servers[0]].id().to_string().as_bytes());
        drop(client);
        for starter in starters {
            let output = starter.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        assert!(directory.is_empty());
    }
    drop(directory);
    ledger.close();
}

#[test]
fn of_fifty_threads_that_start_at_once_exactly_one_serves() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    for _ in 0..20 {
        stale(&path, SockType::Stream);
        let barrier = Barrier::new(50);
        let listeners = thread::scope(|scope| {
            let starters: Vec<_> = (0..50)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        Listener::<Packet>::bind(&path, LIMITS)
                    })
                })
                .collect();
            starters.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        let serving = listeners.iter().filter(|result| result.is_ok()).count();
        let refused = listeners.iter().filter(|result| matches!(result, Err(Error::AddressInUse))).count();
        assert_eq!((serving, refused), (1, 49));
        drop(Channel::<Packet>::connect(&path, LIMITS).unwrap());
        drop(listeners);
        assert!(directory.is_empty());
    }
    drop(directory);
    ledger.close();
}

#[test] // P2
fn ten_thousand_clients_that_vanish_leave_nothing() {
    const NAME: &str = "ten_thousand_clients_that_vanish_leave_nothing";
    const CLIENTS: usize = 10_000;
    if let Some(name) = child_value() {
        let address = Address::abstract_name(&name);
        for number in 0..CLIENTS {
            let mut client = Channel::<Packet>::connect(&address, LIMITS).unwrap();
            match number % 4 {
                // Gone before it is accepted, or after, with and without a word.
                0 => drop(client),
                1 => client.send(Message::new(b"hello")).unwrap(),
                2 => client.shutdown(),
                _ => drop(client.try_receive()),
            }
        }
        let mut last = Channel::<Packet>::connect(&address, LIMITS).unwrap();
        last.send(Message::new(b"last")).unwrap();
        assert_eq!(last.receive().unwrap().payload(), b"seen");
        return;
    }
    let ledger = Ledger::open();
    let name = format!("{}-vanish", meeting::unique());
    let listener = Listener::<Packet>::bind(Address::abstract_name(&name), LIMITS).unwrap();
    let clients = start(NAME, &name);
    let mut hellos = 0;
    for _ in 0..CLIENTS {
        let mut served = listener.accept_by(soon()).unwrap();
        match served.receive_by(soon()) {
            Ok(message) => {
                assert_eq!(message.payload(), b"hello");
                hellos += 1;
            }
            Err(error) => assert_eq!(error, Error::Closed),
        }
    }
    assert_eq!(hellos, CLIENTS / 4);
    let mut last = listener.accept_by(soon()).unwrap();
    assert_eq!(last.receive_by(soon()).unwrap().payload(), b"last");
    last.send(Message::new(b"seen")).unwrap();
    assert_child(&clients.wait_with_output().unwrap());
    drop((last, listener));
    ledger.close();
}

#[test] // P5
fn a_client_that_says_nothing_holds_up_nobody() {
    const NAME: &str = "a_client_that_says_nothing_holds_up_nobody";
    if let Some(name) = child_value() {
        let _silent = Channel::<Stream>::connect(Address::abstract_name(&name), LIMITS).unwrap();
        println!("connected");
        // Until the parent has seen enough.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let ledger = Ledger::open();
    let name = format!("{}-silent", meeting::unique());
    let address = Address::abstract_name(&name);
    let listener = Listener::<Stream>::bind(&address, LIMITS).unwrap();
    let mut child = start(NAME, &name);
    says(&mut child, &["connected"]);
    let mut silent = listener.accept_by(soon()).unwrap();
    let mut talker = Channel::<Stream>::connect_by(&address, LIMITS, soon()).unwrap();
    talker.send(Message::new(b"hello")).unwrap();
    let mut served = listener.accept_by(soon()).unwrap();
    assert_eq!(served.receive_by(soon()).unwrap().payload(), b"hello");
    // Nothing was begun, so nobody is to blame: it is the caller who says how long to wait.
    assert_eq!(silent.receive_by(after(20)).unwrap_err(), Error::TimedOut);
    assert!(silent.try_receive().unwrap().is_none());
    drop(child.stdin.take());
    assert_eq!(silent.receive_by(soon()).unwrap_err(), Error::Closed);
    assert_child(&child.wait_with_output().unwrap());
    drop((silent, served, talker, listener));
    ledger.close();
}

#[test] // P5
fn a_full_queue_of_connections_is_waited_for_until_the_deadline() {
    let ledger = Ledger::open();
    let address = abstract_name();
    let listening = fdpost::Listening::new().backlog(1);
    let listener = Listener::<Packet>::bind_with(&address, LIMITS, listening).unwrap();
    let mut waiting = Vec::new();
    // The kernel lets one more wait than the backlog says.
    let full = loop {
        match Channel::<Packet>::connect_by(&address, LIMITS, after(50)) {
            Ok(client) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 10);
    };
    assert_eq!(full, Error::TimedOut);
    assert_eq!(Channel::<Packet>::connect_by(&address, LIMITS, after(0)).unwrap_err(), Error::TimedOut);
    thread::scope(|scope| {
        let late = scope.spawn(|| Channel::<Packet>::connect_by(&address, LIMITS, soon()));
        let forever = scope.spawn(|| Channel::<Packet>::connect_by(&address, LIMITS, Deadline::NEVER));
        for _ in 0..waiting.len() + 2 {
            drop(listener.accept_by(soon()).unwrap());
        }
        drop((late.join().unwrap().unwrap(), forever.join().unwrap().unwrap()));
    });
    drop((waiting, listener));
    ledger.close();
}

#[test]
fn many_threads_accept_each_connection_once() {
    let ledger = Ledger::open();
    let address = abstract_name();
    let listener = Listener::<Packet>::bind(&address, LIMITS).unwrap();
    let mut numbers: Vec<u32> = thread::scope(|scope| {
        let servers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    loop {
                        match listener.accept() {
                            Ok(mut served) => {
                                seen.push(driver::number(&served.receive_by(soon()).unwrap()));
                            }
                            Err(error) => {
                                assert_eq!(error, Error::Closed);
                                return seen;
                            }
                        }
                    }
                })
            })
            .collect();
        for number in 0..400_u32 {
            let mut client = Channel::<Packet>::connect(&address, LIMITS).unwrap();
            client.send(Message::new(number.to_le_bytes())).unwrap();
            // Until it is served: what waits in the queue goes with the listener.
            assert_eq!(client.receive_by(soon()).unwrap_err(), Error::Closed);
        }
        listener.shutdown();
        servers.into_iter().flat_map(|server| server.join().unwrap()).collect()
    });
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..400));
    drop(listener);
    ledger.close();
}
