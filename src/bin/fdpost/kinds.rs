//! What a descriptor refers to, in one word.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// The kind of file behind a descriptor.
///
/// Found without asking the file's own server, which may keep `fstat` waiting as long as it likes
/// (FUSE): by the name that the kernel has for it, and by an O_PATH open that only directories
/// pass.
pub(crate) fn kind(descriptor: &impl AsFd) -> &'static str {
    let place = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    let Ok(target) = fs::read_link(&place) else { return "other" };
    // A path need not be UTF-8; what decides here stands at its beginning.
    let name = target.to_string_lossy();
    match of_name(&name) {
        "file" if is_directory(&place) => "directory",
        kind => kind,
    }
}

fn of_name(name: &str) -> &'static str {
    const BEGINNINGS: [(&str, &str); 13] = [
        ("/memfd:", "memfd"),
        ("/dmabuf:", "dmabuf"),
        ("socket:[", "socket"),
        ("pipe:[", "pipe"),
        ("pidfd:[", "pidfd"), // since Linux 6.9
        ("anon_inode:[pidfd]", "pidfd"),
        ("anon_inode:[eventfd]", "eventfd"),
        ("anon_inode:[eventpoll]", "epoll"),
        ("anon_inode:[timerfd]", "timerfd"),
        ("anon_inode:[signalfd]", "signalfd"),
        ("/dev/shm/", "file"),
        ("/dev/", "device"),
        ("/", "file"),
    ];
    let found = BEGINNINGS.iter().find(|(beginning, _)| name.starts_with(beginning));
    found.map_or("other", |(_, kind)| kind)
}

fn is_directory(place: &str) -> bool {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(place, flags, Mode::empty()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    #[test]
    fn each_kind_has_its_word() {
        assert_eq!(kind(&fdpost::Memfd::sealed("x", b"").unwrap()), "memfd");
        assert_eq!(kind(&File::open("/dev/null").unwrap()), "device");
        assert_eq!(kind(&File::open("/usr").unwrap()), "directory");
        assert_eq!(kind(&File::open(std::env::current_exe().unwrap()).unwrap()), "file");
        assert_eq!(kind(&UnixStream::pair().unwrap().0), "socket");
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(kind(child.stdout.as_ref().unwrap()), "pipe");
        child.wait().unwrap();
    }
}
