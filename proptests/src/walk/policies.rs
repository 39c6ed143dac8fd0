//! What a place demands of a descriptor against what came: every pair, and every policy of up to three
//! rules (P9).
//!
//! The judgement has no memory: it is a function of a demand and a finding, so that every pair is every
//! case. Left out of the pairs are
//! - *sizes* but those beside a demand's: the judgement compares two of them, once;
//! - *domains and types* of sockets but four of each, the unnamed among them: they are compared for
//!   equality.
//!
//! What must hold is not said as the code says it, by kinds, but by a list of what each demand asks for,
//! each of which a finding has or has not.

use fdpost::accept::{Accept, Domain, Found, Kind, Policy, Seals, SocketType};

use super::{Broken, Walked, quietly, scripts};

const DOMAINS: [Domain; 4] = [Domain::Unix, Domain::Inet, Domain::Inet6, Domain::Other(40)];
const TYPES: [SocketType; 4] =
    [SocketType::Stream, SocketType::Datagram, SocketType::SeqPacket, SocketType::Other(3)];
const SIZE: u64 = 4096;

/// One thing that a demand asks for.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// Nothing has it.
    Never,
    BeSharedMemory,
    /// stat(2) calls shared memory a regular file too.
    BeRegular,
    BeSocket,
    BePipe,
    BePidfd,
    /// One of the kernel's bits.
    HaveSeal(u32),
    HoldBytes(u64),
    BeOfSmallPages,
    BeOf(Domain, SocketType),
    Read,
    Write,
}

impl Must {
    fn holds(self, found: &Found) -> bool {
        let memory = if let Kind::Memfd { seals, bytes, huge } = found.kind {
            Some((seals, bytes, huge))
        } else {
            None
        };
        let socket = if let Kind::Socket { domain, kind } = found.kind { Some((domain, kind)) } else { None };
        match self {
            Self::Never => false,
            Self::BeSharedMemory => memory.is_some(),
            Self::BeRegular => memory.is_some() || found.kind == Kind::File,
            Self::BeSocket => socket.is_some(),
            Self::BePipe => found.kind == Kind::Pipe,
            Self::BePidfd => found.kind == Kind::Pidfd,
            Self::HaveSeal(bit) => memory.is_some_and(|(seals, ..)| seals.bits() & bit != 0),
            Self::HoldBytes(least) => memory.is_some_and(|(_, bytes, _)| bytes >= least),
            Self::BeOfSmallPages => memory.is_some_and(|(.., huge)| !huge),
            Self::BeOf(domain, kind) => socket == Some((domain, kind)),
            Self::Read => found.readable,
            Self::Write => found.writable,
        }
    }
}

type Demand = (Accept, Vec<Must>);

fn seals() -> impl Iterator<Item = Seals> + Clone {
    (0..64).map(Seals::from_bits)
}

fn bits(seals: Seals) -> impl Iterator<Item = Must> {
    (0..6).map(|place| 1 << place).filter(move |bit| seals.bits() & bit != 0).map(Must::HaveSeal)
}

fn demands() -> Vec<Demand> {
    let mut kinds: Vec<Demand> = vec![
        (Accept::nothing(), vec![Must::Never]),
        (Accept::any(), vec![]),
        (Accept::file(), vec![Must::BeRegular]),
        (Accept::socket(), vec![Must::BeSocket]),
        (Accept::pipe(), vec![Must::BePipe]),
        (Accept::pidfd(), vec![Must::BePidfd]),
    ];
    for seals in seals() {
        kinds.push((Accept::memfd(seals), [Must::BeSharedMemory].into_iter().chain(bits(seals)).collect()));
        // Whoever asks for bytes asks for bytes that stay.
        let sized = [Must::HoldBytes(SIZE), Must::BeOfSmallPages, Must::HaveSeal(Seals::SHRINK.bits())];
        kinds.push((Accept::memfd_of(SIZE, seals), sized.into_iter().chain(bits(seals)).collect()));
    }
    for domain in DOMAINS {
        kinds.extend(TYPES.map(|kind| (Accept::socket_of(domain, kind), vec![Must::BeOf(domain, kind)])));
    }
    let modes = |(accept, musts): Demand| {
        let with = |more: &[Must]| [&musts[..], more].concat();
        [
            (accept, with(&[])),
            (accept.readable(), with(&[Must::Read])),
            (accept.writable(), with(&[Must::Write])),
            (accept.readable().writable(), with(&[Must::Read, Must::Write])),
        ]
    };
    kinds.into_iter().flat_map(modes).collect()
}

