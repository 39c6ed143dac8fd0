//! Who talks with whom. Each scenario says of everybody how it ended; one of them has the fault.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use fdpost::broker::{Audience, Quotas};
use fdpost::calls::Answer;
use fdpost::driver::{Event, Sent};
use fdpost::profile::Profile;
use fdpost::{
    Accept, Address, Broker, BrokerClient, Calls, Channel, Deadline, Error, Head, Libcamera, Limits,
    Listener, Listening, Message, Packet, PeerRule, Policy, Seals, Stream,
};

use crate::party::{Closers, PICTURE, Party, Report, Stop, broken, play, soon};
use crate::shim::Fault;
use crate::{handing, reactor};

/// A name and its parts.
pub(crate) const SCENARIOS: [(&str, &[&str]); 9] = [
    ("packet", &["left", "right"]),
    ("libcamera", &["left", "right"]),
    ("stream", &["left", "right"]),
    ("meeting", &["server", "client"]),
    ("halves", &["left", "right"]),
    ("reactor", &["left", "right"]),
    ("send_fd", &["giver", "taker"]),
    ("calls", &["caller", "called"]),
    ("broker", &["broker", "service", "client"]),
];

pub(crate) const LIMITS: Limits = Limits::new().descriptors(4).assembly_timeout(Duration::from_secs(30));

pub(crate) fn for_part(fault: Option<Fault>, victim: &str, part: &str) -> Option<Fault> {
    fault.filter(|_| victim == part)
}

/// Plays it with the fault on `victim`'s way.
pub(crate) fn run(scenario: &str, victim: &str, fault: Option<Fault>) -> Vec<Report> {
    match scenario {
        "packet" => exchange::<Packet>(victim, fault),
        "libcamera" => exchange::<Libcamera>(victim, fault),
        "stream" => exchange::<Stream>(victim, fault),
        "meeting" => meeting(victim, fault),
        "halves" => handing::halves(victim, fault),
        "reactor" => reactor::asynchronous(victim, fault),
        "send_fd" => handing::single(victim, fault),
        "calls" => calls(victim, fault),
        _ => brokered(victim, fault),
    }
}

pub(crate) fn policy() -> Policy {
    Policy::new().every(Accept::memfd_of(PICTURE as u64, Seals::SHRINK).readable())
}

/// Pictures both ways, a large message, and a burst, over a pair.
fn exchange<P: Profile>(victim: &str, fault: Option<Fault>) -> Vec<Report>
where
    P::Declared: Send,
{
    let (give, take) = mpsc::channel();
    let closers = Closers::default();
    // A death is invisible on a pair of datagram sockets: somebody tells.
    let datagrams = P::NAME == "libcamera";
    let told = |report: Report| {
        if datagrams && report.end.is_err() {
            closers.shut();
        }
        report
    };
    thread::scope(|scope| {
        let left = scope.spawn(|| {
            told(play("left", for_part(fault, victim, "left"), |party| {
                let (mut channel, theirs) = party.twice(|| Channel::<P>::pair(LIMITS))?;
                closers.add(channel.closer());
                let _nobody_takes_it = give.send(theirs);
                drop(give);
                left(party, &mut channel)
            }))
        });
        let right = scope.spawn(|| {
            told(play("right", for_part(fault, victim, "right"), |party| {
                let take = take;
                let theirs = take.recv().map_err(|_| Stop::Alone)?;
                let mut channel = party.once(Channel::<P>::from_fd(theirs, LIMITS))?;
                closers.add(channel.closer());
                right(party, &mut channel)
            }))
        });
        [left, right].into_iter().map(|part| part.join().unwrap_or_else(|_| panicked())).collect()
    })
}

pub(crate) fn panicked() -> Report {
    Report { name: "somebody", end: broken("panicked"), errors: Vec::new(), struck: false }
}

