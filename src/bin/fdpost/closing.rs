//! A thread for what may be slow to close.

use std::os::fd::OwnedFd;
use std::sync::mpsc;

use crate::exit::{Failure, Outcome};

/// What strangers put into a socket may make its close wait; who hands it to this does not.
pub(crate) fn reaper() -> Outcome<impl FnMut(OwnedFd) + Send + 'static> {
    let (grave, closing) = mpsc::channel::<OwnedFd>();
    thread("closing", move || closing.into_iter().for_each(drop))?;
    Ok(move |descriptor| drop(grave.send(descriptor)))
}

pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Outcome {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| Failure::io("starting a thread", &error))
}
