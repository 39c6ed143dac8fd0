//! The other process: this command once more, with one end of a conversation as standard input.
//!
//! Standard input, because it is the one inherited descriptor that safe code can get hold of:
//! for any other number it would have to promise that nobody else owns it.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use fdpost::Deadline;

use crate::Outcome;

/// How long one process waits for the other: far beyond what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is killed, if need be, and reaped when this is dropped.
pub(crate) struct Peer {
    child: Child,
    /// Its standard output: a socket, because reading one can have a deadline.
    said: UnixStream,
}

impl Peer {
    /// Starts `fdpost` with these arguments and `end` as its standard input.
    pub(crate) fn start(arguments: &[&str], end: OwnedFd) -> Outcome<Self> {
        let (said, stdout) = UnixStream::pair()?;
        said.set_read_timeout(Some(PATIENCE))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdout(OwnedFd::from(stdout)).stderr(Stdio::piped());
        command.fd_mappings(vec![FdMapping { parent_fd: end, child_fd: 0 }])?;
        let child = command.spawn().map_err(|error| format!("starting a second process: {error}"))?;
        // The command owns our copies of its ends, and closes them here.
        Ok(Self { child, said })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has called [`say_ready`].
    pub(crate) fn wait_until_ready(&mut self) -> Outcome {
        self.said.read_exact(&mut [0]).map_err(|error| format!("the other process is not ready: {error}"))?;
        Ok(())
    }

    /// Waits for it to end by itself, and well.
    pub(crate) fn finish(mut self) -> Outcome {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.blame(format!("the other process ended with {status}"))),
                None if deadline.has_passed() => return Err(self.blame("the other process does not end")),
                None => sleep(Duration::from_millis(1)),
            }
        }
    }

    /// `error`, and what the process said of it before it ended.
    pub(crate) fn blame(mut self, error: impl ToString) -> Box<dyn Error> {
        self.end();
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _told_so_far = stderr.read_to_string(&mut said);
        }
        let (error, said) = (error.to_string(), said.trim().replace('\n', " "));
        if said.is_empty() { error.into() } else { format!("{error} (the other process: {said})").into() }
    }

    fn end(&mut self) {
        let _ended_by_itself = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end();
    }
}

/// In the other process: lets [`Peer::wait_until_ready`] return.
pub(crate) fn say_ready() -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(b".")?;
    stdout.flush()
}

/// In the other process: the end that [`Peer::start`] handed over.
pub(crate) fn own_end() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}
