//! Many tasks on one channel in Tokio's reactor, over real sockets (P7).

#[path = "support/driver.rs"]
mod driver;
#[path = "support/runtime.rs"]
mod runtime;
mod support;

use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use driver::{Wire, message, returned};
use fdpost::outbox::Bounds;
use fdpost::{
    AsyncChannel, AsyncReceiving, AsyncSending, Error, Libcamera, Limits, Message, Misuse, Packet, Profile,
    Sent, Stream, Violation,
};
use nix::sys::socket::{setsockopt, sockopt};
use runtime::{on_both, others, poll_once, polls};
use support::{Ledger, files, pidfd, raw_send};

// No honest message here is late, however slow the machine.
const LIMITS: Limits = Limits::new().descriptors(2).assembly_timeout(Duration::from_secs(600));

fn split<P: Profile>(bounds: Bounds) -> (AsyncSending<P>, AsyncReceiving<P>, AsyncChannel<P>) {
    let (ours, theirs) = runtime::ends::<P>(LIMITS);
    let (sending, receiving) = ours.split_within(bounds);
    (sending, receiving, theirs)
}

/// Fills the socket and leaves something in the queue.
fn fill<P: Profile>(sending: &AsyncSending<P>) -> u64 {
    let mut count = 0;
    loop {
        count += 1;
        if sending.try_send(Message::new([9; 3000])).unwrap() == Sent::Pending {
            return count;
        }
    }
}

/// What task `who` sends as its message `number`: each length is another, so that a mixed-up header
/// shows.
fn nth(who: u8, number: u32) -> Vec<u8> {
    let mut payload = vec![who; 5 + (number % 300) as usize];
    payload[1..5].copy_from_slice(&number.to_le_bytes());
    payload
}

/// A task sends while another receives and sends along what it finds in the queue: whoever of the two
/// sends a message, its sender is told. Each awaits the other's, so a wake-up that is lost is a hang.
#[test] // P7
fn who_receives_tells_whose_message_left() {
    const EACH: u32 = 30_000;
    let ledger = Ledger::open();
    let [_, runtime] = runtime::runtimes();
    runtime.block_on(runtime::in_time(async {
        let (sending, mut receiving, peer) = split::<Packet>(Bounds::new());
        let mut peer = peer.into_inner();
        let echo = std::thread::spawn(move || {
            for _ in 0..EACH {
                let came = peer.receive().unwrap();
                peer.send(Message::new(came.into_payload())).unwrap();
            }
        });
        let sends = tokio::spawn(async move {
            for number in 0..EACH {
                sending.send(Message::new(number.to_le_bytes())).await.unwrap();
            }
            sending
        });
        for number in 0..EACH {
            assert_eq!(receiving.receive().await.unwrap().payload(), number.to_le_bytes());
        }
        drop((sends.await.unwrap(), receiving));
        tokio::task::spawn_blocking(|| echo.join().unwrap()).await.unwrap();
    }));
    drop(runtime);
    ledger.close();
}

