//! Starts everybody, looks at who lasts, and judges.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::brokered;
use crate::cast::{Director, Place};
use crate::flat;
use crate::grouped::grouped;
use crate::part::WireName;
use crate::picture::{self, Line};
use crate::report::{Said, Sample, memory, open_in};
use crate::support::Random;

/// What is to be played.
pub(crate) struct Score {
    minutes: f64,
    svg: Option<String>,
    seed: u64,
    plant: Option<String>,
}

impl Score {
    pub(crate) fn new(minutes: f64, words: &[String]) -> Self {
        let after = |option: &str| {
            words.iter().position(|word| word == option).and_then(|at| words.get(at + 1)).cloned()
        };
        let seed = after("--seed").and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            u64::from(now.subsec_nanos()) ^ now.as_secs()
        });
        Self { minutes, svg: after("--svg"), seed, plant: after("--plant") }
    }
}

/// Everything that was said, by everybody.
#[derive(Default)]
struct Book {
    failures: Vec<String>,
    rules: BTreeMap<String, u64>,
    totals: BTreeMap<String, u64>,
    samples: BTreeMap<&'static str, Vec<Sample>>,
}

type Shared = Arc<Mutex<Book>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that lasts to the end, and is looked at.
struct Lasting {
    name: &'static str,
    child: Child,
    end: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    /// What is seen from outside, while it works.
    seen: Vec<Sample>,
}

impl Lasting {
    fn start(name: &'static str, words: &[String], book: &Shared) -> std::io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (end, lines) = (child.stdin.take(), child.stdout.take());
        let book = book.clone();
        let reader = std::thread::spawn(move || {
            for line in
                lines.into_iter().flat_map(|lines| BufReader::new(lines).lines()).map_while(Result::ok)
            {
                let mut book = lock(&book);
                match Said::parse(&line) {
                    Some(Said::Sample(sample)) => book.samples.entry(name).or_default().push(sample),
                    Some(Said::Failure(text)) => book.failures.push(format!("{name}: {text}")),
                    Some(Said::Rule(rule, count)) => *book.rules.entry(rule).or_default() += count,
                    Some(Said::Total(total, count)) => *book.totals.entry(total).or_default() += count,
                    None => book.failures.push(format!("{name} says {line:?}")),
                }
            }
        });
        Ok(Self { name, child, end, reader: Some(reader), seen: Vec::new() })
    }

    fn look(&mut self, begin: Instant) {
        let process = self.child.id();
        if let (Some((resident_kib, peak_kib)), Some(descriptors)) =
            (memory(&process.to_string()), open_in(process))
        {
            let millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.seen.push(Sample { millis, resident_kib, peak_kib, descriptors });
        }
    }

    /// Tells it that it is over; what it says last is heard.
    fn end(&mut self, book: &Shared) {
        drop(self.end.take());
        let until = Instant::now() + 2 * crate::PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            sleep(Duration::from_millis(5));
        }
        let ended = self.child.try_wait();
        if !matches!(ended, Ok(Some(status)) if status.success()) {
            lock(book).failures.push(format!("{}: ended with {ended:?}", self.name));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _panicked = reader.join();
        }
    }
}

/// Plays it; the exit code.
pub(crate) fn conduct(score: &Score) -> ExitCode {
    println!("soak: {} minutes, seed {}", score.minutes, score.seed);
    let book = Shared::default();
    match play(score, &book) {
        Ok(lasting) => finish(score, &mut lock(&book), &lasting),
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What is counted while they begin, and asked for.
pub(crate) const LASTING: &str = "processes that last";

/// Clients that ask at the same time.
const CLIENTS: usize = 3;

fn play(score: &Score, book: &Shared) -> std::io::Result<Vec<Lasting>> {
    let address = format!("@fdpost-soak-broker-{}", std::process::id());
    let mut random = Random(score.seed);
    // At most a hundred looks, so that the channels are not kept silent for most of the time.
    let look = (score.minutes * 600.0).clamp(300.0, 5000.0) as u64;
    let watched = |mut words: Vec<String>| {
        words.extend(["--look".to_owned(), look.to_string()]);
        words.extend(score.plant.iter().flat_map(|plant| ["--plant".to_owned(), plant.clone()]));
        words
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let ready = |processes| {
        let until = Instant::now() + crate::PATIENCE;
        while lock(book).totals.get(LASTING).is_none_or(|ready| *ready < processes) && Instant::now() < until
        {
            sleep(Duration::from_millis(5));
        }
    };
    let mut lasting = vec![Lasting::start("broker", &watched(words(&["broker", &address])), book)?];
    ready(1);
    lasting.push(Lasting::start("service", &watched(words(&["service", &address, "0"])), book)?);
    ready(2);
    lock(book).totals.remove(LASTING);
    let seed = random.below(usize::MAX).to_string();
    lasting.push(Lasting::start("server", &watched(words(&["server", &seed])), book)?);

    let places: Vec<Arc<Place>> = (0..CLIENTS + 2).map(|_| Arc::default()).collect();
    let (stop, clients) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let director = Director::start(places.clone(), random.below(usize::MAX) as u64, 30);
    let mut threads = Vec::new();
    for (number, place) in places.into_iter().enumerate() {
        let (stop, book, address, clients) = (stop.clone(), book.clone(), address.clone(), clients.clone());
        let mut random = Random(score.seed ^ (1 + number as u64) << 40);
        threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if number < CLIENTS {
                    ask(&place, &address, &mut random, &book);
                    clients.fetch_add(1, Ordering::Relaxed);
                } else {
                    serve(&place, &address, 1 + number - CLIENTS, &stop, &book);
                }
            }
        }));
    }

    let begin = Instant::now();
    let whole = Duration::from_secs_f64(score.minutes * 60.0);
    // On a machine that is busy with something else the looks come late.
    let seen = |book: &Book, one: &Lasting| book.samples.get(one.name).map_or(0, Vec::len) >= flat::LEAST;
    let goes_on = |lasting: &[Lasting]| {
        let book = lock(book);
        let short = begin.elapsed() < whole || !lasting.iter().all(|one| seen(&book, one));
        book.failures.is_empty() && short && begin.elapsed() < 20 * whole
    };
    while goes_on(&lasting) {
        lasting.iter_mut().for_each(|one| one.look(begin));
        sleep(Duration::from_millis(200));
    }
    // The server first: nobody else is needed for its conversations.
    if let Some(server) = lasting.last_mut() {
        server.end(book);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let _panicked = thread.join();
    }
    let (kills, halts) = (director.kills.load(Ordering::Relaxed), director.halts.load(Ordering::Relaxed));
    drop(director);
    lasting.iter_mut().rev().skip(1).for_each(|one| one.end(book));
    let mut book = lock(book);
    for (name, count) in
        [("kills", kills), ("halts", halts), ("broker clients", clients.load(Ordering::Relaxed))]
    {
        *book.totals.entry(name.to_owned()).or_default() += count;
    }
    drop(book);
    Ok(lasting)
}