fn findings() -> Vec<Found> {
    let mut kinds =
        vec![Kind::File, Kind::Directory, Kind::Device, Kind::Pipe, Kind::Pidfd, Kind::Path, Kind::Other];
    for seals in seals() {
        for bytes in [0, SIZE - 1, SIZE, SIZE + 1] {
            kinds.extend([false, true].map(|huge| Kind::Memfd { seals, bytes, huge }));
        }
    }
    for domain in DOMAINS {
        kinds.extend(TYPES.map(|kind| Kind::Socket { domain, kind }));
    }
    let modes = [(false, false), (true, false), (false, true), (true, true)];
    let of = |kind| modes.map(|(readable, writable)| Found { kind, readable, writable });
    kinds.into_iter().flat_map(of).collect()
}

/// Every demand against every finding; then every policy of up to three rules over two places and the
/// rest, against a finding of each kind at each of three places.
///
/// # Errors
/// The first judgement that is not what was demanded.
pub fn policies() -> Result<Walked, Box<Broken>> {
    let (demands, findings) = (demands(), findings());
    let mut walked = Walked { depth: 1, closed: true, ..Walked::default() };
    for (accept, musts) in &demands {
        for found in &findings {
            let right = musts.iter().all(|must| must.holds(found));
            (walked.states, walked.steps) = (walked.states + 1, walked.steps + 1);
            quietly(|| assert_eq!(accept.permits(found), right, "P9: {accept} and {found}")).map_err(
                |said| {
                    Box::new(Broken {
                        walked,
                        script: vec![format!("{accept:?}"), format!("{found:?}")],
                        said,
                    })
                },
            )?;
        }
    }
    // Where a rule stands is another question than what it says: four of them, each of another kind.
    let rules = [Accept::pipe(), Accept::pidfd(), Accept::any(), Accept::nothing()];
    let places = [Some(0), Some(1), None];
    let kinds = [Kind::Pipe, Kind::Pidfd, Kind::File];
    let alphabet: Vec<_> = places.iter().flat_map(|place| rules.map(|rule| (*place, rule))).collect();
    let findings = kinds.map(|kind| Found { kind, readable: true, writable: false });
    // Place 256 is none of those that can be named.
    let indices = [0, 1, 2, 256];
    let every = scripts::every(&alphabet, 3, &|script| {
        let policy = script.iter().fold(Policy::new(), |policy, (place, rule)| match place {
            Some(place) => policy.slot(*place, *rule),
            None => policy.every(*rule),
        });
        for index in indices {
            let named = script.iter().any(|(place, _)| place.map(usize::from) == Some(index));
            let ours = |place: Option<u8>| {
                if named { place.map(usize::from) == Some(index) } else { place.is_none() }
            };
            for found in &findings {
                let right = script.iter().any(|(place, rule)| ours(*place) && rule.permits(found));
                let permits = policy.alternatives(index).any(|accept| accept.permits(found));
                assert_eq!(permits, right, "P9: {found} at {index}");
                let closest = policy.closest(index, found);
                let known = script.iter().any(|(place, rule)| ours(*place) && *rule == closest);
                assert!(known || closest == Accept::nothing(), "P9: at {index} nobody demands {closest}");
            }
        }
    })?;
    walked.steps += (every.states * indices.len() * findings.len()) as u64;
    Ok(walked)
}
