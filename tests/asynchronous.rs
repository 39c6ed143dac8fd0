//! Whole channels in Tokio's reactor, over real sockets.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/runtime.rs"]
mod runtime;
mod support;

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use driver::{Wire, message, returned};
use fdpost::{
    Accept, AsyncChannel, Channel, Error, Libcamera, Limits, Message, Misuse, Packet, Policy, Sent, Stream,
    Violation,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use runtime::{ends, in_time, on_both, poll_once, runtimes};
use support::{Ledger, files, identity, raw_send, soon, try_raw_send, unguarded_pair};

// No honest message here is late, however slow the machine.
const LIMITS: Limits = Limits::new().descriptors(2).assembly_timeout(Duration::from_secs(600));

fn is_nonblocking(socket: &impl AsFd) -> bool {
    OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

fn both_ways<P: Wire>() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = ends::<P>(LIMITS);
        let file = files(1);
        let name = identity(&file[0]);
        ours.send(message(b"there", file)).await.unwrap();
        let came = theirs.receive().await.unwrap();
        assert_eq!((came.payload(), identity(came.descriptor(0).unwrap())), (&b"there"[..], name));
        // Reads nothing twice, and sleeps until there is something.
        let mut receive = Box::pin(ours.receive());
        for _ in 0..3 {
            assert!(poll_once(receive.as_mut()).await.is_pending());
        }
        theirs.send(Message::new(b"back")).await.unwrap();
        assert_eq!(receive.as_mut().await.unwrap().payload(), b"back");
        drop(receive);
        // P2: the flag is everybody's who holds the socket.
        assert!(!is_nonblocking(&ours) && !is_nonblocking(&theirs));
        assert_eq!((ours.stats().sent.messages, ours.stats().received.messages), (1, 1));
    });
    ledger.close();
}

#[test] // P1, P2
fn libcamera_both_ways() {
    both_ways::<Libcamera>();
}

#[test] // P1, P2
fn packet_both_ways() {
    both_ways::<Packet>();
}

#[test] // P1, P2
fn stream_both_ways() {
    both_ways::<Stream>();
}

/// More than the socket holds, in both directions at once, from a blocking peer in a thread.
fn echoes<P: Wire>() {
    const COUNT: u32 = 3000;
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, theirs) = AsyncChannel::<P>::pair(LIMITS).unwrap();
        let mut theirs = Channel::<P>::from_fd(theirs, LIMITS).unwrap();
        let echo = thread::spawn(move || {
            while let Ok(message) = theirs.receive() {
                if theirs.send(message).is_err() {
                    break;
                }
            }
        });
        for number in 0..COUNT {
            let mut payload = vec![number as u8; 4 + (number % 4000) as usize];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            ours.send(Message::new(payload)).await.unwrap();
            let back = ours.receive().await.unwrap();
            assert_eq!(back.payload().len(), 4 + (number % 4000) as usize);
            assert_eq!(back.payload()[..4], number.to_le_bytes());
        }
        drop(ours);
        tokio::task::spawn_blocking(|| echo.join().unwrap()).await.unwrap();
    });
    ledger.close();
}

#[test] // P1, P6
fn libcamera_echoes() {
    // A datagram socket does not see its peer close: the echo's end is our shutdown.
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = ends::<Libcamera>(LIMITS);
        for number in 0..3000_u32 {
            ours.send(Message::new(number.to_le_bytes())).await.unwrap();
            let message = theirs.receive().await.unwrap();
            theirs.send(message).await.unwrap();
            assert_eq!(ours.receive().await.unwrap().payload(), number.to_le_bytes());
        }
    });
    ledger.close();
}

#[test] // P1, P6
fn packet_echoes() {
    echoes::<Packet>();
}

#[test] // P1, P6
fn stream_echoes() {
    echoes::<Stream>();
}

/// A full socket: the sender sleeps, and goes on when the peer reads.
fn a_full_socket<P: Wire>() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = ends::<P>(LIMITS);
        let mut sent = 0_u32;
        loop {
            let mut send = Box::pin(ours.send(Message::new([sent as u8; 3000])));
            if poll_once(send.as_mut()).await.is_ready() {
                sent += 1;
                continue;
            }
            // Nothing is read yet: still full after the reactor had its say.
            runtime::others().await;
            if poll_once(send.as_mut()).await.is_ready() {
                sent += 1;
                continue;
            }
            let reads = async {
                for number in 0..=sent {
                    assert_eq!(theirs.receive().await.unwrap().payload(), [number as u8; 3000]);
                }
            };
            let (result, ()) = tokio::join!(send.as_mut(), reads);
            result.unwrap();
            break;
        }
        assert!(sent > 2 && !ours.has_pending());
    });
    ledger.close();
}

