//! A channel in Tokio's reactor, whole and in halves.

use std::sync::mpsc;
use std::thread;

use fdpost::{AsyncChannel, AsyncReceiving, AsyncSending, Error, Message, Packet, SendError};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::party::{PATIENCE, Party, Report, Stop, broken, play};
use crate::scenario::{LIMITS, for_part, panicked, policy};
use crate::shim::Fault;

/// Made before any fault: its own calls are Tokio's.
fn runtime() -> Option<Runtime> {
    Builder::new_current_thread().enable_all().build().ok()
}

/// Pictures both ways: one side whole, then the other in halves.
pub(crate) fn asynchronous(victim: &str, fault: Option<Fault>) -> Vec<Report> {
    let (give, take) = mpsc::channel();
    thread::scope(|scope| {
        let left = scope.spawn(|| {
            let Some(runtime) = runtime() else { return panicked() };
            play("left", for_part(fault, victim, "left"), |party| {
                let _inside = runtime.enter();
                let (mut channel, theirs) = party.twice(|| AsyncChannel::<Packet>::pair(LIMITS))?;
                let _nobody_takes_it = give.send(theirs);
                drop(give);
                runtime.block_on(whole(party, &mut channel))
            })
        });
        let right = scope.spawn(|| {
            let Some(runtime) = runtime() else { return panicked() };
            play("right", for_part(fault, victim, "right"), |party| {
                let take = take;
                let theirs = take.recv().map_err(|_| Stop::Alone)?;
                let _inside = runtime.enter();
                let mut channel = party.once(AsyncChannel::<Packet>::from_fd(theirs, LIMITS))?;
                channel.set_policy(policy());
                let (sending, receiving) = channel.split();
                runtime.block_on(halves(party, &sending, receiving))
            })
        });
        [left, right].into_iter().map(|part| part.join().unwrap_or_else(|_| panicked())).collect()
    })
}

/// As [`Party::twice`], in time.
async fn twice<T>(party: &mut Party, mut what: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Stop> {
    let Ok(first) = timeout(PATIENCE, what()).await else { return broken("sleeps for ever") };
    let first = match first {
        Ok(value) => return Ok(value),
        Err(first) => first,
    };
    party.errors.push(first);
    match timeout(PATIENCE, what()).await {
        Ok(second) => second.map_err(|second| party.again(first, second)),
        Err(_) => broken(format!("sleeps for ever after {first:?}")),
    }
}

/// Sends, and once more what came back.
async fn send(
    party: &mut Party,
    message: Message,
    mut what: impl AsyncFnMut(Message) -> Result<(), SendError>,
) -> Result<(), Stop> {
    let mut message = Some(message);
    twice(party, async || {
        let Some(given) = message.take() else { return Err(Error::TimedOut) };
        what(given).await.map_err(|mut unsent| {
            message = unsent.messages.pop();
            unsent.error
        })
    })
    .await
}

async fn whole(party: &mut Party, channel: &mut AsyncChannel<Packet>) -> Result<(), Stop> {
    channel.set_policy(policy());
    for number in 0..3 {
        let picture = party.picture(number)?;
        send(party, Message::new([number]).with(picture), async |message| channel.send(message).await)
            .await?;
        let mut answer = twice(party, async || channel.receive().await).await?;
        party.look(&mut answer, 0, number)?;
    }
    send(party, Message::new(b"bye"), async |message| channel.send(message).await).await?;
    twice(party, async || channel.flush().await.map_err(Error::from)).await
}

async fn halves(
    party: &mut Party,
    sending: &AsyncSending<Packet>,
    mut receiving: AsyncReceiving<Packet>,
) -> Result<(), Stop> {
    loop {
        let mut message = twice(party, async || receiving.receive().await).await?;
        let [number] = *message.payload() else { break };
        party.look(&mut message, 0, number)?;
        let picture = party.picture(number)?;
        send(party, Message::new([number]).with(picture), async |message| sending.send(message).await)
            .await?;
    }
    twice(party, async || sending.flush().await).await
}
