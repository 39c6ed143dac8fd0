//! Who is there: rules over real processes.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/meeting.rs"]
mod meeting;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use driver::soon;
use fdpost::{
    Address, Channel, Credentials, Error, Limits, Listener, Listening, Message, Misuse, Packet, PeerRule,
    Stream,
};
use meeting::{Directory, abstract_name, says, start, unique};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{UnixAddr, bind};
use nix::unistd::{ForkResult, Gid, Uid, fork, getgid, getuid, pipe, setgid, setuid};
use seccomp::{Fate, filter_by};
use support::{Ledger, assert_child, child, child_value, is_shut_down, pidfd, raw_send};

const LIMITS: Limits = Limits::new();

fn us() -> Credentials {
    Credentials { pid: std::process::id() as i32, uid: getuid().as_raw(), gid: getgid().as_raw() }
}

fn listen(address: &Address, rule: PeerRule) -> Listener<Packet> {
    Listener::bind_with(address, LIMITS, Listening::new().rule(rule)).unwrap()
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Error>, who: Credentials) {
    let Credentials { pid, uid, gid } = who;
    assert_eq!(result.unwrap_err(), Error::PeerRefused { pid, uid, gid });
}

/// A client that a child of this test is: connects, says its pid, and waits for its input's end.
fn client(test: &str, address: &str) -> Child {
    let mut child = start(test, address);
    says(&mut child, &["connected"]);
    child
}

fn be_client(name: &str) {
    let mut channel = Channel::<Packet>::connect(Address::abstract_name(name), LIMITS).unwrap();
    channel.send(Message::new(std::process::id().to_string())).unwrap();
    println!("connected");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test] // P9
fn each_condition_decides_at_accept_and_at_connect() {
    let ledger = Ledger::open();
    let us = us();
    let seen = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&seen);
    let rules = [
        (PeerRule::new(), true),
        (PeerRule::new().uid(us.uid), true),
        (PeerRule::new().uid(us.uid + 1), false),
        (PeerRule::new().gid(us.gid), true),
        (PeerRule::new().gid(us.gid + 1), false),
        (PeerRule::new().pid(us.pid), true),
        (PeerRule::new().pid(us.pid + 1), false),
        (PeerRule::new().uid(us.uid).gid(us.gid + 1), false),
        (PeerRule::new().process(pidfd(std::process::id())), true),
        (
            PeerRule::new().test(move |who| {
                told.fetch_add(1, Ordering::Relaxed);
                *who == us
            }),
            true,
        ),
        (PeerRule::new().uid(us.uid).test(|_| false), false),
    ];
    for (rule, passes) in rules {
        let address = abstract_name();
        let listener = listen(&address, rule.clone());
        let mut plain = Channel::<Packet>::connect(&address, LIMITS).unwrap();
        let accepted = listener.accept_by(soon());
        let connected = Channel::<Packet>::connect_with(&address, LIMITS, &rule, soon());
        assert_eq!((accepted.is_ok(), connected.is_ok()), (passes, passes), "{rule:?}");
        assert_eq!(listener.refused(), u64::from(!passes));
        if passes {
            assert_eq!(accepted.unwrap().peer().unwrap(), us);
            assert_eq!(plain.peer().unwrap(), us);
        } else {
            assert_refused(accepted, us);
            assert_refused(connected, us);
            assert_eq!(plain.receive_by(soon()).unwrap_err(), Error::Closed);
        }
    }
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    ledger.close();
}

