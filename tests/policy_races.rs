//! A peer that changes what it sent while it is looked at, and a system that does not answer.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use driver::{ends, soon};
use fdpost::accept::Kind;
use fdpost::{Accept, Error, Limits, Memfd, Message, Packet, Policy, Seals, Violation};
use kinds::memfd;
use nix::errno::Errno;
use nix::libc;
use seccomp::{Fate, filter, under};
use support::{Ledger, pidfd};

const ONE: Limits = Limits::new().descriptors(1);

/// fcntl(2), by the name that the C library calls it.
const FCNTL: libc::c_long = if cfg!(target_pointer_width = "32") {
    #[cfg(target_pointer_width = "32")]
    {
        libc::SYS_fcntl64
    }
    #[cfg(not(target_pointer_width = "32"))]
    0
} else {
    libc::SYS_fcntl
};

/// The peer shrinks and seals the memfd at the moment at which its seals are asked for. Whoever had
/// looked at the size before that would have believed the old one.
#[test] // P4, P9
fn a_size_is_believed_only_behind_its_seal() {
    let ledger = Ledger::open();
    let (tell, told) = mpsc::channel();
    let theirs = memfd(8192, Seals::NONE);
    let ours = theirs.try_clone().unwrap();
    let judged = thread::scope(|scope| {
        let judging = scope.spawn(move || {
            let seals = Some(libc::F_GET_SEALS as u32);
            tell.send(filter(FCNTL, seals, Fate::Waits)).unwrap();
            let accept = Accept::memfd_of(8192, Seals::STEADY);
            Policy::new().every(accept).check(&Message::new(b"").with(ours))
        });
        let listener = match told.recv().unwrap() {
            Ok(listener) => listener.unwrap(),
            Err(error) => {
                println!("skipped: a filter of system calls: {error}");
                return None;
            }
        };
        listener
            .next(|| {
                nix::unistd::ftruncate(&theirs, 10).unwrap();
                Memfd::seal(&theirs, Seals::STEADY).unwrap();
            })
            .unwrap();
        // Once more to find out what came.
        listener.next(|| {}).unwrap();
        drop(listener);
        Some(judging.join().unwrap())
    });
    if let Some(judged) = judged {
        let violation = judged.unwrap_err().violation().unwrap();
        let Violation::DescriptorKind { found, .. } = violation else { panic!("{violation:?}") };
        assert_eq!(found.kind, Kind::Memfd { seals: Seals::STEADY, bytes: 10, huge: false });
    }
    drop(theirs);
    ledger.close();
}

/// The other way round: once the seals are seen, nobody makes it smaller.
#[test] // P4, P9
fn behind_its_seal_a_size_stays() {
    let ledger = Ledger::open();
    let (tell, told) = mpsc::channel();
    let theirs = memfd(8192, Seals::STEADY);
    let ours = theirs.try_clone().unwrap();
    thread::scope(|scope| {
        let judging = scope.spawn(move || {
            tell.send(filter(libc::SYS_statx, None, Fate::Waits)).unwrap();
            let accept = Accept::memfd_of(8192, Seals::STEADY);
            let message = Message::new(b"").with(ours);
            let judged = Policy::new().every(accept).check(&message);
            (judged, message)
        });
        match told.recv().unwrap() {
            Ok(listener) => {
                let listener = listener.unwrap();
                let shrink = || assert_eq!(nix::unistd::ftruncate(&theirs, 0), Err(Errno::EPERM));
                listener.next(shrink).unwrap();
                drop(listener);
                let (judged, message) = judging.join().unwrap();
                assert_eq!(judged, Ok(()));
                assert_eq!(Memfd::map(message.descriptor(0).unwrap(), 8192).unwrap().len(), 8192);
            }
            Err(error) => println!("skipped: a filter of system calls: {error}"),
        }
    });
    drop(theirs);
    ledger.close();
}

/// A file that shrinks and grows all the while is never taken for one that keeps its size; one that
/// is sealed in the middle of that has, from then on, the size that was found.
#[test] // P4, P9
fn a_file_that_keeps_changing_its_size() {
    let ledger = Ledger::open();
    let policy = Policy::new().every(Accept::memfd_of(4096, Seals::SHRINK.with(Seals::GROW)));
    for round in 0..50 {
        let theirs = memfd(4096, Seals::NONE);
        let message = Message::new(b"").with(theirs.try_clone().unwrap());
        thread::scope(|scope| {
            scope.spawn(|| {
                for step in 0..round {
                    nix::unistd::ftruncate(&theirs, if step % 2 == 0 { 0 } else { 4096 }).unwrap();
                }
                Memfd::seal(&theirs, Seals::SHRINK.with(Seals::GROW)).unwrap();
            });
            // As often as it takes to see the seals.
            loop {
                match policy.check(&message) {
                    Ok(()) => break assert_eq!(round % 2, 0, "it was sealed with 0 bytes"),
                    Err(error) => {
                        let Some(Violation::DescriptorKind { found, .. }) = error.violation() else {
                            panic!("{error:?}")
                        };
                        let Kind::Memfd { seals, bytes, .. } = found.kind else { panic!("{found}") };
                        if seals.contains(Seals::SHRINK) {
                            // What is told was looked at a second time, when the seals may have come.
                            assert!(bytes == if round % 2 == 0 { 4096 } else { 0 });
                            if round % 2 == 1 {
                                break;
                            }
                        }
                    }
                }
            }
        });
    }
    ledger.close();
}

