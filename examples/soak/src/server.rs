//! The lasting process: eight channels, whose peers come and go.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fdpost::driver::receive_fd_accepting;
use fdpost::{
    Address, Calls, Channel, Error, Libcamera, Limits, Listener, Listening, Message, Packet, PeerRule,
    Stream, Violation,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::cast::Place;
use crate::content::{Due, LIMITS, Tally, policy};
use crate::part::{Part, Way, WireName};
use crate::support::Random;
use crate::talk::{self, Side, Stop, TEXT, Wire, soon};

/// How long a message may take where a peer will fall silent in the middle of one, so that this is found
/// out often. Where it was halted too, it may be found out before.
const IMPATIENT: Limits = LIMITS.assembly_timeout(Duration::from_millis(250));

/// What a place is for.
pub(crate) const CHANNELS: [(Way, Option<WireName>); 8] = [
    (Way::Whole, Some(WireName::Packet)),
    (Way::Split, Some(WireName::Packet)),
    (Way::Whole, Some(WireName::Libcamera)),
    (Way::Split, Some(WireName::Libcamera)),
    (Way::Whole, Some(WireName::Stream)),
    (Way::Split, Some(WireName::Stream)),
    (Way::Calls, None),
    (Way::HandOver, None),
];

/// The next peer of a place.
pub(crate) fn cast(channel: usize, random: &mut Random, plant: Option<&str>) -> Part {
    let (way, wire) = CHANNELS[channel];
    let way = if way == Way::Calls && random.below(2) == 0 { Way::Called } else { way };
    let wire = wire.unwrap_or_else(|| WireName::ALL[random.below(3)]);
    let seed = (random.below(1 << 30) as u64) << 8 | random.below(256) as u64;
    let handshake = (way, wire) == (Way::Whole, WireName::Stream) && random.below(3) == 0;
    let mut part = Part { way, wire, handshake, seed, attack: None, plant: plant.map(str::to_owned) };
    let attacks = part.attacks().len();
    if attacks > 0 && random.below(2) == 0 {
        part.attack = Some(random.below(attacks));
    }
    part
}

/// How a session ended, as far as the server can tell.
pub(crate) enum Ending {
    /// All was said, and the end came.
    Well,
    /// This was refused, and is refused for ever.
    Refused(Violation),
    /// A peer that the listener's rule does not know.
    Unknown,
    Stopped(Stop),
}

/// Meets a peer of this part, and hears it out.
pub(crate) fn session(part: &Part, place: &Place, tally: &mut Tally) -> Ending {
    let ended = if part.way == Way::HandOver {
        hand_over(part, place, tally)
    } else {
        match part.wire {
            WireName::Packet if part.way == Way::Whole && part.seed.is_multiple_of(3) => {
                met(part, place, tally)
            }
            WireName::Packet => paired::<Packet>(part, place, tally),
            WireName::Libcamera => paired::<Libcamera>(part, place, tally),
            WireName::Stream => streamed(part, place, tally),
        }
    };
    ended.unwrap_or_else(Ending::Stopped)
}

fn limits(part: &Part) -> Limits {
    if part.attack().is_some_and(|attack| attack.rule == "payload-missing") { IMPATIENT } else { LIMITS }
}

fn start(place: &Place, words: Vec<String>, socket: Stdio) -> Result<(u32, OwnedFd), Stop> {
    place.start(&words, socket).map_err(|error| Stop::Wrong(format!("a peer does not start: {error}")))
}

fn words(part: &Part) -> Vec<String> {
    [vec!["peer".to_owned()], part.words()].concat()
}

/// A channel to a peer that inherits its end.
fn pair<P: Wire>(part: &Part, place: &Place) -> Result<Channel<P>, Stop> {
    let (mut channel, theirs) = Channel::<P>::pair(limits(part))?;
    let (_, pidfd) = start(place, words(part), theirs.into())?;
    // On datagram sockets nothing else shows a death.
    if P::NAME == "libcamera" || part.seed.is_multiple_of(2) {
        channel.watch_peer(pidfd)?;
    }
    Ok(channel)
}

fn paired<P: Wire>(part: &Part, place: &Place, tally: &mut Tally) -> Result<Ending, Stop> {
    let channel = pair::<P>(part, place)?;
    hear(part, channel, tally)
}

/// A channel to a peer that comes to a name, and is known there.
fn met(part: &Part, place: &Place, tally: &mut Tally) -> Result<Ending, Stop> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("@fdpost-soak-{}-{number}", std::process::id());
    // A rule that nobody but this process passes, now and then.
    let stranger = part.seed.is_multiple_of(4);
    let own = std::process::id();
    let expected = std::sync::Arc::new(AtomicU32::new(own));
    let known = expected.clone();
    let rule = PeerRule::new().test(move |peer| peer.pid.unsigned_abs() == known.load(Ordering::Relaxed));
    let mut listener =
        Listener::<Packet>::bind_with(Address::parse(&name), limits(part), Listening::new().rule(rule))?;
    listener.set_reaper(drop::<OwnedFd>);
    let mut words = words(part);
    words.push(name);
    let (process, _pidfd) = start(place, words, Stdio::null())?;
    // It has hardly begun; and if it was faster it is refused, which is said by `Unknown` too.
    if !stranger {
        expected.store(process, Ordering::Relaxed);
    }
    let accepted = loop {
        let gone = place.is_gone();
        match listener.accept_by(fdpost::Deadline::after(Duration::from_millis(50))) {
            Err(Error::TimedOut) if !gone => {}
            other => break other,
        }
    };
    drop(listener);
    match accepted {
        Ok(_) if stranger => Err(Stop::Wrong("a stranger was accepted".into())),
        Ok(channel) => hear(part, channel, tally),
        Err(Error::PeerRefused { pid, .. }) if pid.unsigned_abs() == process => Ok(Ending::Unknown),
        // It was killed before it came.
        Err(Error::TimedOut) => Err(Error::Closed.into()),
        Err(error) => Err(error.into()),
    }
}

