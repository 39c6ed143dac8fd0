//! Who is there.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};

use super::error::Error;
use super::reaper::Reaper;
use super::{socket, sys};

/// Who a process was when it connected, listened or sent, as this process's namespaces see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id; 0, where it lives in a pid namespace that cannot be seen from here.
    pub pid: i32,
    /// Effective user id; 65534 also stands for one that this user namespace does not know.
    pub uid: u32,
    /// Effective group id, not the supplementary ones; 65534 as with the user.
    pub gid: u32,
}

impl Credentials {
    /// SO_PEERCRED: who connected, or who called listen(2). On a pair it is who made it.
    pub(super) fn of_peer(socket: BorrowedFd<'_>) -> Result<Self, Error> {
        let found =
            getsockopt(&socket, sockopt::PeerCredentials).map_err(|errno| Error::io("getsockopt", errno))?;
        Ok(Self { pid: found.pid(), uid: found.uid(), gid: found.gid() })
    }
}

/// Who may be at the other end, checked before a byte is read or sent (P9). All conditions given
/// must hold; a rule without any lets everybody pass.
///
/// The credentials are those of the moment of connect(2) or, seen from the client, of listen(2):
/// under socket activation, the manager's that listened. What runs in that process later, and to
/// whom it hands its end, nobody can know.
///
/// ```
/// use fdpost::PeerRule;
///
/// let ours = PeerRule::new().uid(1000).test(|peer| peer.pid != 0);
/// let somebody = fdpost::Credentials { pid: 7, uid: 0, gid: 0 };
/// assert!(!ours.allows(&somebody));
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct PeerRule {
    uid: Option<u32>,
    gid: Option<u32>,
    pid: Option<i32>,
    process: Option<Arc<OwnedFd>>,
    test: Option<Arc<Test>>,
    reaper: Option<Arc<Mutex<dyn Reaper>>>,
}

type Test = dyn Fn(&Credentials) -> bool + Send + Sync;

impl PeerRule {
    /// Everybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only this user.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Only this effective group.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Only the process of this number. The number of one that ended is given to another sooner
    /// or later: [`process`](Self::process) is not fooled by that.
    pub fn pid(mut self, pid: i32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// Only the process that this pidfd (pidfd_open(2)) refers to, whatever number others have got
    /// since. Needs Linux 6.9 for this check; before, nobody passes.
    pub fn process(mut self, pidfd: OwnedFd) -> Self {
        self.process = Some(Arc::new(pidfd));
        self
    }

    /// Only whom this test lets pass. It runs in the thread that accepts or connects, and should
    /// not wait.
    pub fn test(mut self, test: impl Fn(&Credentials) -> bool + Send + Sync + 'static) -> Self {
        self.test = Some(Arc::new(test));
        self
    }

    /// Who closes the connections that this rule refuses. Where descriptors are accepted, a stranger
    /// can have sent some before anybody asked who it is, and they are closed with the connection:
    /// without a reaper by the thread that accepts or connects, for as long as that takes, deadline or
    /// not.
    pub fn reaper(mut self, reaper: impl Reaper + 'static) -> Self {
        self.reaper = Some(Arc::new(Mutex::new(reaper)));
        self
    }

    /// Ends a connection unheard. The other side sees it at once, whoever closes the socket.
    pub(super) fn turn_away(&self, socket: OwnedFd) {
        if let Some(reaper) = &self.reaper {
            socket::shut(socket.as_fd());
            reaper.lock().unwrap_or_else(PoisonError::into_inner).reap(socket);
        }
    }

    /// Whether everybody passes.
    pub(super) fn is_empty(&self) -> bool {
        let Self { uid, gid, pid, process, test, reaper: _ } = self;
        uid.is_none() && gid.is_none() && pid.is_none() && process.is_none() && test.is_none()
    }

    /// Whether credentials alone pass: all conditions but [`process`](Self::process), for which a
    /// socket is needed.
    pub fn allows(&self, who: &Credentials) -> bool {
        let same_pid = |pid| pid == who.pid && pid > 0;
        self.uid.is_none_or(|uid| uid == who.uid)
            && self.gid.is_none_or(|gid| gid == who.gid)
            && self.pid.is_none_or(same_pid)
            && self.test.as_ref().is_none_or(|test| test(who))
    }

    /// Checks the peer of a socket that was accepted or connected.
    pub(super) fn check(&self, socket: BorrowedFd<'_>) -> Result<Credentials, Error> {
        let who = Credentials::of_peer(socket)?;
        if self.allows(&who) && self.is_process(socket)? {
            return Ok(who);
        }
        Err(Error::PeerRefused { pid: who.pid, uid: who.uid, gid: who.gid })
    }

    fn is_process(&self, socket: BorrowedFd<'_>) -> Result<bool, Error> {
        let Some(expected) = &self.process else { return Ok(true) };
        match sys::peer_pidfd(socket) {
            Ok(found) => same_process(expected.as_fd(), found.as_fd()),
            // Before Linux 6.16 there is no pidfd of a process that was waited for (kernel/fork.c,
            // pidfd_prepare): nobody can tell any more who it was, and any client can be gone by then.
            Err(Errno::EINVAL | Errno::ESRCH | Errno::ENODATA) => Ok(false),
            Err(errno) => Err(Error::io("getsockopt", errno)),
        }
    }
}

/// PID_FS_MAGIC (linux/magic.h).
const PID_FS: FsType = FsType(0x5049_4446);

/// Pidfds of one process are one inode, and its number is not used again until the machine
/// restarts: pidfs, Linux 6.9 (fs/pidfs.c). Before, all pidfds there are share one inode.
fn same_process(one: BorrowedFd<'_>, two: BorrowedFd<'_>) -> Result<bool, Error> {
    let inode = |pidfd: BorrowedFd<'_>| fstat(pidfd).map_err(|errno| Error::io("fstat", errno));
    let (one_inode, two_inode) = (inode(one)?, inode(two)?);
    let system = fstatfs(one).map_err(|errno| Error::io("fstatfs", errno))?.filesystem_type();
    Ok(system == PID_FS && (one_inode.st_dev, one_inode.st_ino) == (two_inode.st_dev, two_inode.st_ino))
}

impl fmt::Debug for PeerRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerRule")
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .field("pid", &self.pid)
            .field("process", &self.process)
            .field("test", &self.test.is_some())
            .field("reaper", &self.reaper.is_some())
            .finish()
    }
}
