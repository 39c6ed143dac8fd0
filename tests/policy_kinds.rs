//! Every kind of descriptor against everything that can be demanded (rule CO-12): what came over a
//! socket is judged, and so is what no socket carries.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/kinds.rs"]
mod kinds;
mod support;

use std::os::fd::OwnedFd;

use driver::{ends, soon};
use fdpost::accept::{Domain, Found, Kind, SocketType};
use fdpost::{Accept, Error, Limits, Memfd, Message, Packet, Policy, Seals, Violation};
use kinds::{Sample, memfd, samples};
use support::{Ledger, Random, identity};

/// Everything that can be demanded, with the names of the samples that are it: written by hand.
fn demands() -> Vec<(Accept, Vec<&'static str>)> {
    let memfds = ["memfd", "memfd-steady", "memfd-all", "memfd-read", "memfd-bare"];
    let files = ["file-read", "file-write", "file-both", "deleted", "namespace"];
    let sockets = ["unix-stream", "unix-datagram", "unix-seqpacket", "tcp", "udp6"];
    let pipes = ["pipe-read", "pipe-write", "fifo"];
    let pidfds = ["pidfd", "pidfd-dead"];
    let all: Vec<&str> = samples().iter().map(|sample| sample.name).collect();
    let unix = |kind| Accept::socket_of(Domain::Unix, kind);
    vec![
        (Accept::nothing(), vec![]),
        (Accept::any(), all),
        (Accept::memfd(Seals::NONE), memfds.to_vec()),
        (Accept::memfd(Seals::SHRINK), vec!["memfd-steady", "memfd-all"]),
        (Accept::memfd(Seals::STEADY), vec!["memfd-steady", "memfd-all"]),
        (Accept::memfd(Seals::ALL), vec!["memfd-all"]),
        (Accept::memfd(Seals::SEAL), vec!["memfd-all", "memfd-bare"]),
        (Accept::memfd_of(100, Seals::NONE), vec!["memfd-steady", "memfd-all"]),
        (Accept::memfd_of(101, Seals::NONE), vec![]),
        (
            Accept::memfd(Seals::NONE).writable(),
            memfds.into_iter().filter(|name| *name != "memfd-read").collect(),
        ),
        (Accept::file(), memfds.into_iter().chain(files).collect()),
        (
            Accept::file().writable().readable(),
            vec!["memfd", "memfd-steady", "memfd-all", "memfd-bare", "file-both"],
        ),
        (Accept::socket(), sockets.to_vec()),
        (unix(SocketType::Stream), vec!["unix-stream"]),
        (unix(SocketType::Datagram), vec!["unix-datagram"]),
        (unix(SocketType::SeqPacket), vec!["unix-seqpacket"]),
        (Accept::socket_of(Domain::Inet, SocketType::Stream), vec!["tcp"]),
        (Accept::socket_of(Domain::Inet6, SocketType::Datagram), vec!["udp6"]),
        (Accept::pipe(), pipes.to_vec()),
        (Accept::pipe().readable(), vec!["pipe-read", "fifo"]),
        (Accept::pipe().writable(), vec!["pipe-write", "fifo"]),
        (Accept::pidfd(), pidfds.to_vec()),
    ]
}

fn judge(accept: Accept, descriptor: OwnedFd) -> Result<(), Error> {
    Policy::new().every(accept).check(&Message::new(b"").with(descriptor))
}

/// What is said of a sample that is refused.
#[track_caller]
fn found(error: Error) -> Found {
    match error.violation() {
        Some(Violation::DescriptorKind { slot: 0, found, .. }) => found,
        _ => panic!("{error:?}"),
    }
}

#[test] // P9
fn every_kind_against_every_demand() {
    let ledger = Ledger::open();
    for (accept, right) in demands() {
        for Sample { name, descriptor, .. } in samples() {
            let judged = judge(accept, descriptor.try_clone().unwrap());
            assert_eq!(judged.is_ok(), right.contains(&name), "{name} where {accept} is accepted");
            if let Err(error) = judged {
                // What was found is what was judged: a second judgement, by it alone.
                assert!(!accept.permits(&found(error)), "{name}: {accept}");
            }
        }
    }
    ledger.close();
}

