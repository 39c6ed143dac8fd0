//! All channels at once, for as long as standard input is open; and, between sessions, a look at
//! what is held when nobody talks.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fdpost::Error;
use fdpost::Violation;

use crate::attacks::Then;
use crate::cast::{Director, Place};
use crate::content::Tally;
use crate::part::{Part, Way, WireName};
use crate::peer::LATE;
use crate::report::{Sample, say_failure, say_rule, say_sample, say_total};
use crate::server::{self, Ending};
use crate::support::{Random, descriptors};
use crate::talk::Stop;

#[derive(Default)]
struct Totals {
    tally: Tally,
    rules: BTreeMap<&'static str, u64>,
    honest: u64,
    hostile: u64,
    killed: u64,
    strangers: u64,
    late: u64,
}

struct Stage {
    places: Vec<Arc<Place>>,
    /// Read by a session, written by who wants silence.
    silence: RwLock<()>,
    stop: AtomicBool,
    totals: Mutex<Totals>,
    plant: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `look`: the time between two looks at what a silent process holds.
pub(crate) fn play(seed: u64, look: Duration, plant: Option<String>) {
    let places: Vec<Arc<Place>> = server::CHANNELS.iter().map(|_| Arc::default()).collect();
    let stage = Stage {
        places,
        silence: RwLock::default(),
        stop: AtomicBool::default(),
        totals: Mutex::default(),
        plant,
    };
    let before = descriptors();
    let begin = Instant::now();
    let (kills, halts) = std::thread::scope(|scope| {
        let (stage, before) = (&stage, &before);
        scope.spawn(|| {
            let _end = std::io::stdin().read_to_end(&mut Vec::new());
            stage.stop.store(true, Ordering::Relaxed);
        });
        let director = Director::start(stage.places.clone(), seed, 15);
        for channel in 0..server::CHANNELS.len() {
            let mut random = Random(seed.wrapping_add(1 + channel as u64));
            scope.spawn(move || {
                while !stage.stop.load(Ordering::Relaxed) {
                    let _talks = stage.silence.read().unwrap_or_else(PoisonError::into_inner);
                    let part = server::cast(channel, &mut random, stage.plant.as_deref());
                    turn(stage, &part, &stage.places[channel]);
                }
            });
        }
        while !stage.stop.load(Ordering::Relaxed) {
            sleep(look);
            let silent = stage.silence.write().unwrap_or_else(PoisonError::into_inner);
            let now = descriptors();
            say_sample(&Sample::own(begin, now.len()));
            if now != *before {
                let more: Vec<_> = now.iter().filter(|(number, _)| !before.contains_key(number)).collect();
                say_failure(&format!(
                    "{} descriptors are open between sessions, where {} were: {more:?}",
                    now.len(),
                    before.len()
                ));
                stage.stop.store(true, Ordering::Relaxed);
            }
            drop(silent);
        }
        (director.kills.load(Ordering::Relaxed), director.halts.load(Ordering::Relaxed))
    });
    let totals = lock(&stage.totals);
    for (rule, count) in &totals.rules {
        say_rule(rule, *count);
    }
    for (name, count) in [
        ("messages", totals.tally.messages),
        ("bytes", totals.tally.bytes),
        ("descriptors", totals.tally.descriptors),
        ("calls answered", totals.tally.calls),
        ("honest peers", totals.honest),
        ("hostile peers", totals.hostile),
        ("peers killed", totals.killed),
        ("strangers turned away", totals.strangers),
        ("handshakes that a halted machine was too slow for", totals.late),
        ("kills", kills),
        ("halts", halts),
    ] {
        say_total(name, count);
    }
}

/// One session, and the judgement of it.
fn turn(stage: &Stage, part: &Part, place: &Place) {
    let mut tally = Tally::default();
    let ending = server::session(part, place, &mut tally);
    let (killed, code) = match (&ending, part.attack) {
        // It comes to its end by itself, and well.
        (Ending::Well, None) => place.end().map_or((false, None), |(status, killed)| (killed, status.code())),
        (Ending::Stopped(_), None) => {
            // It says why, if it is not waiting for us.
            let patience = Instant::now() + Duration::from_secs(5);
            while !place.is_gone() && Instant::now() < patience {
                sleep(Duration::from_millis(5));
            }
            send_off(place)
        }
        // An attacker may stay for ever, and a stranger has nothing to say.
        _ => send_off(place),
    };
    judge(stage, part, ending, killed, code, tally);
}

/// Ends it; whether somebody else had killed it before, and its exit code.
fn send_off(place: &Place) -> (bool, Option<i32>) {
    let killed = place.was_killed();
    place.kill();
    (killed, place.end().ok().and_then(|(status, _)| status.code()))
}

/// What may be said of a peer that was killed: the end, or that it left a message unfinished.
fn is_a_death(error: Error, part: &Part) -> bool {
    match error {
        Error::Closed | Error::PeerGone { .. } => true,
        Error::TimedOut => part.way == Way::HandOver,
        Error::Violation(Violation::PayloadMissing { .. }) => {
            part.wire != WireName::Packet || part.way == Way::HandOver
        }
        Error::Violation(Violation::Handshake { bytes: 0, .. }) => part.handshake,
        _ => false,
    }
}

fn judge(stage: &Stage, part: &Part, ending: Ending, killed: bool, code: Option<i32>, tally: Tally) {
    let mut totals = lock(&stage.totals);
    totals.tally.add(tally);
    totals.killed += u64::from(killed);
    match part.attack {
        Some(_) => totals.hostile += 1,
        None => totals.honest += 1,
    }
    if part.planted("memory") {
        std::mem::forget(std::hint::black_box(vec![1_u8; 512 << 10]));
    }
    if part.planted("descriptor") {
        std::mem::forget(std::fs::File::open("/dev/null"));
    }
    let failure = match (ending, part.attack()) {
        (Ending::Unknown, _) => {
            totals.strangers += 1;
            return;
        }
        (Ending::Refused(violation), Some(attack)) if violation.rule() == attack.rule => {
            *totals.rules.entry(violation.rule()).or_default() += 1;
            return;
        }
        (Ending::Refused(violation), Some(_)) if killed && is_a_death(violation.into(), part) => return,
        (Ending::Refused(violation), _) => format!("refused as {violation:?}"),
        // What was sent in the last moment of a life may be lost there, see `Channel::watch_peer`.
        (Ending::Stopped(Stop::Error(Error::Closed)), Some(attack))
            if attack.then == Then::Leave && (part.way, part.wire) == (Way::Split, WireName::Libcamera) =>
        {
            return;
        }
        (Ending::Well, None) if killed || code == Some(0) => return,
        (Ending::Well, None) => "the peer was not content".to_owned(),
        (Ending::Well, Some(_)) => "an attack went unnoticed".to_owned(),
        (Ending::Stopped(Stop::Error(error)), _) if killed && is_a_death(error, part) => return,
        (Ending::Stopped(_), None) if code == Some(LATE.into()) => {
            totals.late += 1;
            return;
        }
        (Ending::Stopped(Stop::Error(error)), None) => format!("an honest peer, and {error:?}"),
        (Ending::Stopped(stop), _) => format!("{stop}"),
    };
    say_failure(&format!("{part}: {failure} (killed: {killed}, exit code {code:?})"));
    stage.stop.store(true, Ordering::Relaxed);
}