fn left<P: Profile>(party: &mut Party, channel: &mut Channel<P>) -> Result<(), Stop> {
    channel.set_policy(policy());
    let pictures = Message::new([1; 100]).with(party.picture(1)?).with(party.picture(2)?);
    party.send(channel, pictures)?;
    party.send(channel, Message::new(vec![2; 5000]))?;
    let mut burst = Vec::new();
    for number in 3..8 {
        burst.push(Message::new([number; 64]).with(party.picture(number)?));
    }
    party.twice(|| channel.send_all_by(&mut burst, soon()).map(drop))?;
    if !burst.is_empty() {
        return broken("a burst left in part, without an error");
    }
    // One sleeps in its call, the other one in poll(2).
    for (number, deadline) in [(8, Deadline::NEVER), (9, soon())] {
        let mut answer = party.receive(channel, deadline, &[number; 64])?;
        party.look(&mut answer, 0, number)?;
    }
    party.send(channel, Message::new(b"bye"))
}

fn right<P: Profile>(party: &mut Party, channel: &mut Channel<P>) -> Result<(), Stop> {
    channel.set_policy(policy());
    channel.set_batch(4);
    let mut pictures = party.receive(channel, soon(), &[1; 100])?;
    party.look(&mut pictures, 0, 1)?;
    party.look(&mut pictures, 1, 2)?;
    party.receive(channel, soon(), &[2; 5000])?;
    for number in 3..8 {
        let mut one = party.receive(channel, soon(), &[number; 64])?;
        party.look(&mut one, 0, number)?;
    }
    for number in [8, 9] {
        let answer = Message::new([number; 64]).with(party.picture(number)?);
        party.send(channel, answer)?;
    }
    party.receive(channel, soon(), b"bye").map(drop)
}

/// A name of this process's own.
fn address() -> Address {
    Address::abstract_name(format!("fdpost-faults-{}", std::process::id()))
}

/// A listener with a rule, and two clients, the second one without any fault.
fn meeting(victim: &str, fault: Option<Fault>) -> Vec<Report> {
    let (listens, begin) = mpsc::channel();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            play("server", for_part(fault, victim, "server"), |party| {
                let listening = Listening::new().rule(PeerRule::new().uid(nix::unistd::getuid().as_raw()));
                let listener =
                    party.twice(|| Listener::<Packet>::bind_with(address(), LIMITS, listening.clone()))?;
                let _nobody_waits = listens.send(());
                drop(listens);
                loop {
                    let mut channel = party.twice(|| listener.accept_by(soon()))?;
                    match serve(party, &mut channel) {
                        Ok(true) => return Ok(()),
                        Ok(false) | Err(Stop::Final(_)) => {}
                        Err(stop) => return Err(stop),
                    }
                }
            })
        });
        let client = |name, last: &'static [u8], fault| {
            play(name, fault, |party| {
                let rule = PeerRule::new().uid(nix::unistd::getuid().as_raw());
                let mut channel =
                    party.twice(|| Channel::<Packet>::connect_with(address(), LIMITS, &rule, soon()))?;
                visit(party, &mut channel, last)
            })
        };
        if begin.recv().is_err() {
            return vec![server.join().unwrap_or_else(|_| panicked())];
        }
        let one = scope.spawn(move || client("client", b"more come", for_part(fault, victim, "client")));
        let one = one.join().unwrap_or_else(|_| panicked());
        let mut two = client("client two", b"the last", None);
        // The fault may have been for the answer to this one: then a third has a server.
        if two.end.is_err() && !server.is_finished() {
            two = client("client three", b"the last", None);
        }
        vec![server.join().unwrap_or_else(|_| panicked()), one, two]
    })
}

/// A picture, and one back; whether it was the last client.
fn serve(party: &mut Party, channel: &mut Channel<Packet>) -> Result<bool, Stop> {
    let mut message = party.twice(|| channel.receive_by(soon()))?;
    party.look(&mut message, 0, 1)?;
    let answer = Message::new(b"seen").with(party.picture(2)?);
    party.send(channel, answer)?;
    party.end(channel)?;
    Ok(message.payload() == b"the last")
}

