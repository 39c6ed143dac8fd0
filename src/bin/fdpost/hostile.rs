//! The hostile peer, and how it is refused.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fdpost::{Channel, Deadline, Error, Libcamera, Limits};

use crate::Outcome;
use crate::child::{PATIENCE, Peer, own_end, say_ready};
use crate::footprint::Footprint;

/// What is accepted from it: the defaults, and descriptors too, so that it is not refused for
/// sending any.
pub(crate) const LIMITS: Limits = Limits::new().descriptors(4);

/// An honest message, sent first: it shows that such a peer is heard.
const GREETING: &[u8] = b"hello";

/// What a hostile peer may send on the wire `libcamera`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// A header, and never its payload.
    HeaderAlone,
    /// A header that promises a descriptor, and a payload without one.
    AbsentDescriptor,
    /// A header that declares 4 GiB.
    FourGib,
}

impl Attack {
    pub(crate) const ALL: [Self; 3] = [Self::HeaderAlone, Self::AbsentDescriptor, Self::FourGib];

    /// The rule of `docs/PROTOCOL.md` that it breaks.
    const fn rule(self) -> &'static str {
        match self {
            Self::HeaderAlone => "payload-missing",
            Self::AbsentDescriptor => "descriptor-count",
            Self::FourGib => "payload-too-large",
        }
    }

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::HeaderAlone => "A hostile peer sends a header without its payload",
            Self::AbsentDescriptor => "A hostile peer promises a descriptor that is absent",
            Self::FourGib => "A hostile peer announces a payload of 4 GiB",
        }
    }

    /// How long its refusal may take: a message begun is given its whole time, what is wrong
    /// already is refused without any waiting.
    fn patience(self) -> Deadline {
        match self {
            Self::HeaderAlone => Deadline::after(PATIENCE),
            Self::AbsentDescriptor | Self::FourGib => now(),
        }
    }

    /// The datagrams, put together by hand: nothing here checks what it sends.
    fn datagrams(self) -> Vec<Vec<u8>> {
        match self {
            Self::HeaderAlone => vec![header(64, 0)],
            Self::AbsentDescriptor => vec![header(4, 1), b"here".to_vec()],
            Self::FourGib => vec![header(u32::MAX, 0)],
        }
    }
}

/// `IPCUnixSocket`'s header: the payload's bytes and descriptors, and padding.
fn header(data: u32, fds: u8) -> Vec<u8> {
    [&data.to_ne_bytes()[..], &[fds, 0, 0, 0]].concat()
}

/// The hostile process: sends, and then is there and silent until it is killed.
pub(crate) fn attack(attack: Attack) -> Outcome {
    let socket = UnixDatagram::from(own_end()?);
    let length = u32::try_from(GREETING.len())?;
    for datagram in [header(length, 0), GREETING.to_vec()].into_iter().chain(attack.datagrams()) {
        socket.send(&datagram)?;
    }
    say_ready()?;
    // Not for ever, in case whoever started it was killed and could not see to it.
    socket.set_read_timeout(Some(2 * PATIENCE))?;
    let _nobody_answers = socket.recv(&mut []);
    Ok(())
}

/// Meets the hostile peer in a conversation of its own, and checks all that is claimed.
pub(crate) fn refuse(out: &mut impl Write, attack: Attack) -> Outcome {
    let (mut channel, theirs) = Channel::<Libcamera>::pair(LIMITS)?;
    let name = attack.to_possible_value().ok_or("an attack without a name")?;
    let mut peer = Peer::start(&["demo-hostile", name.get_name()], theirs)?;
    // What it sends is in the socket before the clock starts: how slow a loaded machine lets it be
    // does not matter then.
    let outcome = peer.wait_until_ready().and_then(|()| converse(out, attack, &mut channel, peer.pid()));
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(peer.blame(error)),
    }
}

fn converse(out: &mut impl Write, attack: Attack, channel: &mut Channel<Libcamera>, pid: u32) -> Outcome {
    let greeting = channel.receive_by(now())?;
    if greeting.payload() != GREETING {
        return Err("the peer's honest message came changed".into());
    }
    drop(greeting);
    writeln!(out, "  process {pid} says hello first, as it should: accepted")?;

    let (before, held_before) = (Footprint::now()?, channel.stats().held);
    let start = Instant::now();
    let answer = channel.receive_by(attack.patience());
    let took = start.elapsed();
    let (after, stats) = (Footprint::now()?, channel.stats());

    let violation = match answer {
        Err(Error::Violation(violation)) => violation,
        Err(error) => return Err(error.into()),
        Ok(_) => return Err("the hostile message was accepted".into()),
    };
    if violation.rule() != attack.rule() {
        return Err(format!("refused as {}, and not as {}", violation.rule(), attack.rule()).into());
    }
    writeln!(out, "  refused as {}: {violation}", violation.rule())?;

    let allowed = LIMITS.assembly_timeout;
    if attack == Attack::HeaderAlone && took < allowed {
        return Err(format!("a message begun had {took:?} to be finished, and not {allowed:?}").into());
    }
    let (took, allowed) = (took.as_secs_f64() * 1000.0, allowed.as_millis());
    writeln!(out, "  it took {took:.2} ms, a message begun has {allowed} ms to be finished")?;

    after.check_unchanged(&before)?;
    if stats.held.bytes > held_before.bytes || stats.held.descriptors != 0 {
        return Err(format!("the channel held {held_before:?} before and {:?} now", stats.held).into());
    }
    if channel.receive_by(now()).err() != Some(violation.into()) {
        return Err("the channel does not answer the same again".into());
    }
    let (then, now) = (before.resident_kib, after.resident_kib);
    let (then_most, now_most) = (before.asked_kib, after.asked_kib);
    writeln!(
        out,
        "  memory of this process: {then} KiB before, {now} after; address space at most {then_most} and {now_most}"
    )?;
    let (then, now, most) = (held_before.bytes, stats.held.bytes, stats.held_most.bytes);
    writeln!(out, "  memory of the channel: {then} bytes before, {now} after, {most} at most")?;
    let (then, now) = (before.descriptors.len(), after.descriptors.len());
    writeln!(out, "  open descriptors: {then} before, {now} after, the same ones")?;
    Ok(())
}

/// Do not wait.
fn now() -> Deadline {
    Deadline::after(Duration::ZERO)
}
