//! From hunks to parts: what the framing says about where bytes and descriptors belong.
//!
//! The order of checks is a rule of its own (`docs/PROTOCOL.md`, CO-3), so that a read which
//! breaks several rules gets the same answer however it was cut.

use super::assembly::{Assembly, count32};
use super::hunk::{self, Hunk};
use super::table::Input;
use crate::error::{Exhausted, Fault, Violation};
use crate::limits::Limits;
use crate::profile::{Framing, Grant, PacketCaps, Profile, Role};

/// Where parsing stands within one hunk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    entered: bool,
    /// Bytes of the hunk that were looked at.
    offset: usize,
    /// What was read went straight into the payload: so many bytes, to be counted only.
    in_place: usize,
    /// Messages that began in this packet.
    messages: u32,
    /// Descriptors that its messages claimed.
    claimed: u32,
}

impl Position {
    /// Whether all of `hunk` was looked at, and its end will show nothing wrong.
    pub(super) fn is_at_the_end<P: Profile, F>(&self, hunk: &Hunk<F>) -> bool {
        let looked_at = self.offset >= hunk.bytes.len().saturating_add(hunk.head_stored);
        self.entered
            && match P::FRAMING {
                Framing::PartPerDatagram => looked_at,
                Framing::MessagesPerPacket(_) => looked_at && !hunk.cut() && leave(hunk, self).is_ok(),
                Framing::Stream { .. } => looked_at && self.in_place == 0,
            }
    }
}

/// What looking at a hunk gave.
pub(super) enum Step {
    /// It is used up; the next one, if there is one.
    NextHunk,
    /// To be run through the table.
    Input(Input),
}

/// Looks at the next piece of `hunk`. [`Exhausted::OutOfMemory`] leaves everything as it was.
#[inline]
pub(super) fn step<P: Profile, F>(
    hunk: &mut Hunk<F>,
    at: &mut Position,
    assembly: &mut Assembly<P, F>,
    limits: &Limits,
) -> Result<Step, Fault> {
    if !at.entered {
        if enter::<P, F>(hunk)? {
            return Ok(Step::Input(Input::End));
        }
        let in_place = if hunk.in_place { hunk.stored() } else { 0 };
        hunk.come_home(&mut assembly.payload);
        *at = Position { entered: true, in_place, ..Position::default() };
        if matches!(P::FRAMING, Framing::PartPerDatagram) {
            return datagram(hunk, at, assembly, limits);
        }
    }
    match P::FRAMING {
        // A datagram is looked at once; only one that found no memory is looked at again.
        Framing::PartPerDatagram if at.offset < usize::MAX => datagram(hunk, at, assembly, limits),
        Framing::PartPerDatagram => Ok(Step::NextHunk),
        Framing::MessagesPerPacket(caps) => packet(hunk, at, assembly, limits, caps),
        Framing::Stream { .. } => stream(hunk, at, assembly, limits),
    }
}

/// What holds for a read as a whole. `true` is the end.
fn enter<P: Profile, F>(hunk: &Hunk<F>) -> Result<bool, Violation> {
    // On a stream control data came with the read's last byte: messages before it are whole.
    if hunk.length == 0 || !matches!(P::FRAMING, Framing::Stream { .. }) {
        hunk.check_control()?;
    }
    if hunk.end && hunk.is_void() {
        return Ok(true);
    }
    if hunk.length > 0 || matches!(P::FRAMING, Framing::PartPerDatagram) {
        return Ok(false);
    }
    // On SEQPACKET and STREAM the kernel returns 0 for the end; a SEQPACKET packet of zero bytes
    // looks the same but for its descriptors.
    if hunk.is_void() {
        return Ok(true);
    }
    let descriptors = count32(hunk.descriptors.len());
    Err(match P::FRAMING {
        Framing::Stream { .. } => Violation::DescriptorUnexpected { received: descriptors },
        _ => Violation::EmptyPacket { descriptors },
    })
}

