//! What each side sent, written down as the kernel gave it and before anything judged it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fdpost::machine::Hunk;
use fdpost::transcript::{DESCRIPTORS_MOST, Direction, Event, Happened, Read, Transcript};
use fdpost::{Limits, Violation};

use crate::exit::{Failure, Outcome};
use crate::kinds::kind;

/// Appends a line per event, so that what is there can be read at any time.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Mutex<Book>>);

struct Book {
    file: File,
    epoch: Instant,
    /// The latest "would block" of each direction: of several only the last can matter.
    blocked: [Option<Event>; 2],
    error: Option<io::Error>,
}

impl Recorder {
    pub(crate) fn create(path: &Path, wire: &str, sides: [&str; 2], limits: Limits) -> Outcome<Self> {
        let failed = |error| failure(path, &error);
        let head = Transcript::new(wire, sides, limits)
            .map_err(|misuse| Failure::of("the limits", misuse.into()))?;
        let mut file = File::create(path).map_err(failed)?;
        write!(file, "{head}").map_err(failed)?;
        let (epoch, blocked) = (Instant::now(), [None, None]);
        Ok(Self(Arc::new(Mutex::new(Book { file, epoch, blocked, error: None }))))
    }

    /// To be called with everything that the receiver of this direction meets.
    pub(crate) fn observer(
        &self,
        direction: Direction,
    ) -> impl FnMut(Instant, Option<&Hunk<OwnedFd>>) + Send + 'static {
        let this = self.clone();
        move |now, hunk| this.book().note(direction, now, hunk)
    }

    /// Fails once a line could not be written.
    pub(crate) fn check(&self) -> Outcome {
        match self.book().error.take() {
            None => Ok(()),
            Some(error) => Err(failure(Path::new("--record"), &error)),
        }
    }

    /// Writes what was held back.
    pub(crate) fn finish(&self) -> Outcome {
        let mut book = self.book();
        for event in std::mem::take(&mut book.blocked).into_iter().flatten() {
            book.write(&event);
        }
        drop(book);
        self.check()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::io(format_args!("writing {}", path.display()), error)
}

impl Book {
    fn note(&mut self, direction: Direction, now: Instant, hunk: Option<&Hunk<OwnedFd>>) {
        let at = now.saturating_duration_since(self.epoch);
        let event = |happened| Event { direction, at, happened };
        let Some(hunk) = hunk else {
            self.blocked[direction as usize] = Some(event(Happened::Block));
            return;
        };
        if let Some(blocked) = self.blocked[direction as usize].take() {
            self.write(&blocked);
        }
        self.write(&event(Happened::Read(read(hunk))));
    }

    fn write(&mut self, event: &Event) {
        if let Err(error) = writeln!(self.file, "{event}") {
            self.error.get_or_insert(error);
        }
    }
}

fn read(hunk: &Hunk<OwnedFd>) -> Read {
    let mut read = Read::default();
    read.bytes = hunk.stored_bytes().to_vec();
    read.cut_bytes = hunk.length().saturating_sub(read.bytes.len()) as u64;
    let descriptors = hunk.descriptors();
    read.descriptors = u16::try_from(descriptors.len()).unwrap_or(u16::MAX).min(DESCRIPTORS_MOST);
    read.control_cut = hunk.is_control_cut();
    match hunk.check_control() {
        Err(Violation::ControlMalformed(malformed)) => read.malformed = Some(malformed),
        Err(Violation::ControlUnknown { level, kind }) => read.unknown = Some((level, kind)),
        _ => {}
    }
    read.end = hunk.is_end();
    read.with_kinds(descriptors.iter().map(kind))
}
