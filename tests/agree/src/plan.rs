//! What a script means to a real kernel.

use fdpost::Limits;
use fdpost_proptests::log::Wire;
use fdpost_proptests::peer::{Act, Sent, acts};
use fdpost_proptests::script::{Habits, Script};
use std::time::Duration;

/// Why no kernel can be made to play a script. The others' names say what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A kernel writes whole control messages; what makes malformed ones of bytes is the decoder's
    /// own oracle.
    Malformed,
    /// MSG_CTRUNC where everything that was sent came, and no other control message either.
    CutWithoutLoss,
    /// On streams no option adds a control message before Linux 6.18.
    UnknownOnStream,
    /// A packet that is larger than the socket's buffer may be made.
    TooLarge,
}

impl Refusal {
    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed control data",
            Self::CutWithoutLoss => "MSG_CTRUNC and nothing lost",
            Self::UnknownOnStream => "an unknown control message on a stream",
            Self::TooLarge => "a packet beyond the socket's buffer",
        }
    }
}

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Nobody waits, and nothing is ever overdue.
    Endless,
    /// Pauses are made, shortened, and each read is observed with its time, which the simulation
    /// is told: how fast the machine is that runs this does not matter.
    Watched,
}

/// One thing that happens on the stage.
#[derive(Clone, Debug)]
pub enum Beat {
    /// The peer sends.
    Send(Sent),
    /// The receiver reads until "would block".
    Drain,
    /// Time passes.
    Wait(Duration),
    /// The peer closes.
    Close,
}

/// A script as it can be played.
#[derive(Clone, Debug)]
pub struct Plan {
    pub wire: Wire,
    pub limits: Limits,
    pub batch: u16,
    pub habits: Habits,
    pub patience: Patience,
    /// The peer's socket holds hardly more than its largest send.
    pub tight: bool,
    pub beats: Vec<Beat>,
}

/// All pauses of one play together.
const PAUSES: Duration = Duration::from_millis(2);

/// Cuts that make more pieces than this are left out.
const PIECES: usize = 2_000;

/// The kernel puts descriptors on the first of the buffers that a stream's send fills, and a read
/// stops behind it: a send that is one buffer is what the simulation knows. The least buffer is half
/// of SOCK_MIN_SNDBUF (net/unix/af_unix.c, unix_stream_sendmsg), the usual one more than this.
const ONE_BUFFER: [usize; 2] = [16 * 1024, 2 * 1024];

impl Plan {
    /// # Errors
    /// Why it cannot be played.
    pub fn of(script: &Script, patience: Patience) -> Result<Self, Refusal> {
        let (wire, acts) = (script.wire(), acts(script));
        let total: u64 =
            acts.iter().map(|act| if let Act::Wait(wait) = act { (*wait).into() } else { 0 }).sum();
        // Deadline and pauses shrink alike.
        let brief = |time: Duration| {
            let total = Duration::from_millis(total);
            if total > PAUSES { time.mul_f64(PAUSES.as_secs_f64() / total.as_secs_f64()) } else { time }
        };
        let limits = script.limits();
        let timeout = match patience {
            Patience::Endless => Duration::from_secs(3600),
            Patience::Watched => brief(limits.assembly_timeout),
        };
        let tight = script.rate % 2 == 1;
        let mut plan = Self {
            wire,
            limits: limits.assembly_timeout(timeout),
            batch: u16::from(script.batch % 20),
            habits: Habits(script.habits),
            patience,
            tight,
            beats: Vec::new(),
        };
        let mut cutter = Cutter::of(script, &acts, ONE_BUFFER[usize::from(tight)]);
        for act in acts {
            match act {
                Act::Send(sent) => plan.send(sent, &mut cutter)?,
                Act::Drain => plan.beats.push(Beat::Drain),
                Act::Close => plan.beats.push(Beat::Close),
                Act::Wait(wait) if patience == Patience::Watched => {
                    plan.beats.push(Beat::Wait(brief(Duration::from_millis(wait.into()))));
                }
                Act::Wait(_) => {}
            }
        }
        Ok(plan)
    }

    fn send(&mut self, sent: Sent, cutter: &mut Cutter) -> Result<(), Refusal> {
        if sent.malformed {
            return Err(Refusal::Malformed);
        }
        if sent.unknown && cutter.stream {
            return Err(Refusal::UnknownOnStream);
        }
        if sent.cut && sent.lost == 0 {
            return Err(Refusal::CutWithoutLoss);
        }
        for piece in cutter.pieces(sent) {
            // What befalls one send alone is arranged while it is alone in the queue.
            let alone = piece.lost > 0 || piece.unknown;
            if alone {
                self.drain();
            }
            self.beats.push(Beat::Send(piece));
            if alone || cutter.cuts.is_some() {
                self.drain();
            }
        }
        Ok(())
    }

    fn drain(&mut self) {
        if !matches!(self.beats.last(), Some(Beat::Drain)) {
            self.beats.push(Beat::Drain);
        }
    }
}

/// Makes sends of a stream such that one read brings what the script says: a kernel gives all that
/// there is, so no more may be there.
struct Cutter {
    stream: bool,
    /// A script's cuts, in turn, and where they stand.
    cuts: Option<[usize; 2]>,
    next: usize,
    one_buffer: usize,
}

impl Cutter {
    fn of(script: &Script, acts: &[Act], one_buffer: usize) -> Self {
        let stream = matches!(script.wire(), Wire::Stream | Wire::VhostUser);
        let bytes: usize =
            acts.iter().map(|act| if let Act::Send(sent) = act { sent.bytes.len() } else { 0 }).sum();
        let cuts = script.cuts.map(usize::from);
        let wanted =
            stream && cuts.iter().all(|cut| *cut > 0) && bytes / cuts[0].min(cuts[1]).max(1) < PIECES;
        Self { stream, cuts: wanted.then_some(cuts), next: 0, one_buffer }
    }

    fn pieces(&mut self, mut sent: Sent) -> Vec<Sent> {
        let mut pieces = Vec::new();
        while self.stream {
            let special = sent.descriptors > 0 || sent.unknown;
            let most = match self.cuts {
                Some(cuts) => cuts[self.next % 2],
                None if special => self.one_buffer,
                None => break,
            };
            self.next += 1;
            if sent.bytes.len() <= most {
                break;
            }
            let rest = sent.bytes.split_off(most);
            pieces.push(std::mem::replace(&mut sent, Sent { bytes: rest, ..Sent::default() }));
        }
        pieces.push(sent);
        pieces
    }
}
