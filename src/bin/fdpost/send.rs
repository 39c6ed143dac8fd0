//! `fdpost send`: one message, and its reply if one is awaited.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fdpost::{Deadline, Error, Limits};

use crate::accepting::Accepting;
use crate::content::Content;
use crate::conversation::{self, Conversation, Part, Received};
use crate::event::Printer;
use crate::exit::{Failure, IO, NO_REPLY, Outcome};
use crate::options::{Format, Socket, Wire};
use crate::save;
use crate::serve::print;

/// Bytes of the largest reply that is accepted: as much as any datagram or packet can have.
pub(crate) const REPLY_PAYLOAD: u32 = 4 * 1024 * 1024;

/// Descriptors that a reply may bring: all that one message can carry.
const REPLY_DESCRIPTORS: u8 = 253;

/// Send one message over an inherited socket, or to who listens at a path, with open files if you like.
#[derive(Args, Debug)]
#[command(after_help = "\
With --expect-reply the first message that comes is printed, as `fdpost serve` prints it; up to 4 MiB
and 253 descriptors are accepted. On the wire packet the message asks for it (correlation 1).

Exit status: 0 sent (and answered), 64 usage, 65 the peer broke a rule, 74 this side or I/O failed,
75 not sent, or not answered, in time.

Example: `fdpost run` makes a pair of sockets and starts `fdpost send` with one end as descriptor {}
  fdpost run --profile packet --reply echo --max-descriptors 1 -- \\
    fdpost send --fd '{}' --profile packet --data hello --attach /etc/hostname --expect-reply")]
pub(crate) struct Options {
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    wire: Wire,
    #[command(flatten)]
    content: Content,
    /// Wait for a reply and print it
    #[arg(long)]
    expect_reply: bool,
    #[command(flatten)]
    accepting: Accepting,
    /// Copy each descriptor of the reply into this directory, as files 0, 1, 2...; of what is no
    /// regular file or memfd, a text file (0.txt) says what it is
    #[arg(long, value_name = "DIR", requires = "expect_reply")]
    save_descriptors: Option<PathBuf>,
    /// Give up after so long
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    timeout: u64,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let Options { wire, content, .. } = options;
    wire.check()?;
    content.check(wire.profile)?;
    let printer = Printer { profile: wire.profile, json: options.format.json, client: None };
    let limits = Limits::new().payload(REPLY_PAYLOAD).descriptors(REPLY_DESCRIPTORS);
    let until = Deadline::after(Duration::from_millis(options.timeout));
    let opened = options.socket.open(wire.profile, limits, until)?;
    let mut conversation = conversation::open(opened, wire, limits, Part::Begins, printer)?;
    conversation.set_policy(options.accepting.policy());
    content.send(
        &mut conversation,
        wire.profile,
        options.expect_reply.then_some(REPLY_DESCRIPTORS),
        until,
    )?;
    if options.expect_reply {
        let reply = reply(&mut conversation, until, printer)?;
        print(printer, &reply)?;
        if let Some(directory) = &options.save_descriptors {
            save::save(directory, reply)?;
        }
    }
    Ok(())
}

fn reply(conversation: &mut Conversation, until: Deadline, printer: Printer) -> Outcome<Received> {
    let error = match conversation.receive(until) {
        Ok(received) => return Ok(received),
        Err(error) => error,
    };
    match error {
        Error::TimedOut => {
            return Err(Failure::new(
                NO_REPLY,
                "no reply came in time; see that the peer answers, or give --timeout",
            ));
        }
        Error::Closed => {
            printer.plain("closed")?;
            return Err(Failure::new(IO, "the peer closed without a reply; see what it says of the message"));
        }
        Error::Violation(violation) => printer.violation(violation)?,
        error => printer.error(&error)?,
    }
    Err(Failure::of("the reply was refused", error))
}
