//! A test as an ordinary user with few descriptors: in a process of its own, since both are a process's.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setuid};

use super::support::{Ledger, assert_child, child, child_value};

/// Whether this is the child that has become an ordinary user, with at most this many descriptors open:
/// as many the kernel lets all of that user's messages have in flight (unix(7), ETOOMANYREFS), which it
/// does not count of root. The user is the child's own, since whatever else runs as the same one counts.
pub fn as_an_ordinary_user(test: &str, most: libc::rlim_t) -> bool {
    if child_value().is_none() {
        let ledger = Ledger::open();
        if Uid::effective().is_root() {
            assert_child(&child(test, "yes"));
            ledger.close();
        } else {
            println!(
                "skipped: only root can become an ordinary user, whose descriptors in flight are counted"
            );
        }
        return false;
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    // Within the 65,536 that a container may have, and where distributions put nobody.
    let user = 20_000 + std::process::id() % 40_000;
    setgid(Gid::from_raw(user)).unwrap();
    setuid(Uid::from_raw(user)).unwrap();
    true
}

/// How many descriptors are open. Not by /proc: a process that changed its user may not look.
pub fn open(most: libc::rlim_t) -> usize {
    (0..most as i32).filter(|number| is_open(*number)).count()
}

#[allow(unsafe_code, reason = "numbers are asked about that nobody may own")]
fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD only looks, and the number is not kept.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}