/// One client of the broker's, honest or not.
fn ask(place: &Place, address: &str, random: &mut Random, book: &Shared) {
    let wire = random.below(3);
    let attack = (random.below(2) == 0).then(|| random.below(30));
    // Of the services the one of `packet` lasts; the others may be killed under its hands.
    let mortal = wire != 0;
    let seed = random.below(usize::MAX);
    let attack = attack.filter(|number| brokered::mischief(WireName::ALL[wire], *number).is_some());
    let mut words = vec!["client".to_owned(), address.to_owned(), wire.to_string(), seed.to_string()];
    words.extend(attack.map(|number| number.to_string()));
    let Ok(_started) = place.start(&words, Stdio::null()) else { return };
    if attack.is_some() {
        // Attackers that stay have said all by then.
        let until = Instant::now() + Duration::from_millis(600);
        while !place.is_gone() && Instant::now() < until {
            sleep(Duration::from_millis(2));
        }
        place.kill();
    }
    if let Ok((status, killed)) = place.end()
        && attack.is_none()
        && !killed
        && !mortal
        && !status.success()
    {
        let words = words.join(" ");
        lock(book).failures.push(format!("an honest client was not content: {words}: {status}"));
    }
}

/// A service that may be killed, and is started again.
fn serve(place: &Place, address: &str, wire: usize, stop: &AtomicBool, book: &Shared) {
    let words = ["service".to_owned(), address.to_owned(), wire.to_string()];
    let Ok(_started) = place.start(&words, Stdio::piped()) else { return };
    while !place.is_gone() {
        sleep(Duration::from_millis(10));
        if stop.load(Ordering::Relaxed) {
            place.kill();
        }
    }
    if let Ok((status, killed)) = place.end()
        && !killed
    {
        lock(book).failures.push(format!("a service of wire {wire} ended by itself: {status}"));
    }
}

fn finish(score: &Score, book: &mut Book, lasting: &[Lasting]) -> ExitCode {
    let mut lines = Vec::new();
    for one in lasting {
        let idle = book.samples.get(one.name).cloned().unwrap_or_default();
        let all = || one.seen.iter().chain(&idle);
        let peak = all().map(|sample| sample.peak_kib).max().unwrap_or(0);
        let most = all().map(|sample| sample.descriptors).max().unwrap_or(0);
        let name = one.name;
        if book.failures.is_empty() {
            book.failures.extend(flat::rises(name, &idle));
        }
        if idle.len() >= 5 {
            let (second, last) = flat::fifths(&idle, |sample| sample.resident_kib);
            let (open_second, open_last) = flat::fifths(&idle, |sample| sample.descriptors);
            println!(
                "soak: {name}: {second} KiB in the second fifth, {last} KiB in the last, {peak} KiB at most (VmHWM); \
                 descriptors {open_second} and {open_last} at rest, {most} at most; {} looks",
                idle.len()
            );
        }
        lines.push(Line { name, seen: one.seen.clone(), idle });
    }
    for (total, count) in &book.totals {
        println!("soak: {}: {total}", grouped(*count));
    }
    for (rule, count) in &book.rules {
        println!("soak: {}: {rule}", grouped(*count));
    }
    if let Some(path) = &score.svg {
        match picture::draw(path, &lines) {
            Ok(()) => println!("soak: drawn to {path}"),
            Err(error) => book.failures.push(format!("{path}: {error}")),
        }
    }
    if book.failures.is_empty() {
        let total = |name: &str| grouped(book.totals.get(name).copied().unwrap_or(0));
        let violations: u64 = book.rules.values().sum();
        println!(
            "evidence: soak: {} minutes, 8 channels and a broker: {} messages, {} bytes, {} descriptors, {} calls answered, \
             {} hand-overs; {} violations of {} rules; {} kills, {} halts; memory flat, descriptors as before",
            score.minutes,
            total("messages"),
            total("bytes"),
            total("descriptors"),
            total("calls answered"),
            total("broker hand-overs"),
            grouped(violations),
            book.rules.len(),
            total("kills"),
            total("halts"),
        );
        return ExitCode::SUCCESS;
    }
    for failure in &book.failures {
        println!("soak: failed: {failure}");
    }
    println!("soak: seed {}", score.seed);
    ExitCode::FAILURE
}
