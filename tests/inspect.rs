//! `fdpost inspect` between two peers: what passes, what is shown, and how it ends.

mod support;
#[path = "support/inspect.rs"]
mod watched;

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use fdpost::{Channel, Error, Head, Libcamera, Message, Packet, Profile, Stream};
use serde_json::Value;
use support::{Ledger, files, identity, is_shut_down, raw_send, soon};
use watched::{Directory, FDPOST, LIMITS, Running, between, end, replay, start, verdicts};

#[test] // P1, P2; case 28
fn what_passes_is_unchanged_and_shown() {
    fn passes<P: Profile>(head: Head) {
        let (mut one, mut two, running) =
            between::<P>(&["--idle-timeout", "3000", "--assembly-timeout", "30000"]);
        let sizes = [(5, 0), (3, 1), (40, 8), (70_000, 3)];
        for (bytes, count) in sizes {
            let payload: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            let sent = files(count);
            let names: Vec<_> = sent.iter().map(identity).collect();
            let message = Message::new(payload.clone()).with_head(head);
            one.send(sent.into_iter().fold(message, Message::with)).unwrap();
            let mut message = two.receive_by(soon()).unwrap();
            assert_eq!((message.payload(), *message.head()), (&payload[..], head));
            let came: Vec<_> = message.take_all().map(|descriptor| identity(&descriptor)).collect();
            assert_eq!(came, names);
            [one, two] = [two, one];
        }
        drop((one, two));
        let (status, lines, err) = end(running);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{lines:?}");
        let messages: Vec<&Value> = lines.iter().filter(|line| line["event"] == "message").collect();
        assert_eq!(messages.len(), sizes.len());
        for (index, ((bytes, count), line)) in sizes.into_iter().zip(messages).enumerate() {
            let [from, to] = if index % 2 == 0 { ["fd-3", "fd-4"] } else { ["fd-4", "fd-3"] };
            assert_eq!((&line["from"], &line["to"]), (&from.into(), &to.into()));
            assert_eq!((&line["bytes"], &line["descriptors"]), (&bytes.into(), &count.into()));
            assert_eq!(line["kinds"], Value::from(vec!["memfd"; count]));
            let first: String = (0..bytes.min(64)).map(|index| format!("{index:02x}")).collect();
            assert_eq!(line["data"], first);
            assert_eq!(line["kind"], if P::NAME == "libcamera" { Value::Null } else { head.kind.into() });
        }
    }
    let ledger = Ledger::open();
    passes::<Libcamera>(Head::default());
    passes::<Packet>(Head { kind: 7, correlation: 9, flags: 0, reply_descriptors: 2 });
    passes::<Stream>(Head { kind: 7, ..Head::default() });
    ledger.close();
}

#[test]
fn the_lines_for_people_say_who_what_and_how_much() {
    let ledger = Ledger::open();
    let (mut one, end_one) = Channel::<Packet>::pair(LIMITS).unwrap();
    let (mut two, end_two) = Channel::<Packet>::pair(LIMITS).unwrap();
    let running = start(&["--profile", "packet", "--fd", "3", "--fd", "4"], vec![end_one, end_two]);
    let sent = files(2).into_iter().fold(Message::new(b"hi \x01\x02 0123456789abcdef"), Message::with);
    one.send(sent.with_kind(5)).unwrap();
    drop(two.receive_by(soon()).unwrap());
    drop(one);
    assert_eq!(two.receive_by(soon()).unwrap_err(), Error::Closed);
    drop(two);
    let (status, lines, _) = end(running);
    let without_time = |line: &Value| {
        let line = line.as_str().unwrap().to_owned();
        line.find("fd-").map_or(line.clone(), |at| line[at..].to_owned())
    };
    let lines: Vec<String> = lines.iter().map(without_time).collect();
    assert_eq!(status, Some(0));
    assert_eq!(
        lines,
        [
            "fd-3 and fd-4",
            "fd-3 --> fd-4  22 bytes, 2 fd (2 memfd), kind 5  68 69 20 01 02 20 30 31 32 33 34 35 36 37 38 39 ..  |hi .. 0123456789|",
            "fd-3 --> fd-4  closed by fd-3",
            "fd-3 <-- fd-4  closed by fd-4",
        ]
    );
    ledger.close();
}

