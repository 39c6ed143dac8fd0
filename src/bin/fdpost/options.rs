//! Options that several subcommands share.

use std::time::Duration;

use clap::{Args, ValueEnum};
use fdpost::limits::SCM_MAX_FD;
use fdpost::{Address, Deadline, Limits, PeerRule};

use crate::accepting::Accepting;
use crate::brokered::Brokered;
use crate::closing;
use crate::conversation::{self, Opened};
use crate::exit::{Failure, Outcome};

/// The byte formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// libcamera's: two datagrams a message (a SOCK_DGRAM pair)
    Libcamera,
    /// This project's own: a header of 16 bytes and the payload (SOCK_SEQPACKET)
    Packet,
    /// libcamera's first: a header of 12 bytes, the payload, a marker (SOCK_STREAM)
    Stream,
    /// The classic two bytes with one descriptor, or an error text (any type of socket)
    SendFd,
}

/// What to send back for each message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reply {
    /// Nothing
    #[default]
    None,
    /// The same payload and descriptors, with the same kind and correlation
    Echo,
    /// As echo, with the payload's bytes in reverse order
    Reverse,
}

/// Which socket.
#[derive(Args, Clone, Debug)]
pub(crate) struct Socket {
    /// Number of the descriptor: the small number under which whoever starts fdpost left a
    /// connected AF_UNIX socket open for it (0 is its standard input)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..),
        required_unless_present = "place", conflicts_with = "place")]
    fd: Option<i32>,
    #[command(flatten)]
    connect: Connect,
}

/// Where to connect to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Connect {
    /// Connect to who listens at this path, or under the abstract name that follows an @ (packet,
    /// stream, send-fd; to a file whose name begins with @ as ./@NAME)
    #[arg(long, value_name = "PATH", value_parser = address, group = "place")]
    connect: Option<Address>,
    #[command(flatten)]
    brokered: Brokered,
    /// Only if who listens there, service or broker, is of this user
    #[arg(long, value_name = "N", requires = "place", conflicts_with = "fd")]
    peer_uid: Option<u32>,
}

impl Socket {
    pub(crate) fn open(&self, profile: Profile, limits: Limits, until: Deadline) -> Outcome<Opened> {
        match (self.connect.open(profile, limits, until), self.fd) {
            (Some(opened), _) => opened,
            (None, Some(number)) => Opened::given(profile, conversation::take(number)?, limits),
            (None, None) => Err(Failure::usage("no socket is given; give --fd, --connect or --broker")),
        }
    }
}

impl Connect {
    /// `None`, where neither a place nor a broker is given.
    pub(crate) fn open(&self, profile: Profile, limits: Limits, until: Deadline) -> Option<Outcome<Opened>> {
        let rule = match peer_rule(self.peer_uid) {
            Ok(rule) => rule,
            Err(failure) => return Some(Err(failure)),
        };
        match &self.connect {
            Some(address) => Some(Opened::connect(profile, address, limits, &rule, until)),
            None => self.brokered.ask(profile, limits, &rule, until),
        }
    }

    pub(crate) const fn is_given(&self) -> bool {
        self.connect.is_some() || self.brokered.is_given()
    }
}

/// A path, or `@` and an abstract name.
#[expect(clippy::unnecessary_wraps, reason = "the form that clap wants")]
pub(crate) fn address(text: &str) -> Result<Address, std::convert::Infallible> {
    Ok(Address::parse(text))
}

/// Permission bits, in octal.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        _ => Err("it may be 0 to 777, in octal".to_owned()),
    }
}

/// Only this user. Others may have sent what is slow to close: nobody waits for that.
pub(crate) fn peer_rule(uid: Option<u32>) -> Outcome<PeerRule> {
    let rule = PeerRule::new();
    Ok(match uid {
        Some(uid) => rule.uid(uid).reaper(closing::reaper()?),
        None => rule,
    })
}

/// Which wire.
#[derive(Args, Clone, Debug)]
pub(crate) struct Wire {
    /// The byte format that both sides speak
    #[arg(long, value_enum)]
    pub(crate) profile: Profile,
    /// Shake hands first (stream only): `send` begins with 0x1f, `serve` and `run` answer 0xf1,
    /// within 500 ms
    #[arg(long)]
    pub(crate) handshake: bool,
}

impl Wire {
    pub(crate) fn check(&self) -> Outcome {
        if self.handshake && self.profile != Profile::Stream {
            return Err(Failure::usage(
                "only the wire stream has a handshake; leave --handshake out, or choose --profile stream",
            ));
        }
        Ok(())
    }
}

/// How to serve.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serving {
    /// What to send back for each message
    #[arg(long, value_enum, default_value_t = Reply::None)]
    pub(crate) reply: Reply,
    /// Largest payload that is accepted; for send-fd, the longest error text
    #[arg(long, value_name = "BYTES", default_value_t = Limits::new().payload)]
    pub(crate) max_payload: u32,
    /// Descriptors that are accepted with one message, at most 253 (send-fd: always one). Without it
    /// none; with --accept, 253
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=253))]
    pub(crate) max_descriptors: Option<u8>,
    #[command(flatten)]
    pub(crate) accepting: Accepting,
    /// How long a message that has begun may take until it is whole
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub(crate) assembly_timeout: u64,
    /// End when nothing came for so long; without it, wait for ever
    #[arg(long, value_name = "MS")]
    pub(crate) idle_timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// How to print.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Format {
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

impl Serving {
    pub(crate) fn limits(&self) -> Limits {
        Limits::new()
            .payload(self.max_payload)
            .descriptors(self.max_descriptors())
            .assembly_timeout(Duration::from_millis(self.assembly_timeout))
    }

    /// Who says which kinds are accepted means that some are.
    pub(crate) fn max_descriptors(&self) -> u8 {
        self.max_descriptors.unwrap_or(if self.accepting.accept.is_empty() { 0 } else { SCM_MAX_FD })
    }

    pub(crate) fn idle(&self) -> Option<Duration> {
        self.idle_timeout.map(Duration::from_millis)
    }
}