#[test] // P6
fn libcamera_a_full_socket() {
    a_full_socket::<Libcamera>();
}

#[test] // P6
fn packet_a_full_socket() {
    a_full_socket::<Packet>();
}

#[test] // P6
fn stream_a_full_socket() {
    a_full_socket::<Stream>();
}

/// What one call left behind leaves while another waits to receive.
fn what_is_pending_leaves_while_receiving<P: Wire>() {
    let ledger = Ledger::open();
    on_both(async || {
        let (ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
        let (mut ours, mut theirs) = (ours, Channel::<P>::from_fd(theirs, LIMITS).unwrap());
        let last = if P::NAME == "stream" {
            // A large message leaves in parts.
            (0_u32..).find(|number| {
                let payload = [&number.to_le_bytes()[..], &[0; 40_000]].concat();
                ours.try_send(Message::new(payload)).unwrap() == Sent::Pending
            })
        } else {
            Some(driver::fill_until_pending(&mut ours, &mut theirs, Channel::try_send))
        };
        let mut ours = AsyncChannel::new(ours).unwrap();
        let mut theirs = AsyncChannel::new(theirs).unwrap();
        let mut receive = Box::pin(ours.receive());
        let reads = async {
            while Some(driver::number(&theirs.receive().await.unwrap())) != last {}
            theirs.send(Message::new(b"all came")).await.unwrap();
        };
        let (came, ()) = tokio::join!(receive.as_mut(), reads);
        assert_eq!(came.unwrap().payload(), b"all came");
    });
    ledger.close();
}

#[test] // P6, P7
fn libcamera_what_is_pending_leaves_while_receiving() {
    what_is_pending_leaves_while_receiving::<Libcamera>();
}

#[test] // P6, P7
fn stream_what_is_pending_leaves_while_receiving() {
    what_is_pending_leaves_while_receiving::<Stream>();
}

/// A channel keeps what it has read and what is pending on its way in and out of the reactor.
#[test] // P1, P6
fn in_and_out_of_the_reactor() {
    let ledger = Ledger::open();
    on_both(async || {
        let (ours, mut theirs) = driver::ends::<Packet>(LIMITS);
        let mut ours = AsyncChannel::try_from(ours).unwrap();
        // One packet, two messages: the second has been read when the first is delivered.
        let mut packet = Vec::new();
        for payload in [b"one", b"two"] {
            packet.extend(support::packet_header(3, 0));
            packet.extend(payload);
        }
        raw_send(&theirs.as_fd(), &packet, &[]);
        assert_eq!(ours.receive().await.unwrap().payload(), b"one");
        let mut ours: Channel<Packet> = ours.into();
        let mut again = AsyncChannel::new({
            assert_eq!(ours.try_receive().unwrap().unwrap().payload(), b"two");
            raw_send(&theirs.as_fd(), &packet, &[]);
            assert_eq!(ours.receive().unwrap().payload(), b"one");
            ours
        })
        .unwrap();
        // No readiness tells of it: it was read before the reactor knew the socket.
        assert_eq!(again.receive().await.unwrap().payload(), b"two");
        again.send(Message::new(b"three")).await.unwrap();
        assert_eq!(theirs.receive_by(soon()).unwrap().payload(), b"three");
    });
    ledger.close();
}

fn a_shutdown_wakes<P: Wire>() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = ends::<P>(LIMITS);
        theirs.send(Message::new(b"queued")).await.unwrap();
        let closer = ours.closer();
        assert_eq!(ours.receive().await.unwrap().payload(), b"queued");
        let mut receive = Box::pin(ours.receive());
        assert!(poll_once(receive.as_mut()).await.is_pending());
        let other = thread::spawn(move || closer.shutdown());
        assert_eq!(receive.as_mut().await.unwrap_err(), Error::Closed, "{}", P::NAME);
        drop(receive);
        other.join().unwrap();
        assert_eq!(ours.receive().await.unwrap_err(), Error::Closed);
        let (error, back) = returned(ours.send(Message::new(b"late")).await);
        assert_eq!((error, back.payload()), (Error::Closed, &b"late"[..]));

        // And one that waits for room.
        let (mut ours, _theirs) = ends::<P>(LIMITS);
        let closer = ours.closer();
        let mut send = loop {
            let mut send = Box::pin(ours.send(Message::new([1; 3000])));
            if poll_once(send.as_mut()).await.is_pending() {
                break send;
            }
        };
        closer.shutdown();
        let error = send.as_mut().await.map(|()| "it left").unwrap_err();
        assert_eq!((error.error, error.messages.len()), (Error::Closed, 1), "{}", P::NAME);
    });
    ledger.close();
}