#[test] // P9
fn what_is_found_has_its_name() {
    let ledger = Ledger::open();
    for Sample { name, descriptor, kind, access } in samples() {
        let found = found(judge(Accept::nothing(), descriptor).unwrap_err());
        assert_eq!(found, Found { kind, readable: access.0, writable: access.1 }, "{name}");
        assert!(Accept::any().permits(&found));
    }
    ledger.close();
}

#[test] // P2, P9: the same over a socket
fn every_kind_that_a_socket_carries() {
    let ledger = Ledger::open();
    for (accept, right) in demands() {
        for Sample { name, descriptor, .. } in samples() {
            let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(1));
            ours.set_policy(Policy::new().every(accept));
            let identity_of_it = identity(&descriptor);
            match theirs.send(Message::new(b"x").with(descriptor)) {
                Ok(()) => {}
                // The kernel carries none of io_uring's (net/core/scm.c).
                Err(refused) if name == "io_uring" => {
                    assert_eq!(refused.error.errno(), Some(nix::libc::EINVAL));
                    continue;
                }
                Err(refused) => panic!("{name}: {refused}"),
            }
            match ours.receive_by(soon()) {
                Ok(mut message) => {
                    assert!(right.contains(&name), "{name} where {accept} is accepted");
                    assert_eq!(identity(&message.take(0).unwrap()), identity_of_it);
                }
                Err(error) => {
                    assert!(!right.contains(&name), "{name} where {accept} is accepted");
                    found(error);
                }
            }
        }
    }
    ledger.close();
}

#[test] // P9: seals missing one by one
fn each_seal_that_is_demanded_is_needed() {
    let ledger = Ledger::open();
    let single = [Seals::SEAL, Seals::SHRINK, Seals::GROW, Seals::WRITE];
    let union = |bits: usize| {
        let chosen = single.iter().enumerate().filter(|(index, _)| bits & (1 << index) != 0);
        chosen.fold(Seals::NONE, |all, (_, seal)| all.with(*seal))
    };
    for demanded in 0..16 {
        for present in 0..16 {
            let judged = judge(Accept::memfd(union(demanded)), memfd(10, union(present)));
            let enough = demanded & present == demanded;
            assert_eq!(judged.is_ok(), enough, "{} of {}", union(present), union(demanded));
            let Err(error) = judged else { continue };
            let kind = Kind::Memfd { seals: union(present), bytes: 10, huge: false };
            assert_eq!(found(error).kind, kind);
        }
    }
    // To be able to write no more than through what is mapped is not to be unable to write.
    assert!(judge(Accept::memfd(Seals::WRITE), memfd(10, Seals::FUTURE_WRITE)).is_err());
    ledger.close();
}

#[test] // P9: one byte less
fn every_byte_that_is_demanded_is_needed() {
    let ledger = Ledger::open();
    for bytes in [1, 4095, 4096, 4097, 1 << 30] {
        let accept = Accept::memfd_of(bytes, Seals::STEADY);
        assert_eq!(judge(accept, memfd(bytes, Seals::STEADY)), Ok(()));
        assert_eq!(judge(accept, memfd(bytes + 1, Seals::STEADY)), Ok(()));
        let error = judge(accept, memfd(bytes - 1, Seals::STEADY)).unwrap_err();
        let kind = Kind::Memfd { seals: Seals::STEADY, bytes: bytes - 1, huge: false };
        let expected =
            Violation::DescriptorKind { slot: 0, required: accept, found: Found { kind, ..found(error) } };
        assert_eq!(error, Error::Violation(expected));
    }
    // A size that the peer can take away again is none, whatever other seals are demanded.
    for seals in [Seals::NONE, Seals::WRITE, Seals::GROW] {
        assert!(judge(Accept::memfd_of(10, Seals::NONE), memfd(1 << 20, seals)).is_err());
        assert!(judge(Accept::memfd_of(10, seals), memfd(1 << 20, seals.with(Seals::SHRINK))).is_ok());
    }
    ledger.close();
}

#[test] // P9: what was accepted can be mapped, however the peer goes on
fn what_is_steady_and_large_enough_can_be_mapped() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(1));
    ours.set_policy(Policy::new().every(Accept::memfd_of(5000, Seals::STEADY)));
    let file = std::fs::File::from(memfd(5000, Seals::STEADY));
    theirs.send(Message::new(b"").with(file.try_clone().unwrap().into())).unwrap();
    let came = ours.receive_by(soon()).unwrap().take(0).unwrap();
    assert!(file.set_len(0).is_err() && file.set_len(4999).is_err());
    assert_eq!(Memfd::map(&came, 5000).unwrap().len(), 5000);
    drop((ours, theirs, file, came));
    ledger.close();
}

