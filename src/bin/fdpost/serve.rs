//! `fdpost serve`: answers whoever holds the other end of an inherited socket, or connects.

use std::time::Duration;

use clap::Args;
use fdpost::profile::packet::REPLY;
use fdpost::{Deadline, Error, Head, Message};

use crate::conversation::{self, Conversation, Opened, Part, Received};
use crate::event::Printer;
use crate::exit::{Failure, IO, Outcome};
use crate::listening::Listening;
use crate::options::{Profile, Reply, Serving, Wire};

/// Serve the inherited socket, or whoever connects to a path: print what comes, send it back if asked to.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints one line per event: ready, handshake, message, peer-error, violation, error, closed, idle; with
--listen also listening and refused, and each line says which client it is about.
Exit status: 0 closed or idle, 64 usage, 65 the peer broke a rule, 74 this side or I/O failed.

On the wire libcamera nobody can see that the peer closed: `closed` comes only when a reply cannot
be sent, so give --idle-timeout there.

Example: `fdpost run` makes a pair of sockets and starts `fdpost serve` with one end as descriptor {}
  fdpost run --profile packet --data hello --idle-timeout 500 -- \\
    fdpost serve --fd '{}' --profile packet --reply reverse
From a program: make a socketpair and start `fdpost serve --fd N ...` so that it inherits one end as
descriptor N.
For whoever comes, from two terminals:
  fdpost serve --listen ./post --profile packet --reply reverse
  fdpost send --connect ./post --profile packet --data hello --expect-reply
Or by name, with `fdpost broker --listen ./broker` in a third:
  fdpost serve --broker ./broker --name post --profile packet --reply reverse
  fdpost send --broker ./broker --name post --profile packet --data hello --expect-reply")]
pub(crate) struct Options {
    /// Number of the descriptor: the small number under which whoever starts fdpost left a
    /// connected AF_UNIX socket open for it (0 is its standard input)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..),
        required_unless_present = "place", conflicts_with = "place")]
    fd: Option<i32>,
    #[command(flatten)]
    listening: Listening,
    #[command(flatten)]
    wire: Wire,
    #[command(flatten)]
    serving: Serving,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let Options { fd, listening, wire, serving } = options;
    wire.check()?;
    let Some(number) = *fd else { return listening.serve(wire, serving) };
    let printer = Printer { profile: wire.profile, json: serving.format.json, client: None };
    let opened = Opened::given(wire.profile, conversation::take(number)?, serving.limits())?;
    converse(opened, wire, serving, printer)
}

/// One peer, from `ready` to the end.
pub(crate) fn converse(opened: Opened, wire: &Wire, serving: &Serving, printer: Printer) -> Outcome {
    let mut conversation = conversation::open(opened, wire, serving.limits(), Part::Answers, printer)?;
    conversation.set_policy(serving.accepting.policy());
    Server { printer, reply: serving.reply, idle: serving.idle() }
        .serve(&mut conversation, &mut Forever)
        .map(drop)
}

/// The process on the other end, where it is this command's to watch.
pub(crate) trait Watch {
    /// How long to wait for a message before [`has_ended`](Self::has_ended) is worth asking again.
    fn interval(&self) -> Option<Duration>;
    /// Whether it has ended: then nothing more will come than what is there.
    fn has_ended(&mut self) -> Outcome<bool>;
}

/// Nobody is watched: whoever made the socket may be anywhere.
struct Forever;

impl Watch for Forever {
    fn interval(&self) -> Option<Duration> {
        None
    }

    fn has_ended(&mut self) -> Outcome<bool> {
        Ok(false)
    }
}

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    pub(crate) printer: Printer,
    pub(crate) reply: Reply,
    pub(crate) idle: Option<Duration>,
}

/// How a conversation ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Idle,
}

/// How a conversation went on.
enum Next {
    Message(Received),
    End(End),
}

