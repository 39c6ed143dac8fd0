//! Sealed memfds: what is mapped stays as it was checked.

#[path = "support/kinds.rs"]
mod kinds;
#[path = "support/seccomp.rs"]
mod seccomp;
mod support;

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use fdpost::{Error, Memfd, Misuse, Seals};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use support::{Ledger, assert_child, child, child_value, identity};

const SHRINK: SealFlag = SealFlag::F_SEAL_SHRINK;
const WRITE: SealFlag = SealFlag::F_SEAL_WRITE;
/// F_SEAL_EXEC, which every memfd of ours has from Linux 6.3 on.
const NOEXEC: SealFlag = SealFlag::from_bits_retain(0x20);

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
    let found = SealFlag::from_bits_retain(fcntl(&memfd, FcntlArg::F_GET_SEALS).unwrap());
    assert_eq!(found & !NOEXEC, all);
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

#[test] // P9
fn what_we_make_cannot_be_executed() {
    let ledger = Ledger::open();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    // What the kernel knows, asked without us.
    let flag = MFdFlags::from_bits_retain(0x8);
    let known = memfd_create("known", MFdFlags::MFD_CLOEXEC | flag).is_ok();
    for memfd in [Memfd::create("data", 100).unwrap(), Memfd::sealed("data", b"#!/bin/true").unwrap()] {
        assert_eq!(Memfd::seals(&memfd).unwrap().contains(Seals::EXEC), known);
        if !known {
            println!("skipped: this kernel has no MFD_NOEXEC_SEAL (Linux 6.3)");
            continue;
        }
        let file = std::fs::File::from(memfd);
        assert_eq!(file.metadata().unwrap().mode() & 0o111, 0);
        let made = file.set_permissions(PermissionsExt::from_mode(0o755));
        assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    ledger.close();
}

#[test] // a kernel that does not know of it
fn without_the_seal_against_execution_a_memfd_is_made_all_the_same() {
    let made = std::thread::spawn(|| {
        // Close-on-exec, sealable, not executable: exactly these flags are refused.
        let refused = seccomp::filter(libc::SYS_memfd_create, Some(0xb), seccomp::Fate::Fails(Errno::EINVAL));
        refused.map(|_| Memfd::create("old", 10).and_then(|memfd| Memfd::seals(&memfd)))
    });
    match made.join().unwrap() {
        Ok(seals) => assert!(!seals.unwrap().contains(Seals::EXEC)),
        Err(error) => println!("skipped: seccomp(2) is forbidden here: {error}"),
    }
}

#[test] // P4
fn created_filled_sealed_and_mapped() {
    use std::os::unix::fs::FileExt;
    let ledger = Ledger::open();
    let file = std::fs::File::from(Memfd::create("later", 10_000).unwrap());
    let first = Memfd::seals(&file).unwrap();
    assert!(first == Seals::NONE || first == Seals::EXEC, "{first}");
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    file.write_all_at(b"pixels", 9_000).unwrap();
    let missing = Misuse::SealsMissing { found: first.bits(), needed: Seals::STEADY.bits() };
    assert_eq!(Memfd::map(&file, 10_000).unwrap_err(), Error::Misuse(missing));
    // One after the other: what was sealed stays so.
    for (seal, all) in
        [(Seals::SHRINK, Seals::SHRINK), (Seals::WRITE, Seals::STEADY), (Seals::WRITE, Seals::STEADY)]
    {
        Memfd::seal(&file, seal).unwrap();
        assert_eq!(Memfd::seals(&file).unwrap(), all.with(first));
    }
    let mapped = Memfd::map(&file, 10_000).unwrap();
    assert_eq!((&mapped[9_000..9_006], mapped[0], mapped.len()), (&b"pixels"[..], 0, 10_000));
    assert_eq!(file.write_all_at(b"late", 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(file.set_len(1).unwrap_err().raw_os_error(), Some(libc::EPERM));
    Memfd::seal(&file, Seals::ALL).unwrap();
    let error = Memfd::seal(&file, Seals::GROW).unwrap_err();
    assert_eq!(error, Error::Io { call: "fcntl", errno: libc::EPERM });
    assert_eq!(Memfd::create("empty", 0).map(std::fs::File::from).unwrap().metadata().unwrap().len(), 0);
    let error = Memfd::create("huge", u64::MAX).unwrap_err();
    assert_eq!(error, Error::Io { call: "ftruncate", errno: libc::EFBIG });
    drop((file, mapped));
    ledger.close();
}

#[test] // P2: whoever has mapped it must not meet SIGBUS
fn it_grows_and_never_shrinks() {
    let ledger = Ledger::open();
    let memfd = Memfd::create("grows", 100).unwrap();
    Memfd::grow(&memfd, 5_000).unwrap();
    Memfd::grow(&memfd, 5_000).unwrap();
    let error = Memfd::grow(&memfd, 4_999).unwrap_err();
    assert_eq!(error, Error::Misuse(Misuse::FileTooLarge { found: 5_000, most: 4_999 }));
    Memfd::seal(&memfd, Seals::GROW).unwrap();
    Memfd::grow(&memfd, 5_000).unwrap();
    assert_eq!(Memfd::grow(&memfd, 5_001).unwrap_err(), Error::Io { call: "ftruncate", errno: libc::EPERM });
    drop(memfd);
    ledger.close();
}

#[test]
fn what_seals_cannot_be_put_on() {
    let ledger = Ledger::open();
    let memfd = Memfd::create("mapped", 4096).unwrap();
    let length = std::num::NonZeroUsize::new(4096).unwrap();
    let (protection, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    #[allow(unsafe_code, reason = "a mapping that is written through has no safe form")]
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
    let place = unsafe { mmap(None, length, protection, shared, &memfd, 0) }.unwrap();
    let busy = Error::Io { call: "fcntl", errno: libc::EBUSY };
    assert_eq!(Memfd::seal(&memfd, Seals::WRITE).unwrap_err(), busy);
    #[allow(unsafe_code, reason = "as above")]
    // SAFETY: this mapping, of which nothing is borrowed.
    unsafe { munmap(place, 4096) }.unwrap();
    Memfd::seal(&memfd, Seals::WRITE).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let none = Error::Io { call: "fcntl", errno: libc::EINVAL };
    assert_eq!(Memfd::seals(&file).unwrap_err(), none);
    let place = format!("/proc/self/fd/{}", memfd.as_raw_fd());
    let readable = std::fs::File::open(place).unwrap();
    let denied = Error::Io { call: "fcntl", errno: libc::EPERM };
    assert_eq!(Memfd::seal(&readable, Seals::GROW).unwrap_err(), denied);
    drop((memfd, file, readable));
    ledger.close();
}

#[test]
fn its_name_shows_who_made_it() {
    let ledger = Ledger::open();
    for (name, shown) in [("frame 7", "frame 7"), ("cut\0off", "cut"), ("", "")] {
        let memfd = Memfd::create(name, 1).unwrap();
        assert_eq!(identity(&memfd).to_str().unwrap(), format!("/memfd:{shown} (deleted)"));
    }
    ledger.close();
}

#[test]
fn its_name_is_as_long_as_the_kernel_likes() {
    let ledger = Ledger::open();
    for name in [&"x".repeat(249), &format!("{}\0{}", "y".repeat(249), "z")] {
        let memfd = Memfd::create(name, 0).unwrap();
        let expected = name.split('\0').next().unwrap();
        assert_eq!(identity(&memfd).to_string_lossy(), format!("/memfd:{expected} (deleted)"));
    }
    let too_long = Memfd::create(&"x".repeat(250), 0).unwrap_err();
    assert_eq!(too_long, Error::Io { call: "memfd_create", errno: libc::EINVAL });
    ledger.close();
}

#[test] // P4: a mapping that is dropped is gone.
fn what_is_dropped_is_unmapped() {
    let ledger = Ledger::open();
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("/memfd:unmapped").count();
    let memfd = Memfd::sealed("unmapped", b"bytes").unwrap();
    let one = Memfd::map(&memfd, 5).unwrap();
    let two = Memfd::map(&memfd, 5).unwrap();
    assert_eq!(mapped(), 2);
    drop(one);
    assert_eq!((mapped(), &two[..]), (1, &b"bytes"[..]));
    drop((two, memfd));
    assert_eq!(mapped(), 0);
    ledger.close();
}
