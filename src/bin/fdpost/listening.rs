//! `fdpost serve --listen`: whoever connects, several at once if asked to.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use fdpost::{Address, Deadline, Error, Limits, Listener, Misuse, Packet, PeerRule, Stream};

use crate::brokered::{Brokered, Counter};
use crate::conversation::Opened;
use crate::event::Printer;
use crate::exit::{self, Failure, Outcome, VIOLATION};
use crate::options::{self, Profile, Serving, Wire};
use crate::serve::converse;

/// Where to listen, and for whom.
#[derive(Args, Clone, Debug)]
pub(crate) struct Listening {
    /// Listen at this path, or under the abstract name that follows an @ (packet, stream, send-fd; at a
    /// file whose name begins with @ as ./@NAME). A socket's file that nobody serves is replaced
    #[arg(long, value_name = "PATH", value_parser = options::address, group = "place")]
    listen: Option<Address>,
    #[command(flatten)]
    brokered: Brokered,
    /// Permissions of the socket's file, in octal: who may write it may connect
    #[arg(long, value_name = "MODE", value_parser = options::mode, default_value = "600", requires = "listen", conflicts_with = "fd")]
    mode: u32,
    /// How many clients are served at once; others wait until one of them is done
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024),
        default_value_t = 1, requires = "place", conflicts_with = "fd")]
    jobs: u64,
    /// End when so many clients were served; without it, never
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "place", conflicts_with = "fd")]
    clients: Option<u64>,
    /// Serve only this user; others are closed unheard. With --broker, the user who may ask; without it
    /// that is our own
    #[arg(long, value_name = "N", requires = "place", conflicts_with = "fd")]
    peer_uid: Option<u32>,
}

/// A listener of the wire.
enum Door {
    Packet(Listener<Packet>),
    Stream(Listener<Stream>),
    SendFd(Listener<Stream>),
    Broker(Box<Counter>),
}

impl Door {
    fn open(profile: Profile, address: &Address, limits: Limits, mode: u32, rule: PeerRule) -> Outcome<Self> {
        let listening = fdpost::Listening::new().mode(mode).rule(rule);
        let failed = |error| Failure::of(format_args!("listening at {address}"), error);
        Ok(match profile {
            Profile::Libcamera => return Err(failed(Misuse::PairsOnly { wire: "libcamera" }.into())),
            Profile::Packet => Self::Packet(Listener::bind_with(address, limits, listening).map_err(failed)?),
            Profile::Stream => Self::Stream(Listener::bind_with(address, limits, listening).map_err(failed)?),
            Profile::SendFd => {
                let limits = limits.descriptors(limits.descriptors.max(1));
                Self::SendFd(Listener::bind_with(address, limits, listening).map_err(failed)?)
            }
        })
    }

    fn accept(&self, until: Deadline) -> Result<Opened, Error> {
        match self {
            Self::Packet(listener) => listener.accept_by(until).map(Opened::Packet),
            Self::Stream(listener) => listener.accept_by(until).map(Opened::Stream),
            Self::SendFd(listener) => Opened::classic(listener.accept_by(until)?),
            Self::Broker(counter) => counter.accept(until),
        }
    }

    /// Nobody is accepted any more.
    fn shut(&self) {
        match self {
            Self::Packet(listener) => listener.shutdown(),
            Self::Stream(listener) | Self::SendFd(listener) => listener.shutdown(),
            Self::Broker(counter) => counter.shut(),
        }
    }
}

