//! `fdpost call`: a message, and the one that answers it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fdpost::calls::{CallId, Correlate};
use fdpost::driver::Event;
use fdpost::limits::SCM_MAX_FD;
use fdpost::{Calls, Channel, Deadline, Error, Head, Limits, Message};

use crate::accepting::Accepting;
use crate::content::Content;
use crate::conversation::{self, Opened, Part, Received};
use crate::event::Printer;
use crate::exit::{Failure, IO, NO_REPLY, Outcome};
use crate::options::{Connect, Format, Profile, Wire};
use crate::run::Started;
use crate::save;
use crate::send::REPLY_PAYLOAD;
use crate::serve::{End, Watch};

/// How long a command may take to end once its answer came.
const LINGER: Duration = Duration::from_secs(2);

/// Call whoever holds the other end of the inherited socket, who listens at a path, or a command, and
/// print the answer.
#[derive(Args, Debug)]
#[command(after_help = "\
On packet the answer is a reply (flag 1) with the call's correlation; on libcamera the payload that
leaves is the command (--kind), a cookie, and --data, and the answer repeats the first two; on stream
it is the next message. What else comes is printed as well, and not answered.

The command is started as `fdpost run` starts one. Once the answer came it has two seconds to end (none
on libcamera, where it cannot see that the other side closed), then it is killed.

Exit status: 0 answered, 64 usage, 65 the peer broke a rule, 74 it answered that the call failed, or it
or this side or I/O failed, 75 not sent, or not answered, in time.

Examples:
  fdpost call --profile packet --data hello -- fdpost serve --fd '{}' --profile packet --reply reverse
  fdpost call --profile libcamera --kind 3 -- vimc_ipa_proxy ipa_vimc.so '{}'")]
pub(crate) struct Options {
    /// Number of the descriptor under which whoever starts fdpost left a connected AF_UNIX socket
    /// open for it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..), conflicts_with = "command",
        conflicts_with = "place", required_unless_present_any = ["command", "place"])]
    fd: Option<i32>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    wire: Wire,
    #[command(flatten)]
    content: Content,
    /// Descriptors that the answer may bring, at most 253. Without it none; with --accept, 253
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=253))]
    max_descriptors: Option<u8>,
    #[command(flatten)]
    accepting: Accepting,
    /// Copy each descriptor of the answer into this directory, as `fdpost send` does
    #[arg(long, value_name = "DIR")]
    save_descriptors: Option<PathBuf>,
    /// Give up after so long
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout: u64,
    #[command(flatten)]
    format: Format,
    /// A command to call, and its arguments, behind `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let profile = options.wire.profile;
    options.wire.check()?;
    options.content.check_call(profile)?;
    if options.wire.handshake && !options.command.is_empty() {
        // 500 ms are for answering, and not for a program to start.
        return Err(Failure::usage(
            "a command cannot be greeted while it starts; give --fd, or leave --handshake out",
        ));
    }
    let message = message(options)?;
    let limits = Limits::new().payload(REPLY_PAYLOAD).descriptors(options.max_descriptors());
    if options.connect.is_given() && !options.command.is_empty() {
        return Err(Failure::usage("a command and who is connected to are two peers; leave one of them out"));
    }
    let until = Deadline::after(Duration::from_millis(options.timeout));
    let (opened, command) = match (options.connect.open(profile, limits, until), options.fd) {
        (Some(opened), _) => (opened?, None),
        (None, Some(number)) => (Opened::given(profile, conversation::take(number)?, limits)?, None),
        (None, None) => {
            let (ours, theirs) = conversation::pair(profile)?;
            let command = Started::new(&options.command, theirs)?;
            (Opened::given(profile, ours, limits)?, Some(command))
        }
    };
    let printer = Printer { profile, json: options.format.json, client: None };
    let mut caller = Caller { options, printer, until, command };
    match opened {
        Opened::Libcamera(channel) => caller.call(channel, message)?,
        Opened::Packet(channel) => caller.call(channel, message)?,
        Opened::Stream(mut channel) => {
            conversation::begin(&mut channel, &options.wire, Part::Begins, printer)?;
            caller.call(channel, message)?;
        }
        // Refused above: it has no calls.
        Opened::SendFd(_) => {}
    }
    // Nothing tells the other end of a datagram pair that this one is gone.
    let end = if profile == Profile::Libcamera { End::Idle } else { End::Closed };
    caller.command.map_or(Ok(()), |command| command.finish(end, Some(LINGER)))
}

