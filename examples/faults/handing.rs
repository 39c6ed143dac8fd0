//! Scenarios of several senders over one channel, and of single descriptors.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use fdpost::driver::{FdReply, receive_fd_accepting, send_error, send_fd};
use fdpost::{Channel, Error, Limits, Message, Packet, Receiving, SendError, Sending};

use crate::party::{Party, Report, Stop, broken, play, soon};
use crate::scenario::{LIMITS, for_part, panicked, policy};
use crate::shim::Fault;

/// Messages of each sender.
const EACH: u8 = 3;

/// Two threads send over the halves of one channel, one of them with the fault; the peer, split too,
/// answers.
pub(crate) fn halves(victim: &str, fault: Option<Fault>) -> Vec<Report> {
    let (give, take) = mpsc::channel();
    thread::scope(|scope| {
        let left = scope.spawn(|| {
            let (lend, borrow) = mpsc::channel();
            let (ends, over) = mpsc::channel::<()>();
            thread::scope(|scope| {
                let beside = scope.spawn(|| {
                    play("beside", None, |party| {
                        let (borrow, _ends) = (borrow, ends);
                        let sending: Sending<Packet> = borrow.recv().map_err(|_| Stop::Alone)?;
                        send_all(party, &sending, 2)
                    })
                });
                let left = play("left", for_part(fault, victim, "left"), |party| {
                    let (channel, theirs) = party.twice(|| Channel::<Packet>::pair(LIMITS))?;
                    let _nobody_takes_it = give.send(theirs);
                    drop(give);
                    let (sending, receiving) = channel.split();
                    let _nobody_sends = lend.send(sending.clone());
                    drop(lend);
                    left(party, &sending, receiving, || {
                        let _beside_has_ended = over.recv();
                    })
                });
                vec![left, beside.join().unwrap_or_else(|_| panicked())]
            })
        });
        let right = scope.spawn(|| {
            play("right", for_part(fault, victim, "right"), |party| {
                let take = take;
                let theirs = take.recv().map_err(|_| Stop::Alone)?;
                let channel = party.once(Channel::<Packet>::from_fd(theirs, LIMITS))?;
                let (sending, receiving) = channel.split();
                right(party, &sending, receiving)
            })
        });
        let mut reports = left.join().unwrap_or_else(|_| vec![panicked()]);
        reports.push(right.join().unwrap_or_else(|_| panicked()));
        reports
    })
}

fn send(party: &mut Party, sending: &Sending<Packet>, message: Message) -> Result<(), Stop> {
    let first = match sending.send_by(message, soon()) {
        Ok(_) => return Ok(()),
        Err(first) => first,
    };
    let SendError { error, mut messages } = first;
    party.errors.push(error);
    let Some(message) = messages.pop().filter(|_| messages.is_empty()) else {
        return broken(format!("{error:?}, and {} messages came back", messages.len()));
    };
    match sending.send_by(message, soon()) {
        Ok(_) => Ok(()),
        Err(second) => Err(party.again(error, second.error)),
    }
}

fn send_all(party: &mut Party, sending: &Sending<Packet>, who: u8) -> Result<(), Stop> {
    for number in 0..EACH {
        let picture = party.picture(number)?;
        send(party, sending, Message::new([who, number]).with(picture))?;
    }
    Ok(())
}

fn left(
    party: &mut Party,
    sending: &Sending<Packet>,
    mut receiving: Receiving<Packet>,
    wait_for_beside: impl FnOnce(),
) -> Result<(), Stop> {
    receiving.set_policy(policy());
    send_all(party, sending, 1)?;
    let mut burst = Vec::new();
    for number in EACH..2 * EACH {
        burst.push(Message::new([1, number]).with(party.picture(number)?));
    }
    party.twice(|| sending.send_all_by(&mut burst, soon()).map(drop))?;
    if !burst.is_empty() {
        return broken("a burst was accepted in part, without an error");
    }
    // Nobody may leave before all has been said.
    wait_for_beside();
    // What was refused of somebody who had left is said here, once.
    party.twice(|| sending.flush_by(soon()))?;
    let lost = u8::try_from(sending.lost().messages).unwrap_or(u8::MAX);
    send(party, sending, Message::new([0, lost]))?;
    let mut answer = party.twice(|| receiving.receive_by(soon()))?;
    party.look(&mut answer, 0, 9)
}

fn right(party: &mut Party, sending: &Sending<Packet>, mut receiving: Receiving<Packet>) -> Result<(), Stop> {
    receiving.set_policy(policy());
    let mut next = [0; 3];
    loop {
        let mut message = party.twice(|| receiving.receive_by(soon()))?;
        match *message.payload() {
            [0, _] => break,
            [who @ (1 | 2), number] => {
                let next =
                    next.get_mut(usize::from(who)).map_or(0, |next| std::mem::replace(next, number + 1));
                if number < next {
                    return broken(format!("{number} of {who} after {next}"));
                }
                party.look(&mut message, 0, number)?;
            }
            _ => return broken("another message came"),
        }
    }
    let picture = party.picture(9)?;
    send(party, sending, Message::new(b"seen").with(picture))?;
    party.twice(|| sending.flush_by(soon()))
}

/// Descriptors and errors by themselves, over a stream: the classic.
pub(crate) fn single(victim: &str, fault: Option<Fault>) -> Vec<Report> {
    let Ok((ours, theirs)) = UnixStream::pair() else { return vec![panicked()] };
    let (given, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut reports: Vec<_> = thread::scope(|scope| {
        let giver = scope.spawn(|| {
            let ours = ours;
            play("giver", for_part(fault, victim, "giver"), |party| {
                for number in 0..4 {
                    let picture = party.picture(1)?;
                    party.twice(|| {
                        if number == 2 {
                            send_error(&ours, 7, "no picture")
                        } else {
                            send_fd(&ours, &picture)
                        }
                    })?;
                    given.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
        });
        let taker = scope.spawn(|| {
            let theirs = theirs;
            play("taker", for_part(fault, victim, "taker"), |party| {
                loop {
                    match receive_fd_accepting(&theirs, &Limits::new(), &policy(), soon()) {
                        Ok(FdReply::Descriptor(picture)) => {
                            party.look(&mut Message::new([]).with(picture), 0, 1)?;
                        }
                        Ok(FdReply::Error { status: 7, text }) if text == b"no picture" => {}
                        Ok(other) => return broken(other),
                        Err(Error::Closed) => return Ok(()),
                        Err(Error::TimedOut) => return broken("slept until its deadline"),
                        Err(error) if party.errors.contains(&error) => return Err(Stop::Final(error)),
                        Err(error) => {
                            party.errors.push(error);
                            // A question about a descriptor that was not answered: it is closed.
                            let asked = matches!(error, Error::Io { call: "statx" | "fcntl", .. });
                            taken.fetch_add(usize::from(asked), Ordering::SeqCst);
                            continue;
                        }
                    }
                    taken.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        [giver, taker].into_iter().map(|part| part.join().unwrap_or_else(|_| panicked())).collect()
    });
    // What was cut off in its middle was said to be.
    let (given, taken) = (given.into_inner(), taken.into_inner());
    if let Some(taker) = reports.iter_mut().find(|report| report.name == "taker") {
        if taker.end.is_ok() && taker.errors.is_empty() && given != taken {
            taker.end = broken(format!("{taken} of {given} came, without an error"));
        }
    }
    reports
}
