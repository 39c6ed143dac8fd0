//! What recvmsg(2) makes of what a peer sent: unix(7), and for streams the order in which bytes
//! and descriptors come out of the queue.

use fdpost::error::Malformed;
use fdpost::machine::Hunk;
use std::collections::VecDeque;
use std::time::Duration;

use super::log::{Event, Read, Wire};
use super::peer::Sent;
use super::token::{Ledger, Token};

/// Reads that are cut; those behind them bring what there is. A large payload byte by byte shows
/// nothing that its first thousand bytes do not.
const CUT_READS: usize = 1000;

/// One direction of a socket.
pub struct Kernel {
    wire: Wire,
    ledger: Ledger,
    queue: VecDeque<Queued>,
    closed: bool,
    issued: u64,
    cuts: Vec<usize>,
    reads: usize,
    /// What was read, for the model.
    pub log: Vec<Event>,
}

/// A send in the queue; its descriptors leave it with its first byte.
struct Queued {
    sent: Sent,
    ids: Vec<u64>,
    touched: bool,
    /// Bytes that were read.
    read: usize,
}

impl Kernel {
    /// `cuts`: reads of a stream bring at most so many bytes, in turn; 0 = what there is.
    pub fn new(wire: Wire, ledger: Ledger, cuts: &[usize]) -> Self {
        let (queue, log) = (VecDeque::new(), Vec::new());
        Self { wire, ledger, queue, closed: false, issued: 0, cuts: cuts.to_vec(), reads: 0, log }
    }

    /// The peer sends. Descriptors that the receiver's process cannot install are no more.
    pub fn send(&mut self, mut sent: Sent) {
        let first = self.issued;
        self.issued += sent.descriptors as u64;
        let installed = (sent.descriptors - sent.lost) as u64;
        sent.cut |= sent.lost > 0;
        self.queue.push_back(Queued {
            sent,
            ids: (first..first + installed).collect(),
            touched: false,
            read: 0,
        });
    }

    /// The peer closes.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Fills what it can; 0 = "would block".
    pub fn receive(&mut self, at: Duration, hunks: &mut [Hunk<Token>]) -> usize {
        let mut filled = 0;
        for hunk in hunks {
            let read = match self.wire {
                Wire::Libcamera | Wire::Packet => self.packet(),
                Wire::Stream | Wire::VhostUser => self.bytes(hunk.room()),
            };
            let Some(mut read) = read else { break };
            read.at = at;
            let (apart, bytes) = read.bytes.split_at(hunk.head_room().min(read.bytes.len()));
            hunk.set_head(apart);
            hunk.fill(bytes, read.descriptors.iter().map(|id| self.ledger.issue(*id)));
            if read.cut {
                hunk.set_control_cut();
            }
            if read.malformed {
                hunk.set_malformed(Malformed::NegativeDescriptor { value: -24 });
            }
            if read.unknown {
                hunk.set_unknown(41, 3);
            }
            if read.end {
                hunk.set_end();
            }
            self.log.push(Event::Read(read));
            filled += 1;
        }
        filled
    }

    fn end(&self) -> Option<Read> {
        self.closed.then(|| Read { end: self.wire == Wire::Libcamera, ..Read::default() })
    }

    fn packet(&mut self) -> Option<Read> {
        let Some(Queued { sent, ids, .. }) = self.queue.pop_front() else { return self.end() };
        let Sent { bytes, cut, malformed, unknown, .. } = sent;
        Some(Read { bytes, descriptors: ids, cut, malformed, unknown, ..Read::default() })
    }

    /// Plain bytes sent earlier can stand before those of a send with descriptors; behind any
    /// byte of that send the read stops.
    fn bytes(&mut self, room: usize) -> Option<Read> {
        assert!(room > 0, "a read of no bytes would look like the end");
        if self.queue.is_empty() {
            return self.end();
        }
        let cuts = if self.reads < CUT_READS { &self.cuts[..] } else { &[] };
        let cut = cuts.get(self.reads % cuts.len().max(1)).copied().unwrap_or(0);
        self.reads += 1;
        let room = if cut == 0 { room } else { room.min(cut) };
        let mut read = Read::default();
        while let Some(front) = self.queue.front_mut() {
            let fresh = !std::mem::replace(&mut front.touched, true);
            let special = front.sent.malformed || front.sent.unknown;
            if read.bytes.len() == room {
                front.touched = !fresh;
                break;
            }
            let rest = &front.sent.bytes[front.read..];
            let taken = rest.len().min(room - read.bytes.len());
            read.bytes.extend_from_slice(&rest[..taken]);
            front.read += taken;
            let carries = fresh && (special || front.sent.cut || front.sent.descriptors > 0);
            if carries {
                read.descriptors = std::mem::take(&mut front.ids);
                (read.cut, read.malformed, read.unknown) =
                    (front.sent.cut, front.sent.malformed, front.sent.unknown);
            }
            if front.read == front.sent.bytes.len() {
                self.queue.pop_front();
            }
            if carries {
                break;
            }
        }
        Some(read)
    }
}