/// What is to be sent, as the wire has calls.
fn message(options: &Options) -> Outcome<Message> {
    let mut message = options.content.message()?;
    let head = *message.head();
    if options.wire.profile == Profile::Libcamera {
        // The cookie is the call's to set.
        let start = [head.kind.to_ne_bytes(), [0; 4]].concat();
        message.payload_mut().splice(0..0, start);
    }
    let kind = if options.wire.profile == Profile::Libcamera { 0 } else { head.kind };
    Ok(message.with_head(Head { kind, reply_descriptors: options.max_descriptors(), ..Head::default() }))
}

impl Options {
    /// Who says which kinds are accepted means that some are.
    fn max_descriptors(&self) -> u8 {
        self.max_descriptors.unwrap_or(if self.accepting.accept.is_empty() { 0 } else { SCM_MAX_FD })
    }
}

/// What a call needs beside its message.
struct Caller<'a> {
    options: &'a Options,
    printer: Printer,
    /// For all of it: to connect, to send, and to be answered.
    until: Deadline,
    command: Option<Started>,
}

impl Caller<'_> {
    fn call<P: Correlate>(&mut self, mut channel: Channel<P>, message: Message) -> Outcome {
        if let Some(policy) = self.options.accepting.policy() {
            channel.set_policy(policy);
        }
        let mut calls = Calls::new(channel);
        let call = match calls.start(message, self.until).map_err(Error::from) {
            Ok(call) => call,
            Err(Error::PeerGone { .. } | Error::Closed) => return Err(self.failed(Error::Closed)?),
            Err(error) => return Err(Failure::of("the call was not sent", error)),
        };
        let answer = self.answer(&mut calls, call)?;
        self.printer.answer(answer.message(), answer.is_error())?;
        let failed = answer.is_error();
        if let Some(directory) = &self.options.save_descriptors {
            save::save(directory, Received::Message(answer.into_message()))?;
        }
        if failed {
            let sentence = "the peer answers that the call failed; see what it says of the reason";
            return Err(Failure::new(IO, sentence));
        }
        Ok(())
    }

    /// The answer; what comes before it is printed.
    fn answer<P: Correlate>(&mut self, calls: &mut Calls<P>, ours: CallId) -> Outcome<Answer> {
        loop {
            // Asked before the read: what an ended process sent is there by then.
            let ended = self.command.as_mut().map_or(Ok(false), Watch::has_ended)?;
            let left = calls.channel().timeout();
            let interval = self.command.as_ref().and_then(Watch::interval);
            let until = match (ended, interval) {
                (true, _) => Deadline::after(left.unwrap_or(Duration::ZERO)),
                (false, Some(interval)) => Deadline::after(interval),
                (false, None) => Deadline::NEVER,
            };
            match calls.receive_by(until) {
                Ok(Event::Answered { call, answer }) if call == ours => return Ok(answer),
                Ok(Event::Message(message) | Event::Request { message, .. }) => {
                    self.printer.message(&message)?
                }
                Ok(Event::Failed { call, error }) if call == ours => return Err(self.failed(error)?),
                Ok(_) => {}
                // On a datagram socket the end of a process does not show.
                Err(Error::TimedOut) if ended && left.is_none() => return Err(self.failed(Error::Closed)?),
                Err(Error::TimedOut) => {}
                Err(error) => return Err(self.failed(error)?),
            }
        }
    }

    /// Prints the event that ended the call, and says what it comes to.
    fn failed(&self, error: Error) -> Outcome<Failure> {
        Ok(match error {
            Error::TimedOut => {
                Failure::new(NO_REPLY, "no answer came in time; see that the peer answers, or give --timeout")
            }
            Error::Closed => {
                self.printer.plain("closed")?;
                Failure::new(IO, "the peer closed without an answer; see what it says of the call")
            }
            Error::Violation(violation) => {
                self.printer.violation(violation)?;
                Failure::of("the answer was refused", error)
            }
            error => {
                self.printer.error(&error)?;
                Failure::of("the answer cannot be had", error)
            }
        })
    }
}

type Answer = fdpost::calls::Answer<OwnedFd>;
