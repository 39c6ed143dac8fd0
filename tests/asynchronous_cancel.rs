//! Futures that are given up at every poll, over real sockets: what each leaves behind.
//!
//! Every await of the crate's is a wait for the socket, for time, for the queue, or for the task's turn.
//! A future polled n times and dropped stops at its n-th wait; whatever n, the conversation goes on whole.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/runtime.rs"]
mod runtime;
mod support;

use std::thread;
use std::time::Duration;

use driver::{Wire, message};
use fdpost::outbox::Bounds;
use fdpost::{AsyncChannel, Channel, Libcamera, Limits, Message, Packet, Sent, Stream};
use runtime::{on_both, others, poll_once, polls};
use support::{Ledger, files, identity, raw_send, soon};

// No honest message here is late, however slow the machine.
const LIMITS: Limits = Limits::new().descriptors(2).assembly_timeout(Duration::from_secs(600));

/// Polls after which a future is given up.
const POLLS: [u32; 4] = [1, 2, 3, 5];

/// Every third has a descriptor, every size is another.
fn nth(number: u32) -> Message {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(4 + (number as usize * 37) % 3000, number as u8);
    message(&payload, files(usize::from(number % 3 == 0)))
}

#[track_caller]
fn assert_nth(message: &Message, number: u32) {
    assert_eq!(driver::number(message), number);
    assert_eq!(message.payload().len(), 4 + (number as usize * 37) % 3000);
    assert!(message.payload()[4..].iter().all(|byte| *byte == number as u8));
    assert_eq!(message.descriptor_count(), usize::from(number % 3 == 0));
}

/// A receive given up anywhere loses nothing.
fn receives<P: Wire>(split: bool) {
    const COUNT: u32 = 500;
    let ledger = Ledger::open();
    on_both(async || {
        for most in POLLS {
            let (ours, theirs) = AsyncChannel::<P>::pair(LIMITS).unwrap();
            let mut theirs = Channel::<P>::from_fd(theirs, LIMITS).unwrap();
            let peer = thread::spawn(move || {
                (0..COUNT).for_each(|number| theirs.send(nth(number)).unwrap());
                theirs
            });
            let mut given_up = 0;
            if split {
                let (_sending, mut receiving) = ours.split();
                for number in 0..COUNT {
                    let message = loop {
                        match polls(most, receiving.receive(), || {}).await {
                            Some(message) => break message.unwrap(),
                            None => given_up += 1,
                        }
                        tokio::task::yield_now().await;
                    };
                    assert_nth(&message, number);
                }
            } else {
                let mut ours = ours;
                let mut message = Message::default();
                for number in 0..COUNT {
                    while polls(most, ours.receive_into(&mut message), || {}).await.is_none() {
                        given_up += 1;
                        assert!(message.payload().is_empty() && message.descriptor_count() == 0);
                        tokio::task::yield_now().await;
                    }
                    assert_nth(&message, number);
                }
            }
            assert!(most > 1 || given_up > 0, "nothing was given up");
            drop(peer.join().unwrap());
        }
    });
    ledger.close();
}

#[test] // P1, P2
fn libcamera_a_receive_given_up() {
    receives::<Libcamera>(false);
    receives::<Libcamera>(true);
}

#[test] // P1, P2
fn packet_a_receive_given_up() {
    receives::<Packet>(false);
    receives::<Packet>(true);
}

#[test] // P1, P2
fn stream_a_receive_given_up() {
    receives::<Stream>(false);
    receives::<Stream>(true);
}

/// Given up between the parts of a message, which stay in the channel.
#[test] // P1, P2
fn a_receive_given_up_between_two_parts() {
    let ledger = Ledger::open();
    on_both(async || {
        let (ours, theirs) = Channel::<Libcamera>::pair(LIMITS).unwrap();
        let mut ours = AsyncChannel::new(ours).unwrap();
        let file = files(1);
        let name = identity(&file[0]);
        raw_send(&theirs, &support::libcamera_header(4, 1), &[]);
        for _ in 0..20 {
            assert!(polls(1, ours.receive(), || {}).await.is_none());
            others().await;
        }
        raw_send(&theirs, b"rest", &file);
        let message = ours.receive().await.unwrap();
        assert_eq!((message.payload(), identity(message.descriptor(0).unwrap())), (&b"rest"[..], name));

        let (ours, theirs) = Channel::<Stream>::pair(LIMITS).unwrap();
        let mut ours = AsyncChannel::new(ours).unwrap();
        for byte in [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7, 8] {
            assert!(polls(1, ours.receive(), || {}).await.is_none());
            raw_send(&theirs, &[byte], &[]);
            others().await;
        }
        assert_eq!(ours.receive().await.unwrap().payload(), [7, 8]);
    });
    ledger.close();
}

