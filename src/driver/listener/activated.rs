//! Sockets that a service manager made (sd_listen_fds(3)).

use std::env;
use std::ffi::OsString;
use std::os::fd::OwnedFd;

use crate::driver::error::Error;
use crate::driver::sys;
use crate::error::Misuse;

/// The first number, as the protocol has it (SD_LISTEN_FDS_START).
const FIRST: i32 = 3;

/// A socket that a service manager left open for this process.
#[derive(Debug)]
pub struct Activated {
    /// What the manager calls it (`FileDescriptorName=`); `unknown` where it does not say.
    pub name: String,
    /// A duplicate, close-on-exec. The original stays open until the process ends; it is
    /// made close-on-exec too.
    pub socket: OwnedFd,
}

/// The sockets that this process was activated with, in their order: none, where LISTEN_PID does
/// not name it. The environment is left as it is; a child has another pid.
///
/// ```no_run
/// use fdpost::{Limits, Listener, Packet, PeerRule, activated};
///
/// let ours = activated()?.into_iter().find(|one| one.name == "control");
/// let ours = ours.ok_or("no socket is called control")?;
/// let listener = Listener::<Packet>::from_fd(ours.socket, Limits::new(), PeerRule::new())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Misuse::Activation`] names the variable that makes no sense; [`Error::Io`] of fcntl(2), with
/// EBADF where a descriptor that was announced is not open.
pub fn activated() -> Result<Vec<Activated>, Error> {
    let names = names(
        env::var_os("LISTEN_PID"),
        env::var_os("LISTEN_FDS"),
        env::var_os("LISTEN_FDNAMES"),
        std::process::id(),
    )?;
    let sockets = (FIRST..).zip(names).map(|(number, name)| {
        sys::set_close_on_exec(number).map_err(|errno| Error::io("fcntl", errno))?;
        Ok(Activated { name, socket: sys::inherited(number)? })
    });
    sockets.collect()
}

/// A name for each socket.
fn names(
    pid: Option<OsString>,
    count: Option<OsString>,
    names: Option<OsString>,
    ours: u32,
) -> Result<Vec<String>, Misuse> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(Vec::new()) };
    if number(&pid, "LISTEN_PID")? != ours {
        return Ok(Vec::new());
    }
    // More than any process may have open.
    let most = 1 << 20;
    let count = number(&count, "LISTEN_FDS")?;
    if count > most {
        return Err(Misuse::Activation { variable: "LISTEN_FDS" });
    }
    let count = count as usize;
    let Some(names) = names.filter(|_| count > 0) else {
        return Ok(vec!["unknown".to_owned(); count]);
    };
    let wrong = Misuse::Activation { variable: "LISTEN_FDNAMES" };
    let names: Vec<String> = names.to_str().ok_or(wrong)?.split(':').map(str::to_owned).collect();
    if names.len() == count { Ok(names) } else { Err(wrong) }
}

fn number(text: &OsString, variable: &'static str) -> Result<u32, Misuse> {
    text.to_str().and_then(|text| text.parse().ok()).ok_or(Misuse::Activation { variable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pid: &str, count: &str, names: Option<&str>) -> Result<Vec<String>, Misuse> {
        super::names(Some(pid.into()), Some(count.into()), names.map(OsString::from), 7)
    }

    #[test]
    fn variables_for_us_name_each_socket() {
        assert_eq!(read("7", "2", Some("one:two")), Ok(vec!["one".to_owned(), "two".to_owned()]));
        assert_eq!(read("7", "2", None), Ok(vec!["unknown".to_owned(); 2]));
        assert_eq!(read("7", "2", Some(":b")), Ok(vec![String::new(), "b".to_owned()]));
        assert_eq!(read("7", "0", Some("left:over")), Ok(Vec::new()));
        assert_eq!(read("7", "0", Some("")), Ok(Vec::new()));
    }

    #[test]
    fn variables_for_others_or_none_name_nothing() {
        assert_eq!(read("8", "2", Some("one")), Ok(Vec::new()));
        assert_eq!(super::names(None, Some("1".into()), None, 7), Ok(Vec::new()));
        assert_eq!(super::names(Some("7".into()), None, None, 7), Ok(Vec::new()));
    }

    #[test]
    fn nonsense_is_named() {
        let wrong = |variable| Err(Misuse::Activation { variable });
        assert_eq!(read("x", "1", None), wrong("LISTEN_PID"));
        assert_eq!(read("7", "1048576", None).map(|names| names.len()), Ok(1 << 20));
        for count in ["", "-1", "x", "99999999", "1048577"] {
            assert_eq!(read("7", count, None), wrong("LISTEN_FDS"));
        }
        assert_eq!(read("7", "2", Some("one")), wrong("LISTEN_FDNAMES"));
        assert_eq!(read("7", "1", Some("one:two")), wrong("LISTEN_FDNAMES"));
    }
}