#[test] // P9
fn another_process_is_told_by_its_pid_and_its_pidfd() {
    const NAME: &str = "another_process_is_told_by_its_pid_and_its_pidfd";
    if let Some(name) = child_value() {
        return be_client(&name);
    }
    let ledger = Ledger::open();
    let name = unique();
    let address = Address::abstract_name(&name);
    let listener = listen(&address, PeerRule::new());
    let mut child = client(NAME, &name);
    let mut served = listener.accept_by(soon()).unwrap();
    assert_eq!(served.peer().unwrap(), Credentials { pid: child.id() as i32, ..us() });
    assert_eq!(served.receive_by(soon()).unwrap().payload(), child.id().to_string().as_bytes());
    let theirs = served.peer_pidfd().unwrap();
    assert!(!has_ended(&theirs));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(has_ended(&theirs));
    drop((served, theirs, listener, child));

    // Only the child, whose pidfd we hold; others, among them this process, are refused.
    let name = unique();
    let address = Address::abstract_name(&name);
    let listener = Listener::<Packet>::bind(&address, LIMITS).unwrap();
    let mut child = client(NAME, &name);
    let rule = PeerRule::new().process(pidfd(child.id()));
    let socket = listener.as_fd().try_clone_to_owned().unwrap();
    let strict = Listener::<Packet>::from_fd(socket, LIMITS, rule).unwrap();
    drop(strict.accept_by(soon()).unwrap());
    let _ours = Channel::<Packet>::connect(&address, LIMITS).unwrap();
    assert_refused(strict.accept_by(soon()), us());
    child.kill().unwrap();
    child.wait().unwrap();
    drop((child, strict, listener, _ours));
    ledger.close();
}

#[test] // P9
fn of_whom_no_pidfd_is_to_be_had_nobody_can_tell_who_it_was() {
    if cfg!(target_arch = "x86") {
        println!("skipped: i386's libc asks by socketcall(2), into whose arguments no filter sees");
        return;
    }
    const SO_PEERPIDFD: u32 = 77;
    let ledger = Ledger::open();
    let address = abstract_name();
    let listener = listen(&address, PeerRule::new().process(pidfd(std::process::id())));
    // What kernels before 6.16 say of a client that is gone (EINVAL, later ESRCH).
    for errno in [Errno::EINVAL, Errno::ESRCH] {
        let client = Channel::<Packet>::connect(&address, LIMITS).unwrap();
        let accepted = thread::scope(|scope| {
            let accepting = scope.spawn(|| {
                filter_by(libc::SYS_getsockopt, Some((2, SO_PEERPIDFD)), Fate::Fails(errno))
                    .map(|_| listener.accept_by(soon()))
            });
            accepting.join().unwrap()
        });
        match accepted {
            Ok(accepted) => assert_refused(accepted, us()),
            Err(error) => println!("skipped: a filter of system calls: {error}"),
        }
        drop(client);
    }
    drop(listener);
    ledger.close();
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut one = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut one, PollTimeout::ZERO).unwrap() == 1
}

/// Where the next process gets this pid, if nobody is faster.
fn set_next_pid(pid: u32) -> bool {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).is_ok()
}

#[test] // P9
fn a_reused_pid_fools_nobody() {
    const NAME: &str = "a_reused_pid_fools_nobody";
    if let Some(name) = child_value() {
        return be_client(&name);
    }
    let ledger = Ledger::open();
    let name = unique();
    let address = Address::abstract_name(&name);
    let listener = listen(&address, PeerRule::new());
    for _ in 0..50 {
        // The one that is meant, and that ended.
        let mut meant = client(NAME, &name);
        let meant_pidfd = pidfd(meant.id());
        drop(listener.accept_by(soon()).unwrap());
        meant.kill().unwrap();
        meant.wait().unwrap();
        if !set_next_pid(meant.id()) {
            println!("skipped: this process may not choose pids (CAP_SYS_ADMIN)");
            break;
        }
        let mut another = client(NAME, &name);
        if another.id() == meant.id() {
            let socket = listener.as_fd().try_clone_to_owned().unwrap();
            let strict =
                Listener::<Packet>::from_fd(socket, LIMITS, PeerRule::new().process(meant_pidfd)).unwrap();
            let refused = strict.accept_by(soon());
            another.kill().unwrap();
            another.wait().unwrap();
            // Its number is the right one.
            assert_refused(refused, Credentials { pid: meant.id() as i32, ..us() });
            break;
        }
        drop(listener.accept_by(soon()).unwrap());
        another.kill().unwrap();
        another.wait().unwrap();
    }
    drop(listener);
    ledger.close();
}

#[test] // P9
fn another_user_is_told_and_refused() {
    if child_value().is_some() {
        return as_nobody();
    }
    if !getuid().is_root() {
        println!("skipped: only root can become another user");
        return;
    }
    let ledger = Ledger::open();
    assert_child(&child("another_user_is_told_and_refused", "run"));
    ledger.close();
}

