//! A broker, services and clients: each a process.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fdpost::broker::{Audience, Quotas};
use fdpost::driver::{BrokerEvent, Departure};
use fdpost::{
    Address, Broker, BrokerClient, Channel, Deadline, Error, Libcamera, Message, Packet, Refusal, Stream,
};

use crate::attacks::{self, Attack, Then};
use crate::conductor::LASTING;
use crate::content::{LIMITS, Tally};
use crate::part::WireName;
use crate::report::{Sample, say_failure, say_rule, say_sample, say_total};
use crate::support::{Random, descriptors, try_pidfd};
use crate::talk::{self, Side, Stop, Wire, soon};

/// What a service answers to.
pub(crate) fn name(wire: WireName) -> &'static str {
    match wire {
        WireName::Packet => "soak-packet",
        WireName::Libcamera => "soak-libcamera",
        WireName::Stream => "soak-stream",
    }
}

/// Wakes on the end of standard input.
fn at_the_end(then: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        then();
    });
}

pub(crate) fn broker(address: &Address, look: Duration, plant: Option<&str>) -> Result<(), Error> {
    let mut broker = Broker::bind(address, Quotas::new())?;
    let rules: Arc<Mutex<BTreeMap<&str, u64>>> = Arc::default();
    let (seen, leaks) = (rules.clone(), plant == Some("broker"));
    broker.set_observer(move |event| {
        let BrokerEvent::Left { why, .. } = event else { return };
        if let (Departure::Failed(Error::Violation(violation)), Ok(mut rules)) = (why, seen.lock()) {
            *rules.entry(violation.rule()).or_default() += 1;
        }
        if leaks {
            std::mem::forget(std::fs::File::open("/dev/null"));
        }
    });
    let closer = broker.closer();
    at_the_end(move || closer.shutdown());
    say_total(LASTING, 1);
    let before = descriptors().len();
    let (begin, mut looked) = (Instant::now(), Instant::now());
    loop {
        match broker.turn(Deadline::after(look)) {
            Ok(()) | Err(Error::TimedOut) => {}
            Err(Error::Closed) => break,
            Err(error) => return Err(error),
        }
        if looked.elapsed() >= look {
            looked = Instant::now();
            let (open, stats) = (descriptors().len(), broker.stats());
            say_sample(&Sample::own(begin, open));
            // A connection each, and a pidfd of whoever serves a name: here, one.
            if open != before + stats.connections + stats.names {
                say_failure(&format!(
                    "the broker has {open} descriptors open with {} connections and {} names, and {before} without",
                    stats.connections, stats.names
                ));
                break;
            }
        }
    }
    for (rule, count) in rules.lock().iter().flat_map(|rules| rules.iter()) {
        say_rule(rule, *count);
    }
    let stats = broker.stats();
    for (name, count) in [
        ("broker connections", stats.connected),
        ("broker hand-overs", stats.granted),
        ("broker refusals", stats.refused),
        ("broker violations", stats.violations),
    ] {
        say_total(name, count);
    }
    Ok(())
}

/// Serves one client after the other, until standard input ends.
pub(crate) fn service(address: &Address, wire: WireName, look: Duration) -> Result<(), Stop> {
    match wire {
        WireName::Packet => serve::<Packet>(address, wire, look),
        WireName::Libcamera => serve::<Libcamera>(address, wire, look),
        WireName::Stream => serve::<Stream>(address, wire, look),
    }
}

fn serve<P: Wire>(address: &Address, wire: WireName, look: Duration) -> Result<(), Stop> {
    let begin = Instant::now();
    let mut broker = BrokerClient::connect(address)?;
    // The name is free a moment after the one who had it was killed.
    loop {
        match broker.register::<P>(name(wire), LIMITS, Audience::SameUser, soon()) {
            Err(Error::BrokerRefused(Refusal::NameTaken)) => sleep(Duration::from_millis(10)),
            other => break other?,
        }
    }
    say_total(LASTING, 1);
    let closer = broker.closer();
    at_the_end(move || closer.shutdown());
    let (before, mut looked) = (descriptors(), Instant::now());
    let (mut tally, mut rules) = (Tally::default(), BTreeMap::<&str, u64>::new());
    loop {
        match broker.accept_by::<P>(LIMITS, Deadline::after(look)) {
            Ok(mut fresh) => match answer(&mut fresh.channel, fresh.peer.pid, &mut tally) {
                Ok(()) => {}
                Err(Stop::Error(Error::Violation(violation))) => {
                    *rules.entry(violation.rule()).or_default() += 1
                }
                // Clients are killed; who was not finds out by itself, and says so.
                Err(Stop::Error(Error::Closed | Error::PeerGone { .. } | Error::TimedOut)) => {}
                Err(stop) => say_failure(&format!("a service of {wire:?}: {stop}")),
            },
            Err(Error::TimedOut) => {}
            Err(Error::Closed) => break,
            Err(error) => return Err(error.into()),
        }
        if looked.elapsed() >= look {
            looked = Instant::now();
            // What was handed over meanwhile is not a leak: it is taken in only when this one asks.
            let now = descriptors();
            say_sample(&Sample::own(begin, now.len()));
            if now.len() > before.len() + fdpost::driver::HAND_OVERS_MOST {
                say_failure(&format!(
                    "a service has {} descriptors open, and had {}",
                    now.len(),
                    before.len()
                ));
            }
        }
    }
    for (rule, count) in rules {
        say_rule(rule, count);
    }
    say_total("messages", tally.messages);
    say_total("bytes", tally.bytes);
    say_total("descriptors", tally.descriptors);
    Ok(())
}

