//! The message in the making.

use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::hunk::{append, bound, reserve};
use crate::error::{Exhausted, Fault, Violation};
use crate::limits::Limits;
use crate::message::Message;
use crate::profile::{FRAME_MAX, Grant, Next, Part, Profile, Role};

/// Memory that may stay when nothing is going on: what an idle channel holds is a few of these.
pub(super) const KEEP: usize = 4096;

/// What came of a message so far, and the part awaited.
pub(super) struct Assembly<P: Profile, F> {
    pub(super) part: Part,
    /// The first part of every message, its grant within the limits.
    first: Part,
    /// Bytes of the part that came.
    pub(super) gathered: u32,
    frame: [u8; FRAME_MAX],
    declared: P::Declared,
    pub(super) payload: Vec<u8>,
    pub(super) descriptors: Vec<Option<F>>,
    /// Descriptors that earlier parts of the message brought.
    brought: usize,
    /// Bytes of all parts named so far.
    named: u64,
    /// A part is whole, and another one is awaited.
    continued: bool,
    pub(super) begun: Duration,
    /// What a late reader found there to be read moves the deadline to here.
    moved: Duration,
    /// Bytes read since the message was found overdue; 0 once nothing was left to be read.
    late: u64,
}

impl<P: Profile, F> Assembly<P, F> {
    pub(super) fn new(limits: &Limits) -> Self {
        let first = first::<P>(limits);
        Self {
            part: first,
            first,
            gathered: 0,
            frame: [0; FRAME_MAX],
            declared: P::Declared::default(),
            payload: Vec::new(),
            descriptors: Vec::new(),
            brought: 0,
            named: P::FIRST.bytes.into(),
            continued: false,
            begun: Duration::ZERO,
            moved: Duration::ZERO,
            late: 0,
        }
    }

    /// Bytes of the part that are still to come.
    pub(super) fn needed(&self) -> usize {
        self.part.bytes.saturating_sub(self.gathered) as usize
    }

    /// Descriptors of the part awaited that came.
    pub(super) fn came(&self) -> usize {
        self.descriptors.len().saturating_sub(self.brought)
    }

    /// No byte of a message came.
    pub(super) const fn is_untouched(&self) -> bool {
        !self.continued && self.gathered == 0
    }

    /// When the message is overdue.
    pub(super) fn deadline(&self, limits: &Limits) -> Duration {
        // Datagrams and packets arrive at once: no rate can be asked of them.
        let bytes = match P::FRAMING {
            crate::profile::Framing::Stream { .. } => self.named,
            _ => 0,
        };
        self.begun.saturating_add(limits.patience(bytes)).max(self.moved)
    }

    /// `bytes` of a stream were read at `now`: who reads late must not blame a peer that keeps the
    /// rate (ST-15). All that is there counts, in however many reads it comes.
    pub(super) fn read(&mut self, now: Duration, bytes: usize, limits: &Limits) {
        if self.late > 0 || now >= self.deadline(limits) {
            self.late = self.late.saturating_add(bytes as u64);
            self.moved = now.saturating_add(limits.at_minimum_rate(self.late));
        }
    }

    /// Nothing is left to be read: the reader is not late any more.
    pub(super) fn caught_up(&mut self) {
        self.late = 0;
    }

    /// Adds bytes of the part. Fails before it took any.
    #[inline]
    pub(super) fn gather(&mut self, bytes: &[u8]) -> Result<(), Exhausted> {
        match self.part.role {
            Role::Payload => {
                // Room for all of it at once, so that what is gathered is not copied again.
                if self.payload.capacity().saturating_sub(self.payload.len()) < bytes.len() {
                    let needed = self.needed();
                    reserve(&mut self.payload, needed)?;
                }
                append(&mut self.payload, bytes)?;
            }
            Role::Frame => {
                let start = self.gathered as usize;
                // await_part() and first() keep frames within FRAME_MAX.
                if let Some(place) = self.frame.get_mut(start..start.saturating_add(bytes.len())) {
                    place.copy_from_slice(bytes);
                }
            }
        }
        self.count(bytes.len());
        Ok(())
    }