fn streamed(part: &Part, place: &Place, tally: &mut Tally) -> Result<Ending, Stop> {
    let mut channel = pair::<Stream>(part, place)?;
    if !part.handshake {
        return hear(part, channel, tally);
    }
    if part.attack.is_none() {
        // The half of a second begins when somebody waits: not before the peer is there.
        talk::readable(&channel);
        channel.welcome()?;
        talk::whole(&mut channel, part.seed, Side::Server, tally)?;
        return talk::end(channel.receive_by(soon())).map(|()| Ending::Well);
    }
    let refused = channel.welcome();
    refused_for_ever(refused.err(), || channel.receive_by(soon()).err())
}

/// An error, and whether it is the answer to everything from now on.
fn refused_for_ever(first: Option<Error>, mut again: impl FnMut() -> Option<Error>) -> Result<Ending, Stop> {
    match first {
        Some(Error::Violation(violation)) => {
            for _ in 0..2 {
                if again() != Some(violation.into()) {
                    return Err(Stop::Wrong(format!("{violation:?} is not the answer for ever")));
                }
            }
            Ok(Ending::Refused(violation))
        }
        Some(error) => Err(error.into()),
        None => Err(Stop::Wrong("what breaks a rule was accepted".into())),
    }
}

fn hear<P: Wire>(part: &Part, mut channel: Channel<P>, tally: &mut Tally) -> Result<Ending, Stop> {
    if part.attack.is_some() {
        return hear_out(part, channel, tally);
    }
    match part.way {
        Way::Whole | Way::HandOver => {
            talk::whole(&mut channel, part.seed, Side::Server, tally)?;
            talk::end(channel.receive_by(soon()))?;
        }
        Way::Split => talk::split(channel, part.seed, Side::Server, tally)?,
        Way::Calls => {
            let mut calls = Calls::new(channel);
            talk::call(&mut calls, part.seed, tally)?;
            talk::end(calls.receive_by(soon()))?;
        }
        Way::Called => {
            let mut calls = Calls::answering(channel);
            talk::answer(&mut calls, part.seed, tally)?;
            talk::end(calls.receive_by(soon()))?;
        }
    }
    Ok(Ending::Well)
}

