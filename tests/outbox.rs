//! The queue of many senders over a kernel that answers by a script: what each call says, and what
//! it leaves behind, where real sockets hide it (P7).

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use driver::until_asleep;
use fdpost::Libcamera;
use fdpost::error::{Fault, Misuse};
use fdpost::machine::{Failure, Outcome, Sender, Sending};
use fdpost::message::Message;
use fdpost::outbox::{Bounds, Done, Outbox, Patience, Sink, Step, Unsent, Why};

type Queue<F> = Outbox<Libcamera, F, Broken>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Refused,
    Gone,
    Closed,
}

/// What the kernel says to one message, or part of one.
#[derive(Clone, Copy, Debug)]
enum Say {
    Take,
    /// First tells the test, and waits for its word.
    Ask,
    Fail(Failure),
}

use Say::{Ask, Fail, Take};

const FULL: Say = Fail(Failure::WouldBlock);
const SHORT: Say = Fail(Failure::Pressure);
const REFUSE: Say = Fail(Failure::Refused);
const GONE: Say = Fail(Failure::Gone);

/// A kernel that says these things in turn, then always the last; and what it met.
struct Kernel {
    says: VecDeque<Say>,
    /// Whom to tell that somebody waits for room, and who then says whether there is some.
    waits: Option<(SyncSender<()>, Receiver<bool>)>,
    taken: Vec<Vec<u8>>,
    rings: usize,
}

impl Kernel {
    fn that(says: impl IntoIterator<Item = Say>) -> Self {
        Self { says: says.into_iter().collect(), waits: None, taken: Vec::new(), rings: 0 }
    }

    fn taken(&self) -> Vec<String> {
        self.taken.iter().map(|payload| String::from_utf8_lossy(payload).into_owned()).collect()
    }

    /// `false` where there is nobody to be asked.
    fn ask(&self) -> bool {
        let Some((waiting, answer)) = &self.waits else { return false };
        waiting.send(()).unwrap();
        answer.recv().unwrap()
    }
}

impl<F> Sink<Libcamera, F> for Kernel {
    type Error = Broken;

    fn transmit(&mut self, sender: &mut Sender<Libcamera, F>) -> Step<F, Broken> {
        let say = if self.says.len() > 1 { self.says.pop_front() } else { self.says.front().copied() };
        if let Some(Ask) = say {
            self.ask();
        }
        let Some(Fail(failure)) = say else {
            let before = sender.sending().messages;
            let mut message = Vec::new();
            while sender.sending().messages == before {
                message = sender
                    .transmits()
                    .next()
                    .expect("something to send")
                    .slices()
                    .collect::<Vec<_>>()
                    .concat();
                sender.transmitted(1);
            }
            self.taken.push(message);
            return Step::Took;
        };
        match sender.failed(Duration::from_secs(7), failure) {
            Outcome::Returned(message) => Step::Refused(message, Broken::Refused),
            Outcome::Closed(messages) => Step::Over(messages, Broken::Gone),
            _ => Step::Full,
        }
    }

    fn wait(&mut self, _: &Sender<Libcamera, F>) -> bool {
        self.ask()
    }

    fn wake_receiver(&mut self) {
        self.rings += 1;
    }
}

fn queue<F>(bounds: Bounds) -> Queue<F> {
    Outbox::new(Sender::new(), bounds)
}

fn until(millis: u64) -> Patience {
    Patience::Until(Instant::now() + Duration::from_millis(millis))
}

fn send(
    queue: &Queue<()>,
    kernel: &mut Kernel,
    patience: Patience,
    payload: &[u8],
) -> Result<Done, Why<Broken>> {
    queue.send(Message::new(payload), None, patience, kernel).map_err(|Unsent { why, .. }| why)
}

/// The test's word to a flusher in another thread.
struct Flusher {
    waits: Receiver<()>,
    answer: SyncSender<bool>,
}

impl Flusher {
    /// Until it stands before the kernel, which asks.
    fn wait(&self) {
        self.waits.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    fn go_on(&self) {
        self.answer.send(true).unwrap();
    }
}

/// While another thread that has sent `first` waits before a kernel that says this, does
/// `meanwhile`; then that thread goes on. What the kernel took.
fn beside_a_flusher(
    bounds: Bounds,
    patience: Patience,
    says: &[Say],
    meanwhile: impl FnOnce(&Queue<()>, &Flusher),
) -> Vec<String> {
    let queue = queue(bounds);
    let (waiting, waits) = sync_channel(0);
    let (answer, answers) = sync_channel(1);
    let mut kernel = Kernel::that(says.iter().copied());
    kernel.waits = Some((waiting, answers));
    thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            assert_eq!(send(&queue, &mut kernel, patience, b"first"), Ok(Done::Complete));
            kernel
        });
        let word = Flusher { waits, answer };
        word.wait();
        meanwhile(&queue, &word);
        // Where it has gone on already nobody takes it.
        word.go_on();
        flusher.join().unwrap().taken()
    })
}

