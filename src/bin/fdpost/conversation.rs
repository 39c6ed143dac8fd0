//! One side of a conversation, whatever its wire.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use fdpost::driver::{FdReply, receive_fd_accepting, receive_fd_within, send_error, send_fd};
use fdpost::{
    Address, Channel, Deadline, Error, Libcamera, Limits, Message, Misuse, Packet, PeerRule, Policy, Sent,
    Stream, Transport, inherited,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, getpeername, socketpair};

use crate::event::Printer;
use crate::exit::{Failure, Outcome};
use crate::options::{Profile, Wire};

/// How long a program that was just started has to say its first word: far beyond what a loaded
/// machine needs.
const BEGIN: Duration = Duration::from_secs(10);

/// Which part this side has in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Begins,
    Answers,
}

/// A socket and the rules of its wire.
pub(crate) enum Conversation {
    /// A wire of messages.
    Messages(Box<dyn Transport>),
    /// `send_fd`: not header-first, so no transport.
    SendFd { socket: OwnedFd, limits: Limits, policy: Option<Policy> },
}

/// What came.
pub(crate) enum Received {
    Message(Message),
    Descriptor(OwnedFd),
    PeerError { status: u8, text: Vec<u8> },
}

/// Takes the socket that was left open as `number`.
pub(crate) fn take(number: i32) -> Outcome<OwnedFd> {
    inherited(number).map_err(|error| match error.errno() {
        Some(errno) if errno == Errno::EBADF as i32 => Failure::usage(format_args!(
            "--fd {number}: no descriptor of that number is open here; start fdpost from what holds the \
             socket, and let it inherit the socket under this number"
        )),
        _ => Failure::of(format_args!("--fd {number}"), error),
    })
}

/// A pair of connected sockets of the wire's type.
pub(crate) fn pair(profile: Profile) -> Outcome<(OwnedFd, OwnedFd)> {
    let kind = match profile {
        Profile::Libcamera => SockType::Datagram,
        Profile::Packet => SockType::SeqPacket,
        Profile::Stream | Profile::SendFd => SockType::Stream,
    };
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| Failure::io("making the pair of sockets", &errno.into()))
}

/// What is wrong with a socket that does not carry the wire.
pub(crate) fn unfit(error: Error) -> Failure {
    match error.errno() {
        Some(errno) if errno == Errno::ENOTSOCK as i32 => Failure::usage(
            "the descriptor is no socket; hand over one end of a connected pair (socketpair, `fdpost run`)",
        ),
        _ => Failure::of("the socket does not fit", error),
    }
}

/// A socket, fit for its wire.
pub(crate) enum Opened {
    Libcamera(Channel<Libcamera>),
    Packet(Channel<Packet>),
    Stream(Channel<Stream>),
    SendFd(OwnedFd),
}

impl Opened {
    /// What somebody else made and connected.
    pub(crate) fn given(profile: Profile, socket: OwnedFd, limits: Limits) -> Outcome<Self> {
        Ok(match profile {
            Profile::Libcamera => Self::Libcamera(Channel::from_fd(socket, limits).map_err(unfit)?),
            Profile::Packet => Self::Packet(Channel::from_fd(socket, limits).map_err(unfit)?),
            Profile::Stream => Self::Stream(Channel::from_fd(socket, limits).map_err(unfit)?),
            Profile::SendFd => {
                check_classic(&socket).map_err(unfit)?;
                Self::SendFd(socket)
            }
        })
    }

    /// Connects to who listens there.
    pub(crate) fn connect(
        profile: Profile,
        address: &Address,
        limits: Limits,
        rule: &PeerRule,
        until: Deadline,
    ) -> Outcome<Self> {
        let failed = |error| Failure::of(format_args!("connecting to {address}"), error);
        Ok(match profile {
            Profile::Libcamera => {
                Self::Libcamera(Channel::connect_with(address, limits, rule, until).map_err(failed)?)
            }
            Profile::Packet => {
                Self::Packet(Channel::connect_with(address, limits, rule, until).map_err(failed)?)
            }
            Profile::Stream => {
                Self::Stream(Channel::connect_with(address, limits, rule, until).map_err(failed)?)
            }
            Profile::SendFd => {
                let limits = limits.descriptors(limits.descriptors.max(1));
                Self::classic(Channel::connect_with(address, limits, rule, until).map_err(failed)?)
                    .map_err(failed)?
            }
        })
    }

    /// `send-fd` is no channel: its socket alone. Itself and no duplicate, for which no number may be
    /// free.
    pub(crate) fn classic(channel: Channel<Stream>) -> Result<Self, Error> {
        let mut carrier = Message::default();
        carrier.attach_channel(channel)?;
        carrier.take(0).map(Self::SendFd).ok_or(Error::Closed)
    }
}

/// A conversation. Prints `ready` and, where there is one, the handshake.
pub(crate) fn open(
    opened: Opened,
    wire: &Wire,
    limits: Limits,
    part: Part,
    printer: Printer,
) -> Outcome<Conversation> {
    let conversation = match opened {
        Opened::Libcamera(channel) => messages(channel),
        Opened::Packet(channel) => messages(channel),
        Opened::Stream(mut channel) => {
            begin(&mut channel, wire, part, printer)?;
            return Ok(messages(channel));
        }
        Opened::SendFd(socket) => Conversation::SendFd { socket, limits, policy: None },
    };
    if part == Part::Answers {
        printer.plain("ready")?;
    }
    Ok(conversation)
}

