//! Sealed memfds: what is mapped stays as it was checked.

mod support;

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use fdpost::{Error, Memfd, Misuse};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use support::{Ledger, assert_child, child, child_value};

const SHRINK: SealFlag = SealFlag::F_SEAL_SHRINK;
const WRITE: SealFlag = SealFlag::F_SEAL_WRITE;

fn with_seals(seals: SealFlag) -> OwnedFd {
    let memfd = memfd_create("test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    let mut file = std::fs::File::from(memfd);
    file.write_all(b"0123456789").unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.into()
}

#[test] // P2
fn what_is_sealed_can_be_mapped_and_not_changed() {
    let ledger = Ledger::open();
    let memfd = Memfd::sealed("a\0b", b"0123456789").unwrap();
    let all = SHRINK | WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    assert_eq!(fcntl(&memfd, FcntlArg::F_GET_SEALS).unwrap(), all.bits());
    let mapped = Memfd::map(&memfd, 4).unwrap();
    drop(memfd);
    assert_eq!(&mapped[..], b"0123");
    std::thread::spawn(move || assert_eq!(mapped.len(), 4)).join().unwrap();
    assert_eq!(&Memfd::map(with_seals(SHRINK | WRITE), 10).unwrap()[..], b"0123456789");
    ledger.close();
}

#[test] // P4
fn what_may_change_or_is_too_small_is_not_mapped() {
    let ledger = Ledger::open();
    let needed = (SHRINK | WRITE).bits() as u32;
    for seals in [SealFlag::empty(), SHRINK, WRITE, SealFlag::F_SEAL_GROW] {
        let missing = Misuse::SealsMissing { found: seals.bits() as u32, needed };
        assert_eq!(Memfd::map(with_seals(seals), 4).unwrap_err(), Error::Misuse(missing));
    }
    let memfd = with_seals(SHRINK | WRITE);
    for (asked, needed) in [(11, 11), (0, 1), (usize::MAX, usize::MAX as u64)] {
        let small = Misuse::FileTooSmall { found: 10, needed };
        assert_eq!(Memfd::map(&memfd, asked).unwrap_err(), Error::Misuse(small));
    }
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = Memfd::map(&file, 1).unwrap_err();
    assert_eq!(error, Error::Io { call: "fcntl", errno: nix::libc::EINVAL });
    drop((file, memfd));
    ledger.close();
}

#[test] // P2: huge pages are unmapped in other units, so a mapping would stay for ever
fn huge_pages_are_refused() {
    let ledger = Ledger::open();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB;
    let Ok(memfd) = memfd_create("huge", flags) else {
        println!("skipped: this kernel makes no memfd of huge pages");
        return;
    };
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(SHRINK | WRITE)).unwrap();
    assert_eq!(Memfd::map(&memfd, 1).unwrap_err(), Error::Misuse(Misuse::HugePages));
    drop(memfd);
    ledger.close();
}

#[test] // P2; case 40
fn our_own_descriptors_are_above_the_standard_ones() {
    let ledger = Ledger::open();
    if child_value().is_none() {
        assert_child(&child("our_own_descriptors_are_above_the_standard_ones", "yes"));
        return ledger.close();
    }
    nix::unistd::close(0).unwrap();
    let (channel, theirs) = fdpost::Channel::<fdpost::Packet>::pair(fdpost::Limits::new()).unwrap();
    let memfd = Memfd::sealed("high", b"x").unwrap();
    use std::os::fd::AsFd;
    let numbers = [channel.as_fd().as_raw_fd(), theirs.as_raw_fd(), memfd.as_raw_fd()];
    assert!(numbers.iter().all(|number| *number >= 3), "{numbers:?}");
}