#[test] // P3, CO-11
fn a_violation_ends_both_sides_after_what_came_before() {
    fn ends<P: Profile>(bad: &[u8], rule: &str) {
        let directory = Directory::new(P::NAME);
        let record = directory.file("talk");
        let (mut good, end_good) = Channel::<P>::pair(LIMITS).unwrap();
        let (mut bad_side, end_bad) = Channel::<P>::pair(LIMITS).unwrap();
        let svg = directory.file("talk.svg");
        let arguments =
            ["--profile", P::NAME, "--fd", "3", "--fd", "4", "--json", "--record", &record, "--svg", &svg];
        let running = start(&arguments, vec![end_good, end_bad]);
        bad_side.send(Message::new(b"before").with(files(1).remove(0))).unwrap();
        good.send(Message::new(b"the other way")).unwrap();
        assert_eq!(bad_side.receive_by(soon()).unwrap().payload(), b"the other way");
        raw_send(&bad_side.as_fd(), bad, &[]);
        assert_eq!(good.receive_by(soon()).unwrap().payload(), b"before");
        let (status, lines, err) = end(running);
        assert_eq!((status, err.as_str()), (Some(65), ""), "{lines:?}");
        let last = lines.last().unwrap();
        assert_eq!((&last["event"], &last["rule"]), (&"violation".into(), &rule.into()));
        assert_eq!((&last["from"], &last["text"].is_string()), (&"fd-4".into(), &true));
        if P::NAME == "libcamera" {
            assert!(good.send(Message::new(b"late")).is_err());
        } else {
            assert!(is_shut_down(&good) && is_shut_down(&bad_side));
        }
        // The record says the same of both, and the picture is there.
        let output = replay(&["--json", &record]);
        assert_eq!((output.status.code(), verdicts(&output)), (Some(65), vec!["more".into(), rule.into()]));
        let drawn = fs::read_to_string(&svg).unwrap();
        assert_eq!(drawn.matches("<path class=\"message\"").count(), 2, "{drawn}");
        assert!(drawn.contains(&format!(">{rule}</text>")), "{drawn}");
    }
    let ledger = Ledger::open();
    ends::<Libcamera>(b"1234567", "header-length");
    ends::<Packet>(&[2; 16], "header-version");
    ends::<Stream>(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x78], "descriptor-count");
    ledger.close();
}

#[test] // P5: also where it is silence that breaks the rule
fn a_message_begun_and_not_finished_is_judged_the_same_in_the_replay() {
    let ledger = Ledger::open();
    let directory = Directory::new("silence");
    let record = directory.file("talk");
    let (one, two, running) = between::<Libcamera>(&["--assembly-timeout", "60", "--record", &record]);
    raw_send(&two.as_fd(), &support::libcamera_header(5, 0), &[]);
    let (status, lines, _) = end(running);
    assert_eq!((status, &lines.last().unwrap()["rule"]), (Some(65), &"payload-missing".into()));
    let output = replay(&["--json", &record]);
    assert_eq!(
        (output.status.code(), verdicts(&output)),
        (Some(65), vec!["more".into(), "payload-missing".into()])
    );
    // Removing a directory opens it: another test must not count that.
    drop((one, two, directory));
    ledger.close();
}

