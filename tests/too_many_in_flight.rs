//! ETOOMANYREFS (case 43) wherever descriptors are handed over: halves, calls, a broker, `send_fd`. As an
//! ordinary user, in a process of its own, where what the user has in flight is bounded. A plain channel's
//! part is in `channel_pressure.rs`, a reactor's in `asynchronous_time.rs`.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/ordinary.rs"]
mod ordinary;
mod support;
#[path = "support/broker.rs"]
mod support_broker;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use driver::{after, ends, message, returned};
use fdpost::broker::{Answer, Audience, Quotas};
use fdpost::driver::{Departure, Event, FdReply, receive_fd, send_error, send_fd};
use fdpost::profile::packet::REPLY;
use fdpost::{BrokerEvent, Calls, Channel, Error, Head, Limits, Packet, Refusal, Sent};
use nix::errno::Errno;
use nix::libc;
use ordinary::{as_an_ordinary_user, open};
use support::files;
use support_broker::{Serving, Turned, ask, decode, refusal, register, soon, talk};

/// What the user may have in flight: the kernel says no once there is more.
const MOST: libc::rlim_t = 64;
const EACH: usize = 8;
const LIMITS: Limits = Limits::new().descriptors(EACH as u8);
const PRESSURE: Error = Error::Pressure { errno: Errno::ETOOMANYREFS as i32 };

/// All that the user may have in flight, over a channel of its own.
struct Press {
    ours: Channel<Packet>,
    theirs: Channel<Packet>,
}

impl Press {
    fn new() -> Self {
        let (mut ours, theirs) = ends::<Packet>(LIMITS);
        for _ in 0..=MOST {
            match ours.try_send(message(b"!", files(1))) {
                Ok(sent) => assert_eq!(sent, Sent::Complete),
                Err(error) => {
                    assert_eq!(error.error, PRESSURE);
                    return Self { ours, theirs };
                }
            }
        }
        // Also with one more than the limit none is refused.
        assert_eq!(ours.try_send(message(b"!", files(1))).unwrap_err().error, PRESSURE);
        Self { ours, theirs }
    }

    /// So many fewer are in flight.
    fn ease(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.theirs.receive_by(soon()).unwrap().descriptor_count(), 1);
        }
    }

    fn over(self) {
        drop((self.ours, self.theirs));
    }
}

#[test] // P2, P5, P6; case 43
fn halves() {
    if !as_an_ordinary_user("halves", MOST) {
        return;
    }
    let before = open(MOST);
    let mut press = Press::new();
    let (ours, mut theirs) = ends::<Packet>(LIMITS);
    let (sending, receiving) = ours.split();
    assert_eq!(sending.try_send(message(b"one", files(EACH))).unwrap(), Sent::Pending);
    assert_eq!(sending.send_by(message(b"two", files(EACH)), after(100)).unwrap(), Sent::Pending);
    assert_eq!(sending.flush_by(after(100)).unwrap_err(), Error::TimedOut);
    assert!(!sending.wants_write() && sending.has_pending(), "the socket is writable all the while");
    assert!(theirs.try_receive().unwrap().is_none());
    press.ease(2 * EACH);
    sending.flush_by(soon()).unwrap();
    for word in [b"one", b"two"] {
        let came = theirs.receive_by(soon()).unwrap();
        assert_eq!((came.payload(), came.descriptor_count()), (&word[..], EACH));
    }
    assert_eq!((sending.lost().messages, sending.has_pending()), (0, false));
    press.over();
    drop((sending, receiving, theirs));
    assert_eq!(open(MOST), before);
}

