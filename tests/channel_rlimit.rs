//! Descriptors that this process cannot take (RLIMIT_NOFILE) or would take for a standard one
//! (0, 1 and 2 closed): the whole message or `descriptors-lost`, never a made-up one.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/room.rs"]
mod room;
mod support;

use driver::{message, soon};
use fdpost::{Channel, Error, Exhausted, Libcamera, Limits, Packet, Profile};
use nix::libc::rlim_t;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use room::{Room, owned};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use support::{Ledger, assert_child, child, child_value, descriptors, files, identity, is_shut_down};

/// One message of `sent` descriptors into room for `free`.
fn at_the_limit<P: Profile>(sent: usize, free: usize) {
    let ledger = Ledger::open();
    let limits = Limits::new().descriptors(16);
    let (mut ours, theirs) = Channel::<P>::pair(limits).unwrap();
    let mut sender = Channel::<P>::from_fd(theirs, limits).unwrap();
    let given = files(sent);
    let names: Vec<PathBuf> = given.iter().map(identity).collect();
    sender.send(message(b"some", given)).unwrap();
    let open = descriptors();

    let room = Room::of(free as rlim_t);
    let first = ours.receive_by(soon());
    let again = ours.try_receive();
    drop(room);

    let case = format!("{}: {sent} sent, room for {free}", P::NAME);
    if free >= sent {
        let mut whole = first.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!(whole.payload(), b"some", "{case}");
        assert_eq!(whole.take_all().map(|came| identity(&came)).collect::<Vec<_>>(), names, "{case}");
        assert!(matches!(again, Ok(None)), "{case}: {again:?}");
    } else {
        let (declared, received) = (sent as u32, free as u32);
        let lost = Error::Exhausted(Exhausted::DescriptorsLost { declared, received });
        assert_eq!(first.unwrap_err(), lost, "{case}");
        assert_eq!(again.unwrap_err(), lost, "{case}: once more");
        assert_eq!(ours.receive_by(soon()).unwrap_err(), lost, "{case}: with room again");
        assert!(is_shut_down(&ours), "{case}");
        assert_eq!(ours.stats().received.messages, 0, "{case}");
        assert_eq!(ours.stats().violation, None, "{case}: nobody misbehaved");
    }
    assert_eq!(descriptors(), open, "{case}");
    drop((ours, sender));
    ledger.close();
}

fn every_room<P: Profile>(test: &str) {
    let Some(sent) = child_value() else {
        for sent in [1, 4, 16] {
            assert_child(&child(test, &sent.to_string()));
        }
        return;
    };
    let sent = sent.parse().unwrap();
    (0..=sent + 2).for_each(|free| at_the_limit::<P>(sent, free));
}

#[test] // P1, P2; case 42
fn libcamera_at_every_descriptor_limit() {
    every_room::<Libcamera>("libcamera_at_every_descriptor_limit");
}

#[test] // P1, P2; case 42
fn packet_at_every_descriptor_limit() {
    every_room::<Packet>("packet_at_every_descriptor_limit");
}

/// Receives two descriptors while 0, 1 and 2 are closed and the limit is `soft`.
fn without_standard_descriptors<P: Profile>(soft: Option<rlim_t>) -> Result<Vec<i32>, Error> {
    let limits = Limits::new().descriptors(2);
    let (mut ours, theirs) = Channel::<P>::pair(limits).unwrap();
    let mut sender = Channel::<P>::from_fd(theirs, limits).unwrap();
    sender.send(message(b"some", files(2))).unwrap();
    let standard = [std::io::stdin().as_raw_fd(), 1, 2];
    let saved = standard.map(|number| {
        let copy = nix::fcntl::fcntl(borrowed(number), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100));
        owned(copy.unwrap())
    });
    let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    standard.iter().for_each(|number| nix::unistd::close(*number).unwrap());
    if let Some(soft) = soft {
        setrlimit(Resource::RLIMIT_NOFILE, soft, before.1).unwrap();
    }
    let came = ours.receive_by(soon());
    setrlimit(Resource::RLIMIT_NOFILE, before.0, before.1).unwrap();
    let left_open: Vec<i32> =
        standard.into_iter().filter(|number| descriptors().contains_key(number)).collect();
    // Back before anything can fail: a failure wants to be written somewhere.
    nix::unistd::dup2_stdin(&saved[0]).unwrap();
    nix::unistd::dup2_stdout(&saved[1]).unwrap();
    nix::unistd::dup2_stderr(&saved[2]).unwrap();
    assert_eq!(left_open, [0_i32; 0], "{}: standard numbers that something sits on", P::NAME);
    came.map(|mut message| message.take_all().map(|came| came.as_raw_fd()).collect())
}

#[allow(unsafe_code, reason = "the standard descriptors have to be named by number")]
fn borrowed(number: i32) -> std::os::fd::BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 are open here, and stay so until they are closed by number.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }
}

fn above_the_standard_ones<P: Profile>() {
    let ledger = Ledger::open();
    let numbers = without_standard_descriptors::<P>(None).unwrap();
    assert_eq!(numbers.len(), 2, "{}", P::NAME);
    assert!(numbers.iter().all(|number| *number >= 3), "{}: {numbers:?}", P::NAME);
    // Three numbers are free below the limit, and none above 2: they can be installed, not kept.
    let lost = Exhausted::DescriptorsLost { declared: 2, received: 0 };
    assert_eq!(without_standard_descriptors::<P>(Some(3)), Err(Error::Exhausted(lost)), "{}", P::NAME);
    ledger.close();
}

#[test] // P2; case 40
fn no_descriptor_is_handed_out_below_three() {
    if child_value().is_none() {
        return assert_child(&child("no_descriptor_is_handed_out_below_three", "yes"));
    }
    above_the_standard_ones::<Libcamera>();
    above_the_standard_ones::<Packet>();
}

/// Three frames with a descriptor each in one packet, received with 0 closed and `free` more: the
/// first descriptor lands on 0 and has to be moved.
fn frames_with_zero_closed(free: rlim_t) -> Result<(Vec<u8>, PathBuf), Error> {
    let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(1)).unwrap();
    let sent = files(3);
    let bytes: Vec<u8> =
        (0..3).flat_map(|number| [&support::packet_header(1, 1)[..], &[number]].concat()).collect();
    support::raw_send(&theirs, &bytes, &sent);
    let saved = nix::fcntl::fcntl(borrowed(0), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
    let saved = owned(saved);
    let room = Room::of(free);
    nix::unistd::close(0).unwrap();
    let came = ours.receive_by(soon());
    nix::unistd::dup2_stdin(&saved).unwrap();
    drop(room);
    came.map(|mut message| (message.payload().to_vec(), identity(&message.take(0).unwrap())))
}

#[test] // P1, P2; cases 40, 42: a descriptor that is lost must not be replaced by its neighbour
fn a_lost_descriptor_does_not_shift_the_others() {
    let name = "a_lost_descriptor_does_not_shift_the_others";
    if child_value().is_none() {
        return assert_child(&child(name, "yes"));
    }
    let ledger = Ledger::open();
    // All three are installed, on 0 and two more; then nothing is left to move the first one to.
    let lost = Exhausted::DescriptorsLost { declared: 1, received: 0 };
    assert_eq!(frames_with_zero_closed(2), Err(Error::Exhausted(lost)));
    assert!(frames_with_zero_closed(3).is_ok_and(|(payload, _)| payload == [0]));
    ledger.close();
}