/// What the peer reads of it, in order: numbers only, each message checked.
fn reads<P: Wire>(peer: &mut AsyncChannel<P>, most: u32, came: &mut Vec<u32>) {
    for _ in 0..most {
        let Some(message) = peer.try_receive().unwrap() else { break };
        let number = driver::number(&message);
        assert_nth(&message, number);
        came.push(number);
    }
}

/// A send given up anywhere: nothing of the message leaves, or all of it does, and the channel says
/// which.
fn sends<P: Wire>() {
    const COUNT: u32 = 600;
    let ledger = Ledger::open();
    on_both(async || {
        let mut given_up = 0;
        for most in POLLS {
            let (mut ours, mut theirs) = runtime::ends::<P>(LIMITS);
            let (mut expected, mut came) = (Vec::new(), Vec::new());
            for number in 0..COUNT {
                // Only so does what is pending afterwards tell of this message.
                while polls(1, ours.flush(), || {}).await.is_none() {
                    reads(&mut theirs, 1, &mut came);
                    tokio::task::yield_now().await;
                }
                let result = polls(most, ours.send(nth(number)), || reads(&mut theirs, 1, &mut came)).await;
                if let Some(result) = result {
                    result.unwrap();
                    expected.push(number);
                    continue;
                }
                given_up += 1;
                if ours.has_pending() {
                    expected.push(number);
                }
                if number % 5 == 0 {
                    reads(&mut theirs, 4, &mut came);
                }
            }
            let (flushed, ()) = tokio::join!(ours.flush(), async {
                while came.len() < expected.len() {
                    let message = theirs.receive().await.unwrap();
                    assert_nth(&message, driver::number(&message));
                    came.push(driver::number(&message));
                }
            });
            flushed.unwrap();
            assert_eq!(came, expected);
            assert!(theirs.try_receive().unwrap().is_none());
        }
        assert!(given_up > 0, "nothing was given up");
    });
    ledger.close();
}

#[test] // P2, P6
fn libcamera_a_send_given_up() {
    sends::<Libcamera>();
}

#[test] // P2, P6
fn packet_a_send_given_up() {
    sends::<Packet>();
}

#[test] // P2, P6
fn stream_a_send_given_up() {
    sends::<Stream>();
}

/// As long as nothing of it left, a send given up is as if it had not begun.
#[test] // P2, P6
fn a_send_given_up_before_its_first_byte() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = runtime::ends::<Packet>(LIMITS);
        let mut sent = 0;
        while ours.try_send(nth(sent)).is_ok() {
            sent += 1;
        }
        assert!(polls(1, ours.send(nth(sent)), || {}).await.is_none());
        assert!(!ours.has_pending());
        let mut came = Vec::new();
        reads(&mut theirs, sent + 1, &mut came);
        assert_eq!(came.len() as u32, sent);
    });
    ledger.close();
}

/// Given up between its two datagrams, or in the middle of its bytes: the rest goes first, by a send, a
/// flush or a receive.
#[test] // P6; cases 15, 45
fn a_send_given_up_half_way() {
    let ledger = Ledger::open();
    on_both(async || {
        for next in 0..3 {
            let (mut ours, mut theirs) = runtime::ends::<Stream>(LIMITS.payload(1 << 20));
            let large = vec![5; 1 << 20];
            assert!(polls(1, ours.send(message(&large, files(1))), || {}).await.is_none());
            assert!(ours.has_pending(), "more than a socket holds");
            let others_turn = async {
                let message = theirs.receive().await.unwrap();
                assert!(message.payload() == large && message.descriptor_count() == 1);
                theirs.send(Message::new(b"whole")).await.unwrap();
            };
            let goes_on = async {
                match next {
                    0 => ours.send(Message::new(b"behind it")).await.unwrap(),
                    1 => ours.flush().await.unwrap(),
                    _ => {}
                }
                assert_eq!(ours.receive().await.unwrap().payload(), b"whole");
            };
            tokio::join!(goes_on, others_turn);
            assert_eq!(theirs.try_receive().unwrap().is_some(), next == 0);
        }
    });
    ledger.close();
}

