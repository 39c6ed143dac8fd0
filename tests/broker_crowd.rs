//! A thousand clients at once.

mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::collections::HashSet;

use fdpost::broker::{Answer, Audience, Quotas};
use fdpost::{Address, BrokerClient, Channel, Limits, Message, Packet, Refusal};
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{Ledger, assert_child, child, child_value};
use support_broker::{Serving, ask, decode, soon};

const CROWD: usize = 1000;

/// Two ends of a fresh channel and a connection for each, two ends more of the broker's and the
/// service's, and what a process has anyway.
const NEEDED: rlim_t = 5 * CROWD as rlim_t + 200;

/// In a process of its own, with room for all of them.
fn crowd() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < NEEDED {
        println!("skipped: RLIMIT_NOFILE is at most {hard} here, {NEEDED} are needed");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(NEEDED), hard).unwrap();
    let all = CROWD as u32 + 8;
    let serving = Serving::start(Quotas::new().connections(all, all));
    let address = serving.address.clone();
    let service = std::thread::spawn(move || serve(&address));
    let mut idle = serving.client();
    // The service is there once its name is known.
    while idle.ask::<Packet>("clock", Limits::new(), soon()).is_err() {
        std::thread::yield_now();
    }
    // All are connected before any asks, and all have asked before any reads.
    let mut clients: Vec<Channel<Packet>> = (0..CROWD).map(|_| serving.raw()).collect();
    for client in &mut clients {
        client.send(ask::<Packet>("clock", 0).message(1, true)).unwrap();
    }
    let (mut busy, mut seen) = (0, HashSet::new());
    for client in &mut clients {
        let mut fresh = loop {
            let mut answer = client.receive_by(soon()).unwrap();
            if answer.descriptor_count() == 1 {
                break answer.take_channel::<Packet>(0, Limits::new()).unwrap();
            }
            // More than a service has room for: it is told, and asks again.
            assert_eq!(decode(&answer), Answer::Refused(Refusal::ServiceBusy));
            busy += 1;
            client.send(ask::<Packet>("clock", 0).message(1, true)).unwrap();
        };
        // The service speaks first: each of its channels has a number of its own.
        let greeting = fresh.receive_by(soon()).unwrap();
        assert!(seen.insert(greeting.payload().to_vec()), "{greeting:?} came twice");
        fresh.send(Message::new(greeting.payload())).unwrap();
    }
    println!("{CROWD} clients had a channel each; {busy} times the service was busy");
    drop((clients, idle));
    assert_eq!(service.join().unwrap(), CROWD + 1);
    serving.stop();
}

/// Greets whoever comes, then hears all of them; how many there were.
fn serve(address: &Address) -> usize {
    let mut service = BrokerClient::connect(address).unwrap();
    service.register::<Packet>("clock", Limits::new(), Audience::SameUser, soon()).unwrap();
    let mut channels = Vec::new();
    // The first is the one that waited for the name, and says nothing.
    while channels.len() <= CROWD {
        let mut channel = service.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
        let _nobody_there = channel.send(Message::new(channels.len().to_string()));
        channels.push(channel);
    }
    for (number, channel) in channels.iter_mut().enumerate().skip(1) {
        assert_eq!(channel.receive_by(soon()).unwrap().payload(), number.to_string().as_bytes());
    }
    channels.len()
}

#[test] // P4, P7
fn a_thousand_clients_at_once() {
    if child_value().is_some() {
        return crowd();
    }
    let ledger = Ledger::open();
    let output = child("a_thousand_clients_at_once", "here");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert_child(&output);
    ledger.close();
}
