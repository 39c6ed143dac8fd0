//! `fdpost call`: what leaves, which answers count, and every exit status; `fdpost serve` as the side
//! that is called.

#[path = "support/cli.rs"]
mod cli;
mod support;
#[path = "support/vimc.rs"]
mod vimc;
#[path = "support/calls.rs"]
mod with;

use std::fs;
use std::path::{Path, PathBuf};

use cli::{FD, run, start};
use fdpost::calls::Correlate;
use fdpost::driver::Sent;
use fdpost::profile::packet::REPLY;
use fdpost::{Calls, Channel, Head, Libcamera, Memfd, Message, Packet, Stream};
use support::Ledger;
use with::{LIMITS, answered, body, packet, request, say, soon, tell, with_files};

fn call(profile: &str, options: &str) -> String {
    format!("call --fd {FD} --profile {profile} --json --timeout 20000 {options}")
}

/// A call of the command's to this side, which answers.
fn peer<P: Correlate>(options: &str) -> (Calls<P>, cli::Running) {
    let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    (Calls::answering(ours), start(&call(P::NAME, options), theirs))
}

/// What is printed of a message without descriptors.
fn message(data: &[u8], rest: &str) -> String {
    let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    let (bytes, head) = (data.len(), r#""event":"message""#);
    format!(r#"{{{head},"bytes":{bytes},"descriptors":0,"kinds":[],"data":"{hex}"{rest}}}"#)
}

#[test] // P1
fn a_call_is_answered_on_each_wire() {
    let ledger = Ledger::open();
    let (mut calls, command) = peer::<Packet>("--data ask --kind 7");
    let (mut asked, came) = request(&mut calls);
    let head = Head { kind: 7, correlation: 1, flags: 0, reply_descriptors: 0 };
    assert_eq!((came.payload(), *came.head()), (&b"ask"[..], head));
    // What answers nothing is printed, in its order.
    say(&mut calls, Message::new(b"word").with_kind(1));
    tell(&mut calls, &mut asked, Message::new(b"told").with_kind(8));
    let printed =
        [message(b"word", r#","kind":1,"correlation":0"#), message(b"told", r#","kind":8,"correlation":1"#)];
    command.finish().expect(0, &[&printed[0], &printed[1]]);
    drop(calls);

    let (mut calls, command) = peer::<Libcamera>("--data ask --kind 3");
    let (mut asked, came) = request(&mut calls);
    assert_eq!(came.payload(), body(3, asked.correlation(), b"ask").payload());
    say(&mut calls, body(9, 0, b"event"));
    tell(&mut calls, &mut asked, body(0, 0, b"told"));
    let printed = [
        message(body(9, 0, b"event").payload(), ""),
        message(body(3, asked.correlation(), b"told").payload(), ""),
    ];
    command.finish().expect(0, &[&printed[0], &printed[1]]);
    drop(calls);

    let (mut calls, command) = peer::<Stream>("--data ask --kind 5");
    let (mut asked, came) = request(&mut calls);
    assert_eq!((came.payload(), came.head().kind), (&b"ask"[..], 5));
    tell(&mut calls, &mut asked, Message::new(b"told").with_kind(6));
    command.finish().expect(0, &[&message(b"told", r#","kind":6"#)]);
    drop(calls);
    ledger.close();
}

#[test] // P2, P9
fn an_answer_brings_as_many_descriptors_as_the_command_line_says() {
    let ledger = Ledger::open();
    let directory: PathBuf =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("call-{}", std::process::id()));
    let save = format!("--max-descriptors 1 --save-descriptors {}", directory.display());
    let (mut calls, command) = peer::<Packet>(&save);
    let (mut asked, _) = request(&mut calls);
    assert_eq!(asked.reply_descriptors(), 1);
    let file = Memfd::sealed("answer", b"inside").unwrap();
    tell(&mut calls, &mut asked, Message::new([]).with(file));
    let ended = command.finish();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(fs::read(directory.join("0")).unwrap(), b"inside");
    fs::remove_dir_all(&directory).unwrap();
    drop(calls);

    // None by default: one is a violation, on packet and where the wire does not say it.
    let (mut channel, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let command = start(&call("packet", "--max-descriptors 2"), theirs);
    channel.receive_by(soon()).unwrap();
    channel.send(with_files(packet(REPLY, 1, 0), 3)).unwrap();
    let ended = command.finish();
    assert!(ended.out[0].contains(r#""rule":"too-many-descriptors","declared":3,"limit":2"#), "{ended:?}");
    assert_eq!(ended.status, Some(65));
    drop(channel);
    ledger.close();
}

#[test] // P3; CA-2, CA-4
fn each_way_to_end_has_its_status() {
    let ledger = Ledger::open();
    let (mut calls, command) = peer::<Packet>("--data ask");
    let (mut asked, _) = request(&mut calls);
    assert_eq!(calls.reply_error(&mut asked, Message::new(b"no"), soon()).unwrap(), Sent::Complete);
    let ended = command.finish();
    ended.expect(74, &[&message(b"no", r#","kind":0,"correlation":1,"error":true"#)]);
    ended.says("the call failed");
    drop(calls);

    let (mut channel, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let command = start(&call("packet", "--data ask"), theirs);
    channel.receive_by(soon()).unwrap();
    channel.send(packet(REPLY, 2, 0)).unwrap();
    let ended = command.finish();
    let text = "an answer to call 2, which awaits none";
    let line = format!(r#"{{"event":"violation","rule":"reply-unknown","correlation":2,"text":"{text}"}}"#);
    ended.expect(65, &[&line]);
    ended.says(text);
    drop(channel);

    let (mut channel, theirs) = Channel::<Libcamera>::pair(LIMITS).unwrap();
    let command = start(&call("libcamera", "--kind 3"), theirs);
    channel.receive_by(soon()).unwrap();
    channel.send(body(4, 1, b"")).unwrap();
    let ended = command.finish();
    assert!(ended.out[0].contains(r#""rule":"reply-command","expected":3,"received":4"#), "{ended:?}");
    assert_eq!(ended.status, Some(65));
    drop(channel);

    let (calls, command) = peer::<Packet>("--data ask");
    drop(calls);
    let ended = command.finish();
    ended.expect(74, &[r#"{"event":"closed"}"#]);
    ended.says("closed without an answer");

    let (channel, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let ended = start(&format!("call --fd {FD} --profile packet --timeout 50"), theirs).finish();
    ended.expect(75, &[]);
    ended.says("no answer came in time");
    drop(channel);
    ledger.close();
}

#[test]
fn what_cannot_be_called_is_said() {
    let ledger = Ledger::open();
    for (words, says) in [
        ("call --fd 0 --profile send-fd --attach /dev/null", "send-fd has no calls"),
        ("call --profile packet", "--fd"),
        ("call --fd 0 --profile packet --error 3", "--error"),
        ("call --fd 0 --profile packet -- true", "cannot be used with"),
        ("call --profile stream --handshake -- true", "--handshake"),
        ("call --profile packet --handshake -- true", "handshake"),
        ("call --fd 0 --profile packet", "no socket"),
        ("call --profile packet --max-descriptors 254 -- true", "254"),
    ] {
        let ended = run(words);
        ended.expect(64, &[]);
        ended.says(says);
    }
    let ended = run("call --profile packet -- /no/such/program");
    ended.expect(74, &[]);
    ended.says("/no/such/program");
    ledger.close();
}

#[test] // P1; a datagram pair does not show that a command ended
fn a_command_is_called_and_ends() {
    let ledger = Ledger::open();
    for profile in ["packet", "libcamera", "stream"] {
        let serve = format!("{} serve --fd {{}} --profile {profile}", env!("CARGO_BIN_EXE_fdpost"));
        let called = |reply: &str| {
            run(&format!("call --profile {profile} --data hello --json --timeout 20000 -- {serve} {reply}"))
        };
        for (reply, data) in [("echo", &b"hello"[..]), ("reverse", b"olleh")] {
            let rest = match profile {
                "packet" => r#","kind":0,"correlation":1"#,
                "stream" => r#","kind":0"#,
                _ => "",
            };
            let start = if profile == "libcamera" { body(0, 1, b"") } else { Message::new([]) };
            let printed = message(&[start.payload(), data].concat(), rest);
            let ended = called(&format!("--reply {reply}"));
            assert_eq!((ended.status, &ended.out), (Some(0), &vec![printed]), "{ended:?}");
        }
        let ended = run(&format!("call --profile {profile} --data hello --json --timeout 20000 -- true"));
        ended.expect(74, &[r#"{"event":"closed"}"#]);
        let ended = run(&format!("call --profile {profile} --data x --timeout 100 -- sleep 60"));
        ended.expect(75, &[]);
    }
    ledger.close();
}

#[test] // P1, P2, P9: many in flight at the command, which answers each as it may
fn serve_answers_calls() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut calls = Calls::new(ours);
    let serve = format!("serve --fd {FD} --profile packet --reply reverse --max-descriptors 3 --json");
    let command = start(&serve, theirs);
    let started: Vec<_> = (0..20)
        .map(|number| {
            let head = Head { reply_descriptors: number % 3, ..Head::default() };
            calls.start(with_files(Message::new([number, 100]), 2).with_head(head), soon()).unwrap()
        })
        .collect();
    for (number, call) in (0..20_u8).zip(started) {
        let answer = answered(&mut calls, call);
        assert_eq!(answer.payload(), [100, number]);
        assert_eq!(answer.descriptor_count(), usize::from(number % 3).min(2));
    }
    drop(calls);
    let ended = command.finish();
    assert_eq!((ended.status, ended.out.len()), (Some(0), 22), "{ended:?}");
    ledger.close();
}

#[test] // P1
fn the_packaged_worker_is_called_from_a_shell() {
    let Some(installed) = vimc::find() else { return println!("{}", vimc::ABSENT) };
    let ledger = Ledger::open();
    let worker = format!("{} {} {{}}", installed.binary.display(), installed.module.display());
    let ended = run(&format!("call --profile libcamera --kind 3 --json --timeout 30000 -- {worker}"));
    ended.expect(0, &[&message(body(3, 1, &[0; 4]).payload(), "")]);
    ledger.close();
}