fn visit(party: &mut Party, channel: &mut Channel<Packet>, word: &[u8]) -> Result<(), Stop> {
    channel.set_policy(policy());
    let picture = party.picture(1)?;
    party.send(channel, Message::new(word).with(picture))?;
    let mut answer = party.receive(channel, soon(), b"seen")?;
    party.look(&mut answer, 0, 2)
}

/// Three calls in flight whose answers bring a picture each.
fn calls(victim: &str, fault: Option<Fault>) -> Vec<Report> {
    let (give, take) = mpsc::channel();
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            play("caller", for_part(fault, victim, "caller"), |party| {
                let (channel, theirs) = party.twice(|| Channel::<Packet>::pair(LIMITS))?;
                let _nobody_takes_it = give.send(theirs);
                drop(give);
                call(party, &mut Calls::new(channel))
            })
        });
        let called = scope.spawn(|| {
            play("called", for_part(fault, victim, "called"), |party| {
                let take = take;
                let theirs = take.recv().map_err(|_| Stop::Alone)?;
                let channel = party.once(Channel::<Packet>::from_fd(theirs, LIMITS))?;
                answer(party, &mut Calls::new(channel))
            })
        });
        [caller, called].into_iter().map(|part| part.join().unwrap_or_else(|_| panicked())).collect()
    })
}

fn call(party: &mut Party, calls: &mut Calls<Packet>) -> Result<(), Stop> {
    let mut waiting = Vec::new();
    let mut last = None;
    for number in 1..4_u8 {
        let head = Head { reply_descriptors: 1, ..Head::default() };
        let started =
            party.twice(|| calls.start(Message::new([number]).with_head(head), soon()).map_err(Error::from));
        match started {
            Ok(call) => waiting.push((call, number)),
            Err(stop) => {
                last = Some(stop);
                break;
            }
        }
    }
    while !waiting.is_empty() {
        let (ended, answer) = match calls.receive_by(soon()) {
            Ok(Event::Answered { call, answer: Answer::Reply(message) }) => (call, Ok(message)),
            Ok(Event::Failed { call, error }) => (call, Err(error)),
            Ok(other) => return broken(other),
            Err(Error::TimedOut) => return broken("slept until its deadline"),
            Err(error) if party.errors.contains(&error) => return broken(format!("{waiting:?} have no end")),
            Err(error) => {
                party.errors.push(error);
                continue;
            }
        };
        let Some(at) = waiting.iter().position(|(call, _)| *call == ended) else {
            return broken(format!("{ended} ended twice"));
        };
        let (_, number) = waiting.remove(at);
        match answer {
            Ok(mut message) if message.payload() == [number] => party.look(&mut message, 0, number)?,
            Ok(message) => return broken(message),
            Err(Error::TimedOut) => return broken("a call slept until its deadline"),
            Err(error) => {
                if !party.errors.contains(&error) {
                    party.errors.push(error);
                }
                last = Some(Stop::Final(error));
            }
        }
    }
    last.map_or(Ok(()), Err)
}

fn answer(party: &mut Party, calls: &mut Calls<Packet>) -> Result<(), Stop> {
    loop {
        match calls.receive_by(soon()) {
            Ok(Event::Request { mut request, message }) => {
                let number = message.payload().first().copied().unwrap_or(0);
                let mut sent = None;
                for _ in 0..2 {
                    let reply = Message::new([number]).with(party.picture(number)?);
                    match calls.reply(&mut request, reply, soon()) {
                        Ok(Sent::Complete) => {
                            sent = None;
                            break;
                        }
                        Ok(other) => return broken(other),
                        Err(error) => {
                            if sent.replace(error.error) != Some(error.error) {
                                party.errors.push(error.error);
                            }
                        }
                    }
                }
                if let Some(error) = sent {
                    return Err(Stop::Final(error));
                }
            }
            Ok(other) => return broken(other),
            Err(Error::Closed) => return Ok(()),
            Err(Error::TimedOut) => return broken("slept until its deadline"),
            Err(error) if party.errors.contains(&error) => return Err(Stop::Final(error)),
            Err(error) => party.errors.push(error),
        }
    }
}

