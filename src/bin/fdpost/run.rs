//! `fdpost run`: a pair of sockets, a command on one end, and this one serving the other.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use command_fds::CommandFdExt;
use fdpost::Deadline;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::content::Content;
use crate::conversation::{self, Opened, Part};
use crate::event::Printer;
use crate::exit::{Failure, IO, Outcome};
use crate::options::{Serving, Wire};
use crate::serve::{End, Server, Watch};

/// Where the command finds its descriptor's number.
const VARIABLE: &str = "FDPOST_FD";
const PLACE: &[u8] = b"{}";

/// How often to look whether the command has ended: a datagram socket does not show it.
const LOOK: Duration = Duration::from_millis(20);

/// Start a command with one end of a pair of sockets, and serve the other end.
#[derive(Args, Debug)]
#[command(after_help = "\
The command inherits its end as a descriptor; the number stands in place of every {} in its
arguments and in the environment variable FDPOST_FD. What it prints goes to standard error, so that
standard output has the events alone; `fdpost serve --help` lists them. With --data, --data-file or
--attach, fdpost speaks first.

When the command ends, what it had sent is still read. When the conversation ends otherwise (a
violation, or nothing for --idle-timeout), the command is killed.

Exit status: 0 closed or idle, 64 usage, 65 the command broke a rule of the wire, 74 it failed or
could not be started, or this side or I/O failed.

Examples:
  fdpost run --profile packet --reply echo -- fdpost send --fd '{}' --profile packet --data hello --expect-reply
  fdpost run --profile stream --reply reverse --handshake -- ./my-program --socket-fd '{}'
  fdpost run --profile libcamera --idle-timeout 1000 -- vimc_ipa_proxy ipa_vimc.so '{}'")]
pub(crate) struct Options {
    #[command(flatten)]
    wire: Wire,
    #[command(flatten)]
    serving: Serving,
    #[command(flatten)]
    first: Content,
    /// The command and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let Options { wire, serving, first, command } = options;
    wire.check()?;
    if first.is_given() {
        first.check(wire.profile)?;
    }
    let printer = Printer { profile: wire.profile, json: serving.format.json, client: None };
    let (ours, theirs) = conversation::pair(wire.profile)?;
    let mut started = Started::new(command, theirs)?;
    if wire.handshake {
        // The 500 ms are for answering, and not for an interpreter to start.
        conversation::await_begin(&ours)?;
    }
    let ours = Opened::given(wire.profile, ours, serving.limits())?;
    let mut conversation = conversation::open(ours, wire, serving.limits(), Part::Answers, printer)?;
    conversation.set_policy(serving.accepting.policy());
    if first.is_given() {
        let until = serving.idle().map_or(Deadline::NEVER, Deadline::after);
        first.send(&mut conversation, wire.profile, Some(serving.max_descriptors()), until)?;
    }
    let server = Server { printer, reply: serving.reply, idle: serving.idle() };
    let end = server.serve(&mut conversation, &mut started)?;
    drop(conversation);
    started.finish(end, serving.idle())
}

/// The command, killed if need be and reaped when this is dropped.
pub(crate) struct Started {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Started {
    pub(crate) fn new(command: &[OsString], end: OwnedFd) -> Outcome<Self> {
        let number = end.as_raw_fd().to_string();
        let failed = |error: &io::Error| Failure::io("starting a second process", error);
        let (mut told, tell) = UnixStream::pair().map_err(|error| failed(&error))?;
        let mut prepared = Command::new(std::env::current_exe().map_err(|error| failed(&error))?);
        prepared.args(["run-child", &std::process::id().to_string(), "--"]);
        prepared.args(command.iter().map(|word| fill(word, &number)));
        prepared.env(VARIABLE, &number).stdout(OwnedFd::from(tell)).preserved_fds(vec![end]);
        let child = prepared.spawn().map_err(|error| failed(&error))?;
        // It owns our copies of the command's ends.
        drop(prepared);
        let started = Self { child, ended: None };
        let mut refused = String::new();
        told.read_to_string(&mut refused).map_err(|error| failed(&error))?;
        if refused.is_empty() { Ok(started) } else { Err(Failure::new(IO, refused)) }
    }

    fn look(&mut self) -> Outcome<Option<ExitStatus>> {
        if self.ended.is_none() {
            let status = self.child.try_wait();
            self.ended = status.map_err(|error| Failure::io("waiting for the command", &error))?;
        }
        Ok(self.ended)
    }

    /// What the command itself came to, once the conversation ended well.
    pub(crate) fn finish(mut self, end: End, patience: Option<Duration>) -> Outcome {
        let deadline = patience.map_or(Deadline::NEVER, Deadline::after);
        // It closed its end and may have work left; one that was silent for too long has had its time.
        while self.look()?.is_none() && end == End::Closed && !deadline.has_passed() {
            sleep(LOOK);
        }
        match self.ended {
            Some(status) if !status.success() => Err(Failure::new(
                IO,
                format_args!("the command ended with {status}; see what it says of the reason"),
            )),
            // Killed by us, or well.
            _ => Ok(()),
        }
    }
}

impl Watch for Started {
    fn interval(&self) -> Option<Duration> {
        Some(LOOK)
    }

    fn has_ended(&mut self) -> Outcome<bool> {
        Ok(self.look()?.is_some())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ended_by_itself = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

/// The second process on its way to become the command: it dies with the one that started it, of
/// whatever that dies, which only a process can ask for itself (PR_SET_PDEATHSIG).
#[derive(Args, Debug)]
pub(crate) struct ChildOptions {
    parent: u32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Says on standard output why the command could not be started; closes it otherwise.
pub(crate) fn become_command(options: &ChildOptions) -> Outcome {
    let failed = |error: &io::Error| Failure::io("starting a second process", error);
    let mut tell = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(|error| failed(&error))?);
    let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| failed(&errno.into()))?;
    if parent_id() != options.parent {
        return Err(Failure::new(IO, "the process that started this one is gone; start it again"));
    }
    let Some((program, arguments)) = options.command.split_first() else { return Ok(()) };
    let error = Command::new(program).args(arguments).stdout(stderr).exec();
    let name = program.to_string_lossy();
    write!(tell, "starting {name}: {error}; give a program that is installed, by name or path")?;
    Ok(())
}

/// The number in every place for it.
fn fill(word: &OsStr, number: &str) -> OsString {
    let mut rest = word.as_bytes();
    let mut filled = Vec::new();
    while let Some((first, others)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(PLACE) {
            filled.extend_from_slice(number.as_bytes());
            rest = behind;
        } else {
            filled.push(*first);
            rest = others;
        }
    }
    OsString::from_vec(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled() {
        let fill = |word: &str| fill(OsStr::new(word), "12");
        assert_eq!(fill("{}"), "12");
        assert_eq!(fill("--fd={},{}{"), "--fd=12,12{");
        assert_eq!(fill("plain"), "plain");
    }
}