/// In a process of its own, which forks: its child becomes nobody.
fn as_nobody() {
    const NOBODY: u32 = 65534;
    let (open, closed) = (abstract_name(), abstract_name());
    let directory = Directory::new();
    fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = directory.join("socket");
    let everybody = listen(&open, PeerRule::new().uid(NOBODY).gid(NOBODY));
    let only_us = listen(&closed, PeerRule::new().uid(0));
    let _of_mode_600 = Listener::<Packet>::bind(&path, LIMITS).unwrap();
    // SAFETY: the child changes its user, connects, and ends.
    #[allow(unsafe_code, reason = "fork has no safe form")]
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            setgid(Gid::from_raw(NOBODY)).unwrap();
            setuid(Uid::from_raw(NOBODY)).unwrap();
            let mut served = Channel::<Packet>::connect(&open, LIMITS).unwrap();
            let mut refused = Channel::<Packet>::connect(&closed, LIMITS).unwrap();
            let forbidden = Channel::<Packet>::connect(&path, LIMITS).unwrap_err();
            let right = forbidden.errno() == Some(nix::libc::EACCES)
                && served.receive().is_ok_and(|message| message.payload() == b"welcome")
                && refused.receive().is_err_and(|error| error == Error::Closed);
            std::process::exit(i32::from(!right));
        }
        ForkResult::Parent { child } => child,
    };
    let nobody = Credentials { pid: child.as_raw(), uid: NOBODY, gid: NOBODY };
    let mut served = everybody.accept_by(soon()).unwrap();
    assert_eq!(served.peer().unwrap(), nobody);
    served.send(Message::new(b"welcome")).unwrap();
    assert_refused(only_us.accept_by(soon()), nobody);
    let status = nix::sys::wait::waitpid(child, None).unwrap();
    assert!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "{status:?}");
}

#[test] // P9
fn whoever_binds_an_end_of_a_pair_is_not_its_maker() {
    let ledger = Ledger::open();
    let unknown = Error::Misuse(Misuse::PeerUnknown);
    let (channel, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let ours = channel.as_fd().try_clone_to_owned().unwrap();
    // Who holds the other end gives it a name, as a listener's connection has one.
    let name = UnixAddr::new_abstract(unique().as_bytes()).unwrap();
    bind(theirs.as_raw_fd(), &name).unwrap();
    assert_eq!(channel.peer().unwrap_err(), unknown);
    assert_eq!(channel.peer_pidfd().unwrap_err(), unknown);
    let again = Channel::<Packet>::from_fd(ours.try_clone().unwrap(), LIMITS).unwrap();
    assert_eq!(again.peer().unwrap_err(), unknown);
    drop(again);
    let accepted = Channel::<Packet>::from_accepted(ours.try_clone().unwrap(), LIMITS, &PeerRule::new());
    assert_eq!(accepted.unwrap_err(), unknown);
    // Nor where our own end was bound before it came to us.
    let name = UnixAddr::new_abstract(unique().as_bytes()).unwrap();
    bind(ours.as_raw_fd(), &name).unwrap();
    let again = Channel::<Packet>::from_fd(ours, LIMITS).unwrap();
    assert_eq!(again.peer().unwrap_err(), unknown);
    drop((again, channel, theirs));
    ledger.close();
}

#[test] // P9
fn what_a_manager_accepted_is_asked_on_its_word() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let manager = UnixListener::bind(&path).unwrap();
    let accept = || {
        let client = Channel::<Stream>::connect(&path, LIMITS).unwrap();
        (OwnedFd::from(manager.accept().unwrap().0), client)
    };
    let (socket, _client) = accept();
    let channel = Channel::<Stream>::from_accepted(socket, LIMITS, &PeerRule::new().uid(us().uid)).unwrap();
    assert_eq!(channel.peer().unwrap(), us());
    let (socket, mut client) = accept();
    let rule = PeerRule::new().uid(us().uid + 1);
    assert_refused(Channel::<Stream>::from_accepted(socket, LIMITS, &rule), us());
    assert_eq!(client.receive_by(soon()).unwrap_err(), Error::Closed);
    drop((channel, client, _client, manager, directory));
    ledger.close();
}