#[test] // P5
fn libcamera_a_shutdown_wakes() {
    a_shutdown_wakes::<Libcamera>();
}

#[test] // P5
fn packet_a_shutdown_wakes() {
    a_shutdown_wakes::<Packet>();
}

#[test] // P5
fn stream_a_shutdown_wakes() {
    a_shutdown_wakes::<Stream>();
}

/// `reads`: what it said before is still there to be read, and its end too. On a datagram socket the
/// kernel drops what is unread when a send meets a dead peer (net/unix/af_unix.c,
/// unix_dgram_disconnected), and a read never sees the end.
fn a_dead_peer<P: Wire>(reads: bool) {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = ends::<P>(LIMITS);
        theirs.send(Message::new(b"last words")).await.unwrap();
        let mut send = loop {
            let mut send = Box::pin(ours.send(message(&[1; 3000], files(1))));
            if poll_once(send.as_mut()).await.is_pending() {
                break send;
            }
        };
        drop(theirs);
        let error = send.as_mut().await.map(|()| "it left").unwrap_err();
        assert!(matches!(error.error, Error::PeerGone { .. }), "{}: {error:?}", P::NAME);
        assert_eq!((error.messages.len(), error.messages[0].descriptor_count()), (1, 1));
        drop((error, send));
        if reads {
            assert_eq!(ours.receive().await.unwrap().payload(), b"last words", "{}", P::NAME);
            assert_eq!(ours.receive().await.unwrap_err(), Error::Closed, "{}", P::NAME);
        }
    });
    ledger.close();
}

#[test] // P2, P6; case 14
fn libcamera_a_dead_peer() {
    a_dead_peer::<Libcamera>(false);
}

#[test] // P2, P6; case 14
fn packet_a_dead_peer() {
    a_dead_peer::<Packet>(true);
}

#[test] // P2, P6; case 14
fn stream_a_dead_peer() {
    a_dead_peer::<Stream>(true);
}

#[test] // P3; case 31
fn a_violation_is_final() {
    let ledger = Ledger::open();
    on_both(async || {
        let (ours, theirs) = unguarded_pair::<Libcamera>(Limits::new());
        let mut ours = AsyncChannel::new(ours).unwrap();
        let reaped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&reaped);
        ours.set_reaper(move |_| told.store(true, Ordering::SeqCst));
        let mut receive = Box::pin(ours.receive());
        assert!(poll_once(receive.as_mut()).await.is_pending());
        raw_send(&theirs, &support::libcamera_header(0, 1), &[]);
        raw_send(&theirs, b"", &files(1));
        let error = receive.as_mut().await.unwrap_err();
        drop(receive);
        assert!(matches!(error, Error::Violation(_)), "{error:?}");
        assert_eq!(ours.receive().await.unwrap_err(), error);
        assert_eq!(returned(ours.send(Message::new(b"x")).await).0, error);
        assert_eq!(ours.stats().violation, error.violation());
        assert!(try_raw_send(&theirs, b"more", &[]).is_err(), "the socket is shut down");
        drop(ours);
    });
    ledger.close();
}

/// The kinds of descriptors are looked at however a message is delivered: also one that was read along
/// with another.
#[test] // P3, P9
fn a_policy_is_asked_for_each_message() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
        ours.set_policy(Policy::new().every(Accept::pipe()));
        let mut ours = AsyncChannel::new(ours).unwrap();
        let packet = [&support::packet_header(1, 0)[..], b"1", &support::packet_header(1, 1), b"2"].concat();
        raw_send(&theirs, &packet, &files(1));
        assert_eq!(ours.receive().await.unwrap().payload(), b"1");
        let error = ours.receive().await.unwrap_err();
        assert!(matches!(error, Error::Violation(Violation::DescriptorKind { .. })), "{error:?}");
    });
    ledger.close();
}

#[test] // P6
fn misuse_gives_the_message_back() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, _theirs) = ends::<Packet>(LIMITS);
        let (error, back) = returned(ours.send(Message::new(vec![1; 5 << 20])).await);
        assert!(matches!(error, Error::Misuse(Misuse::PayloadTooLarge { .. })), "{error:?}");
        assert_eq!(back.payload().len(), 5 << 20);
    });
    ledger.close();
}

