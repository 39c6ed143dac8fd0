//! Close-on-exec, across a real exec (case 39).

#[path = "support/driver.rs"]
mod driver;
mod support;

use driver::{message, soon};
use fdpost::{Channel, Libcamera, Limits, Packet, Profile};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::AsFd;
use std::process::Command;
use support::{Ledger, files, identity};

/// What a program that we exec has open.
fn seen_by_a_program() -> String {
    let output = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What stands in such a listing.
fn name(descriptor: &impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    identity(&descriptor.as_fd().as_raw_fd()).to_str().unwrap().to_owned()
}

fn nothing_is_inherited<P: Profile>(kind: SockType) {
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(3);
    let (pair, handed_over) = Channel::<P>::pair(limits).unwrap();

    // Sockets and files that somebody made without close-on-exec.
    let (one, two) = socketpair(AddressFamily::Unix, kind, None, SockFlag::empty()).unwrap();
    let leaky = [one.as_fd(), two.as_fd()].map(|socket| name(&socket));
    let heirloom = memfd_create("heirloom", MFdFlags::empty()).unwrap();
    let sent = files(3);
    let received_names: Vec<String> = sent.iter().map(name).collect();
    let listing = seen_by_a_program();
    assert!(leaky.iter().all(|name| listing.contains(name)), "the listing shows such sockets:\n{listing}");

    let (mut ours, mut theirs) =
        (Channel::<P>::from_fd(one, limits).unwrap(), Channel::<P>::from_fd(two, limits).unwrap());
    theirs.send(message(b"three", sent)).unwrap();
    let received = ours.receive_by(soon()).unwrap();
    assert_eq!(received.descriptor_count(), 3);
    // A receive without a deadline may sleep in recvmsg(2), which is asked with flags of its own.
    let slept = files(1);
    let received_names: Vec<String> = received_names.into_iter().chain(slept.iter().map(name)).collect();
    theirs.send(message(b"one", slept)).unwrap();
    let one = ours.receive().unwrap();
    assert_eq!(one.descriptor_count(), 1);

    let listing = seen_by_a_program();
    assert!(listing.contains("heirloom"), "the listing shows such files:\n{listing}");
    for hidden in received_names.iter().chain(&leaky).chain(&[name(&pair), name(&handed_over)]) {
        assert!(!listing.contains(hidden), "{}: {hidden} was inherited:\n{listing}", P::NAME);
    }
    drop((pair, handed_over, ours, theirs, received, one, heirloom));
    ledger.close();
}

#[test] // P2
fn libcamera_nothing_crosses_an_exec() {
    nothing_is_inherited::<Libcamera>(SockType::Datagram);
}

#[test] // P2
fn packet_nothing_crosses_an_exec() {
    nothing_is_inherited::<Packet>(SockType::SeqPacket);
}