#[test] // P2, P6; case 43
fn a_call_and_its_answer() {
    if !as_an_ordinary_user("a_call_and_its_answer", MOST) {
        return;
    }
    let before = open(MOST);
    let mut press = Press::new();
    let (ours, theirs) = ends::<Packet>(LIMITS);
    let (mut ours, mut theirs) = (Calls::new(ours), Calls::new(theirs));
    let head = Head { reply_descriptors: EACH as u8, ..Head::default() };
    let question = message(b"?", files(EACH)).with_head(head);
    // Nothing left: the call is none, and the message is as it was.
    let (error, question) = returned(ours.try_start(question, soon()));
    assert_eq!((error, question.head(), question.descriptor_count()), (PRESSURE, &head, EACH));
    let (error, question) = returned(ours.start(question, after(100)));
    assert_eq!((error, question.head(), question.descriptor_count()), (Error::TimedOut, &head, EACH));
    assert_eq!(ours.counters().pending, 0);
    press.ease(EACH);
    let call = ours.start(question, soon()).unwrap();
    let Event::Request { mut request, message: asked } = theirs.receive_by(soon()).unwrap() else {
        panic!("no request came")
    };
    assert_eq!((asked.payload(), asked.descriptor_count()), (&b"?"[..], EACH));
    drop(asked);
    // The answer too comes back, and the request still waits for one.
    let again = Press::new();
    let (error, reply) = returned(theirs.try_reply(&mut request, message(b"!", files(EACH)), false));
    assert_eq!((error, request.is_answered(), reply.descriptor_count()), (PRESSURE, false, EACH));
    let (error, reply) = returned(theirs.reply(&mut request, reply, after(100)));
    assert_eq!((error, request.is_answered(), reply.descriptor_count()), (Error::TimedOut, false, EACH));
    again.over();
    assert_eq!(theirs.reply(&mut request, reply, soon()).unwrap(), Sent::Complete);
    match ours.receive_by(soon()).unwrap() {
        Event::Answered { call: of, answer } => {
            let came = answer.into_message();
            assert_eq!((of, came.payload(), came.descriptor_count()), (call, &b"!"[..], EACH));
            assert_eq!(came.head().flags, REPLY);
        }
        other => panic!("{other:?}"),
    }
    press.over();
    drop((ours, theirs));
    assert_eq!(open(MOST), before);
}

#[test] // P2, P5; rule BR-21, case 43
fn a_broker_hands_over() {
    if !as_an_ordinary_user("a_broker_hands_over", MOST) {
        return;
    }
    let before = open(MOST);
    let serving = Serving::start(Quotas::new());
    let (mut service, mut client) = (serving.client(), serving.client());
    service.register::<Packet>("pictures", Limits::new(), Audience::SameUser, soon()).unwrap();
    let press = Press::new();
    for _ in 0..3 {
        assert_eq!(refusal(client.ask::<Packet>("pictures", Limits::new(), soon())), Refusal::Exhausted);
    }
    assert!(service.try_accept::<Packet>(Limits::new()).unwrap().is_none(), "nothing was handed over");
    press.over();
    // Nobody was let go for it, and the name is still served.
    let mut theirs = client.ask::<Packet>("pictures", Limits::new(), soon()).unwrap().channel;
    let mut ours = service.accept_by::<Packet>(Limits::new(), soon()).unwrap().channel;
    talk(&mut ours, &mut theirs);
    drop((ours, theirs, service, client));
    let stats = serving.stop();
    assert_eq!((stats.granted, stats.refused), (1, 3));
    assert_eq!(open(MOST), before);
}

#[test] // P2; rules BR-8, BR-16, case 43
fn a_broker_whose_second_end_is_one_too_many() {
    if !as_an_ordinary_user("a_broker_whose_second_end_is_one_too_many", MOST) {
        return;
    }
    let before = open(MOST);
    let mut turned = Turned::new(Quotas::new());
    let ((mut service, _), (mut client, _)) = (turned.connected(), turned.connected());
    let registration = register::<Packet>("pictures", 0, Audience::SameUser);
    assert_eq!(turned.answer(&mut service, &registration, true), Answer::Done);
    let mut press = Press::new();
    // Room for the service's end, and not for the client's.
    press.ease(1);
    let answer = turned.answer(&mut client, &ask::<Packet>("pictures", 0), true);
    assert_eq!(answer, Answer::Refused(Refusal::Exhausted));
    // The service has an end that reads as closed, as of any client that went away.
    let mut handed = service.receive_by(soon()).unwrap();
    assert!(matches!(decode(&handed), Answer::HandOver(..)));
    let mut end = Channel::<Packet>::from_fd(handed.take(0).unwrap(), Limits::new()).unwrap();
    assert_eq!(end.receive_by(soon()).unwrap_err(), Error::Closed);
    press.over();
    let answer = turned.answer(&mut client, &ask::<Packet>("pictures", 0), true);
    assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
    drop((handed, end, service, client, turned));
    assert_eq!(open(MOST), before);
}