/// The client says the conversation's seed, and whether it will break a rule: then both know what is due.
fn answer<P: Wire>(channel: &mut Channel<P>, process: i32, tally: &mut Tally) -> Result<(), Stop> {
    if P::NAME == "libcamera" {
        // Its death shows nowhere else. Who is dead already has said all.
        match try_pidfd(process.unsigned_abs()) {
            Ok(pidfd) => channel.watch_peer(pidfd)?,
            Err(_) => return Ok(()),
        }
    }
    let first = channel.receive_by(soon())?;
    let Some((seed, [hostile])) = first.payload().split_first_chunk() else {
        return Err(Stop::Wrong("no seed".into()));
    };
    let talked = talk::whole(channel, u64::from_le_bytes(*seed), Side::Server, tally)
        .and_then(|()| talk::end(channel.receive_by(soon())));
    match talked {
        // Whole frames before the broken one.
        Err(Stop::Wrong(_)) if *hostile == 1 => Ok(()),
        talked => talked,
    }
}

/// What a client does that is not honest.
pub(crate) enum Mischief {
    /// Breaks a rule of the broker's.
    Request(&'static Attack),
    /// Breaks a rule of the wire, on the channel that it was handed.
    Channel(&'static Attack),
}

/// The mischief of a number; `None`: there is none of this number.
pub(crate) fn mischief(wire: WireName, number: usize) -> Option<Mischief> {
    let of_the_wire = match wire {
        WireName::Packet => attacks::PACKET,
        WireName::Libcamera => attacks::LIBCAMERA,
        WireName::Stream => attacks::STREAM,
    };
    // The service is patient, so silence is for whoever watches in `server`.
    let loud = |attack: &&Attack| attack.name != "silence";
    match number.checked_sub(attacks::BROKER.len()) {
        None => attacks::BROKER.get(number).map(Mischief::Request),
        Some(rest) => of_the_wire.iter().filter(loud).nth(rest).map(Mischief::Channel),
    }
}

/// Asks for a service, and talks with it.
pub(crate) fn client(
    address: &Address,
    wire: WireName,
    seed: u64,
    attack: Option<usize>,
) -> Result<(), Stop> {
    match wire {
        WireName::Packet => ask::<Packet>(address, wire, seed, attack),
        WireName::Libcamera => ask::<Libcamera>(address, wire, seed, attack),
        WireName::Stream => ask::<Stream>(address, wire, seed, attack),
    }
}

fn ask<P: Wire>(address: &Address, wire: WireName, seed: u64, attack: Option<usize>) -> Result<(), Stop> {
    let mischief = attack.and_then(|number| mischief(wire, number));
    let mut random = Random(seed);
    if let Some(Mischief::Request(attack)) = mischief {
        let raw = Channel::<Packet>::connect(address, LIMITS)?;
        let socket = raw.as_fd().try_clone_to_owned().expect("a duplicate");
        attack.strike(&socket, &mut random);
        // Cut off by then.
        talk::readable(&socket);
        return Ok(());
    }
    let mut broker = BrokerClient::connect(address)?;
    let mut fresh = broker.ask::<P>(name(wire), LIMITS, soon())?;
    drop(broker);
    fresh.channel.send(Message::new([&seed.to_le_bytes()[..], &[u8::from(attack.is_some())]].concat()))?;
    if let Some(Mischief::Channel(attack)) = mischief {
        let socket = fresh.channel.as_fd().try_clone_to_owned().expect("a duplicate");
        let mut unheard = fresh.channel;
        attack.strike(&socket, &mut random);
        if attack.then == Then::Stay {
            // What the service had said before it looked, and then the end; or a kill.
            while unheard.receive_by(Deadline::after(Duration::from_millis(500))).is_ok() {}
        }
        return Ok(());
    }
    talk::whole(&mut fresh.channel, seed, Side::Peer, &mut Tally::default())
}