#[test] // P6
fn ready_to_send_and_then_it_fits() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = ends::<Packet>(LIMITS);
        let mut sent = 0;
        while let Ok(Sent::Complete) = ours.try_send(Message::new([4; 3000])) {
            sent += 1;
        }
        let mut ready = Box::pin(ours.ready_to_send());
        for _ in 0..3 {
            assert!(poll_once(ready.as_mut()).await.is_pending());
            runtime::others().await;
        }
        let reads = async {
            for _ in 0..sent {
                theirs.receive().await.unwrap();
            }
        };
        let (result, ()) = tokio::join!(ready.as_mut(), reads);
        result.unwrap();
        drop(ready);
        assert_eq!(ours.try_send(Message::new([5; 3000])).unwrap(), Sent::Complete);
    });
    ledger.close();
}

/// Who only receives, or only sends, lets the other tasks of its thread run.
#[test] // P5
fn a_flood_leaves_others_their_turn() {
    let ledger = Ledger::open();
    let [runtime, _] = runtimes();
    runtime.block_on(in_time(async {
        let (mut ours, mut theirs) = ends::<Packet>(LIMITS);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let other = tokio::spawn(async move {
            // Its turns come between the flood's.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            told.store(true, Ordering::SeqCst);
        });
        let mut drain =
            Channel::<Packet>::from_fd(theirs.as_fd().try_clone_to_owned().unwrap(), LIMITS).unwrap();
        let mut count = 0_u64;
        while !stop.load(Ordering::SeqCst) {
            ours.send(Message::new(b"flood")).await.unwrap();
            // So that the send never has to wait.
            drain.receive_by(soon()).unwrap();
            count += 1;
            assert!(count < 10_000_000, "no other task ever ran");
        }
        other.await.unwrap();

        stop.store(false, Ordering::SeqCst);
        let told = Arc::clone(&stop);
        tokio::spawn(async move {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            told.store(true, Ordering::SeqCst);
        });
        let mut count = 0_u64;
        while !stop.load(Ordering::SeqCst) {
            // So that the receive never has to wait.
            while ours.try_send(Message::new(b"flood")).is_ok() {}
            theirs.receive().await.unwrap();
            count += 1;
            assert!(count < 10_000_000, "no other task ever ran");
        }
        assert_ne!(ours.as_fd().as_raw_fd(), theirs.as_fd().as_raw_fd());
    }));
    drop(runtime);
    ledger.close();
}

#[test]
fn outside_a_runtime() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Stream>::pair(LIMITS).unwrap();
    assert_eq!(AsyncChannel::new(ours).unwrap_err(), Misuse::NoRuntime.into());
    assert_eq!(AsyncChannel::<Stream>::from_fd(theirs, LIMITS).unwrap_err(), Misuse::NoRuntime.into());
    ledger.close();
}

/// Its reactor gone, a channel says so, loses nothing, and goes on where it was.
#[test] // P1, P6
fn the_runtime_is_dropped() {
    let ledger = Ledger::open();
    for first in runtimes() {
        let (mut ours, mut theirs) = first.block_on(async { ends::<Stream>(LIMITS) });
        first.block_on(theirs.send(Message::new(b"before"))).unwrap();
        // A header without its message, so that there is a deadline to wait for as well.
        let mut receive = Box::pin(ours.receive());
        let before = first.block_on(receive.as_mut()).unwrap();
        assert_eq!(before.payload(), b"before");
        drop(receive);
        raw_send(&theirs.as_fd(), &[5, 0, 0, 0], &[]);
        first.block_on(async {
            runtime::others().await;
            assert!(runtime::polls(1, ours.receive(), || {}).await.is_none());
        });
        drop(first);
        let [second, _] = runtimes();
        let gone = Error::from(Misuse::NoRuntime);
        assert_eq!(second.block_on(ours.receive()).unwrap_err(), gone);
        let filled = loop {
            match second.block_on(ours.send(message(&[2; 3000], files(1)))) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(filled.error, gone);
        assert!(filled.messages.len() == 1 || ours.has_pending());
        second.block_on(async {
            let mut ours = AsyncChannel::new(ours.into_inner()).unwrap();
            ours.shutdown();
            assert!(matches!(
                ours.receive().await.unwrap_err(),
                Error::Closed | Error::Violation(Violation::PayloadMissing { .. })
            ));
        });
        drop((second, theirs, filled));
    }
    ledger.close();
}