impl Listening {
    pub(crate) fn serve(&self, wire: &Wire, serving: &Serving) -> Outcome {
        let limits = serving.limits();
        let door = match (&self.listen, self.brokered.serve(wire.profile, limits, self.peer_uid)) {
            (Some(address), _) => {
                Door::open(wire.profile, address, limits, self.mode, options::peer_rule(self.peer_uid)?)?
            }
            (None, Some(counter)) => Door::Broker(Box::new(counter?)),
            (None, None) => {
                return Err(Failure::usage("no socket is given; give --fd, --listen or --broker"));
            }
        };
        let printer = Printer { profile: wire.profile, json: serving.format.json, client: None };
        printer.plain("listening")?;
        let hall = Hall {
            door,
            wire,
            serving,
            printer,
            left: AtomicU64::new(self.clients.unwrap_or(u64::MAX)),
            number: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            quiet: Mutex::new(Instant::now()),
            idle: AtomicBool::new(false),
            failure: Mutex::new(None),
        };
        let jobs = self.jobs.min(self.clients.unwrap_or(u64::MAX));
        thread::scope(|scope| {
            for number in 1..jobs {
                // Where no thread is to be had, those that there are serve all: this one at least.
                if let Err(error) = thread::Builder::new().spawn_scoped(scope, || hall.work()) {
                    exit::say(format_args!("{number} of {jobs} clients are served at once: {error}"));
                    break;
                }
            }
            hall.work();
        });
        if hall.idle.into_inner() {
            printer.plain("idle")?;
        }
        hall.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// What all who serve share.
struct Hall<'a> {
    door: Door,
    wire: &'a Wire,
    serving: &'a Serving,
    printer: Printer,
    /// Clients that may still be served.
    left: AtomicU64,
    /// The last one's number.
    number: AtomicU64,
    /// Who serves one.
    busy: AtomicUsize,
    /// When the last one was done.
    quiet: Mutex<Instant>,
    /// Nobody came for so long that it is over.
    idle: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Hall<'_> {
    /// Serves one client after the other.
    fn work(&self) {
        while self.take_ticket() {
            let opened = match self.next() {
                Ok(Some(opened)) => opened,
                Ok(None) => return,
                Err(failure) => {
                    self.fail(failure);
                    return self.door.shut();
                }
            };
            let client = self.number.fetch_add(1, Ordering::Relaxed) + 1;
            let printer = Printer { client: Some(client), ..self.printer };
            let served = converse(opened, self.wire, self.serving, printer);
            // Before it is not busy any more: who sees that must find the time.
            *self.quiet() = Instant::now();
            self.busy.fetch_sub(1, Ordering::SeqCst);
            if let Err(failure) = served {
                let fatal = failure.fatal;
                self.fail(failure);
                if fatal {
                    return self.door.shut();
                }
            }
        }
    }

    fn take_ticket(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// Waits for the next client. `None`: none is to be served any more.
    fn next(&self) -> Outcome<Option<Opened>> {
        loop {
            let until = self.patience();
            match self.door.accept(until) {
                Ok(opened) => {
                    self.busy.fetch_add(1, Ordering::SeqCst);
                    return Ok(Some(opened));
                }
                Err(Error::PeerRefused { pid, uid, gid }) => self.printer.refused(pid, uid, gid)?,
                // Others' clients are talking, or have been since: then it is not over, even where
                // they hold the last descriptors.
                Err(Error::TimedOut | Error::Pressure { .. }) if until.has_passed() && !self.is_over() => {}
                Err(Error::TimedOut) => {
                    self.idle.store(true, Ordering::SeqCst);
                    self.door.shut();
                    return Ok(None);
                }
                // Shut down by another, which says why.
                Err(Error::Closed) => return Ok(None),
                Err(error) => {
                    self.printer.error(&error)?;
                    return Err(Failure::of("no client can be accepted", error));
                }
            }
        }
    }

    /// Until when somebody must come; while somebody is served, until when to look again.
    fn patience(&self) -> Deadline {
        let Some(idle) = self.serving.idle() else { return Deadline::NEVER };
        match self.quiet().checked_add(idle) {
            Some(end) if self.busy.load(Ordering::SeqCst) == 0 => Deadline::at(end),
            _ => Deadline::after(idle),
        }
    }

    /// Whether nobody was served for as long as is waited for.
    fn is_over(&self) -> bool {
        let idle = self.serving.idle().unwrap_or(Duration::MAX);
        self.busy.load(Ordering::SeqCst) == 0 && self.quiet().elapsed() >= idle
    }

    fn quiet(&self) -> MutexGuard<'_, Instant> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the command ends with: a broken rule before all else, then what came first.
    fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let worse = |first: &Failure| failure.status == VIOLATION && first.status != VIOLATION;
        if first.as_ref().is_none_or(worse) {
            *first = Some(failure);
        }
    }
}