#[test] // P7: a deadline ends a wait although whoever flushes stays.
fn a_deadline_ends_a_wait_behind_a_flusher() {
    let taken = beside_a_flusher(Bounds::new().messages(1), Patience::Forever, &[FULL, Take], |queue, _| {
        let idle = &mut Kernel::that([GONE]);
        assert_eq!(queue.flush(until(5), idle), Err(Why::TimedOut));
        assert_eq!(queue.flush(Patience::None, idle), Err(Why::Full));
        assert_eq!(send(queue, idle, until(5), b"no room"), Err(Why::TimedOut));
        assert_eq!(send(queue, idle, Patience::None, b"no room"), Err(Why::Full));
    });
    assert_eq!(taken, ["first"]);
}

#[test] // P7: behind one who stays a message is in good hands; help from elsewhere changes nothing.
fn help_leaves_a_flusher_alone() {
    let taken = beside_a_flusher(Bounds::new(), Patience::Forever, &[FULL, Take], |queue, _| {
        assert!(!queue.help(&mut Kernel::that([GONE])));
        assert!(!queue.wants_write(), "somebody waits for the socket already");
        assert!(queue.has_pending());
        assert_eq!(send(queue, &mut Kernel::that([GONE]), Patience::Forever, b"second"), Ok(Done::Pending));
    });
    assert_eq!(taken, ["first", "second"]);
}

#[test] // P7: who goes away leaves to a sleeping receiver what nobody else sends, and only that.
fn only_what_is_stranded_wakes_a_receiver_and_only_one_that_sleeps() {
    let queue = queue(Bounds::new());
    let mut kernel = Kernel::that([Take, FULL]);
    assert_eq!(send(&queue, &mut kernel, Patience::None, b"left"), Ok(Done::Complete));
    assert_eq!(kernel.rings, 0, "nobody sleeps, nothing waits");
    assert_eq!(send(&queue, &mut kernel, Patience::None, b"stranded"), Ok(Done::Pending));
    assert_eq!(kernel.rings, 0, "nobody sleeps");
    assert!(queue.asleep(), "something waits to be sent");
    assert_eq!(queue.flush(Patience::None, &mut kernel), Err(Why::Full));
    assert_eq!(kernel.rings, 1);
    let mut kernel = Kernel::that([Take]);
    assert_eq!(queue.flush(Patience::None, &mut kernel), Ok(()));
    assert_eq!(send(&queue, &mut kernel, Patience::Forever, b"left too"), Ok(Done::Complete));
    assert_eq!(kernel.rings, 0, "nothing waits");
    queue.awake();
    let mut kernel = Kernel::that([FULL]);
    assert_eq!(send(&queue, &mut kernel, Patience::None, b"stranded"), Ok(Done::Pending));
    assert_eq!(kernel.rings, 0, "it does not sleep any more");
    assert!(!self::queue::<()>(Bounds::new()).asleep(), "nothing waits");
}

#[test] // P7: help says whether to come back when the socket is writable, and not when by time.
fn help_says_what_it_met() {
    let queue = queue(Bounds::new());
    assert!(!queue.help(&mut Kernel::that([GONE])), "nothing to do");
    assert_eq!(send(&queue, &mut Kernel::that([FULL]), Patience::None, b"one"), Ok(Done::Pending));
    assert!(queue.wants_write());
    assert!(queue.help(&mut Kernel::that([FULL])));
    assert!(!queue.help(&mut Kernel::that([SHORT])), "the socket stays writable");
    assert_eq!(queue.deadline(), Some(Duration::from_millis(7001)));
    assert!(!queue.wants_write(), "by time, not by an event");
    assert!(queue.has_pending());
    assert!(!queue.help(&mut Kernel::that([Take])), "all left");
    assert_eq!((queue.deadline(), queue.has_pending(), queue.wants_write()), (None, false, false));
}