    /// Counts bytes that are in the payload already.
    pub(super) fn count(&mut self, bytes: usize) {
        self.gathered = self.gathered.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Makes room for `count` descriptors, before any is moved.
    pub(super) fn reserve_descriptors(&mut self, count: usize) -> Result<(), Exhausted> {
        if count == 0 { Ok(()) } else { reserve(&mut self.descriptors, count) }
    }

    /// Whether `bytes` are all of a part of the wire's own: it need not be gathered then.
    pub(super) fn is_whole_frame(&self, bytes: &[u8]) -> bool {
        self.part.role == Role::Frame && self.gathered == 0 && bytes.len() == self.part.bytes as usize
    }

    /// The part is whole: checks what it was granted and asks the profile what follows. `None`
    /// ends the message. `frame`: its bytes, if they were not gathered.
    #[inline]
    pub(super) fn complete(&mut self, frame: Option<&[u8]>, limits: &Limits) -> Result<Option<()>, Fault> {
        if let Grant::Exactly(declared) = self.part.grant {
            let received = count32(self.came());
            if received != u32::from(declared) {
                return Err(Violation::DescriptorCount { declared: declared.into(), received }.into());
            }
        }
        let bytes = match (self.part.role, frame) {
            (Role::Frame, Some(frame)) => frame,
            (Role::Frame, None) => self.frame.get(..self.part.bytes as usize).unwrap_or_default(),
            (Role::Payload, _) => &[],
        };
        match P::next(&mut self.declared, bytes)? {
            Next::End => Ok(None),
            Next::Part(part) => {
                self.await_part(part, limits)?;
                Ok(Some(()))
            }
        }
    }

    /// `Limits` before anything the peer declared is believed (P4).
    fn await_part(&mut self, mut part: Part, limits: &Limits) -> Result<(), Violation> {
        let declared = match part.role {
            Role::Frame => u64::from(part.bytes),
            Role::Payload => (self.payload.len() as u64).saturating_add(part.bytes.into()),
        };
        let limit = match part.role {
            Role::Frame => FRAME_MAX as u64,
            Role::Payload => limits.payload.into(),
        };
        if declared > limit {
            return Err(Violation::PayloadTooLarge { declared, limit });
        }
        part.grant = admitted(part.grant, self.descriptors.len(), limits)?;
        self.brought = self.descriptors.len();
        self.named = self.named.saturating_add(part.bytes.into());
        self.part = part;
        self.gathered = 0;
        self.continued = true;
        Ok(())
    }

    /// Hands the message out and begins anew, with the memory that `message` brought.
    #[inline]
    pub(super) fn deliver(&mut self, message: &mut Message<F>, limits: &Limits, most: usize) {
        message.head = P::head(&self.declared);
        mem::swap(&mut message.payload, &mut self.payload);
        mem::swap(&mut message.descriptors, &mut self.descriptors);
        bound(&mut self.payload, most);
        bound(&mut self.descriptors, usize::from(limits.descriptors));
        self.part = self.first;
        self.gathered = 0;
        self.brought = 0;
        self.declared = P::Declared::default();
        self.named = P::FIRST.bytes.into();
        self.continued = false;
        self.moved = Duration::ZERO;
        self.late = 0;
    }
}

/// The first part, its grant within the limits.
fn first<P: Profile>(limits: &Limits) -> Part {
    const {
        assert!(P::FIRST.bytes > 0 && P::FIRST.bytes as usize <= FRAME_MAX);
        assert!(matches!(P::FIRST.role, Role::Frame));
        assert!(!matches!(P::FIRST.grant, Grant::Exactly(_)));
    }
    Part { grant: capped(P::FIRST.grant, limits.descriptors), ..P::FIRST }
}

/// A grant within the limits: a number declared is refused, a mere upper bound lowered.
fn admitted(grant: Grant, before: usize, limits: &Limits) -> Result<Grant, Violation> {
    if grant == Grant::None {
        return Ok(grant);
    }
    let left = limits.descriptors.saturating_sub(u8::try_from(before).unwrap_or(u8::MAX));
    match grant {
        Grant::Exactly(declared) if declared > left => {
            let (declared, limit) =
                (count32(before).saturating_add(declared.into()), limits.descriptors.into());
            Err(Violation::TooManyDescriptors { declared, limit })
        }
        grant => Ok(capped(grant, left)),
    }
}

fn capped(grant: Grant, limit: u8) -> Grant {
    match grant {
        Grant::AtMost(most) => match most.min(limit) {
            0 => Grant::None,
            most => Grant::AtMost(most),
        },
        grant => grant,
    }
}

/// A count for an error's numbers.
pub(super) fn count32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