/// The honest messages of a hostile peer, and then what it is refused for.
fn hear_out<P: Wire>(part: &Part, mut channel: Channel<P>, tally: &mut Tally) -> Result<Ending, Stop> {
    let mut number = 0;
    let mut check = |mut message: Message| {
        tally.count(message.payload().len(), message.descriptor_count());
        number += 1;
        if number > part.honest_first() {
            // Some attacks begin with whole frames, which are delivered.
            return Ok(());
        }
        Due { seed: part.seed, who: 1, number: number - 1 }.check(&mut message).map_err(Stop::Wrong)
    };
    match part.way {
        Way::Whole | Way::HandOver => {
            channel.set_policy(policy());
            channel.set_batch([1, 4, 16][(part.seed % 3) as usize]);
            let first = loop {
                match channel.receive_by(soon()) {
                    Ok(message) => check(message)?,
                    Err(error) => break error,
                }
            };
            refused_for_ever(Some(first), || channel.receive_by(soon()).err())
        }
        Way::Split => {
            let (sending, mut receiving) = channel.split();
            receiving.set_policy(policy());
            std::thread::scope(|scope| {
                // Nobody reads what this one sends: it waits for room until the refusal is its answer too.
                let sender = scope.spawn(|| {
                    (0..).find_map(|number| {
                        sending.send_by(Due { seed: part.seed, who: 0, number }.message(), soon()).err()
                    })
                });
                let ended = loop {
                    match receiving.receive_by(soon()) {
                        Ok(message) => match check(message) {
                            Ok(()) => {}
                            Err(stop) => break Err(stop),
                        },
                        Err(error) => {
                            break refused_for_ever(Some(error), || receiving.receive_by(soon()).err());
                        }
                    }
                };
                sending.shutdown();
                match (sender.join(), ended) {
                    (Err(_), _) => Err(Stop::Wrong("a sender panicked".into())),
                    (Ok(Some(error)), _) if error.error == Error::TimedOut => {
                        Err(Stop::Wrong("a sender slept although the conversation was over".into()))
                    }
                    (Ok(_), ended) => ended,
                }
            })
        }
        Way::Calls => {
            let mut calls = Calls::new(channel);
            let _call = calls.start(Message::new([0; 8]), soon())?;
            let failed = |calls: &mut Calls<P>| loop {
                // Calls in flight end with the same error, first.
                match calls.receive_by(soon()) {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            let first = failed(&mut calls);
            refused_for_ever(Some(first), || Some(failed(&mut calls)))
        }
        Way::Called => {
            let mut calls = Calls::answering(channel);
            // One that nobody answers, and another.
            let _first = calls.receive_by(soon())?;
            refused_for_ever(calls.receive_by(soon()).err(), || calls.receive_by(soon()).err())
        }
    }
}

fn hand_over(part: &Part, place: &Place, tally: &mut Tally) -> Result<Ending, Stop> {
    let kind = match part.wire {
        WireName::Packet => SockType::SeqPacket,
        WireName::Libcamera => SockType::Datagram,
        WireName::Stream => SockType::Stream,
    };
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| Stop::Wrong(format!("socketpair: {errno}")))?;
    start(place, words(part), theirs.into())?;
    // On datagram sockets nothing shows a death, so there one looks again and again. On a stream a
    // deadline that passes within a message is the sender's fault.
    let datagrams = kind == SockType::Datagram;
    let wait = if datagrams { Duration::from_millis(50) } else { crate::PATIENCE };
    if part.attack.is_none() {
        talk::take_over(&ours, part.seed, tally, wait, || place.is_gone())?;
        return Ok(Ending::Well);
    }
    loop {
        let gone = place.is_gone();
        match receive_fd_accepting(&ours, &TEXT, &policy(), fdpost::Deadline::after(wait)) {
            Ok(_) => tally.count(7, 0),
            Err(Error::TimedOut) if !gone => {}
            Err(Error::TimedOut) => return Err(Error::Closed.into()),
            Err(Error::Violation(violation)) => return Ok(Ending::Refused(violation)),
            Err(error) => return Err(error.into()),
        }
    }
}
