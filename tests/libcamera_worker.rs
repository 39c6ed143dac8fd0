//! libcamera's packaged worker on the other end: the wire as another project's program speaks it.
//! Where it is absent that is said in words; with `FDPOST_REQUIRE_WORKER=1` it is a failure.

mod support;
#[path = "support/vimc.rs"]
mod vimc;

use std::path::PathBuf;

use support::Ledger;
use vimc::{ABSENT, Installed, Worker};

fn is_required() -> bool {
    std::env::var("FDPOST_REQUIRE_WORKER").is_ok_and(|value| value == "1")
}

/// What was found; `None` where it may be absent, and is.
fn installed(found: Option<Installed>, required: bool) -> Option<Installed> {
    assert!(found.is_some() || !required, "{ABSENT}, but FDPOST_REQUIRE_WORKER asks for it");
    if found.is_none() {
        println!("{ABSENT}");
    }
    found
}

#[test] // P1, P2
fn the_worker_answers_as_recorded() {
    let Some(worker) = installed(vimc::find(), is_required()) else { return };
    let ledger = Ledger::open();
    let mut steps = 0;
    vimc::drive(&worker, |step| {
        println!("{step}");
        steps += 1;
    })
    .unwrap();
    assert_eq!(steps, 7, "started, and six steps");
    ledger.close();
}

#[test] // P2: nor is a process left behind
fn a_worker_left_in_the_middle_is_reaped() {
    let Some(worker) = installed(vimc::find(), is_required()) else { return };
    let ledger = Ledger::open();
    let mut worker = Worker::start(&worker).unwrap();
    worker.request("start", None).unwrap();
    worker.reply("start").unwrap();
    worker.request("map-buffers", Some(vimc::buffer().unwrap())).unwrap();
    let process = PathBuf::from(format!("/proc/{}", worker.pid()));
    assert!(process.exists());
    drop(worker);
    assert!(!process.exists(), "{} is still there", process.display());
    ledger.close();
}

#[test] // P1: the wrong bytes are not taken for the right ones
fn an_answer_that_is_not_the_recorded_one_is_noticed() {
    let Some(worker) = installed(vimc::find(), is_required()) else { return };
    let ledger = Ledger::open();
    let mut worker = Worker::start(&worker).unwrap();
    worker.request("start", None).unwrap();
    let error = worker.reply("stop").unwrap_err().to_string();
    assert_eq!(
        error,
        "stop was answered by [03, 00, 00, 00, 02, 00, 00, 00, 00, 00, 00, 00], not [04, 00, 00, 00, 05, 00, 00, 00]"
    );
    drop(worker);
    ledger.close();
}

#[test]
fn absence_is_accepted_unless_the_worker_is_required() {
    assert!(installed(None, false).is_none());
}

#[test]
#[should_panic(expected = "FDPOST_REQUIRE_WORKER asks for it")]
fn absence_fails_where_the_worker_is_required() {
    installed(None, true);
}
