//! Every model is one promise of P7. `make loom-mutants` plants the defect that each is to catch.
#![cfg(fdpost_loom)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use fdpost::message::Message;
use fdpost::outbox::{Bounds, Done, Patience, Why};
use fdpost_loom_tests::{Broken, Ledger, Line, Socket, model, outbox, send};
use loom::thread;

const FOREVER: Patience = Patience::Forever;

/// Room for everything.
const PLENTY: usize = 100;

#[test] // P7
fn parts_never_interleave() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new()));
        let (line, other) = (Line::to(&socket), outbox.clone());
        let thread = thread::spawn(move || send(&other, &mut { line }, FOREVER, b"one").map(drop).unwrap());
        let mut line = Line::to(&socket);
        send(&outbox, &mut line, FOREVER, b"zwei").unwrap();
        thread.join().unwrap();
        let mut payloads = socket.payloads();
        payloads.sort();
        assert_eq!(payloads, [&b"one"[..], b"zwei"]);
    });
}

#[test] // P7
fn each_sender_keeps_its_order() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new()));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let thread = thread::spawn(move || {
            send(&other, &mut line, FOREVER, b"a1").unwrap();
            send(&other, &mut line, FOREVER, b"a2").unwrap();
        });
        let mut line = Line::to(&socket);
        send(&outbox, &mut line, FOREVER, b"b1").unwrap();
        send(&outbox, &mut line, FOREVER, b"b2").unwrap();
        thread.join().unwrap();
        let payloads = socket.payloads();
        assert_eq!(payloads.len(), 4);
        for who in [b'a', b'b'] {
            let own: Vec<u8> =
                payloads.iter().filter(|payload| payload[0] == who).map(|payload| payload[1]).collect();
            assert_eq!(own, b"12");
        }
    });
}

#[test] // P7: what was accepted while the flusher was leaving left all the same.
fn no_message_is_stranded_as_the_flusher_leaves() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new()));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let thread = thread::spawn(move || drop(send(&other, &mut line, FOREVER, b"one")));
        drop(send(&outbox, &mut Line::to(&socket), FOREVER, b"two"));
        thread.join().unwrap();
        assert!(!outbox.has_pending());
        assert_eq!(socket.payloads().len(), 2);
    });
}

#[test] // P7
fn a_blocking_send_is_not_stranded_behind_a_try_send() {
    model(Some(3), || {
        let (socket, outbox) = (Socket::with_room(1), outbox(Bounds::new()));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let trying = thread::spawn(move || send(&other, &mut line, Patience::None, b"tries").unwrap());
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let blocking = thread::spawn(move || send(&other, &mut line, FOREVER, b"waits").unwrap());
        trying.join().unwrap();
        socket.read(3);
        blocking.join().unwrap();
        // Whoever stays to the end of its own message takes along what was left before it.
        assert_eq!(socket.payloads().len(), 2);
        assert!(!outbox.has_pending() && !outbox.wants_write());
    });
}

#[test] // P7
fn a_full_queue_gives_the_message_back_or_waits_for_room() {
    model(Some(3), || {
        let ledger = Ledger::default();
        let (socket, outbox) = (Socket::with_room(0), outbox(Bounds::new().messages(1)));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        assert_eq!(send(&outbox, &mut line, Patience::None, b"first").unwrap(), Done::Pending);
        assert!(outbox.wants_write());
        let message = Message::new(b"no room").with(ledger.issue(1));
        let unsent = outbox.send(message, None, Patience::None, &mut line).unwrap_err();
        assert_eq!(
            (unsent.why, unsent.message.map(|message| message.descriptor_count())),
            (Why::Full, Some(1))
        );
        let waiting = thread::spawn(move || send(&other, &mut line, FOREVER, b"second").unwrap());
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let third = thread::spawn(move || send(&other, &mut line, FOREVER, b"third").unwrap());
        socket.read(6);
        waiting.join().unwrap();
        third.join().unwrap();
        assert_eq!(socket.payloads().len(), 3);
        assert_eq!(ledger.live(), 0);
    });
}

#[test] // P7
fn the_peer_closes_and_nobody_waits_for_it() {
    model(Some(3), || {
        let ledger = Ledger::default();
        let (socket, outbox) = (Socket::with_room(0), outbox(Bounds::new().messages(1)));
        let threads: Vec<_> = (0..2)
            .map(|id| {
                let (mut line, other) = (Line::to(&socket), outbox.clone());
                let message = Message::new(b"waits").with(ledger.issue(id));
                thread::spawn(move || {
                    other.send(message, None, FOREVER, &mut line).map_err(|unsent| unsent.why)
                })
            })
            .collect();
        socket.close();
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        // At least the one whose message is the queue's last is told; nobody is told anything else.
        assert!(ends.iter().all(|end| matches!(end, Err(Why::Sink(Broken::Gone)))), "{ends:?}");
        assert_eq!(
            (ledger.live(), socket.tokens(), outbox.lost().descriptors),
            (0, 0, outbox.lost().messages)
        );
        assert!(!outbox.has_pending());
    });
}

