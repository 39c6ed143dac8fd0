//! Processes that meet by name: a broker, a service and two clients, each a process of its own.
//! `cargo run --features broker --example broker` starts all four; with a role and an address it is
//! one of them.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use fdpost::broker::{Audience, Quotas};
use fdpost::{Address, Broker, BrokerClient, Deadline, Limits, Memfd, Message, Packet};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

const NAME: &str = "pictures";
const CLIENTS: [&str; 2] = ["client one", "client two"];
const PICTURE: usize = 4096;

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let played = match &words[..] {
        [role, address] => part(role, &Address::parse(address)),
        _ => play(
            |role, address| {
                let mut command = Command::new("/proc/self/exe");
                command.args([role, address]);
                command
            },
            |line| println!("{line}"),
        ),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("broker: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Starts everybody, and tells what they said, in an order that does not depend on who was faster.
pub(crate) fn play(
    become_part: impl Fn(&str, &str) -> Command,
    mut tell: impl FnMut(String),
) -> Result<(), Failure> {
    let address = format!("@fdpost-example-broker-{}", std::process::id());
    let start = |role| Actor::start(role, become_part(role, &address));
    let mut broker = start("broker")?;
    tell(broker.line()?);
    let mut service = start("service")?;
    tell(service.line()?);
    // Both at once.
    let clients: Vec<Actor> = CLIENTS.into_iter().map(start).collect::<Result<_, _>>()?;
    for actor in clients.into_iter().chain([service, broker]) {
        actor.end()?.into_iter().for_each(&mut tell);
    }
    Ok(())
}

/// One of the processes.
pub(crate) fn part(role: &str, address: &Address) -> Result<(), Failure> {
    match role {
        "broker" => broker(address),
        "service" => service(address),
        client => ask(client, address),
    }
}

fn broker(address: &Address) -> Result<(), Failure> {
    let mut broker = Broker::bind(address, Quotas::new())?;
    let closer = broker.closer();
    // Until its standard input ends.
    std::thread::spawn(move || {
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        closer.shutdown();
    });
    println!("broker: listens");
    broker.run()?;
    let stats = broker.stats();
    println!("broker: {} channels handed out, {} refused", stats.granted, stats.refused);
    Ok(())
}

/// Speaks first on each channel that it is handed, and looks at the picture that comes back.
fn service(address: &Address) -> Result<(), Failure> {
    let limits = Limits::new().descriptors(1);
    let mut broker = BrokerClient::connect(address)?;
    broker.register::<Packet>(NAME, limits, Audience::SameUser, soon())?;
    println!("service: serves {NAME:?}");
    for _ in CLIENTS {
        let mut client = broker.accept_by::<Packet>(limits, soon())?;
        // The broker says who it is: on the channel itself the kernel would name the broker.
        let question = format!("process {}, show me a picture", client.peer.pid);
        client.channel.send(Message::new(question))?;
        let mut answer = client.channel.receive_by(soon())?;
        let picture = Memfd::map(answer.take(0).ok_or("a picture comes as a memfd")?, PICTURE)?;
        let sum: u32 = picture.iter().map(|pixel| u32::from(*pixel)).sum();
        client.channel.send(Message::new(sum.to_le_bytes()))?;
        println!("service: a picture of {} bytes", picture.len());
    }
    Ok(())
}

fn ask(name: &str, address: &Address) -> Result<(), Failure> {
    let mut broker = BrokerClient::connect(address)?;
    let mut service = broker.ask::<Packet>(NAME, Limits::new(), soon())?;
    // Nothing more goes through the broker.
    drop(broker);
    let question = service.channel.receive_by(soon())?;
    if question.payload() != format!("process {}, show me a picture", std::process::id()).as_bytes() {
        return Err("the question was for somebody else".into());
    }
    let picture = Memfd::sealed("picture", &[1; PICTURE])?;
    service.channel.send(Message::new(b"here").with(picture))?;
    let sum = service.channel.receive_by(soon())?.payload().try_into().map(u32::from_le_bytes)?;
    println!("{name}: its pixels add up to {sum}");
    Ok(())
}

/// A process, killed and reaped if it does not come to its end.
struct Actor {
    role: &'static str,
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Actor {
    fn start(role: &'static str, mut command: Command) -> Result<Self, Failure> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(process.stdout.take().ok_or("its output is a pipe")?);
        Ok(Self { role, process, lines })
    }

    /// The next line of its own.
    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        while self.lines.read_line(&mut line)? > 0 {
            if let Some(at) = line.find(&format!("{}: ", self.role)) {
                return Ok(line.split_off(at).trim_end().to_owned());
            }
            line.clear();
        }
        Err(format!("the {} ended early", self.role).into())
    }

    /// What else it said, once it has ended well.
    fn end(mut self) -> Result<Vec<String>, Failure> {
        drop(self.process.stdin.take());
        let mut said = Vec::new();
        while let Ok(line) = self.line() {
            said.push(line);
        }
        match self.process.wait()? {
            status if status.success() => Ok(said),
            status => Err(format!("the {} ended with {status}", self.role).into()),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ended_by_itself = self.process.kill();
        let _reaped_before = self.process.wait();
    }
}
