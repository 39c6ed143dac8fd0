//! `fdpost inspect` as a process between the two sides of a test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use fdpost::{Channel, Limits, Profile};
use serde_json::Value;

pub const FDPOST: &str = env!("CARGO_BIN_EXE_fdpost");
/// Patient: a loaded machine may halt either side in the middle of a message.
pub const LIMITS: Limits =
    Limits::new().descriptors(8).payload(1024 * 1024).assembly_timeout(Duration::from_secs(30));

/// A running `fdpost`, killed and reaped when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_by_itself = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}

/// Starts `fdpost inspect` with these arguments and `ends` as descriptors 3 and on.
pub fn start(arguments: &[&str], ends: Vec<OwnedFd>) -> Running {
    let mut command = Command::new(FDPOST);
    command.arg("inspect").args(arguments).env_remove("FDPOST_FD");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mapping = ends.into_iter().zip(3..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mapping.collect()).unwrap();
    Running(command.spawn().unwrap())
}

/// Waits for its end: status, what it printed as JSON, what it said on standard error.
pub fn end(mut running: Running) -> (Option<i32>, Vec<Value>, String) {
    let (mut out, mut err) = (String::new(), String::new());
    running.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    running.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let status = running.0.wait().unwrap().code();
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::from(line)));
    (status, lines.collect(), err)
}

/// Two channels with an `fdpost inspect` between them.
pub fn between<P: Profile>(arguments: &[&str]) -> (Channel<P>, Channel<P>, Running) {
    let (one, end_one) = Channel::<P>::pair(LIMITS).unwrap();
    let (two, end_two) = Channel::<P>::pair(LIMITS).unwrap();
    let arguments = [&["--profile", P::NAME, "--fd", "3", "--fd", "4", "--json"], arguments].concat();
    (one, two, start(&arguments, vec![end_one, end_two]))
}

/// A directory of this test's own, removed when dropped.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fdpost-inspect-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _nobody_needs_it = fs::remove_dir_all(&self.0);
    }
}

pub fn replay(arguments: &[&str]) -> Output {
    Command::new(FDPOST).arg("replay").args(arguments).output().unwrap()
}

/// The verdicts of a replay, first side first.
pub fn verdicts(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let verdicts = lines.filter(|line| line["event"] == "verdict");
    verdicts.map(|line| line["verdict"].as_str().unwrap().to_owned()).collect()
}