#[test] // P7
fn an_error_poisons_every_sender() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(1), outbox(Bounds::new()));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let closing = socket.clone();
        let thread = thread::spawn(move || {
            closing.close();
            drop(send(&other, &mut line, FOREVER, b"one"));
            // Unless it had left whole.
            let _ = other.flush(FOREVER, &mut line);
            drop(send(&other, &mut line, FOREVER, b"more"));
            assert_eq!(other.flush(FOREVER, &mut line), Err(Why::Sink(Broken::Gone)));
            assert_eq!(send(&other, &mut line, FOREVER, b"two").unwrap_err().why, Why::Sink(Broken::Gone));
        });
        let mut line = Line::to(&socket);
        drop(send(&outbox, &mut line, FOREVER, b"three"));
        thread.join().unwrap();
        // The first error, although the sink would say another by now.
        outbox.close(Broken::Closed);
        assert_eq!(
            send(&outbox, &mut line, Patience::None, b"four").unwrap_err().why,
            Why::Sink(Broken::Gone)
        );
        assert_eq!(outbox.flush(FOREVER, &mut line), Err(Why::Sink(Broken::Gone)));
        assert!(!outbox.has_pending());
    });
}

#[test] // P2 P7
fn close_races_send_and_each_descriptor_closes_once() {
    model(None, || {
        let ledger = Ledger::default();
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new()));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let message = Message::new(b"races").with(ledger.issue(1));
        let thread =
            thread::spawn(move || other.send(message, None, FOREVER, &mut line).map_err(|unsent| unsent.why));
        outbox.close(Broken::Closed);
        let end = thread.join().unwrap();
        assert_eq!(ledger.live(), 0);
        assert_eq!(end.is_ok(), socket.tokens() == 1, "{end:?}");
        let late = send(&outbox, &mut Line::to(&socket), FOREVER, b"late").unwrap_err();
        assert_eq!((late.why, late.message.is_some()), (Why::Sink(Broken::Closed), true));
        assert!(!outbox.has_pending(), "{end:?}");
    });
}

#[test] // P7: a steadfast flusher leaves in the middle of another's message only to hand over.
fn a_flusher_hands_over_when_it_has_done_its_share() {
    static HANDED_OVER: AtomicBool = AtomicBool::new(false);
    model(Some(3), || {
        let (socket, outbox) = (Socket::with_room(3), outbox(Bounds::new().tenure(0)));
        let (mut line, other) = (Line::named(&socket, 1), outbox.clone());
        let first = thread::spawn(move || send(&other, &mut line, FOREVER, b"first").unwrap());
        let (mut line, other) = (Line::named(&socket, 2), outbox.clone());
        let second = thread::spawn(move || {
            send(&other, &mut line, FOREVER, b"second").unwrap();
            send(&other, &mut line, FOREVER, b"third").unwrap();
        });
        socket.read(3);
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(socket.payloads().len(), 3);
        assert!(!outbox.has_pending());
        if socket.who().chunks(2).any(|parts| parts[0] == 1 && parts[1] == 2) {
            HANDED_OVER.store(true, Ordering::Relaxed);
        }
    });
    assert!(HANDED_OVER.load(Ordering::Relaxed), "no execution hands over");
}

