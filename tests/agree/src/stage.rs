//! The real thing: a socketpair, a peer who sends what the script says, a channel, and a process
//! that at times can take no more descriptors.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fdpost::machine::{Hunk, Received};
use fdpost::{Channel, Deadline, Error, Message, Profile};
use fdpost_proptests::log::{Heard, Wire};
use fdpost_proptests::peer::Sent;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use crate::plan::{Beat, Patience, Plan, Refusal};
use crate::room::Room;
use crate::support::{Ledger, try_raw_send, unguarded_pair};
use crate::{Feats, Met};

/// What came of it.
pub struct Played {
    /// What happened, which the simulation is to play: where the socket was full there is a read
    /// more than the script had, and a send of a stream is in pieces.
    pub beats: Vec<Beat>,
    pub heard: Vec<Heard>,
    /// What the channel says in the end.
    pub answer: Error,
    pub received: Received,
    /// What the driver met, and when; nothing where nobody watched.
    pub met: Vec<(Duration, Met)>,
    pub feats: Feats,
}

/// Descriptors that a receiver keeps, who keeps what it gets: a process may have no more than 1024.
const KEPT: usize = 250;

type Notes = Arc<Mutex<Vec<(Duration, Met)>>>;

struct Stage<'a, P: Profile> {
    plan: &'a Plan,
    channel: Channel<P>,
    /// Another holder of the channel's socket, who may do to it what a channel would not.
    twin: OwnedFd,
    peer: Option<OwnedFd>,
    beats: Vec<Beat>,
    heard: Vec<Heard>,
    kept: Vec<Message>,
    spare: Message,
    feats: Feats,
    /// The final answer.
    over: Option<Error>,
}

/// Plays `plan` over a real pair of sockets.
///
/// # Errors
/// [`Refusal::TooLarge`]: only the kernel knows.
pub fn play<P: Profile + 'static>(plan: &Plan) -> Result<Played, Refusal> {
    let ledger = Ledger::open();
    let notes = Notes::default();
    let played = Stage::<P>::set(plan, &notes).play();
    ledger.close();
    let met = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
    played.map(|played| Played { met, ..played })
}

