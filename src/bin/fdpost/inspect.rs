//! `fdpost inspect`: sits between two peers, passes on what is valid, and shows it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use fdpost::transcript::Direction;
use fdpost::{Channel, Libcamera, Limits, Packet, Policy, Stream, inherited};

use crate::accepting::Accepting;
use crate::exit::{self, Failure};
use crate::inspect_peers::{Between, Peers};
use crate::inspect_record::Recorder;
use crate::inspect_relay::{Ending, Relay};
use crate::inspect_show::{Item, Show};
use crate::inspect_sides::{Classic, Messages, Side};
use crate::options::{Format, Profile};
use crate::svg::Diagram;

/// Sit between two peers: pass every valid message on unchanged, and print it.
#[derive(Args, Debug)]
#[command(after_help = "\
Who the two peers are:
  --fd A --fd B         whoever holds the other ends of these two inherited sockets
  --fd A -- COMMAND     whoever holds the other end of A, and COMMAND: it is started with a socket
                        under the same number A, which also stands in FDPOST_FD and in place of {}
                        in its arguments. So fdpost can stand where COMMAND stood
  -- COMMAND            the same with the socket that FDPOST_FD names, as `fdpost run` sets it

Messages pass unchanged: payload, head and descriptors, in their order. The wire's framing around
them is made anew: libcamera's padding is zero then, frames that shared a packet may leave in packets
of their own. A stream's handshake passes as the two messages that it is; of send-fd, a descriptor
or an error is a message. While one waits for room on one side, no other is
read from its sender, and the other direction goes on. A violation is printed with its rule and
ends both sides; the end of one side is passed on to the other once all before it is out. Two
datagram sockets (libcamera) show no end: there --idle-timeout or the end of COMMAND is one.
What COMMAND prints goes to standard error. It has two seconds to end once all is over, then it is
killed, as it is when fdpost is.

Exit status: 0 closed or idle, 64 usage, 65 a peer broke a rule, 74 this side or I/O failed.

Example: watch libcamera's worker while fdpost itself serves it
  fdpost run --profile libcamera --idle-timeout 2000 -- \\
    fdpost inspect --profile libcamera --record talk -- vimc_ipa_proxy ipa_vimc.so '{}'
  fdpost replay talk --svg talk.svg")]
pub(crate) struct Options {
    /// The byte format that both sides speak
    #[arg(long, value_enum)]
    pub(crate) profile: Profile,
    /// Number of an inherited socket; at most two
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) fd: Vec<i32>,
    /// Largest payload that passes; for send-fd, the longest error text
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024)]
    pub(crate) max_payload: u32,
    /// Descriptors that pass with one message, at most 253
    #[arg(long, value_name = "N", default_value_t = 253, value_parser = clap::value_parser!(u8).range(..=253))]
    pub(crate) max_descriptors: u8,
    #[command(flatten)]
    pub(crate) accepting: Accepting,
    /// How long a message that has begun may take until it is whole
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub(crate) assembly_timeout: u64,
    /// End when nothing passed for so long; without it, wait for ever
    #[arg(long, value_name = "MS")]
    pub(crate) idle_timeout: Option<u64>,
    /// Write what each side sent to FILE, to be fed to `fdpost replay` (docs/TRANSCRIPT.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Draw the conversation as a sequence diagram when it is over
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) format: Format,
    /// One of the peers, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

pub(crate) fn run(options: Options) -> ExitCode {
    match inspect(&options) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => failure.report(),
    }
}

fn inspect(options: &Options) -> exit::Outcome<u8> {
    let wire = match options.profile {
        Profile::Libcamera => "libcamera",
        Profile::Packet => "packet",
        Profile::Stream => "stream",
        Profile::SendFd if options.record.is_some() => {
            return Err(Failure::usage(
                "a transcript is of libcamera, packet or stream, whose messages have headers; leave --record out",
            ));
        }
        Profile::SendFd => "send-fd",
    };
    let between = Between::of(&options.fd, &options.command)?;
    let limits = Limits::new()
        .payload(options.max_payload)
        .descriptors(options.max_descriptors)
        .assembly_timeout(Duration::from_millis(options.assembly_timeout));
    let mut peers = Peers::meet(&between, options.profile, inherited)?;
    let names = peers.names();
    let recorder = match &options.record {
        Some(path) => Some(Recorder::create(path, wire, [&names[0], &names[1]], limits)?),
        None => None,
    };
    let mut diagram = options.svg.as_ref().map(|_| Diagram::new(wire, names.clone()));
    let policy = options.accepting.policy();
    let [one, two] = peers.take_sockets();
    let open = |socket, direction| -> exit::Outcome<Box<dyn Side>> {
        match options.profile {
            Profile::Libcamera => transport::<Libcamera>(socket, limits, &policy, &recorder, direction),
            Profile::Packet => transport::<Packet>(socket, limits, &policy, &recorder, direction),
            Profile::Stream => transport::<Stream>(socket, limits, &policy, &recorder, direction),
            Profile::SendFd => Ok(Box::new(Classic::new(socket, limits, policy.clone()))),
        }
    };
    let sides = [open(one, Direction::Forth)?, open(two, Direction::Back)?];
    let show = Show { profile: options.profile, json: options.format.json, names };
    show.item(&Item::Ready)?;
    let mut relay = Relay::new(sides, options.profile == Profile::Libcamera);
    let idle = options.idle_timeout.map(Duration::from_millis);
    let ending = relay.run(&mut peers, idle, &mut |item| {
        if let Some(diagram) = &mut diagram {
            diagram.add(&item);
        }
        show.item(&item)?;
        recorder.as_ref().map_or(Ok(()), Recorder::check)
    });
    relay.end();
    drop(relay);
    let status = match ending? {
        Ending::Over => 0,
        Ending::Violation => exit::VIOLATION,
        Ending::Ours => exit::IO,
    };
    if let Some(recorder) = &recorder {
        recorder.finish()?;
    }
    if let (Some(diagram), Some(path)) = (&diagram, &options.svg) {
        diagram.write(path)?;
    }
    peers.part()?;
    Ok(status)
}

fn transport<P: fdpost::Profile<Declared: Send> + 'static>(
    socket: std::os::fd::OwnedFd,
    limits: Limits,
    policy: &Option<Policy>,
    recorder: &Option<Recorder>,
    direction: Direction,
) -> exit::Outcome<Box<dyn Side>> {
    let mut channel =
        Channel::<P>::from_fd(socket, limits).map_err(|error| Failure::of("a socket does not fit", error))?;
    if let Some(policy) = policy {
        channel.set_policy(policy.clone());
    }
    if let Some(recorder) = recorder {
        channel.set_observer(recorder.observer(direction));
    }
    Ok(Box::new(Messages(Box::new(channel))))
}