#[test] // P2 P7
fn closing_a_full_queue_closes_each_descriptor_once() {
    model(None, || {
        let ledger = Ledger::default();
        let (socket, outbox) = (Socket::with_room(1), outbox(Bounds::new()));
        let threads: Vec<_> = (0..2)
            .map(|id| {
                let (mut line, other) = (Line::to(&socket), outbox.clone());
                let message = Message::new(b"stays").with(ledger.issue(id));
                thread::spawn(move || drop(other.send(message, None, Patience::None, &mut line)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ledger.live(), 2);
        outbox.close(Broken::Closed);
        assert_eq!((ledger.live(), outbox.lost().descriptors), (0, 2));
        assert!(!outbox.has_pending());
    });
}

#[test] // P7
fn a_flush_returns_after_its_predecessors() {
    model(Some(3), || {
        let (socket, outbox) = (Socket::with_room(1), outbox(Bounds::new()));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let before = thread::spawn(move || send(&other, &mut line, Patience::None, b"before").unwrap());
        let reading = socket.clone();
        let reader = thread::spawn(move || reading.read(3));
        let mut line = Line::to(&socket);
        send(&outbox, &mut line, Patience::None, b"own").unwrap();
        outbox.flush(FOREVER, &mut line).unwrap();
        assert!(socket.has(b"own"));
        before.join().unwrap();
        reader.join().unwrap();
    });
}

#[test] // P7
fn a_sink_that_panics_strands_nobody() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new()));
        let (line, other) = (Line::to(&socket), outbox.clone());
        let thread = thread::spawn(move || {
            let mut line = Line { panics: true, ..line };
            let panicked = catch_unwind(AssertUnwindSafe(|| send(&other, &mut line, FOREVER, b"one")));
            drop(panicked);
        });
        send(&outbox, &mut Line::to(&socket), FOREVER, b"two").unwrap();
        outbox.flush(FOREVER, &mut Line::to(&socket)).unwrap();
        thread.join().unwrap();
        outbox.flush(FOREVER, &mut Line::to(&socket)).unwrap();
        assert_eq!(socket.payloads().len(), 2);
    });
}

#[test] // P6 P7
fn what_the_kernel_refuses_goes_back_to_a_sender_that_is_there() {
    model(None, || {
        let ledger = Ledger::default();
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new()));
        let threads: Vec<_> = [&b"good"[..], b"at fault"]
            .into_iter()
            .zip(0..)
            .map(|(payload, id)| {
                let line = Line { refuses: Some(8), ..Line::to(&socket) };
                let (other, message) = (outbox.clone(), Message::new(payload).with(ledger.issue(id)));
                thread::spawn(move || other.send(message, None, FOREVER, &mut { line }))
            })
            .collect();
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(ends[0].is_ok());
        match &ends[1] {
            // It left before its turn: said so to whoever flushes next, once.
            Ok(done) => {
                assert_eq!(*done, Done::Pending);
                let mut line = Line::to(&socket);
                assert_eq!(outbox.flush(FOREVER, &mut line), Err(Why::Sink(Broken::Refused)));
                assert_eq!(outbox.flush(FOREVER, &mut line), Ok(()));
            }
            Err(unsent) => {
                assert_eq!(unsent.why, Why::Sink(Broken::Refused));
                assert_eq!(unsent.message.as_ref().map(Message::descriptor_count), Some(1));
            }
        }
        drop(ends);
        assert_eq!((ledger.live(), outbox.lost().messages), (0, 1));
        assert_eq!(socket.payloads(), [b"good"]);
    });
}

#[test] // P7: one to whom a flusher handed over looks after the queue, although its own had left.
fn a_successor_whose_message_left_takes_over_all_the_same() {
    model(Some(3), || {
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new().tenure(0)));
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let tries = thread::spawn(move || {
            send(&other, &mut line, Patience::None, b"tries").unwrap();
            send(&other, &mut line, FOREVER, b"and relies").unwrap();
        });
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let succeeds =
            thread::spawn(move || send(&other, &mut line, FOREVER, b"succeeds").map(drop).unwrap());
        send(&outbox, &mut Line::to(&socket), FOREVER, b"hands over").unwrap();
        tries.join().unwrap();
        succeeds.join().unwrap();
        assert!(!outbox.has_pending());
        assert_eq!(socket.payloads().len(), 4);
    });
}

#[test] // P7: a steadfast flusher that waits for a full socket is no reason to wait beside room.
fn nobody_sleeps_beside_room_while_the_flusher_waits() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(0), outbox(Bounds::new().messages(3)));
        let mut line = Line::to(&socket);
        send(&outbox, &mut line, Patience::None, b"first").unwrap();
        send(&outbox, &mut line, Patience::None, b"second").unwrap();
        let (mut other_line, other) = (Line::to(&socket), outbox.clone());
        let flusher =
            thread::spawn(move || send(&other, &mut other_line, FOREVER, b"flusher's").map(drop).unwrap());
        socket.until_waited_for();
        // One leaves: there is room for one, although less than half of the queue is free.
        socket.read(2);
        assert_eq!(send(&outbox, &mut line, FOREVER, b"fourth").unwrap(), Done::Pending);
        socket.read(6);
        flusher.join().unwrap();
        assert!(!outbox.has_pending());
    });
}