#[test] // P9: an old kernel, or a container's old filter
fn without_statx_fstat_takes_its_place() {
    let ledger = Ledger::open();
    // A 32-bit C library has no fstat(2) that is not statx(2) itself, unless there is none (ENOSYS).
    let errnos = if cfg!(target_pointer_width = "32") { 1 } else { 2 };
    for errno in [Errno::ENOSYS, Errno::EPERM].into_iter().take(errnos) {
        let judged = under(libc::SYS_statx, None, errno, || {
            let check = |accept: Accept, descriptor: OwnedFd| {
                Policy::new().every(accept).check(&Message::new(b"").with(descriptor)).is_ok()
            };
            let file = || OwnedFd::from(File::open("/proc/self/exe").unwrap());
            let directory = || OwnedFd::from(File::open("/").unwrap());
            [
                check(Accept::file(), file()),
                !check(Accept::file(), directory()),
                check(Accept::memfd_of(10, Seals::STEADY), memfd(10, Seals::STEADY)),
                !check(Accept::memfd_of(11, Seals::STEADY), memfd(10, Seals::STEADY)),
                Memfd::map(memfd(10, Seals::STEADY), 10).is_ok(),
                Memfd::map(memfd(10, Seals::STEADY), 11).is_err(),
            ]
        });
        assert!(judged.is_none_or(|judged| judged == [true; 6]), "{errno}: {judged:?}");
    }
    ledger.close();
}

/// A question that decides and is not answered: the same error for ever, nothing is handed out, and
/// nobody is blamed.
#[test] // P2, P3, P9
fn a_system_that_does_not_say_what_a_descriptor_is() {
    let ledger = Ledger::open();
    let statx = libc::SYS_statx;
    let seals = Some(libc::F_GET_SEALS as u32);
    let cases = [
        (statx, None, Errno::EACCES, "statx", Accept::file()),
        (FCNTL, seals, Errno::EPERM, "fcntl", Accept::memfd(Seals::NONE)),
        (libc::SYS_waitid, None, Errno::EINVAL, "waitid", Accept::pidfd()),
    ];
    for (call, second, errno, name, accept) in cases {
        let expected = Error::Io { call: name, errno: errno as i32 };
        let judged = under(call, second.map(|value| (1, value)), errno, || {
            let (mut ours, mut theirs) = ends::<Packet>(ONE);
            let (grave, refused) = mpsc::channel::<OwnedFd>();
            ours.set_reaper(move |descriptor| grave.send(descriptor).unwrap());
            ours.set_policy(Policy::new().every(accept).every(Accept::pipe()));
            theirs.send(Message::new(b"").with(File::open("/proc/self/exe").unwrap().into())).unwrap();
            for _ in 0..3 {
                assert_eq!(ours.receive_by(soon()).unwrap_err(), expected);
                assert_eq!(ours.send(Message::new(b"")).unwrap_err().error, expected);
            }
            assert_eq!((refused.try_iter().count(), ours.stats().violation), (1, None));
            assert!(support::is_shut_down(&ours));
        });
        if judged.is_none() {
            return;
        }
    }
    // What another of the accepted kinds settles needs no answer.
    under(libc::SYS_waitid, None, Errno::EINVAL, || {
        let file = || Message::new(b"").with(File::open("/proc/self/exe").unwrap().into());
        let policy = Policy::new().every(Accept::pidfd()).every(Accept::file());
        assert_eq!(policy.check(&file()), Ok(()));
        // Nor does the violation's text.
        let error = Policy::new().every(Accept::pipe()).check(&file()).unwrap_err();
        assert!(error.to_string().contains("a regular file"), "{error}");
        let process = Message::new(b"").with(pidfd(std::process::id()));
        let error = Policy::new().every(Accept::pipe()).check(&process).unwrap_err();
        assert_eq!(error.violation().map(|violation| violation.rule()), Some("descriptor-kind"));
    });
    ledger.close();
}

/// A question that fails for want of memory is nobody's fault, and is asked again: nothing is lost, and
/// nothing overtakes.
#[test] // P1, P2, P9; rule CO-12
fn a_question_for_which_there_is_no_memory_is_asked_again() {
    let ledger = Ledger::open();
    for errno in [Errno::ENOMEM, Errno::ENOBUFS, Errno::EMFILE, Errno::ENFILE] {
        let (mut ours, mut theirs) = ends::<Packet>(ONE);
        ours.set_policy(Policy::new().every(Accept::file()));
        let file = || OwnedFd::from(File::open("/proc/self/exe").unwrap());
        for word in [b"1", b"2"] {
            theirs.send(Message::new(word).with(file())).unwrap();
        }
        let starved = under(libc::SYS_statx, None, errno, || {
            let mut reused = Message::new(b"before");
            for _ in 0..3 {
                let error = ours.receive_into(&mut reused, soon()).unwrap_err();
                assert_eq!(error, Error::Io { call: "statx", errno: errno as i32 });
                assert!(reused.payload().is_empty());
                assert_eq!(ours.try_receive().unwrap_err(), error);
                assert_eq!((ours.stats().held.descriptors, ours.timeout()), (1, Some(Duration::ZERO)));
                // It is heard meanwhile.
                ours.send(Message::new(b"a moment")).unwrap();
            }
            assert!(!support::is_shut_down(&ours));
        });
        for word in [b"1", b"2"] {
            let came = ours.receive_by(soon()).unwrap();
            assert_eq!((came.payload(), came.descriptor_count()), (&word[..], 1));
        }
        assert_eq!((ours.stats().received.messages, ours.stats().held.descriptors), (2, 0));
        assert!(ours.try_receive().unwrap().is_none());
        if starved.is_none() {
            return;
        }
    }
    ledger.close();
}
