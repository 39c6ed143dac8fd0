use super::*;
use alloc::string::ToString;

const MEMFD: Found = Found {
    kind: Kind::Memfd { seals: Seals::STEADY, bytes: 100, huge: false },
    readable: true,
    writable: true,
};
const PIPE: Found = Found { kind: Kind::Pipe, readable: true, writable: false };

#[test] // P9
fn every_seal_and_every_byte_is_needed() {
    let all_of_it = Found { kind: Kind::Memfd { seals: Seals::ALL, bytes: 100, huge: false }, ..MEMFD };
    assert!(Accept::memfd(Seals::ALL).permits(&all_of_it) && !Accept::memfd(Seals::ALL).permits(&MEMFD));
    assert!(Accept::memfd_of(100, Seals::NONE).permits(&MEMFD));
    assert!(!Accept::memfd_of(101, Seals::NONE).permits(&MEMFD));
    let growing = Found { kind: Kind::Memfd { seals: Seals::WRITE, bytes: 100, huge: false }, ..MEMFD };
    assert!(Accept::memfd(Seals::WRITE).permits(&growing));
    assert!(!Accept::memfd_of(1, Seals::WRITE).permits(&growing), "a size that may be taken away");
    let huge = Found { kind: Kind::Memfd { seals: Seals::STEADY, bytes: 100, huge: true }, ..MEMFD };
    assert!(Accept::memfd(Seals::STEADY).permits(&huge), "nobody asked for bytes");
    assert!(!Accept::memfd_of(1, Seals::STEADY).permits(&huge));
}

#[test] // P9
fn a_socket_is_of_the_domain_and_type_that_was_asked_for() {
    let found = |domain, kind| Found { kind: Kind::Socket { domain, kind }, ..PIPE };
    let wanted = Accept::socket_of(Domain::Unix, SocketType::Stream);
    assert!(wanted.permits(&found(Domain::Unix, SocketType::Stream)));
    assert!(!wanted.permits(&found(Domain::Unix, SocketType::Datagram)));
    assert!(!wanted.permits(&found(Domain::Inet, SocketType::Stream)));
    assert!(!wanted.permits(&PIPE) && Accept::socket().permits(&found(Domain::Inet, SocketType::Datagram)));
}

#[test] // P9
fn a_place_of_its_own_is_not_governed_by_the_rest() {
    let policy = Policy::new().every(Accept::pipe()).every(Accept::file()).slot(2, Accept::pidfd());
    let at = |index| policy.alternatives(index).copied().collect::<alloc::vec::Vec<_>>();
    assert_eq!(at(0), [Accept::pipe(), Accept::file()]);
    assert_eq!(at(2), [Accept::pidfd()]);
    assert_eq!(at(258), at(0), "places are not counted modulo 256");
    assert_eq!(Policy::new().closest(0, &PIPE), Accept::nothing());
}

#[test]
fn the_closest_is_of_the_same_kind() {
    let steady = Accept::memfd(Seals::ALL);
    let policy = Policy::new().every(Accept::pipe().writable()).every(steady);
    assert_eq!(policy.closest(0, &MEMFD), steady);
    assert_eq!(policy.closest(0, &PIPE), Accept::pipe().writable());
    let socket = Kind::Socket { domain: Domain::Unix, kind: SocketType::Stream };
    assert_eq!(policy.closest(0, &Found { kind: socket, ..PIPE }), Accept::pipe().writable());
}

#[test]
fn what_is_said_of_them() {
    assert_eq!(Seals::from_bits(0x4a).to_string(), "shrink, write, 0x40");
    assert_eq!(Seals::NONE.to_string(), "none");
    assert_eq!(Accept::pipe().readable().writable().to_string(), "a pipe, open for reading and writing");
    let tcp = Accept::socket_of(Domain::Inet6, SocketType::Other(3));
    assert_eq!(tcp.to_string(), "a socket of domain inet6 and type 3");
    assert_eq!(PIPE.to_string(), "a pipe, open for reading");
    let written = Found { readable: false, writable: true, ..PIPE };
    assert_eq!(written.to_string(), "a pipe, open for writing");
    let bare = Found { kind: Kind::Memfd { seals: Seals::SEAL, bytes: 7, huge: false }, ..MEMFD };
    assert_eq!(bare.to_string(), "a memfd or a file on tmpfs of 7 bytes that cannot be sealed");
}