#[test] // P2; case 43
fn send_fd_says_so_and_nothing_left() {
    if !as_an_ordinary_user("send_fd_says_so_and_nothing_left", MOST) {
        return;
    }
    let before = open(MOST);
    let mut press = Press::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = files(1).remove(0);
    assert_eq!(send_fd(&ours, &file).unwrap_err(), PRESSURE);
    // Without a descriptor there is no pressure, and nothing of the first stands before it.
    send_error(&ours, 7, "later").unwrap();
    match receive_fd(&theirs, soon()).unwrap() {
        FdReply::Error { status, text } => assert_eq!((status, &text[..]), (7, &b"later"[..])),
        other => panic!("{other:?}"),
    }
    press.ease(1);
    send_fd(&ours, &file).unwrap();
    let came = match receive_fd(&theirs, soon()).unwrap() {
        FdReply::Descriptor(came) => came,
        other => panic!("{other:?}"),
    };
    assert!(same(&came, &file));
    press.over();
    drop((ours, theirs, file, came));
    assert_eq!(open(MOST), before);
}

/// Whether both are the same file, for who may not look into /proc.
fn same(one: &OwnedFd, two: &OwnedFd) -> bool {
    let inode = |file: &OwnedFd| nix::sys::stat::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    inode(one).unwrap() == inode(two).unwrap()
}

/// A service that leaves its ends unread never fills its socket with them, and is let go all the same
/// once they are what others lack.
#[test] // P2, P4, P5; case 43
fn br_18_ends_left_unread_while_descriptors_are_short() {
    if !as_an_ordinary_user("br_18_ends_left_unread_while_descriptors_are_short", MOST) {
        return;
    }
    let before = open(MOST);
    let patience = Duration::from_millis(50);
    let mut turned = Turned::new(Quotas::new().patience(patience));
    let [(mut hog, hoggish), (mut service, _), (mut client, _)] = [0; 3].map(|_| turned.connected());
    for (party, name) in [(&mut hog, "hog"), (&mut service, "service")] {
        let registration = register::<Packet>(name, 0, Audience::SameUser);
        assert_eq!(turned.answer(party, &registration, true), Answer::Done);
    }
    // Leaves unread what brings no end: nobody lacks that.
    let (mut quiet, _) = turned.connected();
    quiet.send(ask::<Packet>("nobody", 0).message(1, true)).unwrap();
    let mut granted = |turned: &mut Turned, name: &str| {
        let answer = turned.answer(&mut client, &ask::<Packet>(name, 0), true);
        let left = |event: &BrokerEvent| matches!(event, BrokerEvent::Left { .. });
        (answer, turned.events.try_iter().filter(left).collect::<Vec<_>>())
    };
    let none = Vec::new();
    for name in ["hog", "hog", "service"] {
        let (answer, left) = granted(&mut turned, name);
        assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
        assert_eq!(left, none);
    }
    drop(service.receive_by(soon()).unwrap());
    std::thread::sleep(2 * patience);
    // As long as nobody lacks anything, who is slow is left alone.
    let (answer, left) = granted(&mut turned, "service");
    assert!(matches!(answer, Answer::Granted(_)), "{answer:?}");
    assert_eq!(left, none);
    drop(service.receive_by(soon()).unwrap());
    let press = Press::new();
    let (answer, left) = granted(&mut turned, "service");
    assert_eq!(answer, Answer::Refused(Refusal::Exhausted));
    let gone = |event: &BrokerEvent| matches!(event, BrokerEvent::Left { id, why: Departure::Unread, .. } if *id == hoggish);
    assert!(left.len() == 1 && gone(&left[0]), "{left:?}");
    assert_eq!(turned.broker.stats().unread, 1);
    press.over();
    let (answer, left) = granted(&mut turned, "hog");
    assert_eq!((answer, left), (Answer::Refused(Refusal::NameUnknown), none));
    assert_eq!(decode(&quiet.receive_by(soon()).unwrap()), Answer::Refused(Refusal::NameUnknown));
    drop((quiet, hog, service, client, turned));
    assert_eq!(open(MOST), before);
}
