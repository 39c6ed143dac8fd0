//! Many messages at once: `send_all`.

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use driver::{Wire, after, ends, message, number, set_option, soon, twin};
use fdpost::machine::{Failure, Outcome, Sender};
use fdpost::{Channel, Error, Libcamera, Limits, Message, Misuse, Packet, Sent, Stream};
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use support::{Ledger, files, identity, packet_header};

/// A payload that no other message of the burst has.
fn payload(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (number * 31 + place) as u8).collect()
}

/// Sends payloads of these sizes as one burst and says what sizes of packets left.
fn packed(sizes: &[usize]) -> Vec<usize> {
    let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new()).unwrap();
    let mut burst: Vec<_> =
        sizes.iter().enumerate().map(|(number, bytes)| Message::new(payload(number, *bytes))).collect();
    ours.send_all(&mut burst).unwrap();
    assert!(burst.is_empty());
    let frames = sizes.iter().enumerate();
    let expected = frames.flat_map(|(number, bytes)| {
        [&packet_header(*bytes as u32, 0)[..], &payload(number, *bytes)].concat()
    });
    let mut bytes = vec![0; 1 << 20];
    let (mut lengths, mut stream) = (Vec::new(), Vec::new());
    while let Ok(length) = recv(theirs.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
        lengths.push(length);
        stream.extend_from_slice(&bytes[..length]);
    }
    assert!(stream == expected.collect::<Vec<_>>(), "other bytes than the frames of {sizes:?}");
    assert_eq!(ours.stats().sent.messages, sizes.len() as u64);
    lengths
}

#[test] // P1; PK-7, PK-8; case 56
fn a_burst_leaves_in_as_few_packets_as_the_caps_allow() {
    let ledger = Ledger::open();
    assert_eq!(packed(&[]), []);
    assert_eq!(packed(&[5]), [21]);
    assert_eq!(packed(&[64; 64]), [64 * 80]);
    assert_eq!(packed(&[64; 130]), [64 * 80, 64 * 80, 2 * 80]);
    // 65,536 bytes hold 15 frames of 4 KiB.
    assert_eq!(packed(&[4096; 16]), [15 * 4112, 4112]);
    // Around the size above which payloads are gathered, and mixed with small ones.
    assert_eq!(packed(&[2047, 2048, 2049, 0, 1, 3000, 5, 2049]), [16 * 8 + 3 * 2048 + 2049 + 3006]);
    assert_eq!(packed(&[3000, 3000, 0]), [6048]);
    // Exactly full, one beyond, and one that is larger than any packet of several.
    assert_eq!(packed(&[32_752, 32_752]), [65_536]);
    assert_eq!(packed(&[32_752, 32_753]), [32_768, 32_769]);
    assert_eq!(packed(&[10, 10, 70_000, 10, 10]), [52, 70_016, 52]);
    assert_eq!(packed(&[2049; 40]), [31 * 2065, 9 * 2065]);
    ledger.close();
}

#[test] // P1, P2; PK-9
fn descriptors_of_a_burst_keep_their_messages() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new().descriptors(20));
    let mut names = Vec::new();
    let mut burst = Vec::new();
    for number in 0..40_usize {
        let given = files([1, 0, 2, 17, 3][number % 5]);
        names.push(given.iter().map(identity).collect::<Vec<_>>());
        burst.push(message(&payload(number, number * 100), given));
    }
    ours.send_all(&mut burst).unwrap();
    assert!(burst.is_empty());
    for (number, names) in names.into_iter().enumerate() {
        let mut came = theirs.receive_by(soon()).unwrap();
        assert_eq!(came.payload(), payload(number, number * 100));
        assert_eq!(came.take_all().map(|file| identity(&file)).collect::<Vec<_>>(), names);
    }
    drop((ours, theirs));
    ledger.close();
}