/// One part per datagram.
fn datagram<P: Profile, F>(
    hunk: &mut Hunk<F>,
    at: &mut Position,
    assembly: &mut Assembly<P, F>,
    limits: &Limits,
) -> Result<Step, Fault> {
    granted(assembly, hunk)?;
    let (expected, received) = (u64::from(assembly.part.bytes), hunk.length as u64);
    if expected != received {
        let room = u64::from(limits.payload);
        return Err(match assembly.part.role {
            Role::Frame => Violation::HeaderLength { expected, received },
            Role::Payload if received > room => Violation::PayloadTruncated { room, received },
            Role::Payload => Violation::PayloadLength { declared: expected, received },
        }
        .into());
    }
    assembly.reserve_descriptors(hunk.descriptors.len())?;
    let bytes = hunk.bytes.get(at.offset..).unwrap_or_default();
    let frame = Some(bytes).filter(|bytes| assembly.is_whole_frame(bytes));
    if frame.is_none() {
        assembly.gather(bytes)?; // none, where they were read in place
    }
    if !hunk.descriptors.is_empty() {
        hunk::move_descriptors(&mut hunk.descriptors, usize::MAX, &mut assembly.descriptors)?;
    }
    at.offset = usize::MAX;
    complete(assembly, frame, limits)
}

/// Messages back to back, descriptors pooled.
#[inline]
fn packet<P: Profile, F>(
    hunk: &mut Hunk<F>,
    at: &mut Position,
    assembly: &mut Assembly<P, F>,
    limits: &Limits,
    caps: PacketCaps,
) -> Result<Step, Fault> {
    let apart = hunk.head.get(..hunk.head_stored).unwrap_or_default();
    let rest = hunk::rest(apart, &hunk.bytes, at.offset);
    let begins = assembly.is_untouched();
    if begins {
        if rest.is_empty() && !hunk.cut() {
            leave(hunk, at)?;
            return Ok(Step::NextHunk);
        }
        if at.messages > 0 {
            another(hunk, at, caps)?;
        }
    }
    let (needed, left) = (assembly.needed(), rest.len() as u64);
    let Some(bytes) = rest.get(..needed) else {
        let needed = needed as u64;
        return Err(match assembly.part.role {
            Role::Frame => Violation::HeaderLength { expected: needed, received: left },
            Role::Payload => Violation::FrameOverrun { declared: needed, remaining: left },
        }
        .into());
    };
    let count = claim(hunk, at, assembly.part.grant, caps)?;
    assembly.reserve_descriptors(count)?;
    let frame = if is_most_of(hunk, needed, assembly) {
        hunk.hand_over(&mut assembly.payload);
        assembly.count(needed);
        None
    } else {
        let frame = Some(bytes).filter(|bytes| assembly.is_whole_frame(bytes));
        if frame.is_none() {
            assembly.gather(bytes)?;
        }
        frame
    };
    if count > 0 {
        hunk::move_descriptors(&mut hunk.descriptors, count, &mut assembly.descriptors)?;
        at.claimed = at.claimed.saturating_add(count32(count));
    }
    at.offset = at.offset.saturating_add(needed);
    at.messages = at.messages.saturating_add(u32::from(begins));
    complete(assembly, frame, limits)
}

/// Whether the payload is all that the buffer has, and fills more than half of it: then the buffer
/// becomes the payload's, which is not copied, nor does a small payload keep a large buffer.
#[inline]
fn is_most_of<P: Profile, F>(hunk: &Hunk<F>, needed: usize, assembly: &Assembly<P, F>) -> bool {
    hunk.head_stored > 0
        && needed == hunk.bytes.len()
        && !hunk.cut()
        && needed > hunk.bytes.capacity() / 2
        && assembly.part.role == Role::Payload
        && assembly.payload.is_empty()
}

/// A second or later message begins: the caps on packets of several.
fn another<F>(hunk: &Hunk<F>, at: &Position, caps: PacketCaps) -> Result<(), Violation> {
    if at.messages >= caps.messages {
        return Err(Violation::TooManyFrames { limit: caps.messages });
    }
    if hunk.length > caps.bytes as usize {
        let (received, limit) = (hunk.length as u64, caps.bytes.into());
        return Err(Violation::PacketTooLarge { received, limit });
    }
    within_pool(at.claimed, caps)
}

/// Descriptors claimed by a packet of several messages.
fn within_pool(declared: u32, caps: PacketCaps) -> Result<(), Violation> {
    let limit = u32::from(caps.descriptors);
    if declared > limit {
        return Err(Violation::TooManyDescriptors { declared, limit });
    }
    Ok(())
}

