//! `fdpost broker`: every event, and its end.

#[path = "support/cli.rs"]
mod cli;
mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use cli::{fdpost, run, start_with};
use fdpost::broker::Audience;
use fdpost::{BrokerClient, Channel, Error, Limits, Message, Packet, Refusal, Stream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getgid, getuid};
use serde_json::Value;
use support::Ledger;
use support_broker::meeting::{Directory, says};
use support_broker::{refusal, soon, talk};

/// A running `fdpost broker`, killed and reaped when dropped.
struct Running {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(path: &Path, options: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fdpost"));
        command.arg("broker").arg("--listen").arg(path).args(options.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// The next line, which is waited for.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next event, of this process: its fields behind those that say who it is.
    #[track_caller]
    fn event(&mut self, name: &str) -> Value {
        let line = self.line();
        let mut event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        let fields = event.as_object_mut().unwrap();
        assert_eq!(fields.remove("event").unwrap(), name, "{line}");
        assert_eq!(fields.remove("pid").unwrap(), std::process::id());
        assert_eq!(fields.remove("uid").unwrap(), getuid().as_raw());
        assert_eq!(fields.remove("gid").unwrap(), getgid().as_raw());
        event
    }

    /// Its end by a signal: exit status, what it still said, and what on standard error.
    fn end(mut self, signal: Signal) -> (Option<i32>, Vec<String>, String) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
        self.rest()
    }

    fn rest(&mut self) -> (Option<i32>, Vec<String>, String) {
        let mut out = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => break,
                line => out.push(line),
            }
        }
        let err = std::io::read_to_string(self.process.stderr.take().unwrap()).unwrap();
        (self.process.wait().unwrap().code(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_by_itself = self.process.kill();
        let _reaped_before = self.process.wait();
    }
}

#[test] // P1, P2, P3
fn every_event_is_told_and_a_signal_ends_it() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("broker");
    let mut broker = Running::start(&path, "--json --mode 640 --user-names 1");
    assert_eq!(broker.line(), r#"{"event":"ready"}"#);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);

    let mut service = BrokerClient::connect(&path).unwrap();
    assert_eq!(broker.event("connected"), serde_json::json!({"id": 0}));
    service.register::<Packet>("clock", Limits::new(), Audience::SameUser, soon()).unwrap();
    let named = |id: u64| serde_json::json!({"id": id, "name": "clock", "wire": "packet"});
    assert_eq!(broker.event("registered"), named(0));
    let mut client = BrokerClient::connect(&path).unwrap();
    assert_eq!(broker.event("connected"), serde_json::json!({"id": 1}));
    let mut theirs = client.ask::<Packet>("clock", Limits::new(), soon()).unwrap().channel;
    assert_eq!(broker.event("granted"), named(1));
    let mut ours = service.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;

    let refused = |request: &str, name: &str, wire: &str, refusal: &str| serde_json::json!({"id": 1, "name": name, "wire": wire, "request": request, "refusal": refusal});
    assert_eq!(refusal(client.ask::<Stream>("date", Limits::new(), soon())), Refusal::NameUnknown);
    assert_eq!(broker.event("refused"), refused("ask", "date", "stream", "name-unknown"));
    let second = client.register::<Packet>("date", Limits::new(), Audience::SameUser, soon());
    assert_eq!(refusal(second), Refusal::Quota);
    assert_eq!(broker.event("refused"), refused("register", "date", "packet", "quota"));

    service.withdraw("clock", soon()).unwrap();
    assert_eq!(broker.event("withdrawn"), serde_json::json!({"id": 0, "name": "clock"}));
    drop(service);
    assert_eq!(broker.event("left"), serde_json::json!({"id": 0, "names": 0, "why": "closed"}));
    let mut liar = Channel::<Packet>::connect(&path, Limits::new()).unwrap();
    assert_eq!(broker.event("connected"), serde_json::json!({"id": 2}));
    liar.send(Message::new(b"x")).unwrap();
    let text = "the broker message's kind is 0x0, which means nothing there";
    let left = serde_json::json!({"id": 2, "names": 0, "why": "broker-message", "text": text});
    assert_eq!(broker.event("left"), left);
    assert_eq!(liar.receive_by(soon()).unwrap_err(), Error::Closed);

    let (status, out, err) = broker.end(Signal::SIGTERM);
    assert_eq!((status, &out[..], &err[..]), (Some(0), &[r#"{"event":"closed"}"#.to_owned()][..], ""));
    // What it handed out lives on, and its file is gone.
    talk(&mut ours, &mut theirs);
    assert!(directory.is_empty(), "{:?}", directory.names());
    drop((client, liar, ours, theirs));
    drop(directory);
    ledger.close();
}

#[test] // P9
fn who_may_not_connect_is_told_nothing() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("broker");
    let other = getuid().as_raw() + 1;
    let mut broker = Running::start(&path, &format!("--peer-uid {other}"));
    assert_eq!(broker.line(), "ready");
    let mut refused = BrokerClient::connect(&path).unwrap();
    let error = refused.accept_by::<Packet>(Limits::new(), soon()).unwrap_err();
    assert_eq!(error, Error::Closed);
    let (pid, uid, gid) = (std::process::id(), getuid(), getgid());
    assert_eq!(broker.line(), format!("turned-away: pid {pid}, uid {uid}, gid {gid}, rule"));
    let (status, out, _) = broker.end(Signal::SIGINT);
    assert_eq!((status, &out[..]), (Some(0), &["closed".to_owned()][..]));
    drop((refused, directory));
    ledger.close();
}

#[test]
fn what_cannot_be_listened_on_is_said_in_a_sentence() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("broker");
    let mut broker = Running::start(&path, "--max-connections 1");
    assert_eq!(broker.line(), "ready");
    let file = directory.join("file");
    std::fs::write(&file, b"mine").unwrap();
    let missing = directory.join("missing/broker");
    let long = directory.join(&"x".repeat(120));
    for (path, options, words) in [
        (&path, "", "somebody is bound"),
        (&file, "", "no socket; choose"),
        (&missing, "", "see that the directory"),
        (&long, "", "107"),
        (&file, "--max-names 0", "limit names is 0"),
        (&file, "--mode 1000", "0 to 777"),
    ] {
        let (status, out, err) = Running::start(path, options).rest();
        assert_eq!((status, out.len()), (Some(64), 0), "{err}");
        assert!(err.starts_with("fdpost: ") && err.contains(words) && err.contains("; "), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    broker.end(Signal::SIGTERM);
    drop(directory);
    ledger.close();
}

#[test] // P1, P2
fn serve_send_and_call_meet_at_a_broker() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("broker");
    let mut broker = Running::start(&path, "--json");
    assert_eq!(broker.line(), r#"{"event":"ready"}"#);
    let at = |words: &str| words.replace("AT", &format!("--broker {} --name post", path.display()));
    for profile in ["packet", "stream", "libcamera"] {
        let words =
            at(&format!("serve AT --profile {profile} --reply reverse --clients 2 --max-descriptors 1"));
        let mut server = start_with(fdpost(&format!("{words} --idle-timeout 60000 --jobs 2")), None);
        says(server.child(), &["listening"]);
        let words =
            at(&format!("send AT --profile {profile} --data hello --attach /dev/null --expect-reply"));
        let sent = run(&words);
        assert_eq!(sent.status, Some(0), "{sent:?}");
        assert!(sent.out[0].starts_with("message: 5 bytes \"olleh\", 1 descriptor (device)"), "{sent:?}");
        if profile == "libcamera" {
            // Nobody sees that the other end of a datagram pair is gone.
            continue;
        }
        let called = run(&at(&format!("call AT --profile {profile} --data hello")));
        assert_eq!(called.status, Some(0), "{called:?}");
        assert!(called.out[0].starts_with("message: 5 bytes \"olleh\", 0 descriptors"), "{called:?}");
        assert_eq!(server.finish().status, Some(0));
    }
    drop(broker);
    drop(directory);
    ledger.close();
}

#[test]
fn what_a_broker_refuses_is_said_in_a_sentence() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("broker");
    let at = |words: &str| words.replace("AT", &format!("--broker {}", path.display()));
    let said = |words: &str, status: i32, sentence: &str| {
        let ended = run(&at(words));
        ended.expect(status, &[]);
        ended.says(sentence);
    };
    said("send AT --name post --profile packet --data x", 74, "connecting to the broker");
    let mut broker = Running::start(&path, "--json");
    assert_eq!(broker.line(), r#"{"event":"ready"}"#);
    said("send AT --name post --profile packet --data x", 74, "nobody serves that name");
    let mut server = start_with(fdpost(&at("serve AT --name post --profile packet")), None);
    says(server.child(), &["listening"]);
    said("send AT --name post --profile stream --data x", 74, "the service speaks the wire packet");
    said("serve AT --name post --profile packet", 74, "somebody serves that name");
    said("send AT --name post --profile send-fd --attach /", 64, "hands out channels");
    said("send AT --profile packet --data x", 64, "--name");
    said("send AT --name no\u{e9} --profile packet --data x", 64, "no printable ASCII");
    said("send AT --name post --connect x --profile packet --data x", 64, "--connect");
    said("send AT --name post --fd 0 --profile packet --data x", 64, "--fd");
    // A broker that goes takes its services with it: nobody can come any more.
    broker.end(Signal::SIGTERM);
    let ended = server.finish();
    assert_eq!(ended.status, Some(74), "{ended:?}");
    drop(directory);
    ledger.close();
}