fn messages<P: fdpost::Profile<Declared: Send> + 'static>(channel: Channel<P>) -> Conversation {
    Conversation::Messages(Box::new(channel))
}

/// A try that waits for nothing: what the socket is not, it says now and not at the first message.
fn check_classic(socket: &OwnedFd) -> Result<(), Error> {
    match getpeername::<UnixAddr>(socket.as_raw_fd()) {
        Ok(_) => Ok(()),
        Err(Errno::ENOTCONN) => Err(Misuse::NotConnected.into()),
        Err(Errno::EINVAL) => Err(Misuse::NotUnix { domain: 0 }.into()),
        Err(errno) => Err(Error::Io { call: "getpeername", errno: errno as i32 }),
    }
}

/// Prints `ready`, and shakes hands where that was asked for.
pub(crate) fn begin(channel: &mut Channel<Stream>, wire: &Wire, part: Part, printer: Printer) -> Outcome {
    if part == Part::Answers {
        printer.plain("ready")?;
    }
    if wire.handshake { shake_hands(channel, part, printer) } else { Ok(()) }
}

fn shake_hands(channel: &mut Channel<Stream>, part: Part, printer: Printer) -> Outcome {
    let shaken = match part {
        Part::Begins => channel.greet(),
        Part::Answers => channel.welcome(),
    };
    if let Err(error) = shaken {
        if let Some(violation) = error.violation() {
            printer.violation(violation)?;
        }
        return Err(Failure::of("the handshake failed", error));
    }
    Ok(printer.plain("handshake")?)
}

/// What `send_fd` sends, of the kinds that are accepted.
pub(crate) fn receive_classic(
    socket: &OwnedFd,
    limits: &Limits,
    policy: Option<&Policy>,
    until: Deadline,
) -> Result<FdReply, Error> {
    match policy {
        Some(policy) => receive_fd_accepting(socket, limits, policy, until),
        None => receive_fd_within(socket, limits, until),
    }
}

impl Conversation {
    /// Which kinds of descriptors are accepted; `None`: any.
    pub(crate) fn set_policy(&mut self, kinds: Option<Policy>) {
        match (self, kinds) {
            (_, None) => {}
            (Self::Messages(transport), Some(kinds)) => transport.set_policy(kinds),
            (Self::SendFd { policy, .. }, kinds) => *policy = kinds,
        }
    }

    /// What comes next, until the deadline.
    pub(crate) fn receive(&mut self, until: Deadline) -> Result<Received, Error> {
        match self {
            Self::Messages(transport) => transport.receive_by(until).map(Received::Message),
            Self::SendFd { socket, limits, policy } => {
                // The deadline is for the first byte; a message begun has a time of its own.
                if !is_readable(socket, until)? {
                    return Err(Error::TimedOut);
                }
                let whole = Deadline::after(limits.assembly_timeout);
                Ok(match receive_classic(socket, limits, policy.as_ref(), whole)? {
                    FdReply::Descriptor(descriptor) => Received::Descriptor(descriptor),
                    FdReply::Error { status, text } => Received::PeerError { status, text },
                })
            }
        }
    }

    /// How long a message that has begun has left.
    pub(crate) fn begun(&self) -> Option<Duration> {
        match self {
            Self::Messages(transport) => transport.timeout(),
            Self::SendFd { .. } => None,
        }
    }

    pub(crate) fn send(&mut self, message: Message, until: Deadline) -> Result<(), Error> {
        match self {
            Self::Messages(transport) => match transport.send_by(message, until)? {
                Sent::Complete => Ok(()),
                // Its rest would be lost with this process.
                _ => Err(Error::TimedOut),
            },
            Self::SendFd { socket, .. } => {
                let descriptor = message.descriptor(0).ok_or(Misuse::EmptyMessage { wire: "send_fd" })?;
                is_writable(socket, until)?;
                send_fd(&*socket, descriptor)
            }
        }
    }

    pub(crate) fn send_error(&mut self, status: u8, text: &[u8], until: Deadline) -> Result<(), Error> {
        match self {
            Self::Messages(_) => Err(Misuse::EmptyMessage { wire: "send_fd" }.into()),
            Self::SendFd { socket, .. } => {
                is_writable(socket, until)?;
                send_error(&*socket, status, text)
            }
        }
    }
}

/// The driver's sends over `send_fd` have no deadline: room is waited for here.
fn is_writable(socket: &OwnedFd, until: Deadline) -> Result<(), Error> {
    if wait(socket, PollFlags::POLLOUT, until)? { Ok(()) } else { Err(Error::TimedOut) }
}

/// Waits for the first byte, or the end; not for ever.
pub(crate) fn await_begin(socket: &OwnedFd) -> Outcome {
    let waited = is_readable(socket, Deadline::after(BEGIN));
    waited.map(drop).map_err(|error| Failure::of("waiting for the command", error))
}

fn is_readable(socket: &OwnedFd, until: Deadline) -> Result<bool, Error> {
    wait(socket, PollFlags::POLLIN, until)
}

fn wait(socket: &OwnedFd, events: PollFlags, until: Deadline) -> Result<bool, Error> {
    let mut sockets = [PollFd::new(socket.as_fd(), events)];
    loop {
        let timeout = until.instant().map_or(PollTimeout::NONE, |instant| {
            let left = instant.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000);
            PollTimeout::try_from(left.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut sockets, timeout) {
            Ok(0) if !until.has_passed() => {}
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Io { call: "poll", errno: errno as i32 }),
        }
    }
}