fn numbered(numbers: std::ops::Range<u32>, bytes: usize) -> Vec<Message> {
    let numbered = numbers.map(|number| {
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(bytes, 0);
        Message::new(payload)
    });
    numbered.collect()
}

/// A peer that does not read: what did not leave stays in the vector, nothing comes twice.
fn a_full_socket<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new());
    let mut burst = numbered(0..800, 4000);
    let mut next = 0;
    let mut full = 0;
    while !burst.is_empty() || ours.has_pending() {
        match ours.send_all_by(&mut burst, after(1)) {
            Ok(Sent::Complete) => assert!(burst.is_empty()),
            Ok(_) => assert!(burst.is_empty() && ours.has_pending()),
            Err(error) => {
                assert_eq!(error, Error::TimedOut);
                full += 1;
            }
        }
        while let Some(came) = theirs.try_receive().unwrap() {
            assert_eq!((number(&came), came.payload().len()), (next, 4000), "{}", P::NAME);
            next += 1;
        }
    }
    while let Some(came) = theirs.try_receive().unwrap() {
        assert_eq!(number(&came), next);
        next += 1;
    }
    assert_eq!((next, ours.stats().sent.messages), (800, 800));
    assert!(full > 5, "{}: the socket was full {full} times", P::NAME);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P1, P6; cases 45, 51
fn what_does_not_leave_in_time_stays_in_the_vector() {
    a_full_socket::<Packet>();
    a_full_socket::<Libcamera>();
    a_full_socket::<Stream>();
}

/// One that is never sent: those before it left, it and those behind it stay.
fn one_at_fault<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(Limits::new().descriptors(4));
    for place in [0, 1, 7] {
        let mut burst = numbered(0..10, 100);
        burst[place] = std::mem::take(&mut burst[place]).with(files(1).remove(0));
        drop(burst[place].take(0));
        let error = ours.send_all(&mut burst).unwrap_err();
        assert_eq!(error, Misuse::DescriptorTaken { index: 0 }.into());
        assert_eq!(burst.iter().map(number).collect::<Vec<_>>(), (place as u32..10).collect::<Vec<_>>());
        for expected in 0..place as u32 {
            assert_eq!(number(&theirs.receive_by(soon()).unwrap()), expected, "{}", P::NAME);
        }
        assert!(theirs.try_receive().unwrap().is_none());
    }
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6
fn a_message_at_fault_is_the_first_that_stays() {
    one_at_fault::<Packet>();
    one_at_fault::<Libcamera>();
    one_at_fault::<Stream>();
}

#[test] // P6: SO_SNDBUF was raised behind the channel's back
fn what_fits_into_the_socket_now_is_sent() {
    let ledger = Ledger::open();
    let (mut theirs, ours) = Channel::<Packet>::pair(Limits::new()).unwrap();
    set_option(&ours, libc::SO_SNDBUF, 8192).unwrap();
    let mut ours = Channel::<Packet>::from_fd(ours, Limits::new()).unwrap();
    set_option(&twin(&ours), libc::SO_SNDBUF, 100_000).unwrap();
    let mut burst = numbered(7..8, 40_000);
    assert_eq!(ours.send_all_by(&mut burst, soon()).unwrap(), Sent::Complete);
    assert_eq!(number(&theirs.receive_by(soon()).unwrap()), 7);
    drop((ours, theirs));
    ledger.close();
}