impl<'a, P: Profile + 'static> Stage<'a, P> {
    fn set(plan: &'a Plan, notes: &Notes) -> Self {
        let (mut channel, peer) = unguarded_pair::<P>(plan.limits);
        channel.set_batch(plan.batch);
        let largest =
            plan.beats.iter().map(|beat| if let Beat::Send(sent) = beat { sent.bytes.len() } else { 0 });
        if plan.tight {
            // The kernel doubles it, and takes 32 for itself.
            setsockopt(&peer, sockopt::SndBuf, &(largest.max().unwrap_or(0) / 2 + 32)).unwrap();
        } else {
            setsockopt(&peer, sockopt::SndBuf, &(largest.max().unwrap_or(0).max(212_992))).unwrap();
        }
        fcntl(&peer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        if plan.patience == Patience::Watched {
            let (notes, begun) = (Arc::clone(notes), Instant::now());
            channel.set_observer(move |now, hunk| {
                let note = (now.saturating_duration_since(begun), hunk.map_or(Met::Block, met));
                notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
            });
        }
        Self {
            twin: channel.as_fd().try_clone_to_owned().unwrap(),
            plan,
            channel,
            peer: Some(peer),
            beats: Vec::new(),
            heard: Vec::new(),
            kept: Vec::new(),
            spare: Message::default(),
            feats: Feats::default(),
            over: None,
        }
    }

    fn play(mut self) -> Result<Played, Refusal> {
        let mut beats = self.plan.beats.iter();
        while let (None, Some(beat)) = (self.over, beats.next()) {
            match beat {
                Beat::Send(sent) => self.send(sent.clone())?,
                Beat::Drain => self.drain(),
                Beat::Wait(time) => {
                    std::thread::sleep(*time);
                    self.beats.push(beat.clone());
                }
                Beat::Close => self.close(),
            }
        }
        let answer = match self.over {
            None => Error::WouldBlock,
            Some(error) => {
                // P3: for ever.
                assert_eq!(self.channel.try_receive().unwrap_err(), error);
                error
            }
        };
        let received = self.channel.stats().received;
        let Self { beats, heard, feats, .. } = self;
        Ok(Played { beats, heard, answer, received, met: Vec::new(), feats })
    }

    fn send(&mut self, mut sent: Sent) -> Result<(), Refusal> {
        let mut files: Vec<OwnedFd> =
            (0..sent.descriptors as u64).map(|at| numbered(self.feats.descriptors + at)).collect();
        self.feats.descriptors += sent.descriptors as u64;
        let mut stuck = false;
        while self.over.is_none() {
            let peer = self.peer.as_ref().expect("nobody sends after closing");
            match try_raw_send(peer, &sent.bytes, &files) {
                Ok(taken) => {
                    // Part of it, on a stream. The descriptors left with its first byte.
                    let rest = sent.bytes.split_off(taken);
                    files.clear();
                    let whole = rest.is_empty();
                    let rest = Sent { bytes: rest, ..Sent::default() };
                    self.beats.push(Beat::Send(std::mem::replace(&mut sent, rest)));
                    if whole {
                        return Ok(());
                    }
                    stuck = false;
                }
                // The socket is full, or the user has too many descriptors in flight: one has to
                // read before the other can go on.
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS) => {
                    assert!(!std::mem::replace(&mut stuck, true), "all was read and there is still no room");
                    self.feats.full += 1;
                    self.drain();
                }
                Err(Errno::EMSGSIZE | Errno::ENOBUFS) => return Err(Refusal::TooLarge),
                Err(errno) => panic!("a send of {} bytes failed: {errno}", sent.bytes.len()),
            }
        }
        Ok(())
    }

    /// Reads until "would block". What the last send has to suffer, it suffers here.
    fn drain(&mut self) {
        let (lost, unknown) = match self.beats.last() {
            Some(Beat::Send(sent)) if sent.lost > 0 => (Some(sent.descriptors - sent.lost), false),
            Some(Beat::Send(sent)) => (None, sent.unknown),
            _ => (None, false),
        };
        self.beats.push(Beat::Drain);
        self.feats.lost += u64::from(lost.is_some());
        self.feats.unknown += u64::from(unknown);
        if unknown {
            // Behind the channel's back: it takes no socket that has this switched on.
            setsockopt(&self.twin, sockopt::ReceiveTimestamp, &true).unwrap();
        }
        let room = lost.map(|free| Room::of(free as _));
        while self.over.is_none() {
            match self.receive() {
                Ok(()) => self.hear(),
                Err(Error::WouldBlock | Error::TimedOut) => break,
                Err(error) => self.over = Some(error),
            }
        }
        drop(room);
        if unknown {
            setsockopt(&self.twin, sockopt::ReceiveTimestamp, &false).unwrap();
        }
    }

    fn receive(&mut self) -> Result<(), Error> {
        if self.plan.habits.reuse() {
            return self.channel.receive_into(&mut self.spare, Deadline::after(Duration::ZERO));
        }
        self.spare = self.channel.try_receive()?.ok_or(Error::WouldBlock)?;
        Ok(())
    }

    fn hear(&mut self) {
        let descriptors: Vec<OwnedFd> = self.spare.take_all().collect();
        let numbers = descriptors.iter().map(|came| number(came.as_fd())).collect();
        let (head, payload) = (*self.spare.head(), self.spare.payload().to_vec());
        self.heard.push(Heard { head, payload, descriptors: numbers });
        let kept: usize = self.kept.iter().map(Message::descriptor_count).sum();
        if self.plan.habits.keep() && kept < KEPT {
            self.kept.push(descriptors.into_iter().fold(Message::new([]), Message::with));
        }
    }

    /// A datagram socket does not hear of its peer's end, only of its own.
    fn close(&mut self) {
        if self.plan.wire == Wire::Libcamera {
            shutdown(self.twin.as_raw_fd(), Shutdown::Both).unwrap();
        }
        self.peer = None;
        self.beats.push(Beat::Close);
    }
}

/// A file that holds its number.
fn numbered(number: u64) -> OwnedFd {
    let file = File::from(memfd_create("numbered", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all_at(&number.to_ne_bytes(), 0).unwrap();
    file.into()
}

/// The number that a file holds.
fn number(file: BorrowedFd<'_>) -> u64 {
    let mut bytes = [0; 8];
    let length = nix::sys::uio::pread(file, &mut bytes, 0).unwrap();
    assert_eq!(length, 8, "a descriptor that nobody sent");
    u64::from_ne_bytes(bytes)
}

fn met(hunk: &Hunk<OwnedFd>) -> Met {
    Met::Read {
        bytes: hunk.stored_bytes().to_vec(),
        length: hunk.length(),
        descriptors: hunk.descriptors().iter().map(|came| number(came.as_fd())).collect(),
        cut: hunk.is_control_cut(),
        unknown: hunk.check_control().is_err(),
        end: hunk.is_end(),
    }
}