/// A queue of four is full, and somebody waits for room: until `says` came to a second question, by
/// which time there is room.
fn somebody_waits_for_room(says: &[Say]) {
    let taken = beside_a_flusher(Bounds::new().messages(4), Patience::Forever, says, |queue, flusher| {
        let idle = || Kernel::that([GONE]);
        for payload in [b"2", b"3", b"4"] {
            assert_eq!(send(queue, &mut idle(), Patience::None, payload), Ok(Done::Pending));
        }
        assert_eq!(send(queue, &mut idle(), Patience::None, b"5"), Err(Why::Full));
        thread::scope(|scope| {
            let (tell, told) = sync_channel(1);
            asleep(scope, move || tell.send(send(queue, &mut idle(), until(60_000), b"5")).unwrap());
            flusher.go_on();
            flusher.wait();
            // Long before its own deadline has it look.
            let sent = told.recv_timeout(Duration::from_secs(20)).expect("nobody told it of the room");
            assert_eq!(sent, Ok(Done::Pending));
        });
    });
    assert_eq!(taken, ["first", "2", "3", "4", "5"]);
}

#[test] // P7: before a flusher waits for the socket it tells who waits for room that there is some.
#[cfg_attr(miri, ignore = "looks in /proc for a thread's sleep, and Miri's threads are not there")]
fn who_waits_for_room_is_told_when_nothing_leaves_for_a_while() {
    somebody_waits_for_room(&[Ask, FULL, Take]);
}

#[test] // P7: and when half of the queue is free.
#[cfg_attr(miri, ignore = "looks in /proc for a thread's sleep, and Miri's threads are not there")]
fn who_waits_for_room_is_told_when_half_is_free() {
    somebody_waits_for_room(&[Ask, Take, Ask, Take]);
}

/// What left when somebody came with `patience` and five more came meanwhile, who go away.
fn a_tenure(patience: Patience) -> Vec<String> {
    beside_a_flusher(Bounds::new().tenure(2), patience, &[Ask, Take], |queue, _| {
        for payload in [b"2", b"3", b"4", b"5", b"6"] {
            assert_eq!(send(queue, &mut Kernel::that([GONE]), Patience::None, payload), Ok(Done::Pending));
        }
    })
}

#[test] // P7: a tenure is so many transmits after one's own; who stays does not leave others behind.
fn a_tenure_has_an_end() {
    assert_eq!(a_tenure(Patience::None), ["first", "2", "3"]);
    assert_eq!(a_tenure(Patience::Forever), ["first", "2", "3", "4", "5", "6"]);
}

/// A thread that has begun to wait, under a name of its own.
fn asleep<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    waits: impl FnOnce() -> T + Send + 'scope,
) -> thread::ScopedJoinHandle<'scope, T> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("waits {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let thread = thread::Builder::new().name(name.clone()).spawn_scoped(scope, waits).unwrap();
    until_asleep(&name);
    thread
}

/// What became of a message, and the payloads that the kernel took meanwhile.
type Sent = (Result<Done, Why<Broken>>, Vec<String>);

/// A kernel that takes everything, and the thread of a sender that stays.
fn stays<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    queue: &'scope Queue<()>,
    payload: &'static str,
) -> thread::ScopedJoinHandle<'scope, Sent> {
    let sends = move || {
        let mut kernel = Kernel::that([Take]);
        let done = send(queue, &mut kernel, Patience::Forever, payload.as_bytes());
        (done, kernel.taken())
    };
    asleep(scope, sends)
}

fn taken(payloads: &[&str]) -> Vec<String> {
    payloads.iter().map(ToString::to_string).collect()
}

#[test] // P7: behind one that may leave a sender that stays waits until its own message has left.
#[cfg_attr(miri, ignore = "looks in /proc for a thread's sleep, and Miri's threads are not there")]
fn nobody_relies_on_a_flusher_that_may_leave() {
    for patience in [Patience::None, until(10_000)] {
        // So long that more than half of the queue is taken when the others have left.
        let long = "third".repeat(10);
        let bounds = Bounds::new().bytes(80);
        let took = beside_a_flusher(bounds, patience, &[Ask, Take, Ask, Take], |queue, flusher| {
            thread::scope(|scope| {
                let second = stays(scope, queue, "second");
                let third = send(queue, &mut Kernel::that([GONE]), Patience::None, long.as_bytes());
                assert_eq!(third, Ok(Done::Pending));
                flusher.go_on();
                flusher.wait();
                // The flusher is not done: it goes as soon as its own has left.
                assert_eq!(second.join().unwrap(), (Ok(Done::Complete), Vec::new()));
            });
        });
        assert_eq!(took, ["first", "second", &long]);
    }
}

