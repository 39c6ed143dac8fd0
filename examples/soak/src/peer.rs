//! The other side of a channel, a process that may be killed at any moment.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;

use fdpost::{Address, Calls, Channel, Deadline, Error, Libcamera, Message, Packet, Stream, Violation};

use crate::content::{Due, LIMITS, Tally};
use crate::part::{Part, Way, WireName};
use crate::support::{Random, packet_header, raw_send, try_raw_send};
use crate::talk::{self, Side, Stop, Wire};

/// Exit codes of a peer.
pub(crate) const FAILED: u8 = 1;
/// The machine was too slow for the handshake, which has half a second of real time.
pub(crate) const LATE: u8 = 3;

/// Plays its part; the exit code.
pub(crate) fn play(part: &Part, address: Option<&str>) -> u8 {
    let played = match address {
        // Where it finds its server.
        Some(address) => Channel::<Packet>::connect_by(Address::parse(address), LIMITS, talk::soon())
            .map(|channel| channel.as_fd().try_clone_to_owned().expect("a duplicate")),
        None => fdpost::inherited(0),
    };
    let played = played.map_err(Stop::Error).and_then(|socket| {
        if part.way == Way::HandOver {
            return hand_over(part, &socket);
        }
        match part.wire {
            WireName::Packet => over::<Packet>(part, socket),
            WireName::Libcamera => over::<Libcamera>(part, socket),
            WireName::Stream => streamed(part, socket),
        }
    });
    match played {
        Ok(()) => 0,
        // Whoever attacks may be shown the door before it is done.
        Err(_) if part.attack.is_some() => 0,
        // A stranger to the listener's rule: it is turned away, and that is what is wanted.
        Err(Stop::Error(Error::Closed | Error::PeerGone { .. })) if address.is_some() => FAILED,
        Err(Stop::Error(Error::Violation(Violation::Handshake { bytes: 0, .. }))) => LATE,
        Err(stop) => {
            eprintln!("soak: an honest peer, {part}: {stop}");
            FAILED
        }
    }
}

fn streamed(part: &Part, socket: OwnedFd) -> Result<(), Stop> {
    if part.handshake && part.attack.is_none() {
        let mut channel = Channel::<Stream>::from_fd(socket, LIMITS)?;
        channel.greet()?;
        return talk::whole(&mut channel, part.seed, Side::Peer, &mut Tally::default());
    }
    over::<Stream>(part, socket)
}

fn over<P: Wire>(part: &Part, socket: OwnedFd) -> Result<(), Stop> {
    let twin = socket.try_clone().expect("a duplicate");
    let mut channel = Channel::<P>::from_fd(socket, LIMITS)?;
    let tally = &mut Tally::default();
    if part.attack.is_some() {
        return attack(part, channel, &twin);
    }
    if part.planted("blame") {
        // What an honest peer never sends: the server must say so.
        let _full = try_raw_send(&twin, &packet_header(u32::MAX, 9), &[]);
    }
    match part.way {
        Way::Whole | Way::HandOver => talk::whole(&mut channel, part.seed, Side::Peer, tally),
        Way::Split => {
            if part.planted("order") {
                let _too_early = channel.send(Due { seed: part.seed, who: 3, number: 1 }.message());
            }
            talk::split(channel, part.seed, Side::Peer, tally)
        }
        Way::Calls => talk::answer(&mut Calls::answering(channel), part.seed, tally),
        Way::Called => talk::call(&mut Calls::new(channel), part.seed, tally),
    }
}

/// Some honest messages, so that it is heard; and then what no honest peer sends.
fn attack<P: Wire>(part: &Part, mut channel: Channel<P>, socket: &OwnedFd) -> Result<(), Stop> {
    let Some(attack) = part.attack() else { return Ok(()) };
    let mut random = Random(part.seed ^ 0xa77a);
    match part.way {
        Way::Calls | Way::Called => in_a_call(part, channel, attack.name)?,
        _ => {
            for number in 0..part.honest_first() {
                channel.send(Due { seed: part.seed, who: 1, number }.message())?;
            }
        }
    }
    attack.strike(socket, &mut random);
    if attack.then == crate::attacks::Then::Stay {
        sleep(crate::PATIENCE);
    }
    Ok(())
}

/// Breaks a rule of calls, which takes a call to be heard or made first.
fn in_a_call<P: Wire>(part: &Part, mut channel: Channel<P>, name: &str) -> Result<(), Stop> {
    let bytes = |command: u32, cookie: u32| [command.to_ne_bytes(), cookie.to_ne_bytes()].concat();
    if part.way == Way::Called {
        // Nobody is called here before it calls itself.
        let twice = [Message::new(bytes(1, 1)), Message::new(bytes(1, 2))];
        for message in twice {
            channel.send(message)?;
        }
        return Ok(());
    }
    let mut call = channel.receive_by(Deadline::after(crate::PATIENCE))?;
    let (head, payload) = (*call.head(), std::mem::take(call.payload_mut()));
    let word = |at: usize| {
        payload.get(at..at + 4).map_or(0, |word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    };
    let (command, cookie) = (word(0), word(4));
    let packet = P::NAME == "packet";
    let reply = |correlation: u32, payload: Vec<u8>| {
        let head = fdpost::Head {
            flags: u32::from(packet),
            correlation: if packet { correlation } else { 0 },
            ..fdpost::Head::default()
        };
        Message::new(payload).with_head(head)
    };
    let answer = match name {
        "answer-to-nothing" => {
            reply(head.correlation.wrapping_add(999), bytes(command, cookie.wrapping_add(999)))
        }
        "another-command" => reply(head.correlation, bytes(command ^ 5, cookie)),
        "more-descriptors" => crate::support::files(4)
            .into_iter()
            .fold(reply(head.correlation, bytes(command, cookie)), Message::with),
        "short" => Message::new([0; 4]),
        // Twice the same, behind which nothing is due.
        _ => {
            channel.send(reply(head.correlation, bytes(command, cookie)))?;
            reply(head.correlation, bytes(command, cookie))
        }
    };
    channel.send(answer)?;
    Ok(())
}

fn hand_over(part: &Part, socket: &OwnedFd) -> Result<(), Stop> {
    let Some(attack) = part.attack() else {
        return talk::hand_over(socket, part.seed, &mut Tally::default());
    };
    raw_send(socket, b"first\0\x01", &[]);
    attack.strike(socket, &mut Random(part.seed ^ 0xa77a));
    if attack.then == crate::attacks::Then::Stay {
        sleep(crate::PATIENCE);
    }
    Ok(())
}