/// Whether somebody still has the other end of a pipe.
fn is_held(reading: &OwnedFd) -> bool {
    let mut one = [PollFd::new(reading.as_fd(), PollFlags::POLLIN)];
    poll(&mut one, PollTimeout::ZERO).unwrap();
    !one[0].revents().unwrap().contains(PollFlags::POLLHUP)
}

#[test] // P2, P9
fn what_a_refused_client_sent_is_closed_by_the_reaper() {
    let ledger = Ledger::open();
    let address = abstract_name();
    let listening = Listening::new().rule(PeerRule::new().uid(us().uid + 1));
    let mut listener = Listener::<Packet>::bind_with(&address, LIMITS.descriptors(1), listening).unwrap();
    let (dug, grave) = channel();
    listener.set_reaper(move |socket: OwnedFd| dug.send(socket).unwrap());
    let (reading, writing) = pipe().unwrap();
    let mut client = Channel::<Packet>::connect(&address, LIMITS).unwrap();
    // Its close(2) could block; who accepts must not make it.
    client.send(Message::new(b"hold this").with(writing)).unwrap();
    assert_refused(listener.accept_by(soon()), us());
    assert_eq!(listener.refused(), 1);
    assert_eq!(client.receive_by(soon()).unwrap_err(), Error::Closed, "before anybody closed it");
    drop(client);
    assert!(is_held(&reading));
    drop(grave.try_recv().unwrap());
    assert!(!is_held(&reading), "it was the last copy");
    drop((listener, grave, reading));
    ledger.close();
}

#[test] // P2, P9
fn what_an_impostor_sent_to_who_connected_is_closed_by_the_reaper() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let impostor = UnixListener::bind(&path).unwrap();
    let (reading, writing) = pipe().unwrap();
    // While it is asked who it is, the impostor has accepted, and sent what close(2) could block on.
    let accepted = Arc::new(Mutex::new(None));
    let seen = accepted.clone();
    let writing = Mutex::new(Some(writing));
    let rule = PeerRule::new().test(move |_| {
        let socket = impostor.accept().unwrap().0;
        raw_send(&socket, b"hold this", &writing.lock().unwrap().take().into_iter().collect::<Vec<_>>());
        *seen.lock().unwrap() = Some(socket);
        false
    });
    let (dug, grave) = channel();
    let rule = rule.reaper(move |socket: OwnedFd| dug.send(socket).unwrap());
    assert_refused(Channel::<Stream>::connect_with(&path, LIMITS.descriptors(1), &rule, soon()), us());
    let client = accepted.lock().unwrap().take().unwrap();
    assert!(is_shut_down(&client), "before anybody closed it");
    assert!(is_held(&reading));
    drop(grave.try_recv().unwrap());
    assert!(!is_held(&reading), "it was the last copy");
    drop((rule, accepted, client, grave, reading, directory));
    ledger.close();
}

#[test] // P2, P9
fn what_a_manager_accepted_and_we_refuse_is_closed_by_the_reaper() {
    let ledger = Ledger::open();
    let directory = Directory::new();
    let path = directory.join("socket");
    let manager = UnixListener::bind(&path).unwrap();
    let (reading, writing) = pipe().unwrap();
    let mut client = Channel::<Stream>::connect(&path, LIMITS).unwrap();
    client.send(Message::new(b"hold this").with(writing)).unwrap();
    let (dug, grave) = channel();
    let rule = PeerRule::new().uid(us().uid + 1).reaper(move |socket: OwnedFd| dug.send(socket).unwrap());
    let socket = OwnedFd::from(manager.accept().unwrap().0);
    assert_refused(Channel::<Stream>::from_accepted(socket, LIMITS.descriptors(1), &rule), us());
    assert_eq!(client.receive_by(soon()).unwrap_err(), Error::Closed, "before anybody closed it");
    drop(client);
    assert!(is_held(&reading));
    drop(grave.try_recv().unwrap());
    assert!(!is_held(&reading), "it was the last copy");
    drop((rule, grave, reading, manager, directory));
    ledger.close();
}

#[test]
fn nobody_is_process_zero() {
    let outside = Credentials { pid: 0, uid: 0, gid: 0 };
    assert!(PeerRule::new().allows(&outside));
    assert!(!PeerRule::new().pid(0).allows(&outside));
}