#[test] // P9: reading a huge page can be SIGBUS, whatever the size: there may be none left
fn memory_of_huge_pages_has_no_size() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let ledger = Ledger::open();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB;
    let Ok(huge) = memfd_create("huge", flags) else {
        println!("skipped: this kernel makes no memfd of huge pages");
        return ledger.close();
    };
    nix::unistd::ftruncate(&huge, 1 << 30).unwrap();
    Memfd::seal(&huge, Seals::STEADY).unwrap();
    assert!(judge(Accept::memfd(Seals::STEADY), huge.try_clone().unwrap()).is_ok());
    let error = judge(Accept::memfd_of(1, Seals::STEADY), huge).unwrap_err();
    let kind = Kind::Memfd { seals: Seals::STEADY, bytes: 1 << 30, huge: true };
    assert_eq!(found(error).kind, kind);
    ledger.close();
}

/// Policies of random kinds in random places, over messages of random descriptors, against the
/// table above: the slow and obvious way.
#[test] // P9
fn random_policies_decide_as_the_table_says() {
    let ledger = Ledger::open();
    let demands = demands();
    let samples: Vec<Sample> = samples().into_iter().filter(|sample| sample.name != "io_uring").collect();
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..400 {
        let mut random = Random(seed);
        // (place or all, demand)
        let rules: Vec<(Option<u8>, usize)> = (0..1 + random.below(6))
            .map(|_| {
                let place = (random.below(2) == 0).then(|| random.below(4) as u8);
                (place, random.below(demands.len()))
            })
            .collect();
        let policy = rules.iter().fold(Policy::new(), |policy, (place, demand)| match place {
            Some(place) => policy.slot(*place, demands[*demand].0),
            None => policy.every(demands[*demand].0),
        });
        let right = |place: u8, name: &str| {
            let own = rules.iter().any(|(at, _)| *at == Some(place));
            let of_it = rules.iter().filter(|(at, _)| if own { *at == Some(place) } else { at.is_none() });
            of_it.into_iter().any(|(_, demand)| demands[*demand].1.contains(&name))
        };
        // Two of three are of what is demanded somewhere, so that whole messages pass too.
        let chosen: Vec<&Sample> = (0..1 + random.below(4))
            .map(|place| {
                let fitting: Vec<&Sample> =
                    samples.iter().filter(|sample| right(place as u8, sample.name)).collect();
                if fitting.is_empty() || random.below(5) == 0 {
                    &samples[random.below(samples.len())]
                } else {
                    fitting[random.below(fitting.len())]
                }
            })
            .collect();
        let expected = chosen.iter().zip(0..).find(|(sample, place)| !right(*place, sample.name));
        let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(4));
        ours.set_policy(policy);
        let copies = chosen.iter().map(|sample| sample.descriptor.try_clone().unwrap());
        theirs.send(copies.fold(Message::new(b""), Message::with)).unwrap();
        match (ours.receive_by(soon()), expected) {
            (Ok(message), None) => {
                assert_eq!(message.descriptor_count(), chosen.len());
                accepted += 1;
            }
            (Err(error), Some((sample, place))) => {
                let Some(Violation::DescriptorKind { slot, required, found }) = error.violation() else {
                    panic!("seed {seed}: {error:?}")
                };
                assert_eq!(slot, u32::from(place), "seed {seed}");
                assert_eq!(found.kind, sample.kind, "seed {seed}");
                // What is said to be accepted there is, and is not what came.
                let named = |(at, demand): &(Option<u8>, usize)| {
                    at.is_none_or(|at| at == place) && demands[*demand].0 == required
                };
                assert!(rules.iter().any(named) || required == Accept::nothing(), "seed {seed}");
                assert!(!required.permits(&found), "seed {seed}");
                refused += 1;
            }
            (received, expected) => {
                panic!(
                    "seed {seed}: {received:?}, expected {:?}",
                    expected.map(|(sample, at)| (sample.name, at))
                )
            }
        }
    }
    assert!(accepted > 50 && refused > 50, "{accepted} accepted, {refused} refused");
    drop(samples);
    ledger.close();
}
