//! The built command with an inherited socket, and what it printed.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::libc;

/// The number under which [`start`] leaves the socket open.
pub const FD: &str = "3";

/// Longer than any command here may take, however loaded the machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Running(Option<Child>);

/// How a command ended, and what it said.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: Option<i32>,
    pub out: Vec<String>,
    pub err: String,
}

/// The command with these words, separated by spaces.
pub fn fdpost(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fdpost"));
    command.args(words.split_whitespace()).stdin(Stdio::null());
    command
}

/// Starts `command` with `end` as descriptor 3.
pub fn start_with(mut command: Command, end: Option<OwnedFd>) -> Running {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mappings = end.map(|parent_fd| FdMapping { parent_fd, child_fd: 3 });
    command.fd_mappings(mappings.into_iter().collect()).unwrap();
    Running(Some(command.spawn().unwrap()))
}

/// Starts `fdpost` with these words and `end` as descriptor 3.
pub fn start(words: &str, end: OwnedFd) -> Running {
    start_with(fdpost(words), Some(end))
}

/// Runs `fdpost` with these words to its end.
pub fn run(words: &str) -> Ended {
    start_with(fdpost(words), None).finish()
}

/// Runs a script in Python 3; `None`, said in words, where there is none.
pub fn python(script: &str) -> Option<Command> {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: python3 is not installed (apt-get install python3)");
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-c", script, env!("CARGO_BIN_EXE_fdpost")]).stdin(Stdio::null());
    Some(command)
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    /// Lets it open so many descriptors more, and then no further one (RLIMIT_NOFILE).
    #[allow(unsafe_code, reason = "the limit of another process has no safe form")]
    pub fn leave_descriptors(&self, free: usize) {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let open: Vec<u64> =
            entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        let last = (0..).filter(|number| !open.contains(number)).nth(free).unwrap();
        let limit = libc::rlimit { rlim_cur: last as _, rlim_max: last as _ };
        // SAFETY: the limit is read and nothing is written.
        let result = unsafe {
            libc::prlimit(self.pid() as _, libc::RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut())
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn finish(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        while self.child().try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the command does not end");
            sleep(Duration::from_millis(2));
        }
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let out = text(output.stdout).lines().map(str::to_owned).collect();
        Ended { status: output.status.code(), out, err: text(output.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ended_by_itself = child.kill();
            let _reaped_before = child.wait();
        }
    }
}

impl Ended {
    /// Exactly this status and these lines on standard output.
    #[track_caller]
    pub fn expect(&self, status: i32, out: &[&str]) {
        assert_eq!((self.status, &self.out[..]), (Some(status), &owned(out)[..]), "{}", self.err);
    }

    /// One sentence on standard error, with these words in it.
    #[track_caller]
    pub fn says(&self, words: &str) {
        let one = self.err.starts_with("fdpost: ") && self.err.lines().count() == 1;
        assert!(one && self.err.contains(words), "{words:?} in {:?}", self.err);
        // What is wrong; what to do.
        assert!(self.err.contains("; "), "{:?}", self.err);
    }
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}
