//! Requests and answers between two tasks, as between two processes, in Tokio's reactor: many askers on
//! one channel, patience, and an end. `cargo run --example tokio --features tokio`
#![allow(missing_docs, unreachable_pub, reason = "an example's own items")]

use std::time::Duration;

use fdpost::{AsyncChannel, Error, Head, Limits, Message, Packet};
use tokio::time::timeout;

/// Answers each request with its number, doubled.
async fn serve(mut channel: AsyncChannel<Packet>) -> Result<u64, Error> {
    let mut served = 0;
    loop {
        let request = match channel.receive().await {
            Ok(request) => request,
            // The other side is done: between two messages, so nothing is lost.
            Err(Error::Closed) => return Ok(served),
            Err(error) => return Err(error),
        };
        let answer = Head { correlation: request.head().correlation, ..Head::default() };
        channel.send(Message::new(request.payload().repeat(2)).with_head(answer)).await?;
        served += 1;
    }
}

pub async fn converse(mut tell: impl FnMut(String)) -> Result<(), Box<dyn std::error::Error>> {
    let (ours, theirs) = AsyncChannel::<Packet>::pair(Limits::new())?;
    // Usually another process's end, inherited or received.
    let service = tokio::spawn(serve(AsyncChannel::from_fd(theirs, Limits::new())?));

    let (sending, mut receiving) = ours.split();
    let askers: Vec<_> = (1..=4_u32)
        .map(|number| {
            let sending = sending.clone();
            tokio::spawn(async move {
                let head = Head { correlation: number, ..Head::default() };
                sending.send(Message::new(number.to_string()).with_head(head)).await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for _ in 1..=4 {
        // Given up, it would have lost nothing: the next receive goes on where it was.
        let answer = timeout(Duration::from_secs(60), receiving.receive()).await??;
        answers.push((answer.head().correlation, String::from_utf8_lossy(answer.payload()).into_owned()));
    }
    for asker in askers {
        asker.await??;
    }
    answers.sort();
    answers.into_iter().for_each(|(number, text)| tell(format!("{number}: {text}")));

    // Nobody speaks: the message that is not there is waited for, and not for ever.
    if timeout(Duration::from_millis(20), receiving.receive()).await.is_err() {
        tell("silence".into());
    }
    drop((sending, receiving));
    tell(format!("served {}", service.await??));
    Ok(())
}

#[allow(dead_code, reason = "a test runs `converse`")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    converse(|line| println!("{line}")).await
}
