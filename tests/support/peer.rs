//! A peer in a process of its own: this test once more, with the other end of a socket.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdout, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use nix::unistd::Pid;

/// The number under which the process finds its end.
const FD: i32 = 3;

/// Stands before what the process says, on a line that the test harness may have begun.
const MARK: &str = "peer: ";

/// The process; killed and reaped when dropped.
pub struct Peer {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `test` again, which finds `role` in [`child_value`](crate::support::child_value).
    pub fn start(test: &str, role: &str, socket: OwnedFd) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env("FDPOST_CHILD", role);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.fd_mappings(vec![FdMapping { parent_fd: socket, child_fd: FD }]).unwrap();
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Waits for what it [says](say) next.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "the peer ended without a word");
            if let Some((_, said)) = line.split_once(MARK) {
                return said.trim_end().to_owned();
            }
        }
    }

    /// Lets it go on from [`await_word`].
    pub fn go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    }

    /// Waits for it to end, and well.
    #[track_caller]
    pub fn finish(mut self) {
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it.
    pub fn kill(&mut self) {
        let _ended_by_itself = self.child.kill();
        let _reaped_before = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the process: its end.
pub fn own_end() -> OwnedFd {
    fdpost::inherited(FD).unwrap()
}

/// In the process: says something to who started it.
pub fn say(text: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{MARK}{text}").unwrap();
    out.flush().unwrap();
}

/// In the process: waits for [`Peer::go`].
pub fn await_word() {
    std::io::stdin().read_exact(&mut [0]).unwrap();
}