impl Server {
    /// Until the end of the conversation. Prints the event that ends it.
    pub(crate) fn serve(&self, conversation: &mut Conversation, peer: &mut impl Watch) -> Outcome<End> {
        loop {
            let idle = self.idle.map_or(Deadline::NEVER, Deadline::after);
            let answered = match next(conversation, peer, idle)? {
                Ok(Next::Message(received)) => {
                    print(self.printer, &received)?;
                    // The peer has as long to read the answer as to say something.
                    self.answer(conversation, received, self.idle.map_or(Deadline::NEVER, Deadline::after))
                }
                Ok(Next::End(end)) => return self.end(end),
                Err(error) => Err(error),
            };
            match answered {
                Ok(()) => {}
                Err(Error::PeerGone { .. } | Error::Closed) => return self.end(End::Closed),
                Err(Error::TimedOut) => return self.end(End::Idle),
                Err(Error::Violation(violation)) => {
                    self.printer.violation(violation)?;
                    return Err(Failure::of("the conversation was ended", violation.into()));
                }
                Err(error) => {
                    self.printer.error(&error)?;
                    let mut failure = Failure::of("the conversation cannot go on", error);
                    if matches!(error, Error::Misuse(_)) {
                        // The command line was fine; what came is not what can be sent.
                        let sentence = format!("the answer cannot be sent: {error}; serve with --reply none");
                        failure = Failure::new(IO, sentence);
                    }
                    return Err(failure);
                }
            }
        }
    }

    fn end(&self, end: End) -> Outcome<End> {
        self.printer.plain(match end {
            End::Closed => "closed",
            End::Idle => "idle",
        })?;
        Ok(end)
    }

    fn answer(
        &self,
        conversation: &mut Conversation,
        received: Received,
        until: Deadline,
    ) -> Result<(), Error> {
        if self.reply == Reply::None {
            return Ok(());
        }
        let turn = |mut bytes: Vec<u8>| {
            if self.reply == Reply::Reverse {
                // On libcamera a payload begins with command and cookie, which an answer repeats.
                let kept = if self.printer.profile == Profile::Libcamera { 8 } else { 0 };
                match bytes.get_mut(kept..) {
                    Some(rest) => rest.reverse(),
                    None => bytes.reverse(),
                }
            }
            bytes
        };
        match received {
            Received::Message(mut message) => {
                let (head, granted) = reply_head(self.printer.profile, *message.head());
                let descriptors: Vec<_> = message.take_all().take(granted).collect();
                let reply = Message::new(turn(message.into_payload())).with_head(head);
                conversation.send(descriptors.into_iter().fold(reply, Message::with), until)
            }
            Received::Descriptor(descriptor) => conversation.send(Message::new([]).with(descriptor), until),
            Received::PeerError { status, text } => conversation.send_error(status, &turn(text), until),
        }
    }
}

/// The head of the answer, and how many descriptors may go with it.
fn reply_head(profile: Profile, head: Head) -> (Head, usize) {
    // Who asked for no reply gets a message like its own, with what it brought.
    if profile != Profile::Packet || head.correlation == 0 {
        return (head, usize::MAX);
    }
    // Who asked says how many descriptors it will accept; beyond that its wire forbids them.
    (Head { flags: REPLY, reply_descriptors: 0, ..head }, head.reply_descriptors.into())
}

pub(crate) fn print(printer: Printer, received: &Received) -> Outcome {
    Ok(match received {
        Received::Message(message) => printer.message(message),
        Received::Descriptor(descriptor) => printer.descriptor(descriptor),
        Received::PeerError { status, text } => printer.peer_error(*status, text),
    }?)
}

/// Waits for what comes next. The outer error is the watch's.
fn next(
    conversation: &mut Conversation,
    peer: &mut impl Watch,
    idle: Deadline,
) -> Outcome<Result<Next, Error>> {
    loop {
        // Asked before the read: what an ended process sent is there by then.
        let ended = peer.has_ended()?;
        let until = match (ended, conversation.begun()) {
            (false, _) => idle.min(peer.interval().map_or(Deadline::NEVER, Deadline::after)),
            // A message that it left unfinished is to be found out, at its deadline.
            (true, Some(left)) => Deadline::after(left),
            (true, None) => Deadline::after(Duration::ZERO),
        };
        match conversation.receive(until) {
            Ok(received) => return Ok(Ok(Next::Message(received))),
            Err(Error::Closed) => return Ok(Ok(Next::End(End::Closed))),
            Err(Error::TimedOut) if ended && conversation.begun().is_none() => {
                return Ok(Ok(Next::End(End::Closed)));
            }
            Err(Error::TimedOut) if !ended && idle.has_passed() => return Ok(Ok(Next::End(End::Idle))),
            Err(Error::TimedOut) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}