#[test] // P7
fn a_close_tells_all_who_wait() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(0), outbox(Bounds::new().messages(1)));
        send(&outbox, &mut Line::to(&socket), Patience::None, b"queued").unwrap();
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let flusher = thread::spawn(move || other.flush(FOREVER, &mut line));
        socket.until_waited_for();
        let (mut line, other) = (Line::to(&socket), outbox.clone());
        let waits = thread::spawn(move || send(&other, &mut line, FOREVER, b"no room").unwrap_err());
        outbox.close(Broken::Closed);
        // The flusher sleeps beside the socket, and tells nobody.
        let unsent = waits.join().unwrap();
        assert_eq!((unsent.why, unsent.message.is_some()), (Why::Sink(Broken::Closed), true));
        socket.close();
        assert_eq!(flusher.join().unwrap(), Err(Why::Sink(Broken::Closed)));
        assert_eq!(outbox.lost().messages, 1);
    });
}

#[test] // P6 P7: each message of a burst is its caller's, whoever came in between.
fn what_the_kernel_refuses_of_a_burst_goes_back_to_it() {
    static CAME_BACK: AtomicBool = AtomicBool::new(false);
    model(None, || {
        let ledger = Ledger::default();
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new().messages(3).tenure(0)));
        let full = Socket::with_room(0);
        for _ in 0..2 {
            send(&outbox, &mut Line::to(&full), Patience::None, b"before").unwrap();
        }
        let (mut line, other) = (Line { refuses: Some(8), ..Line::to(&socket) }, outbox.clone());
        let between = thread::spawn(move || {
            send(&other, &mut line, FOREVER, b"between").unwrap();
            send(&other, &mut line, Patience::None, b"again").map(drop)
        });
        let mut line = Line { refuses: Some(8), ..Line::to(&socket) };
        let mut burst = vec![Message::new(b"at fault").with(ledger.issue(1)), Message::new(b"behind")];
        let done = outbox.send_all(&mut burst, None, FOREVER, &mut line);
        // Where the queue was full it has its message back.
        drop(between.join().unwrap());
        assert!(outbox.send_all(&mut Vec::new(), None, FOREVER, &mut line).is_ok(), "nothing of its own");
        assert_eq!((outbox.has_pending(), outbox.lost().messages), (false, 1));
        let mut left = socket.payloads();
        left.retain(|payload| payload == b"behind");
        match done {
            // Somebody who stays was sending.
            Ok(done) => {
                assert_eq!((done, burst.len(), left.len()), (Done::Pending, 0, 1));
                assert_eq!(outbox.flush(FOREVER, &mut line), Err(Why::Sink(Broken::Refused)));
            }
            Err(why) => {
                CAME_BACK.store(true, Ordering::Relaxed);
                assert_eq!(why, Why::Sink(Broken::Refused));
                let came: Vec<_> = burst.iter().map(Message::payload).collect();
                assert_eq!(came, [&b"at fault"[..], b"behind"][..2 - left.len()]);
                assert_eq!((burst[0].descriptor_count(), ledger.live()), (1, 1));
            }
        }
        drop(burst);
        assert_eq!(ledger.live(), 0);
    });
    assert!(CAME_BACK.load(Ordering::Relaxed), "no execution gives back");
}

#[test] // P7
fn a_sleeping_receiver_sends_what_a_try_send_leaves() {
    model(None, || {
        let (socket, outbox) = (Socket::with_room(0), outbox(Bounds::new()));
        let (mut line, other, quiet) = (Line::to(&socket), outbox.clone(), socket.clone());
        let receiver = thread::spawn(move || {
            while !quiet.has(b"left") {
                let wants_write = other.asleep();
                quiet.sleep(wants_write);
                other.awake();
                other.help(&mut line);
            }
        });
        let done = send(&outbox, &mut Line::to(&socket), Patience::None, b"left").unwrap();
        assert_eq!(done, Done::Pending);
        socket.read(2);
        receiver.join().unwrap();
        assert!(!outbox.has_pending());
    });
}

#[test] // P6 P7
fn an_owner_that_leaves_passes_its_refusal_on() {
    model(None, || {
        let ledger = Ledger::default();
        let (socket, outbox) = (Socket::with_room(PLENTY), outbox(Bounds::new()));
        let number = outbox.offer(Message::new(b"at fault").with(ledger.issue(1)), None).unwrap();
        let (mut line, other) = (Line { refuses: Some(8), ..Line::to(&socket) }, outbox.clone());
        let flusher = thread::spawn(move || other.flush(FOREVER, &mut line));
        outbox.leave(number);
        let first = flusher.join().unwrap();
        let second = outbox.flush(FOREVER, &mut Line::to(&socket));
        let said = [first, second].iter().filter(|end| **end == Err(Why::Sink(Broken::Refused))).count();
        assert_eq!((said, outbox.lost().messages, ledger.live()), (1, 1, 0));
    });
}
