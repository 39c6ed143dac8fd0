//! Messages passed between two sockets, both ways, without one way waiting for the other.
//!
//! Bounded: each way holds at most one message. While it is not out, nothing more is read from
//! its sender, whose own kernel queue then makes it wait.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use fdpost::transcript::Direction;
use fdpost::{Error, Message, SendError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};

use crate::exit::{Failure, Outcome};
use crate::inspect_peers::Peers;
use crate::inspect_show::{Item, Passed};
use crate::inspect_sides::Side;

/// How often a command on a datagram socket is looked at, whose end no event tells.
const WATCH: Duration = Duration::from_millis(20);
/// How long to wait where the kernel is short of memory and calls the socket writable all the same.
const PRESSURE: Duration = Duration::from_millis(10);

const DIRECTIONS: [Direction; 2] = [Direction::Forth, Direction::Back];

/// How it ended.
pub(crate) enum Ending {
    /// Both ways are closed, or nothing came for too long.
    Over,
    Violation,
    /// This side ran out of something, or cannot send what it received.
    Ours,
}

/// One way.
#[derive(Default)]
struct Lane {
    /// Received and not handed to the kernel yet.
    held: Option<Message>,
    /// Why it is not handed over: room, or memory.
    pressed: bool,
    state: Flow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flow {
    #[default]
    Open,
    /// What is in the queue is the last: nobody sends any more, and no event will say so.
    Last,
    /// The sender closed; what is pending goes out, then the end is passed on.
    Draining,
    Over,
}

pub(crate) struct Relay {
    sides: [Box<dyn Side>; 2],
    lanes: [Lane; 2],
    /// The sockets never tell that the peer closed.
    datagrams: bool,
    epoch: Instant,
}

type Tell<'a> = &'a mut dyn FnMut(Item) -> Outcome;

impl Relay {
    pub(crate) fn new(sides: [Box<dyn Side>; 2], datagrams: bool) -> Self {
        Self { sides, lanes: Default::default(), datagrams, epoch: Instant::now() }
    }

    /// Until both ways are over. Every item is told before it has an effect on the other side.
    pub(crate) fn run(
        &mut self,
        peers: &mut Peers,
        idle: Option<Duration>,
        tell: Tell<'_>,
    ) -> Outcome<Ending> {
        let mut active = Instant::now();
        let watched = self.datagrams && peers.has_command();
        loop {
            let mut progress = false;
            for direction in DIRECTIONS {
                match self.advance(direction, tell)? {
                    Ok(moved) => progress |= moved,
                    Err(error) => return self.fail(direction, error, tell),
                }
            }
            if self.lanes.iter().all(|lane| lane.state == Flow::Over) {
                return Ok(Ending::Over);
            }
            if progress {
                active = Instant::now();
                continue;
            }
            if idle.is_some_and(|idle| active.elapsed() >= idle) {
                tell(Item::Idle { at: self.epoch.elapsed() })?;
                return Ok(Ending::Over);
            }
            if watched && peers.has_ended()? {
                self.gone(Direction::Forth, tell)?;
                continue;
            }
            let left = idle.map(|idle| idle.saturating_sub(active.elapsed()));
            self.wait(left.into_iter().chain(watched.then_some(WATCH)).min())?;
        }
    }

    /// Ends both sides.
    pub(crate) fn end(&self) {
        self.sides.iter().for_each(|side| side.shutdown());
    }

