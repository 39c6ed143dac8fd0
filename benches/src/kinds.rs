//! Goal 8: what it costs to ask for kinds of descriptors.

use std::io::pipe;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use fdpost::accept::{Accept, Domain, Policy, Seals, SocketType};
use fdpost::{Channel, Deadline, Limits, Memfd, Message, Packet};

use crate::bench::{Bench, Entry, Goal, Timing};
use crate::clock::Clock;
use crate::measure::Contestant;
use crate::sys;

/// The bare question that a receiver could not do without.
const FSTAT: &str = "one bare fstat each";
/// What the channel asks.
const POLICY: &str = "a policy";
/// Neither.
const NOTHING: &str = "nothing asked";

/// What it is called, what asks for it, and how one is made.
type Kind = (&'static str, Accept, fn() -> OwnedFd);

/// A message with descriptors of a kind, received where that kind is asked for, against the same
/// message and one fstat(2) for each.
pub fn ask(bench: &mut Bench) {
    let kinds: [Kind; 7] = [
        ("memfd with seals", Accept::memfd(Seals::STEADY), memfd),
        ("memfd of a size, with seals", Accept::memfd_of(4096, Seals::STEADY), memfd),
        ("file", Accept::file(), file),
        ("socket", Accept::socket(), socket),
        ("socket of a domain and type", Accept::socket_of(Domain::Unix, SocketType::Stream), socket),
        ("pipe to read from", Accept::pipe().readable(), || pipe().expect("a pipe").0.into()),
        ("pidfd", Accept::pidfd(), pidfd),
    ];
    for (place, (kind, accept, make)) in kinds.into_iter().enumerate() {
        bare(bench, place, kind, accept, make);
        for count in [1, 16] {
            let entries = vec![
                Entry::new(FSTAT, move || Some(receiving(FSTAT, make, count, None, true))),
                Entry::new(POLICY, move || Some(receiving(POLICY, make, count, Some(accept), false))),
                Entry::new(NOTHING, move || Some(receiving(NOTHING, make, count, None, false))),
            ];
            let title = match count {
                1 => format!("a message with a {kind}"),
                count => format!("a message with {count} of kind {kind}"),
            };
            // Of several a second system call shows more; what is asked is the price of a message
            // with a descriptor.
            let name = format!("{title}: received under a policy, against one bare fstat each");
            let goals = if count == 1 { vec![Goal::dearer(8, name, POLICY, FSTAT, 1.2)] } else { Vec::new() };
            bench.scene((&format!("kinds-{count}"), place, kind), &title, Timing::Cpu, entries, goals);
        }
    }
}

/// The questions alone, without a message that brings what they are about: shown beside.
fn bare(bench: &mut Bench, place: usize, kind: &str, accept: Accept, make: fn() -> OwnedFd) {
    let entries = vec![
        Entry::new(FSTAT, move || {
            let descriptor = make();
            Some(Contestant::timed(FSTAT, 1, move |turns| {
                Clock::Cpu.time(|| (0..turns).for_each(|_| sys::fstat(&descriptor)))
            }))
        }),
        Entry::new(POLICY, move || {
            let (policy, message) = (Policy::new().every(accept), Message::new([]).with(make()));
            Some(Contestant::timed(POLICY, 1, move |turns| {
                Clock::Cpu.time(|| (0..turns).for_each(|_| policy.check(&message).expect("of the kind")))
            }))
        }),
    ];
    bench.scene(
        ("kinds-0", place, kind),
        &format!("the question alone: {kind}"),
        Timing::Cpu,
        entries,
        Vec::new(),
    );
}

/// One thread sends and receives; the message travels, its descriptors with it.
fn receiving(
    name: &'static str,
    make: fn() -> OwnedFd,
    count: usize,
    accept: Option<Accept>,
    fstat: bool,
) -> Contestant {
    let limits = Limits::new().payload(64).descriptors(count as u8);
    let (mut ours, theirs) = Channel::<Packet>::pair(limits).expect("a pair");
    let mut theirs = Channel::<Packet>::from_fd(theirs, limits).expect("its other end");
    if let Some(accept) = accept {
        theirs.set_policy(Policy::new().every(accept));
    }
    let mut message = (0..count).fold(Message::new([7; 64]), |message, _| message.with(make()));
    Contestant::timed(name, 1, move |turns| {
        Clock::Cpu.time(|| {
            for _ in 0..turns {
                ours.send(std::mem::take(&mut message)).expect("sent");
                theirs.receive_into(&mut message, Deadline::NEVER).expect("received");
                assert_eq!(message.payload(), [7; 64]);
                for slot in 0..count {
                    let descriptor = message.descriptor(slot).expect("it came along");
                    if fstat {
                        sys::fstat(descriptor);
                    }
                }
            }
        })
    })
}

fn memfd() -> OwnedFd {
    Memfd::sealed("bench", &[0; 4096]).expect("a memfd")
}

fn file() -> OwnedFd {
    std::fs::File::open("/proc/self/exe").expect("the program itself").into()
}

fn socket() -> OwnedFd {
    UnixStream::pair().expect("a pair").0.into()
}

fn pidfd() -> OwnedFd {
    // SAFETY: pidfd_open touches no memory.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    assert!(number >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    // SAFETY: pidfd_open just made it, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(number as i32) };
    assert!(pidfd.as_raw_fd() > 2);
    pidfd
}
