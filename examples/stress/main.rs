//! Many threads on one channel, counted: `cargo run --release --example stress -- 8 1000000`.
//! Every message says who sent it and which of his it is; one in ten brings a descriptor.

use std::env;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use fdpost::{Channel, Deadline, Limits, Message, Packet};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut numbers = env::args().skip(1).map(|argument| argument.parse::<u64>());
    let (Some(Ok(threads @ 1..)), Some(Ok(messages))) = (numbers.next(), numbers.next()) else {
        eprintln!("usage: stress THREADS MESSAGES");
        return ExitCode::from(64);
    };
    match run(threads, messages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("stress: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn open() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Every message says who sent it and which of his it is. Where one is wrong the channel is dropped, so
/// that those who wait for room learn of it.
fn hear(mut theirs: Channel<Packet>, next: &mut [u64], messages: u64) -> Result<Channel<Packet>, Failure> {
    let mut message = Message::default();
    for _ in 0..messages {
        theirs.receive_into(&mut message, Deadline::NEVER)?;
        let (who, number) = message.payload().split_at_checked(8).ok_or("a message too short")?;
        let [who, number] = [u64::from_le_bytes(who.try_into()?), u64::from_le_bytes(number.try_into()?)];
        let expected = next.get_mut(usize::try_from(who)?).ok_or("a message from nobody")?;
        if number != *expected || message.descriptor_count() != usize::from(number % 10 == 0) {
            let count = message.descriptor_count();
            return Err(
                format!("{number} of {who} with {count} descriptors, where {expected} was due").into()
            );
        }
        *expected += 1;
    }
    Ok(theirs)
}

fn run(threads: u64, messages: u64) -> Result<(), Failure> {
    let device = std::fs::File::open("/dev/null")?;
    let before = open()?;
    let (ours, theirs) = Channel::<Packet>::pair(Limits::new())?;
    let theirs = Channel::<Packet>::from_fd(theirs, Limits::new().descriptors(1))?;
    let (sending, receiving) = ours.split();
    let device = device.as_fd();
    let begin = Instant::now();
    let mut next = vec![0_u64; usize::try_from(threads)?];
    let mut theirs = thread::scope(|scope| -> Result<_, Failure> {
        let senders: Vec<_> = (0..threads)
            .map(|who| {
                let sending = sending.clone();
                scope.spawn(move || -> Result<(), Failure> {
                    for number in 0..messages / threads {
                        let mut message = Message::new([who.to_le_bytes(), number.to_le_bytes()].concat());
                        if number % 10 == 0 {
                            message = message.with(device.try_clone_to_owned()?);
                        }
                        sending.send(message)?;
                    }
                    sending.flush_by(Deadline::NEVER).map_err(Failure::from)
                })
            })
            .collect();
        let theirs = hear(theirs, &mut next, messages / threads * threads)?;
        senders.into_iter().try_for_each(|sender| sender.join().map_err(|_| "a sender panicked")?)?;
        Ok(theirs)
    })?;
    let (sent, lost) = (sending.sent(), sending.lost());
    drop((sending, receiving));
    if !matches!(theirs.receive(), Err(fdpost::Error::Closed)) {
        return Err("something came behind the last message".into());
    }
    drop(theirs);
    let after = open()?;
    if after != before || lost.messages != 0 {
        return Err(format!("{before} descriptors were open before and {after} after; lost: {lost:?}").into());
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{} messages of {threads} threads in order, {} descriptors, none lost, none left open; {seconds:.1} s",
        sent.messages, sent.descriptors
    );
    Ok(())
}