    /// One step of one way. `false`: nothing can be done now.
    fn advance(&mut self, direction: Direction, tell: Tell<'_>) -> Outcome<Result<bool, Error>> {
        let lane = &mut self.lanes[direction as usize];
        if lane.state == Flow::Over {
            return Ok(Ok(false));
        }
        let to = &mut self.sides[direction.reverse() as usize];
        if let Some(message) = lane.held.take() {
            return match to.try_send(message) {
                Ok(()) => Ok(Ok(true)),
                Err(error) => self.refused(direction, error, tell),
            };
        }
        if to.has_pending() {
            return match to.flush() {
                Ok(()) => Ok(Ok(true)),
                Err(SendError { error: Error::TimedOut, .. }) => {
                    // A time of its own: it backs off, and "writable" would wake us at once.
                    lane.pressed = !to.wants_write();
                    Ok(Ok(false))
                }
                Err(error) => self.refused(direction, error, tell),
            };
        }
        if lane.state == Flow::Draining {
            lane.state = Flow::Over;
            // ENOTCONN: it has gone by itself.
            let _no_peer_to_tell = shutdown(to.as_fd().as_raw_fd(), Shutdown::Write);
            return Ok(Ok(true));
        }
        match self.sides[direction as usize].try_receive() {
            Ok(Some(message)) => {
                tell(Item::Message(Passed::of(direction, self.epoch.elapsed(), &message)))?;
                lane.held = Some(message);
                Ok(Ok(true))
            }
            Ok(None) if lane.state == Flow::Open => Ok(Ok(false)),
            Ok(None) | Err(Error::Closed) => {
                lane.state = Flow::Draining;
                tell(Item::Closed { direction, at: self.epoch.elapsed(), by_sender: true })?;
                Ok(Ok(true))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// What a failed send means for its way.
    fn refused(
        &mut self,
        direction: Direction,
        error: SendError,
        tell: Tell<'_>,
    ) -> Outcome<Result<bool, Error>> {
        let SendError { error, mut messages } = error;
        match error {
            Error::WouldBlock | Error::Pressure { .. } => {
                let lane = &mut self.lanes[direction as usize];
                lane.held = messages.pop();
                lane.pressed = error != Error::WouldBlock;
                Ok(Ok(false))
            }
            Error::PeerGone { .. } | Error::Closed => {
                self.gone(direction, tell)?;
                Ok(Ok(true))
            }
            error => Ok(Err(error)),
        }
    }

    /// The receiver of this way is gone: its sender learns it, and what it had sent is the last.
    fn gone(&mut self, direction: Direction, tell: Tell<'_>) -> Outcome {
        let lane = &mut self.lanes[direction as usize];
        if lane.state != Flow::Over {
            *lane = Lane { state: Flow::Over, ..Lane::default() };
            tell(Item::Closed { direction, at: self.epoch.elapsed(), by_sender: false })?;
            let from = self.sides[direction as usize].as_fd().as_raw_fd();
            let _no_peer_to_tell = shutdown(from, Shutdown::Read);
        }
        let back = &mut self.lanes[direction.reverse() as usize];
        if self.datagrams && back.state == Flow::Open {
            back.state = Flow::Last;
        }
        Ok(())
    }

    fn fail(&self, direction: Direction, error: Error, tell: Tell<'_>) -> Outcome<Ending> {
        let at = self.epoch.elapsed();
        self.end();
        if let Some(violation) = error.violation() {
            tell(Item::Violation { direction, at, violation })?;
            return Ok(Ending::Violation);
        }
        let (rule, text) = match error {
            Error::Exhausted(exhausted) => (exhausted.rule(), exhausted.to_string()),
            Error::Misuse(misuse) => ("misuse", misuse.to_string()),
            other => ("io", other.to_string()),
        };
        tell(Item::Error { direction, at, rule, text })?;
        Ok(Ending::Ours)
    }

    /// Until something can be done.
    fn wait(&mut self, most: Option<Duration>) -> Outcome {
        let mut until = most;
        let mut earlier = |time: Option<Duration>| until = until.into_iter().chain(time).min();
        let mut sockets = Vec::with_capacity(2);
        for direction in DIRECTIONS {
            let (side, other) = (&self.sides[direction as usize], &self.sides[direction.reverse() as usize]);
            let (out, inn) = (&self.lanes[direction as usize], &self.lanes[direction.reverse() as usize]);
            let mut events = PollFlags::empty();
            if out.state == Flow::Open && out.held.is_none() && !other.has_pending() {
                events |= PollFlags::POLLIN;
                earlier(side.timeout());
            }
            if inn.state != Flow::Over && (inn.held.is_some() || side.has_pending()) {
                if inn.pressed {
                    earlier(Some(PRESSURE));
                } else {
                    events |= PollFlags::POLLOUT;
                }
            }
            // A socket of which nothing is wanted would wake us for its hang-up again and again.
            if !events.is_empty() {
                sockets.push(PollFd::new(side.as_fd(), events));
            }
        }
        let timeout = until.map_or(PollTimeout::NONE, |time| {
            let millis = time.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        let polled = poll(&mut sockets, timeout);
        drop(sockets);
        self.lanes.iter_mut().for_each(|lane| lane.pressed = false);
        match polled {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(Failure::io("poll", &errno.into())),
        }
    }
}