#[test] // P3, P7: who waits behind a flusher when the direction ends gets its message back from it.
#[cfg_attr(miri, ignore = "looks in /proc for a thread's sleep, and Miri's threads are not there")]
fn what_was_accepted_before_the_end_comes_back() {
    let took = beside_a_flusher(Bounds::new(), until(60_000), &[Ask, Take], |queue, flusher| {
        thread::scope(|scope| {
            let (tell, told) = sync_channel(1);
            asleep(scope, move || {
                let message = Message::new(b"second");
                let unsent = queue.send(message, None, until(60_000), &mut Kernel::that([GONE])).unwrap_err();
                tell.send(unsent).unwrap();
            });
            queue.close(Broken::Closed);
            // The flusher has not looked yet: so nothing that is right comes, however slow the machine.
            assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "without its message");
            flusher.go_on();
            let Unsent { why, message } = told.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!((why, message.unwrap().payload()), (Why::Sink(Broken::Closed), &b"second"[..]));
        });
    });
    assert_eq!(took, ["first"]);
}

#[test] // P6, P7: a flusher that gives up leaves what came meanwhile where it is.
fn a_flusher_that_leaves_loses_nothing() {
    let queue = queue(Bounds::new());
    let (waiting, waits) = sync_channel(0);
    let (answer, answers) = sync_channel(1);
    thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            let mut kernel = Kernel::that([FULL]);
            kernel.waits = Some((waiting, answers));
            send(&queue, &mut kernel, until(60_000), b"0")
        });
        waits.recv_timeout(Duration::from_secs(20)).unwrap();
        for number in 1..30_u8 {
            let done = send(&queue, &mut Kernel::that([GONE]), Patience::None, &[number]);
            assert_eq!(done, Ok(Done::Pending));
        }
        // There will be no room in time.
        answer.send(false).unwrap();
        assert_eq!(flusher.join().unwrap(), Ok(Done::Pending));
    });
    let mut kernel = Kernel::that([Take]);
    assert_eq!(queue.flush(Patience::None, &mut kernel), Ok(()));
    assert_eq!(kernel.taken.len(), 30);
}

/// A descriptor, so to speak, whose end asks the queue something.
struct Asks(Arc<Queue<Self>>);

impl Drop for Asks {
    fn drop(&mut self) {
        assert!(!self.0.has_pending());
    }
}

#[test] // P7: no lock is held while foreign code is dropped.
fn what_is_closed_may_ask_the_queue() {
    for refused in [false, true] {
        let queue = Arc::new(queue(Bounds::new()));
        let asks = Asks(Arc::clone(&queue));
        let Ok(number) = queue.offer(Message::new(b"1").with(asks), None) else { panic!("there is room") };
        queue.leave(number);
        if refused {
            let error = queue.flush(Patience::None, &mut Kernel::that([GONE])).unwrap_err();
            assert_eq!(error, Why::Sink(Broken::Gone));
        } else {
            queue.close(Broken::Closed);
        }
        assert_eq!((queue.lost(), Arc::strong_count(&queue)), (one(1, 1), 1));
    }
}

#[test] // P7: a flusher in overtime hands over to a sender that stays, which sends what is left.
#[cfg_attr(miri, ignore = "looks in /proc for a thread's sleep, and Miri's threads are not there")]
fn a_flusher_in_overtime_hands_over() {
    let says = [Ask, Take, Ask, Take];
    let took = beside_a_flusher(Bounds::new().tenure(1), Patience::Forever, &says, |queue, flusher| {
        for payload in [b"2", b"3", b"4"] {
            assert_eq!(send(queue, &mut Kernel::that([GONE]), Patience::None, payload), Ok(Done::Pending));
        }
        flusher.go_on();
        flusher.wait();
        thread::scope(|scope| {
            let successor = stays(scope, queue, "5");
            flusher.go_on();
            assert_eq!(successor.join().unwrap(), (Ok(Done::Complete), taken(&["4", "5"])));
        });
    });
    assert_eq!(took, ["first", "2", "3"]);
}