#[test] // P6; case 56
fn a_packet_refused_as_a_whole_goes_out_message_by_message() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(Limits::new());
    // Below what the channel asked when it was made: packets of 30 frames are too large now.
    set_option(&twin(&ours), libc::SO_SNDBUF, 8192).unwrap();
    let mut burst = numbered(0..30, 1000);
    burst.insert(20, numbered(99..100, 40_000).remove(0));
    let receiving = std::thread::spawn(move || {
        let came: Vec<_> = (0..20).map(|_| number(&theirs.receive_by(soon()).unwrap())).collect();
        (theirs, came)
    });
    let error = ours.send_all_by(&mut burst, soon()).unwrap_err();
    let limit = 2 * 8192 - 32 - 16;
    assert_eq!(error, Misuse::PayloadTooLarge { bytes: 40_000, limit }.into());
    assert_eq!(
        burst.iter().map(number).collect::<Vec<_>>(),
        [&[99][..], &(20..30).collect::<Vec<_>>()].concat()
    );
    let (mut theirs, came) = receiving.join().unwrap();
    assert_eq!(came, (0..20).collect::<Vec<_>>());
    // Past the one at fault packets are made again, of the size that the socket takes.
    drop(burst.remove(0));
    assert_eq!(ours.send_all_by(&mut burst, soon()).unwrap(), Sent::Complete);
    for expected in 20..30 {
        assert_eq!(number(&theirs.receive_by(soon()).unwrap()), expected);
    }
    drop((ours, theirs));
    ledger.close();
}

fn a_closed_peer<P: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, theirs) = ends::<P>(Limits::new().descriptors(1));
    drop(theirs);
    let mut burst = numbered(0..10, 50);
    burst.push(message(b"last", files(1)));
    for _ in 0..3 {
        let error = ours.send_all(&mut burst).unwrap_err();
        assert!(matches!(error, Error::PeerGone { .. }), "{}: {error:?}", P::NAME);
        assert_eq!(burst.len(), 11, "{}", P::NAME);
        assert_eq!(burst[..10].iter().map(number).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    }
    drop((ours, burst));
    ledger.close();
}

#[test] // P6
fn a_burst_to_a_closed_peer_comes_back_whole() {
    a_closed_peer::<Packet>();
    a_closed_peer::<Libcamera>();
    a_closed_peer::<Stream>();
}

#[test] // P5: a back-off left behind made a receive spin until its deadline
fn a_burst_given_up_under_pressure_leaves_no_back_off() {
    let mut sender = Sender::<Packet, OwnedFd>::new();
    let burst = numbered(0..3, 10);
    assert_eq!(sender.pack_burst(&burst), 3);
    assert!(matches!(sender.failed(Duration::from_secs(1), Failure::Pressure), Outcome::BackOff));
    assert!(sender.deadline().is_some());
    sender.burst_over();
    assert_eq!(sender.deadline(), None);
}

#[test] // P6
fn what_was_pending_comes_back_before_the_burst() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(Limits::new());
    let last = driver::fill_until_pending(&mut ours, &mut theirs, Channel::try_send);
    drop(theirs);
    let mut burst = numbered(500..503, 40);
    assert!(matches!(ours.send_all(&mut burst), Err(Error::PeerGone { .. })));
    assert_eq!(burst.iter().map(number).collect::<Vec<_>>(), [last, 500, 501, 502]);
    drop((ours, burst));
    ledger.close();
}

#[test] // P6: of the last message of a burst a part has left: the rest is pending, and none comes back.
fn a_burst_of_which_all_but_a_part_has_left_is_pending() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Stream>(Limits::new().payload(8 << 20));
    let mut burst = vec![Message::new(b"whole"), Message::new(vec![7; 4 << 20])];
    assert_eq!(ours.send_all_by(&mut burst, after(20)).unwrap(), Sent::Pending);
    assert!(burst.is_empty() && ours.has_pending());
    // Behind it one of which nothing has left: that one does come back, in time.
    let mut late = vec![Message::new(b"late")];
    assert_eq!(ours.send_all_by(&mut late, after(20)).unwrap_err(), Error::TimedOut);
    assert_eq!(late.len(), 1);
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| [(); 2].map(|()| theirs.receive_by(soon()).unwrap().payload().len()));
        ours.flush_by(soon()).unwrap();
        assert_eq!(reads.join().unwrap(), [5, 4 << 20]);
    });
    drop((ours, theirs));
    ledger.close();
}