/// What waits for the socket without a message of its own.
#[test] // P6
fn a_flush_and_a_wait_for_room_given_up() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = runtime::ends::<Stream>(LIMITS.payload(1 << 20));
        let large = vec![5; 1 << 20];
        assert_eq!(ours.try_send(Message::new(&large[..])).unwrap(), Sent::Pending);
        for most in POLLS {
            assert!(polls(1, ours.flush(), || {}).await.is_none(), "{most}");
            assert!(polls(1, ours.ready_to_send(), || {}).await.is_none());
            others().await;
        }
        let (ready, message) = tokio::join!(ours.ready_to_send(), theirs.receive());
        ready.unwrap();
        assert!(message.unwrap().payload() == large);
        assert_eq!(ours.try_send(Message::new(b"on")).unwrap(), Sent::Complete);
    });
    ledger.close();
}

/// On a half: given up while it waits for room, it never was there; later, it leaves in its turn.
fn sends_of_a_half<P: Wire>() {
    const COUNT: u32 = 600;
    let ledger = Ledger::open();
    on_both(async || {
        let mut given_up = 0;
        for most in POLLS {
            let (ours, mut theirs) = runtime::ends::<P>(LIMITS);
            let (sending, _receiving) = ours.split_within(Bounds::new().messages(3));
            let (mut sent, mut came) = (Vec::new(), Vec::new());
            for number in 0..COUNT {
                let send = sending.send(nth(number));
                match polls(most, send, || reads(&mut theirs, 1, &mut came)).await {
                    Some(result) => {
                        result.unwrap();
                        sent.push(number);
                    }
                    None => given_up += 1,
                }
                if number % 5 == 0 {
                    reads(&mut theirs, 4, &mut came);
                }
            }
            let mut flush = Box::pin(sending.flush());
            while poll_once(flush.as_mut()).await.is_pending() {
                reads(&mut theirs, 1000, &mut came);
                tokio::task::yield_now().await;
            }
            drop(flush);
            reads(&mut theirs, COUNT, &mut came);
            assert!(came.is_sorted_by(|one, two| one < two), "{came:?}");
            assert!(sent.iter().all(|number| came.contains(number)), "{sent:?} and {came:?}");
            assert_eq!((sending.sent().messages, sending.lost().messages), (came.len() as u64, 0));
        }
        assert!(given_up > 0, "nothing was given up");
    });
    ledger.close();
}

#[test] // P2, P6, P7
fn libcamera_a_send_of_a_half_given_up() {
    sends_of_a_half::<Libcamera>();
}

#[test] // P2, P6, P7
fn packet_a_send_of_a_half_given_up() {
    sends_of_a_half::<Packet>();
}

#[test] // P2, P6, P7
fn stream_a_send_of_a_half_given_up() {
    sends_of_a_half::<Stream>();
}

/// What a task has sent of two leaves in order also if the first was given up in the queue.
#[test] // P7
fn a_half_flushes_what_was_given_up() {
    let ledger = Ledger::open();
    on_both(async || {
        let (ours, theirs) = AsyncChannel::<Packet>::pair(LIMITS).unwrap();
        let mut theirs = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
        let (sending, _receiving) = ours.split();
        let mut before = 0_u32;
        while sending.try_send(nth(before)).unwrap() == Sent::Complete {
            before += 1;
        }
        assert!(polls(1, sending.send(nth(before + 1)), || {}).await.is_none());
        assert!(polls(1, sending.flush(), || {}).await.is_none());
        let reader = thread::spawn(move || {
            (0..before + 2).for_each(|number| assert_nth(&theirs.receive_by(soon()).unwrap(), number));
            theirs
        });
        sending.flush().await.unwrap();
        assert_eq!(sending.sent().messages, u64::from(before) + 2);
        drop(reader.join().unwrap());
    });
    ledger.close();
}