const NAME: &str = "pictures";

/// A broker, a service that speaks first, and two clients, the second one without any fault.
fn brokered(victim: &str, fault: Option<Fault>) -> Vec<Report> {
    let (listens, begin) = mpsc::channel();
    let (serves, ask) = mpsc::channel();
    thread::scope(|scope| {
        let broker = scope.spawn(|| {
            play("broker", for_part(fault, victim, "broker"), |party| {
                let mut broker = party.twice(|| Broker::bind(address(), Quotas::new()))?;
                let _nobody_waits = listens.send(broker.closer());
                drop(listens);
                party.twice(|| broker.run())
            })
        });
        let Ok(broker_closer) = begin.recv() else {
            return vec![broker.join().unwrap_or_else(|_| panicked())];
        };
        let service = scope.spawn(|| {
            play("service", for_part(fault, victim, "service"), |party| {
                let mut broker = party.twice(|| BrokerClient::connect(address()))?;
                party.twice(|| broker.register::<Packet>(NAME, LIMITS, Audience::SameUser, soon()))?;
                let _nobody_waits = serves.send(broker.closer());
                drop(serves);
                loop {
                    // The end is Closed, and no error.
                    let accepted = party.twice(|| match broker.accept_by::<Packet>(LIMITS, soon()) {
                        Err(Error::Closed) => Ok(None),
                        accepted => accepted.map(Some),
                    });
                    let Some(mut client) = accepted? else { return Ok(()) };
                    match greet(party, &mut client.channel) {
                        Ok(()) | Err(Stop::Final(_)) => {}
                        Err(stop) => return Err(stop),
                    }
                }
            })
        });
        let serving = ask.recv();
        let client = |name, fault| {
            play(name, fault, |party| {
                let rule = PeerRule::new();
                let mut broker = party.twice(|| BrokerClient::connect_with(address(), &rule, soon()))?;
                let mut service = party.twice(|| broker.ask::<Packet>(NAME, LIMITS, soon()))?;
                drop(broker);
                let mut greeting = party.receive(&mut service.channel, soon(), b"a picture, please")?;
                party.look(&mut greeting, 0, 1)?;
                let picture = party.picture(2)?;
                party.send(&mut service.channel, Message::new(b"here").with(picture))?;
                party.receive(&mut service.channel, soon(), b"thanks").map(drop)
            })
        };
        let mut reports = Vec::new();
        if serving.is_ok() {
            let one = scope.spawn(move || client("client", for_part(fault, victim, "client")));
            reports.push(one.join().unwrap_or_else(|_| panicked()));
            let mut two = client("client two", None);
            // The fault may have been for this one: then the next one is served.
            if two.end.is_err() {
                two = client("client three", None);
            }
            reports.push(two);
        }
        if let Ok(closer) = serving {
            closer.shutdown();
        }
        reports.push(service.join().unwrap_or_else(|_| panicked()));
        broker_closer.shutdown();
        reports.push(broker.join().unwrap_or_else(|_| panicked()));
        reports
    })
}

fn greet(party: &mut Party, channel: &mut Channel<Packet>) -> Result<(), Stop> {
    let picture = party.picture(1)?;
    party.send(channel, Message::new(b"a picture, please").with(picture))?;
    let mut answer = party.receive(channel, soon(), b"here")?;
    party.look(&mut answer, 0, 2)?;
    party.send(channel, Message::new(b"thanks"))
}