/// How many descriptors of the packet's pool a part takes.
#[inline]
fn claim<F>(hunk: &Hunk<F>, at: &Position, grant: Grant, caps: PacketCaps) -> Result<usize, Fault> {
    let most = usize::from(grant.most());
    if most == 0 {
        return Ok(0);
    }
    let pool = hunk.descriptors.len();
    if at.messages > 1 {
        let claims = if matches!(grant, Grant::Exactly(_)) { most } else { most.min(pool) };
        within_pool(at.claimed.saturating_add(count32(claims)), caps)?;
    }
    match grant {
        Grant::Exactly(declared) if most > pool => {
            let (declared, received) = (u32::from(declared), count32(pool));
            Err(if hunk.control_cut {
                Exhausted::DescriptorsLost { declared, received }.into()
            } else {
                Violation::DescriptorCount { declared, received }.into()
            })
        }
        _ => Ok(most.min(pool)),
    }
}

/// The packet ends: every descriptor must have been claimed.
fn leave<F>(hunk: &Hunk<F>, at: &Position) -> Result<(), Violation> {
    let left = count32(hunk.descriptors.len());
    let declared = at.claimed;
    match (left, declared) {
        (0, _) if hunk.control_cut => Err(Violation::ControlTruncated { received: declared }),
        (0, _) => Ok(()),
        (received, 0) => Err(Violation::DescriptorUnexpected { received }),
        (left, _) => {
            let received = declared.saturating_add(left);
            Err(Violation::DescriptorCount { declared, received })
        }
    }
}

/// Bytes after bytes.
fn stream<P: Profile, F>(
    hunk: &mut Hunk<F>,
    at: &mut Position,
    assembly: &mut Assembly<P, F>,
    limits: &Limits,
) -> Result<Step, Fault> {
    let rest = hunk.bytes.get(at.offset..).unwrap_or_default();
    let (needed, left) = (assembly.needed(), rest.len().max(at.in_place));
    if left == 0 && needed > 0 {
        return Ok(Step::NextHunk);
    }
    let taken = left.min(needed);
    // Reading any byte of a send that carries descriptors takes all of them, and the read stops
    // behind it (unix(7)): they belong to the part that holds the read's last byte.
    let brings = taken == left;
    if brings {
        hunk.check_control()?;
        granted(assembly, hunk)?;
        assembly.reserve_descriptors(hunk.descriptors.len())?;
    }
    let mut frame = None;
    if at.in_place > 0 {
        assembly.count(taken);
        at.in_place = at.in_place.saturating_sub(taken);
    } else {
        let bytes = rest.get(..taken).unwrap_or_default();
        frame = Some(bytes).filter(|bytes| assembly.is_whole_frame(bytes));
        if frame.is_none() {
            assembly.gather(bytes)?;
        }
        at.offset = at.offset.saturating_add(taken);
    }
    if brings && !hunk.descriptors.is_empty() {
        hunk::move_descriptors(&mut hunk.descriptors, usize::MAX, &mut assembly.descriptors)?;
    }
    if taken < needed {
        return Ok(Step::Input(Input::Bytes));
    }
    complete(assembly, frame, limits)
}

/// Whether the part takes the descriptors of this read, and whether all of them came.
fn granted<P: Profile, F>(assembly: &Assembly<P, F>, hunk: &Hunk<F>) -> Result<(), Fault> {
    let came = hunk.descriptors.len();
    let received = count32(assembly.came().saturating_add(came));
    let declared = u32::from(assembly.part.grant.most());
    if came > 0 && declared == 0 {
        return Err(Violation::DescriptorUnexpected { received: count32(came) }.into());
    }
    if received > declared {
        return Err(Violation::DescriptorCount { declared, received }.into());
    }
    if hunk.control_cut {
        // The room offered was for one more than may come. So where all that may come is here,
        // the peer sent more; where it is not, this process could not take it.
        return Err(if received >= declared {
            Violation::ControlTruncated { received }.into()
        } else {
            Exhausted::DescriptorsLost { declared, received }.into()
        });
    }
    Ok(())
}

#[inline]
fn complete<P: Profile, F>(
    assembly: &mut Assembly<P, F>,
    frame: Option<&[u8]>,
    limits: &Limits,
) -> Result<Step, Fault> {
    let input = match assembly.complete(frame, limits)? {
        Some(()) => Input::Part,
        None => Input::Message,
    };
    Ok(Step::Input(input))
}
