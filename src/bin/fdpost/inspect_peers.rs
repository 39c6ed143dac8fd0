//! The two peers of `fdpost inspect`.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use fdpost::{Deadline, Error};
use nix::errno::Errno;

use crate::conversation;
use crate::exit::{Failure, IO, Outcome};
use crate::options::Profile;

/// How long a command has to end by itself once its conversation is over.
const PARTING: Duration = Duration::from_secs(2);

/// Names the socket of a command.
const VARIABLE: &str = "FDPOST_FD";

/// Between whom.
pub(crate) enum Between {
    Two([i32; 2]),
    Command { fd: i32, command: Vec<OsString> },
}

impl Between {
    pub(crate) fn of(fds: &[i32], command: &[OsString]) -> Outcome<Self> {
        match (fds, command) {
            ([one, two], []) if one != two => Ok(Self::Two([*one, *two])),
            ([one, _], []) => {
                Err(Failure::usage(format_args!("--fd {one} is given twice; name the sockets of two peers")))
            }
            ([fd], [_, ..]) => Ok(Self::Command { fd: *fd, command: command.to_vec() }),
            ([], [_, ..]) => match std::env::var(VARIABLE).map(|number| number.parse()) {
                Ok(Ok(fd)) => Ok(Self::Command { fd, command: command.to_vec() }),
                Ok(Err(_)) => Err(Failure::usage(format_args!(
                    "{VARIABLE} is no number; set it to the number of an inherited socket, or give --fd N"
                ))),
                Err(_) => Err(Failure::usage(format_args!(
                    "the other peer is missing: give its inherited socket with --fd N or in {VARIABLE}, \
                     as `fdpost run -- fdpost inspect ...` does"
                ))),
            },
            ([_] | [], []) => {
                Err(Failure::usage("there must be two peers: --fd A --fd B, or --fd A -- COMMAND"))
            }
            (_, _) => Err(Failure::usage("there can be only two peers: --fd A --fd B, or --fd A -- COMMAND")),
        }
    }
}

/// Their sockets, and the process if one of them was started here.
pub(crate) struct Peers {
    names: [String; 2],
    sockets: Option<[OwnedFd; 2]>,
    child: Option<Child>,
}

impl Peers {
    pub(crate) fn meet(
        between: &Between,
        profile: Profile,
        inherit: fn(i32) -> Result<OwnedFd, Error>,
    ) -> Outcome<Self> {
        let inherit = |fd: i32| {
            inherit(fd).map_err(|error| match error.errno() {
                Some(errno) if errno == Errno::EBADF as i32 => Failure::usage(format_args!(
                    "descriptor {fd} is not open here; start fdpost from what holds the socket, and \
                     let it inherit the socket under this number"
                )),
                _ => Failure::of(format_args!("descriptor {fd}"), error),
            })
        };
        match between {
            Between::Two([one, two]) => Ok(Self {
                names: [format!("fd-{one}"), format!("fd-{two}")],
                sockets: Some([inherit(*one)?, inherit(*two)?]),
                child: None,
            }),
            Between::Command { fd, command } => {
                let socket = inherit(*fd)?;
                let (ours, theirs) = conversation::pair(profile)?;
                let child = start(command, theirs, *fd)?;
                let name = Path::new(&command[0]).file_name().unwrap_or_default();
                Ok(Self {
                    names: [format!("fd-{fd}"), name.to_string_lossy().into_owned()],
                    sockets: Some([socket, ours]),
                    child: Some(child),
                })
            }
        }
    }

    pub(crate) fn names(&self) -> [String; 2] {
        self.names.clone()
    }

    /// Both sockets: once.
    pub(crate) fn take_sockets(&mut self) -> [OwnedFd; 2] {
        self.sockets.take().expect("the sockets are taken once")
    }

    /// Whether a command was started and has ended.
    pub(crate) fn has_ended(&mut self) -> Outcome<bool> {
        let Some(child) = &mut self.child else { return Ok(false) };
        let status = child.try_wait().map_err(|error| Failure::io("waiting for the command", &error))?;
        Ok(status.is_some())
    }

    /// Whether there is a command to watch.
    pub(crate) fn has_command(&self) -> bool {
        self.child.is_some()
    }

    /// Leaves the command time to end by itself.
    pub(crate) fn part(&mut self) -> Outcome {
        let deadline = Deadline::after(PARTING);
        while self.child.is_some() && !self.has_ended()? && !deadline.has_passed() {
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ended_by_itself = child.kill();
            let _reaped_before = child.wait();
        }
    }
}

/// The command's end lies over the inherited socket, so that it cannot reach past us. It is started
/// through `run-child`, so that it does not outlive us whatever ends us.
fn start(command: &[OsString], end: OwnedFd, fd: i32) -> Outcome<Child> {
    let failed = |error: &io::Error| Failure::io("starting a second process", error);
    let number = fd.to_string();
    let (mut told, tell) = UnixStream::pair().map_err(|error| failed(&error))?;
    let mut prepared = Command::new(std::env::current_exe().map_err(|error| failed(&error))?);
    prepared.args(["run-child", &std::process::id().to_string(), "--"]);
    prepared.args(command.iter().map(|argument| put(argument, number.as_bytes())));
    prepared.env(VARIABLE, &number).stdout(OwnedFd::from(tell));
    let mapping = vec![FdMapping { parent_fd: end, child_fd: fd }];
    prepared
        .fd_mappings(mapping)
        .map_err(|error| Failure::usage(format_args!("descriptor {fd}: {error}")))?;
    let mut child = prepared.spawn().map_err(|error| failed(&error))?;
    // It owns our copies of the command's ends.
    drop(prepared);
    let mut refused = String::new();
    let heard = told.read_to_string(&mut refused);
    if heard.is_ok() && refused.is_empty() {
        return Ok(child);
    }
    let _ended_by_itself = child.kill();
    let _reaped_before = child.wait();
    heard.map_err(|error| failed(&error))?;
    Err(Failure::new(IO, refused))
}

/// The argument with the number in place of every `{}`.
fn put(argument: &OsString, number: &[u8]) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = argument.as_bytes();
    while let Some(at) = rest.windows(2).position(|two| two == b"{}") {
        bytes.extend_from_slice(&rest[..at]);
        bytes.extend_from_slice(number);
        rest = &rest[at + 2..];
    }
    bytes.extend_from_slice(rest);
    OsString::from_vec(bytes)
}