fn nothing_mixes<P: Wire>() {
    const TASKS: u8 = 20;
    const EACH: u32 = 400;
    let ledger = Ledger::open();
    let owned = files(1);
    on_both(async || {
        // So few that most tasks wait for room, and some for the socket.
        let (sending, receiving, mut peer) = split::<P>(Bounds::new().messages(7));
        let tasks: Vec<_> = (0..TASKS)
            .map(|who| {
                let (sending, file) = (sending.clone(), owned[0].try_clone().unwrap());
                tokio::spawn(async move {
                    for number in 0..EACH {
                        let descriptors =
                            if number % 10 == 0 { vec![file.try_clone().unwrap()] } else { vec![] };
                        sending.send(message(&nth(who, number), descriptors)).await.unwrap();
                    }
                    sending.flush().await.unwrap();
                })
            })
            .collect();
        let mut next = [0; TASKS as usize];
        for _ in 0..u32::from(TASKS) * EACH {
            let message = peer.receive().await.unwrap();
            let who = message.payload()[0];
            let number = next[usize::from(who)];
            assert_eq!(message.payload(), nth(who, number));
            assert_eq!(message.descriptor_count(), usize::from(number % 10 == 0));
            next[usize::from(who)] += 1;
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!((sending.sent().messages, sending.lost().messages), (8000, 0));
        assert!(!sending.has_pending());
        drop((sending, receiving));
    });
    drop(owned);
    ledger.close();
}

#[test] // P2, P7; case 21
fn libcamera_nothing_mixes() {
    nothing_mixes::<Libcamera>();
}

#[test] // P2, P7; case 21
fn packet_nothing_mixes() {
    nothing_mixes::<Packet>();
}

#[test] // P2, P7; case 21
fn stream_nothing_mixes() {
    nothing_mixes::<Stream>();
}

/// The peer reads only; what is kept and not polled must not be needed.
fn a_send_that_is_kept_and_not_polled<P: Wire>() {
    let ledger = Ledger::open();
    on_both(async || {
        let (sending, _receiving, mut peer) = split::<P>(Bounds::new());
        let before = fill(&sending);
        // One holds a place in the queue, one would wait for room, had it been polled again.
        let mut kept = Box::pin(sending.send(Message::new(b"kept")));
        assert!(poll_once(kept.as_mut()).await.is_pending());
        let mut other = Box::pin(sending.send(Message::new(b"other")));
        assert!(poll_once(other.as_mut()).await.is_pending());
        let reads = async {
            for _ in 0..before {
                assert_eq!(peer.receive().await.unwrap().payload().len(), 3000);
            }
            assert_eq!(peer.receive().await.unwrap().payload(), b"kept");
            assert_eq!(peer.receive().await.unwrap().payload(), b"other");
        };
        let (result, ()) = tokio::join!(other.as_mut(), reads);
        result.unwrap();
        kept.await.unwrap();
    });
    ledger.close();
}

#[test] // P7
fn libcamera_a_send_that_is_kept_and_not_polled() {
    a_send_that_is_kept_and_not_polled::<Libcamera>();
}

#[test] // P7
fn packet_a_send_that_is_kept_and_not_polled() {
    a_send_that_is_kept_and_not_polled::<Packet>();
}

#[test] // P7
fn stream_a_send_that_is_kept_and_not_polled() {
    a_send_that_is_kept_and_not_polled::<Stream>();
}

/// Nobody polls a send: whoever receives sends what is queued, though it slept already when that came.
fn a_receive_stands_in<P: Wire>(keep: bool) {
    let ledger = Ledger::open();
    on_both(async || {
        let (sending, mut receiving, mut peer) = split::<P>(Bounds::new());
        let receives = tokio::spawn(async move { receiving.receive().await.unwrap().into_payload() });
        others().await;
        let before = fill(&sending);
        let mut kept = Box::pin(sending.send(Message::new(b"last")));
        assert!(poll_once(kept.as_mut()).await.is_pending());
        if !keep {
            drop(kept);
        }
        for _ in 0..before {
            assert_eq!(peer.receive().await.unwrap().payload().len(), 3000);
        }
        assert_eq!(peer.receive().await.unwrap().payload(), b"last");
        peer.send(Message::new(b"got it")).await.unwrap();
        assert_eq!(receives.await.unwrap(), b"got it");
    });
    ledger.close();
}

#[test] // P7
fn libcamera_a_receive_stands_in() {
    a_receive_stands_in::<Libcamera>(true);
    a_receive_stands_in::<Libcamera>(false);
}

#[test] // P7
fn packet_a_receive_stands_in() {
    a_receive_stands_in::<Packet>(true);
    a_receive_stands_in::<Packet>(false);
}

#[test] // P7
fn stream_a_receive_stands_in() {
    a_receive_stands_in::<Stream>(true);
    a_receive_stands_in::<Stream>(false);
}

/// Full queue and full socket: `try_send` gives back, `send` waits, and whoever is given up while it
/// waits for room leaves no trace.
#[test] // P6, P7; case 51
fn backpressure() {
    let ledger = Ledger::open();
    on_both(async || {
        let (sending, _receiving, mut peer) = split::<Packet>(Bounds::new().messages(3));
        let mut before = fill(&sending);
        let error = loop {
            match sending.try_send(Message::new([9; 3000])) {
                Ok(_) => before += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(returned::<()>(Err(error)).0, Error::WouldBlock);
        assert!(polls(1, sending.send(message(b"given up", files(1))), || {}).await.is_none());
        let mut waits = Box::pin(sending.send(Message::new(b"waits")));
        for _ in 0..3 {
            assert!(poll_once(waits.as_mut()).await.is_pending());
            others().await;
        }
        let mut flush = Box::pin(sending.flush());
        assert!(poll_once(flush.as_mut()).await.is_pending());
        let reads = async {
            for _ in 0..before {
                assert_eq!(peer.receive().await.unwrap().payload().len(), 3000);
            }
            assert_eq!(peer.receive().await.unwrap().payload(), b"waits");
        };
        let (sent, flushed, ()) = tokio::join!(waits.as_mut(), flush.as_mut(), reads);
        sent.unwrap();
        flushed.unwrap();
        assert_eq!((sending.sent().messages, sending.lost().messages), (before + 1, 0));
        assert_eq!(peer.try_receive().unwrap().map(|message| message.into_payload()), None);
    });
    ledger.close();
}

/// A packet that fitted when it was accepted: SO_SNDBUF was lowered since.
#[test] // P2, P6
fn what_the_kernel_refuses_goes_back_to_its_sender_or_is_said_by_the_next_flush() {
    let ledger = Ledger::open();
    on_both(async || {
        let limits = LIMITS.payload(200_000);
        let (ours, mut peer) = runtime::ends::<Packet>(limits);
        let (sending, receiving) = ours.split();
        let before = fill(&sending);
        let mut keeps = Box::pin(sending.send(message(&[1; 100_000], files(1))));
        assert!(poll_once(keeps.as_mut()).await.is_pending());
        let mut leaves = Box::pin(sending.send(message(&[2; 100_000], files(1))));
        assert!(poll_once(leaves.as_mut()).await.is_pending());
        let mut later = Box::pin(sending.send(message(&[3; 100_000], files(1))));
        assert!(poll_once(later.as_mut()).await.is_pending());
        let mut fits = Box::pin(sending.send(Message::new(b"fits")));
        assert!(poll_once(fits.as_mut()).await.is_pending());
        setsockopt(&receiving, sockopt::SndBuf, &4096).unwrap();
        // Given up before it is refused.
        drop(leaves);
        let reads = async {
            for _ in 0..before {
                assert_eq!(peer.receive().await.unwrap().payload().len(), 3000);
            }
            assert_eq!(peer.receive().await.unwrap().payload(), b"fits");
        };
        let (result, ()) = tokio::join!(fits.as_mut(), reads);
        result.unwrap();
        // Refused by now, and waiting for its owner: given up behind that.
        drop(later);
        let (error, back) = returned(keeps.as_mut().await);
        // The kernel doubles SO_SNDBUF (socket(7)) and takes 32 of it, the frame's header 16.
        let too_large = Error::Misuse(Misuse::PayloadTooLarge { bytes: 100_000, limit: 2 * 4096 - 32 - 16 });
        assert_eq!((error, back.descriptor_count()), (too_large, 1));
        drop(back);
        assert_eq!(sending.lost().messages, 3);
        assert_eq!(sending.flush().await.unwrap_err(), too_large, "said once");
        assert_eq!(sending.flush().await, Ok(()));
        // The direction lives.
        sending.send(Message::new(b"on")).await.unwrap();
        assert_eq!(peer.receive().await.unwrap().payload(), b"on");
    });
    ledger.close();
}

/// The only refusal is one whose sender had come for it, and left without looking.
#[test] // P2, P6
fn a_refusal_whose_sender_is_dropped_is_not_forgotten() {
    let ledger = Ledger::open();
    on_both(async || {
        let (sending, receiving, mut peer) = split::<Packet>(Bounds::new());
        let before = fill(&sending);
        let mut leaves = Box::pin(sending.send(message(&[2; 100_000], files(1))));
        assert!(poll_once(leaves.as_mut()).await.is_pending());
        setsockopt(&receiving, sockopt::SndBuf, &4096).unwrap();
        // The last of them is still in the queue.
        for _ in 1..before {
            peer.receive().await.unwrap();
        }
        while sending.has_pending() {
            let _sends_what_it_meets = sending.try_send(Message::new(b"others")).unwrap();
        }
        drop(leaves);
        let error = sending.flush().await.unwrap_err();
        assert!(matches!(error, Error::Misuse(Misuse::PayloadTooLarge { bytes: 100_000, .. })), "{error:?}");
    });
    ledger.close();
}

/// What ends a conversation: the error to expect, and the peer if it lives.
type End<P> = fn(&AsyncReceiving<P>, AsyncChannel<P>) -> (Error, Option<AsyncChannel<P>>);

fn an_end_wakes_everybody<P: Wire>(end: End<P>) {
    let ledger = Ledger::open();
    on_both(async || {
        let (sending, mut receiving, peer) = split::<P>(Bounds::new().messages(4));
        fill(&sending);
        let tasks: Vec<_> = (0..6)
            .map(|number| {
                let sending = sending.clone();
                tokio::spawn(async move { sending.send(message(&[number], files(1))).await })
            })
            .collect();
        let flush = tokio::spawn({
            let sending = sending.clone();
            async move { sending.flush().await }
        });
        others().await;
        let (expected, _peer) = end(&receiving, peer);
        let received = receiving.receive().await.unwrap_err();
        let same = |error: Error| match expected {
            Error::PeerGone { .. } => matches!(error, Error::PeerGone { .. }),
            Error::Violation(_) => error == received && error.violation().is_some(),
            _ => error == expected && error == received,
        };
        for task in tasks {
            let (error, back) = returned(task.await.unwrap());
            assert!(same(error), "{error:?}, not {expected:?}");
            assert_eq!(back.descriptor_count(), 1);
        }
        let error = flush.await.unwrap().unwrap_err();
        assert!(same(error), "{error:?}, not {expected:?}");
        assert!(same(returned(sending.send(Message::new(b"late")).await).0));
    });
    ledger.close();
}

fn shuts<P: Profile>(
    receiving: &AsyncReceiving<P>,
    peer: AsyncChannel<P>,
) -> (Error, Option<AsyncChannel<P>>) {
    receiving.shutdown();
    (Error::Closed, Some(peer))
}

fn dies<P: Profile>(_: &AsyncReceiving<P>, peer: AsyncChannel<P>) -> (Error, Option<AsyncChannel<P>>) {
    drop(peer);
    (Error::PeerGone { errno: 0 }, None)
}

/// No wire has a message of so many bytes.
fn violates<P: Profile>(_: &AsyncReceiving<P>, peer: AsyncChannel<P>) -> (Error, Option<AsyncChannel<P>>) {
    let header = match P::NAME {
        "packet" => support::packet_header(u32::MAX, 0).to_vec(),
        "libcamera" => support::libcamera_header(u32::MAX, 0).to_vec(),
        _ => [[0; 4], [0xff; 4], [0; 4]].concat(),
    };
    raw_send(&peer.as_fd(), &header, &[]);
    (Error::Violation(Violation::TooManyFrames { limit: 0 }), Some(peer))
}

#[test] // P2, P5, P6
fn a_shutdown_wakes_everybody() {
    an_end_wakes_everybody::<Libcamera>(shuts);
    an_end_wakes_everybody::<Packet>(shuts);
    an_end_wakes_everybody::<Stream>(shuts);
}

#[test] // P2, P6; case 14
fn a_dead_peer_wakes_everybody() {
    an_end_wakes_everybody::<Packet>(dies);
    an_end_wakes_everybody::<Stream>(dies);
}

#[test] // P2, P3
fn a_violation_wakes_everybody() {
    an_end_wakes_everybody::<Libcamera>(violates);
    an_end_wakes_everybody::<Packet>(violates);
    an_end_wakes_everybody::<Stream>(violates);
}

fn idle() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// A watched process ends: nothing else shows it where others hold the peer's end, or on datagrams.
fn a_watched_death<P: Wire>() {
    let ledger = Ledger::open();
    on_both(async || {
        let (mut ours, mut theirs) = runtime::ends::<P>(LIMITS);
        theirs.send(Message::new(b"last words")).await.unwrap();
        let mut child = idle();
        ours.watch_peer(pidfd(child.id())).unwrap();
        assert_eq!(ours.receive().await.unwrap().payload(), b"last words");
        let mut receive = Box::pin(ours.receive());
        assert!(poll_once(receive.as_mut()).await.is_pending());
        child.kill().unwrap();
        assert_eq!(receive.as_mut().await.unwrap_err(), Error::Closed, "{}", P::NAME);
        drop(receive);
        assert!(matches!(returned(ours.send(Message::new(b"late")).await).0, Error::PeerGone { .. }));
        child.wait().unwrap();

        // And for halves that wait, to send and to receive.
        let (mut ours, mut theirs) = runtime::ends::<P>(LIMITS);
        let mut child = idle();
        ours.watch_peer(pidfd(child.id())).unwrap();
        let (sending, mut receiving) = ours.split();
        fill(&sending);
        let sends = tokio::spawn({
            let sending = sending.clone();
            async move { sending.send(message(b"waits", files(1))).await }
        });
        let receives = tokio::spawn(async move { receiving.receive().await.map(drop) });
        others().await;
        child.kill().unwrap();
        let (error, back) = returned(sends.await.unwrap());
        assert!(matches!(error, Error::PeerGone { .. }), "{}: {error:?}", P::NAME);
        assert_eq!(back.descriptor_count(), 1);
        assert_eq!(receives.await.unwrap(), Err(Error::Closed));
        child.wait().unwrap();
        // Waited for asleep all the while, and the end lasts.
        assert!(theirs.try_receive().is_ok());
    });
    ledger.close();
}

#[test] // P2, P5
fn libcamera_a_watched_death() {
    a_watched_death::<Libcamera>();
}

#[test] // P2, P5
fn packet_a_watched_death() {
    a_watched_death::<Packet>();
}

#[test] // P2, P5
fn stream_a_watched_death() {
    a_watched_death::<Stream>();
}

/// Dropping the handles closes what is queued and nothing else.
#[test] // P2
fn the_last_handle_is_dropped() {
    let ledger = Ledger::open();
    on_both(async || {
        let (sending, mut receiving, mut peer) = split::<Packet>(Bounds::new());
        let before = fill(&sending);
        for _ in 0..3 {
            assert_eq!(sending.try_send(message(b"queued", files(1))).unwrap(), Sent::Pending);
        }
        drop(sending);
        let mut seen = 0;
        let end = loop {
            match peer.receive().await {
                Ok(message) => {
                    assert_eq!(message.payload().len(), 3000);
                    seen += 1;
                }
                Err(error) => break error,
            }
        };
        assert_eq!((end, seen), (Error::Closed, before - 1));
        peer.send(Message::new(b"still heard")).await.unwrap();
        assert_eq!(receiving.receive().await.unwrap().payload(), b"still heard");
    });
    ledger.close();
}

/// Its reactor gone, a half says so; what was accepted stays, and what was not comes back.
#[test] // P6
fn the_runtime_is_dropped() {
    let ledger = Ledger::open();
    for first in runtime::runtimes() {
        let (sending, mut receiving, peer) =
            first.block_on(async { split::<Packet>(Bounds::new().messages(2)) });
        let mut count = 0;
        while sending.try_send(Message::new([9; 3000])).is_ok() {
            count += 1;
        }
        drop(first);
        let [second, _] = runtime::runtimes();
        let (error, back) = returned(second.block_on(sending.send(message(b"no room", files(1)))));
        assert_eq!((error, back.descriptor_count()), (Misuse::NoRuntime.into(), 1));
        assert_eq!(second.block_on(receiving.receive()).unwrap_err(), Misuse::NoRuntime.into());
        assert_eq!(second.block_on(sending.flush()).unwrap_err(), Misuse::NoRuntime.into());
        assert!(count > 2 && sending.has_pending());
        drop((peer, back));
    }
    ledger.close();
}
