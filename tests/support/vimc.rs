//! libcamera's packaged worker for its virtual camera (vimc), driven over `Channel<Libcamera>`:
//! every byte that goes either way stands in `tests/vectors/libcamera.json`.
#![allow(dead_code, unreachable_pub, reason = "the example and the test each use their part")]

use std::error::Error;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use fdpost::{Channel, Deadline, Libcamera, Limits, Message};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What is said where there is no worker.
pub const ABSENT: &str = "skipped: libcamera's worker is not installed (apt-get install libcamera-ipa)";

/// For each answer, and for the worker's end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name that the worker's maps show.
const MEMFD: &str = "vimc-buffer";

/// The worker's binary and the module that it is to load.
#[derive(Clone, Debug)]
pub struct Installed {
    pub binary: PathBuf,
    pub module: PathBuf,
}

/// Looks where Debian has put them over the years.
pub fn find() -> Option<Installed> {
    let below = |root: &str| fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let directories: Vec<PathBuf> = ["/usr/lib", "/usr/libexec"]
        .iter()
        .flat_map(|root| below(root).chain([PathBuf::from(root)]))
        .flat_map(|directory| [directory.join("libcamera"), directory.join("libcamera/ipa")])
        .collect();
    let file =
        |name: &str| directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    Some(Installed { binary: file("vimc_ipa_proxy")?, module: file("ipa_vimc.so")? })
}

/// The entries of a file in `tests/vectors/`.
pub fn vectors(file: &str, list: &str) -> Outcome<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let all: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    Ok(all[list].as_array().ok_or_else(|| format!("{file} has no {list}"))?.clone())
}

/// Bytes written as pairs of hexadecimal digits.
pub fn unhex(digits: &str) -> Outcome<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

/// The recorded messages.
pub struct Script {
    messages: Vec<Value>,
}

impl Script {
    pub fn load() -> Outcome<Self> {
        Ok(Self { messages: vectors("libcamera.json", "messages")? })
    }

    /// The payload of a message.
    pub fn payload(&self, name: &str, direction: &str) -> Outcome<Vec<u8>> {
        let found = self.messages.iter().find(|one| one["name"] == name && one["direction"] == direction);
        let text = found.and_then(|one| one["payload"].as_str());
        unhex(text.ok_or_else(|| format!("libcamera.json has no {direction} {name}"))?)
    }
}

/// A running worker's process. It never notices that its peer is gone (a datagram socket shows no
/// hang-up), so it is killed, if need be, and reaped when this is dropped.
pub struct Process(Child);

impl Process {
    /// Starts a worker; the channel's other end is its descriptor 3.
    pub fn start(installed: &Installed) -> Outcome<(Self, Channel<Libcamera>)> {
        // Header and payload are two system calls there: a loaded machine may halt it in between.
        let limits = Limits::new().assembly_timeout(PATIENCE);
        let (channel, theirs) = Channel::<Libcamera>::pair(limits)?;
        let mut command = Command::new(&installed.binary);
        command.arg(&installed.module).arg("3").stdin(Stdio::null()).stdout(Stdio::null());
        // Its log is for who looks for a fault.
        command.env("LIBCAMERA_LOG_LEVELS", "*:ERROR");
        command.fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: 3 }])?;
        Ok((Self(command.spawn()?), channel))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether the worker has the buffer's memfd mapped.
    pub fn has_mapped(&self) -> Outcome<bool> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid()))?;
        Ok(maps.lines().any(|line| line.contains(&format!("/memfd:{MEMFD}"))))
    }

    /// Waits for the worker to end by itself.
    pub fn wait(&mut self) -> Outcome<ExitStatus> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match self.0.try_wait()? {
                Some(status) => return Ok(status),
                None if deadline.has_passed() => return Err("the worker does not end".into()),
                None => sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_by_itself = self.0.kill();
        let _reaped_before = self.0.wait();
    }
}

/// A worker, and the recorded conversation with it.
pub struct Worker {
    process: Process,
    channel: Channel<Libcamera>,
    script: Script,
}

impl Worker {
    pub fn start(installed: &Installed) -> Outcome<Self> {
        let script = Script::load()?;
        let (process, channel) = Process::start(installed)?;
        Ok(Self { process, channel, script })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Sends the request of that name, with a descriptor where there is one.
    pub fn request(&mut self, name: &str, descriptor: Option<OwnedFd>) -> Outcome {
        let message = Message::new(self.script.payload(name, "request")?);
        let message = descriptor.into_iter().fold(message, Message::with);
        self.channel.send_by(message, Deadline::after(PATIENCE)).map(drop)?;
        Ok(())
    }

    /// Waits for the reply of that name, which must be the recorded one to the byte.
    pub fn reply(&mut self, name: &str) -> Outcome {
        let expected = self.script.payload(name, "reply")?;
        let reply = self.channel.receive_by(Deadline::after(PATIENCE))?;
        if reply.payload() != expected || reply.descriptor_count() != 0 {
            return Err(
                format!("{name} was answered by {:02x?}, not {expected:02x?}", reply.payload()).into()
            );
        }
        Ok(())
    }

    fn expect_mapped(&self, expected: bool) -> Outcome {
        if self.process.has_mapped()? == expected {
            return Ok(());
        }
        let answer = if expected { "does not show" } else { "still shows" };
        Err(format!("/proc/{}/maps {answer} the memfd", self.pid()).into())
    }

    /// Waits for the worker to end by itself.
    pub fn wait(&mut self) -> Outcome<ExitStatus> {
        self.process.wait()
    }
}

/// A buffer of 4096 bytes. Not sealed: the worker maps it shared, which kernels before 6.7 refuse
/// for a memfd that is sealed against writing, even where it is only read.
pub fn buffer() -> Outcome<OwnedFd> {
    let memfd = File::from(memfd_create(MEMFD, MFdFlags::MFD_CLOEXEC)?);
    memfd.set_len(4096)?;
    Ok(memfd.into())
}

/// The whole conversation; `say` is told each step once it was checked.
pub fn drive(installed: &Installed, mut say: impl FnMut(&str)) -> Outcome {
    let mut worker = Worker::start(installed)?;
    say(&format!("started {} as process {}", installed.binary.display(), worker.pid()));

    worker.request("start", None)?;
    worker.reply("start")?;
    say("start: answered, 12 bytes as recorded");

    worker.expect_mapped(false)?;
    worker.request("map-buffers", Some(buffer()?))?;
    worker.reply("map-buffers")?;
    worker.expect_mapped(true)?;
    say("map-buffers with a memfd: answered, 8 bytes as recorded; the worker's maps show the memfd");

    worker.request("event", None)?;
    worker.reply("event")?;
    say("event: the worker sent its own, 24 bytes as recorded");

    worker.request("unmap-buffers", None)?;
    worker.reply("unmap-buffers")?;
    worker.expect_mapped(false)?;
    say("unmap-buffers: answered, 8 bytes as recorded; the worker's maps no longer show the memfd");

    worker.request("stop", None)?;
    worker.reply("stop")?;
    say("stop: answered, 8 bytes as recorded");

    worker.request("exit", None)?;
    let status = worker.wait()?;
    if !status.success() {
        return Err(format!("the worker ended with {status}").into());
    }
    say("exit: the worker ended with status 0");
    Ok(())
}
