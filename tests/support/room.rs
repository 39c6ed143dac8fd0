//! A process that can take so many descriptors more, and no other (RLIMIT_NOFILE).
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::support::descriptors;

/// Installs may use exactly `free` numbers more: holes below the highest open descriptor are
/// filled first, so that the limit can stand right above it. As it was once this is dropped.
pub struct Room {
    _plugs: Vec<OwnedFd>,
    before: (rlim_t, rlim_t),
}

impl Room {
    pub fn of(free: rlim_t) -> Self {
        let highest = *descriptors().last_key_value().unwrap().0;
        let mut plugs = Vec::new();
        loop {
            let plug = owned(fcntl(std::io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(0)).unwrap());
            let number = plug.as_raw_fd();
            if number > highest {
                break;
            }
            plugs.push(plug);
        }
        let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let soft = rlim_t::try_from(highest).unwrap() + 1 + free;
        setrlimit(Resource::RLIMIT_NOFILE, soft, before.1).unwrap();
        Self { _plugs: plugs, before }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.before.0, self.before.1).unwrap();
    }
}

/// Owns the number that fcntl(2) just returned for a duplicate.
#[allow(unsafe_code, reason = "fcntl returns the new descriptor as a number")]
pub fn owned(number: i32) -> OwnedFd {
    // SAFETY: F_DUPFD_CLOEXEC just made it, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
