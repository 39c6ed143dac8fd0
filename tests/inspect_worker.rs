//! `fdpost inspect` in the place of libcamera's packaged worker, and that worker behind it.

mod support;
#[path = "support/vimc.rs"]
mod vimc;
#[path = "support/inspect.rs"]
mod watched;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use support::Ledger;
use watched::{Directory, FDPOST, replay};

#[test] // P1, P2: libcamera's own worker does not notice that somebody listens
fn the_packaged_worker_is_shown_and_not_disturbed() {
    let Some(installed) = vimc::find() else {
        assert!(!std::env::var("FDPOST_REQUIRE_WORKER").is_ok_and(|value| value == "1"), "{}", vimc::ABSENT);
        println!("{}", vimc::ABSENT);
        return;
    };
    let ledger = Ledger::open();
    let directory = Directory::new("worker");
    let (out, record, wrapper) = (directory.file("out"), directory.file("talk"), directory.file("wrapper"));
    let script = format!(
        "#!/bin/sh\nexec {FDPOST} inspect --profile libcamera --json --assembly-timeout 30000 --fd 3 \
         --record {record} -- {} \"$@\" >{out}\n",
        installed.binary.display()
    );
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let watched = vimc::Installed { binary: wrapper.into(), module: installed.module };
    let mut worker = vimc::Worker::start(&watched).unwrap();
    for name in ["start", "map-buffers", "event", "unmap-buffers", "stop"] {
        let buffer = (name == "map-buffers").then(|| vimc::buffer().unwrap());
        worker.request(name, buffer).unwrap();
        worker.reply(name).unwrap();
    }
    worker.request("exit", None).unwrap();
    assert_eq!(worker.wait().unwrap().code(), Some(0), "the worker's end is the end");
    let script = vimc::Script::load().unwrap();
    let mut expected = Vec::new();
    for name in ["start", "map-buffers", "event", "unmap-buffers", "stop", "exit"] {
        for (direction, from) in [("request", "fd-3"), ("reply", "vimc_ipa_proxy")] {
            if name != "exit" || direction == "request" {
                let payload = script.payload(name, direction).unwrap();
                let kinds = if (name, direction) == ("map-buffers", "request") { "memfd" } else { "" };
                expected.push((from.to_owned(), payload.len() as u64, kinds.to_owned()));
            }
        }
    }
    let text = fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "message")
        .map(|line| {
            let kind = line["kinds"][0].as_str().unwrap_or_default();
            (line["from"].as_str().unwrap().to_owned(), line["bytes"].as_u64().unwrap(), kind.to_owned())
        })
        .collect();
    assert_eq!(shown, expected, "{text}");
    let output = replay(&["--json", &record]);
    let steps = String::from_utf8_lossy(&output.stdout).matches("\"decision\":\"message\"").count();
    assert_eq!((output.status.code(), steps), (Some(0), expected.len()));
    drop((worker, directory));
    ledger.close();
}