#[test] // P7: who wants room flushes until there is some, and no further on its own account.
fn who_finds_the_queue_full_makes_room() {
    let queue = queue(Bounds::new().messages(2));
    let mut kernel = Kernel::that([FULL]);
    for payload in [b"1", b"2"] {
        assert_eq!(send(&queue, &mut kernel, Patience::None, payload), Ok(Done::Pending));
    }
    assert_eq!(send(&queue, &mut kernel, Patience::None, b"3"), Err(Why::Full));
    let mut kernel = Kernel::that([Take, FULL]);
    assert_eq!(send(&queue, &mut kernel, Patience::None, b"3"), Ok(Done::Pending));
    assert_eq!(kernel.taken(), ["1"]);
    assert_eq!(queue.flush(Patience::Forever, &mut Kernel::that([Take])), Ok(()));
}

#[test] // P7: a sink that panics takes neither the role nor the message with it.
fn a_sink_that_panics_strands_nobody() {
    let queue = queue(Bounds::new());
    let mut kernel = Kernel::that([]);
    let (waiting, nobody) = sync_channel(0);
    drop(nobody);
    kernel.says.push_back(Ask);
    kernel.waits = Some((waiting, sync_channel(0).1));
    let sends = AssertUnwindSafe(|| send(&queue, &mut kernel, Patience::None, b"one"));
    assert!(catch_unwind(sends).is_err(), "there was nobody to be asked");
    assert!(queue.wants_write());
    let mut kernel = Kernel::that([Take]);
    assert_eq!(send(&queue, &mut kernel, Patience::Forever, b"two"), Ok(Done::Complete));
    assert_eq!(kernel.taken(), ["one", "two"]);
}

/// One descriptor, so to speak, and a way to see whether it was closed.
fn token() -> (Rc<()>, Message<Rc<()>>) {
    let token = Rc::new(());
    (Rc::clone(&token), Message::new(b"token").with(token))
}

fn is_open(token: &Rc<()>) -> bool {
    Rc::strong_count(token) > 1
}

fn one(bytes: u64, descriptors: u64) -> Sending {
    Sending { messages: 1, bytes, descriptors }
}

#[test] // P3, P7: what the kernel refuses goes back to the owner who looks for it.
fn an_owner_gets_back_what_was_refused() {
    let queue = queue(Bounds::new());
    assert_eq!(queue.offer(Message::new(b"1"), None).unwrap(), 1);
    let (held, message) = token();
    assert_eq!(queue.offer(message, None).unwrap(), 2);
    assert_eq!(queue.offer(Message::new(b"3"), None).unwrap(), 3);
    assert!(queue.look(1).is_none() && queue.look_back(1).is_none());
    assert_eq!((queue.accepted(), queue.has_pending(), queue.wants_write()), (3, true, true));
    let mut kernel = Kernel::that([Take, REFUSE, Take]);
    assert_eq!(queue.flush(Patience::None, &mut kernel), Ok(()), "its owner hears of it");
    assert_eq!(kernel.taken(), ["1", "3"]);
    assert!(matches!(queue.look(1), Some(Ok(()))));
    assert!(is_open(&held));
    let Some(Err(Unsent { why: Why::Sink(Broken::Refused), message: Some(message) })) = queue.look(2) else {
        panic!("it did not come back");
    };
    assert_eq!((message.payload(), message.descriptor_count()), (&b"token"[..], 1));
    assert!(matches!(queue.look(3), Some(Ok(()))));
    assert_eq!(queue.sent(), Sending { messages: 2, bytes: 2, descriptors: 0 });
    assert_eq!(queue.lost(), one(5, 1));
    assert_eq!((queue.look_back(3), queue.has_pending()), (Some(Ok(())), false));
}

#[test] // P3, P7: nobody looks any more: it is closed, and the next flush says why it did not leave.
fn what_is_refused_of_an_owner_that_left_is_closed_and_said() {
    for leaves_first in [true, false] {
        let queue = queue(Bounds::new());
        queue.offer(Message::new(b"1"), None).unwrap();
        let (held, message) = token();
        assert_eq!(queue.offer(message, None).unwrap(), 2);
        queue.leave(1);
        if leaves_first {
            queue.leave(2);
        }
        let flushed = queue.flush(Patience::None, &mut Kernel::that([Take, REFUSE]));
        if leaves_first {
            assert_eq!(flushed, Err(Why::Sink(Broken::Refused)));
        } else {
            assert_eq!(flushed, Ok(()));
            assert!(is_open(&held));
            queue.leave(2);
            assert_eq!(queue.look_back(1), Some(Ok(())), "the first did leave");
            assert_eq!(queue.look_back(2), Some(Err(Why::Sink(Broken::Refused))));
        }
        assert!(!is_open(&held), "left first: {leaves_first}");
        assert_eq!(queue.flush(Patience::None, &mut Kernel::that([GONE])), Ok(()), "it is said once");
        assert_eq!((queue.look_back(2), queue.lost()), (Some(Ok(())), one(5, 1)));
    }
}