#[test] // P6, P7: bounded, and neither way waits for the other
fn a_full_direction_does_not_stop_the_other() {
    let ledger = Ledger::open();
    let (mut one, mut two, mut running) = between::<Packet>(&["--idle-timeout", "20000"]);
    // Read along, or the pipe of what is printed would fill and stop everything.
    let mut out = running.0.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    let mut sent = 0_u32;
    let full = Instant::now() + Duration::from_millis(300);
    while Instant::now() < full {
        match one.try_send(Message::new(sent.to_le_bytes().repeat(2000))) {
            Ok(_) => sent += 1,
            Err(error) => {
                assert_eq!(error.error, Error::WouldBlock);
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    assert!(sent > 10, "{sent} messages of 8000 bytes fit");
    for index in 0..50_u32 {
        two.send(Message::new(index.to_le_bytes())).unwrap();
        assert_eq!(one.receive_by(soon()).unwrap().payload(), index.to_le_bytes());
    }
    // What was held comes whole and in order, and the end comes behind it.
    drop(one);
    for index in 0..sent {
        assert_eq!(two.receive_by(soon()).unwrap().payload(), index.to_le_bytes().repeat(2000));
    }
    assert_eq!(two.receive_by(soon()).unwrap_err(), Error::Closed);
    drop(two);
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    drop((running, reader.join().unwrap()));
    ledger.close();
}

#[test] // P6: partial sends
fn a_payload_of_many_socket_buffers_passes_a_stream_both_ways_at_once() {
    let ledger = Ledger::open();
    let (mut one, mut two, running) = between::<Stream>(&["--assembly-timeout", "30000"]);
    let talk = |channel: &mut Channel<Stream>, value: u8| {
        let payload = vec![value; 1_000_000];
        let mut message = Some(Message::new(payload).with(files(1).remove(0)));
        let mut came = None;
        while message.is_some() || came.is_none() || channel.wants_write() {
            if let Some(sent) = message.take() {
                match channel.try_send(sent) {
                    Ok(_) => {}
                    Err(mut error) => message = error.messages.pop(),
                }
            }
            match channel.try_receive().unwrap() {
                Some(whole) => came = Some(whole),
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
        came.unwrap()
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| talk(&mut two, 2));
        let came = talk(&mut one, 1);
        assert!(came.payload() == vec![2; 1_000_000] && came.descriptor_count() == 1);
        let came = other.join().unwrap();
        assert!(came.payload() == vec![1; 1_000_000] && came.descriptor_count() == 1);
    });
    // Half of the conversation ends: the other half goes on.
    nix::sys::socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(&one.as_fd()),
        nix::sys::socket::Shutdown::Write,
    )
    .unwrap();
    assert_eq!(two.receive_by(soon()).unwrap_err(), Error::Closed);
    two.send(Message::new(b"still there")).unwrap();
    assert_eq!(one.receive_by(soon()).unwrap().payload(), b"still there");
    drop(two);
    assert_eq!(one.receive_by(soon()).unwrap_err(), Error::Closed);
    drop(one);
    assert_eq!(end(running).0, Some(0));
    ledger.close();
}

#[test] // P2
fn a_peer_that_is_gone_ends_the_other_way_too() {
    let ledger = Ledger::open();
    let (mut one, two, running) = between::<Libcamera>(&["--idle-timeout", "10000"]);
    drop(two);
    let begun = Instant::now();
    // A datagram socket tells it when something is sent, and only then.
    one.send(Message::new(b"to nobody").with(files(1).remove(0))).unwrap();
    let (status, lines, _) = end(running);
    assert_eq!(status, Some(0));
    let closed: Vec<_> =
        lines.iter().filter(|line| line["event"] == "closed").map(|line| &line["by"]).collect();
    assert_eq!(closed, ["fd-4", "fd-4"], "{lines:?}");
    assert!(begun.elapsed() < Duration::from_secs(9));
    drop(one);
    ledger.close();
}

#[test]
fn a_command_is_one_of_the_peers_under_the_same_number() {
    let ledger = Ledger::open();
    for variable in [false, true] {
        let (mut one, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
        let mut command = Command::new(FDPOST);
        command.args(["inspect", "--profile", "packet", "--json"]);
        if variable {
            command.env("FDPOST_FD", "5");
        } else {
            command.args(["--fd", "5"]).env_remove("FDPOST_FD");
        }
        // The command says which number it was given, and speaks through it.
        let script = "test \"$1\" = 5 && test \"$FDPOST_FD\" = 5 && exec \"$0\" send --fd \"$1\" \
            --profile packet --data hello --kind 3 --expect-reply";
        command.args(["--", "sh", "-c", script, FDPOST, "{}"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.fd_mappings(vec![FdMapping { parent_fd: theirs, child_fd: 5 }]).unwrap();
        let running = Running(command.spawn().unwrap());
        drop(command);
        let message = one.receive_by(soon()).unwrap();
        assert_eq!((message.payload(), message.head().kind), (&b"hello"[..], 3));
        one.send(Message::new(b"welcome").with_head(Head { flags: 1, ..*message.head() })).map_or_else(
            // A message that expects no reply has no correlation, and none can be sent as one.
            |_| one.send(Message::new(b"welcome")).unwrap(),
            |()| (),
        );
        assert_eq!(one.receive_by(soon()).unwrap_err(), Error::Closed);
        drop(one);
        let (status, lines, err) = end(running);
        assert_eq!(status, Some(0), "{lines:?} {err}");
        let directions: Vec<_> =
            lines.iter().filter(|line| line["event"] == "message").map(|line| &line["from"]).collect();
        assert_eq!(directions, ["sh", "fd-5"], "{err}");
    }
    ledger.close();
}

#[test]
fn a_command_does_not_outlive_whatever_ends_its_watcher() {
    let ledger = Ledger::open();
    let (mut one, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    // The command's own number comes as a message; then it does nothing, for ever.
    let script = "\"$0\" send --fd \"$1\" --profile packet --data $$; exec sleep 600";
    let arguments = ["--profile", "packet", "--fd", "3", "--", "sh", "-c", script, FDPOST, "{}"];
    let mut running = start(&arguments, vec![theirs]);
    let message = one.receive_by(soon()).unwrap();
    let process = PathBuf::from("/proc").join(std::str::from_utf8(message.payload()).unwrap());
    assert!(process.exists());
    running.0.kill().unwrap();
    let until = Instant::now() + Duration::from_secs(5);
    // A process that nobody reaped yet is dead all the same.
    let alive = || fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while alive() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!alive(), "{} is still there", process.display());
    drop((one, running));
    ledger.close();
}

#[test]
fn what_cannot_be_started_is_said_in_one_sentence() {
    let ledger = Ledger::open();
    let (one, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let arguments = ["--profile", "packet", "--fd", "3", "--", "/nowhere/at-all"];
    let (status, lines, err) = end(start(&arguments, vec![theirs]));
    assert_eq!((status, lines.len(), err.lines().count()), (Some(74), 0, 1), "{err}");
    assert!(err.contains("starting /nowhere/at-all: "), "{err}");
    drop(one);
    ledger.close();
}

#[test]
fn what_makes_no_sense_is_refused_in_one_sentence() {
    let ledger = Ledger::open();
    let refused = |arguments: &[&str], part: &str| {
        let (status, lines, err) = end(start(arguments, Vec::new()));
        assert_eq!((status, lines.len()), (Some(64), 0), "{arguments:?}: {err}");
        assert!(err.starts_with("fdpost: ") && err.contains(part) && err.lines().count() == 1, "{err}");
    };
    refused(&["--profile", "packet"], "there must be two peers");
    refused(&["--profile", "packet", "--fd", "3"], "there must be two peers");
    refused(&["--profile", "packet", "--fd", "3", "--fd", "3"], "given twice");
    refused(&["--profile", "packet", "--fd", "3", "--fd", "4", "--fd", "5"], "only two peers");
    refused(&["--profile", "packet", "--fd", "3", "--fd", "4", "--", "true"], "only two peers");
    refused(&["--profile", "packet", "--", "true"], "FDPOST_FD");
    let recorded = ["--profile", "send-fd", "--fd", "3", "--fd", "4", "--record", "nowhere"];
    refused(&recorded, "leave --record out");
    refused(&["--profile", "packet", "--fd", "70", "--fd", "71"], "descriptor 70 is not open");
    ledger.close();
}