#[test] // P3, P6: what is not accepted comes back, and says why.
fn an_offer_that_is_not_accepted_comes_back() {
    let queue = queue(Bounds::new().messages(1));
    let refused = |message| {
        let (held, message): (Rc<()>, Message<Rc<()>>) = message;
        let Unsent { why, message } = queue.offer(message, Some(4096)).unwrap_err();
        assert_eq!(message.unwrap().descriptor_count(), 1);
        assert!(!is_open(&held));
        why
    };
    queue.offer(Message::new(b"1"), None).unwrap();
    assert_eq!(refused(token()), Why::Full);
    let held = Rc::new(());
    assert!(matches!(
        refused((Rc::clone(&held), Message::new([0; 4097]).with(held))),
        Why::Fault(Fault::Misuse(Misuse::PayloadTooLarge { .. }))
    ));
    queue.close(Broken::Closed);
    assert_eq!(refused(token()), Why::Sink(Broken::Closed));
    assert_eq!(queue.look_back(0), Some(Err(Why::Sink(Broken::Closed))));
    assert_eq!(queue.flush(Patience::None, &mut Kernel::that([Take])), Err(Why::Sink(Broken::Closed)));
    assert_eq!(queue.lost(), one(1, 0));
}

/// Payloads of these, for a burst.
fn burst(payloads: &[&str]) -> Vec<Message<()>> {
    payloads.iter().map(|payload| Message::new(payload.as_bytes())).collect()
}

fn payloads(messages: &[Message<()>]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(message.payload()).into_owned()).collect()
}

#[test] // P6, P7: of a burst comes back, in order, what did not leave and what was not accepted.
fn what_comes_back_of_a_burst() {
    let all = ["1", "2", "3", "4"];
    let bounds = Bounds::new();
    // Bounds; what the kernel says; what the call says; what comes back; what left.
    type Case<'a> = (Bounds, &'a [Say], Result<Done, Why<Broken>>, &'a [&'a str], &'a [&'a str]);
    let cases: [Case<'_>; 6] = [
        (bounds, &[Take], Ok(Done::Complete), &[], &all),
        (bounds, &[Take, FULL], Ok(Done::Pending), &[], &["1"]),
        (bounds.messages(2), &[FULL], Err(Why::Full), &["3", "4"], &[]),
        (bounds, &[Take, REFUSE, Take], Err(Why::Sink(Broken::Refused)), &["2"], &["1", "3", "4"]),
        (
            bounds.messages(2),
            &[Take, REFUSE, Take],
            Err(Why::Sink(Broken::Refused)),
            &["2", "4"],
            &["1", "3"],
        ),
        (bounds, &[Take, GONE], Err(Why::Sink(Broken::Gone)), &["2", "3", "4"], &["1"]),
    ];
    for (number, (bounds, says, done, back, left)) in cases.into_iter().enumerate() {
        let (queue, mut kernel) = (self::queue(bounds), Kernel::that(says.iter().copied()));
        let mut messages = burst(&all);
        let said = queue.send_all(&mut messages, None, Patience::None, &mut kernel);
        assert_eq!((said, payloads(&messages)), (done, taken(back)), "{number}");
        assert_eq!(kernel.taken(), left, "{number}");
    }
    // Nothing is accepted behind what did not leave, however long one would wait.
    let (queue, mut kernel) = (self::queue(bounds.messages(2)), Kernel::that([Take, REFUSE, Take]));
    let mut messages = burst(&all);
    let said = queue.send_all(&mut messages, None, Patience::Forever, &mut kernel);
    assert_eq!((said, payloads(&messages)), (Err(Why::Sink(Broken::Refused)), taken(&["2", "4"])));

    let (queue, mut kernel) = (self::queue(bounds), Kernel::that([Take]));
    let mut messages = burst(&["1", "2", "", "4"]);
    let said = queue.send_all(&mut messages, None, Patience::None, &mut kernel);
    assert!(matches!(said, Err(Why::Fault(Fault::Misuse(Misuse::EmptyMessage { .. })))), "{said:?}");
    assert_eq!(
        (payloads(&messages), kernel.taken()),
        (payloads(&burst(&["", "4"])), payloads(&burst(&["1", "2"])))
    );
}
