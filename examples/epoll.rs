//! An event loop of one's own: three channels driven by hand with epoll(7). What the loop owes each
//! channel: read when it is readable, try again when it is writable if it asked for that, and look at it
//! when its time has come. `cargo run --example epoll`
#![allow(missing_docs, unreachable_pub, reason = "an example's own items")]

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use fdpost::{Channel, Error, Limits, Message, SendError, Sent, Stream};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// A channel, and what could not be sent yet.
struct Client {
    channel: Channel<Stream>,
    answer: Option<Message>,
    served: u32,
}

impl Client {
    /// Level-triggered: asked for again each time, so nothing needs to be drained.
    fn events(&self) -> EpollFlags {
        let blocked = self.answer.is_some() || self.channel.wants_write();
        // One answer waits at most: until then nothing more is read.
        let reads = if self.answer.is_some() { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
        reads | if blocked { EpollFlags::EPOLLOUT } else { EpollFlags::empty() }
    }

    fn answer(&mut self) -> Result<(), Error> {
        let Some(answer) = self.answer.take() else { return Ok(()) };
        match self.channel.try_send(answer) {
            // Pending: it has begun, and the channel owns the rest.
            Ok(Sent::Complete | Sent::Pending) => self.served += 1,
            Ok(_) => {}
            Err(SendError { error: Error::WouldBlock | Error::Pressure { .. }, mut messages }) => {
                self.answer = messages.pop();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// As far as it goes now.
    fn step(&mut self) -> Result<(), Error> {
        self.answer()?;
        while self.answer.is_none() {
            // Sends, too, what is pending.
            let Some(request) = self.channel.try_receive()? else { break };
            self.answer = Some(Message::new(request.payload().to_ascii_uppercase()));
            self.answer()?;
        }
        Ok(())
    }
}

pub fn serve(mut tell: impl FnMut(String)) -> Result<(), Box<dyn std::error::Error>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let limits = Limits::new().assembly_timeout(Duration::from_secs(60));
    let mut clients = Vec::new();
    let mut peers = Vec::new();
    for number in 0..3_u64 {
        let (channel, theirs) = Channel::<Stream>::pair(limits)?;
        epoll.add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
        clients.push(Some(Client { channel, answer: None, served: 0 }));
        peers.push(thread::spawn(move || -> Result<usize, Error> {
            let mut peer = Channel::<Stream>::from_fd(theirs, limits)?;
            let mut bytes = 0;
            for request in 0..200_usize {
                peer.send(Message::new(vec![b'a'; request * 100]))?;
                bytes += peer.receive()?.payload().iter().filter(|byte| **byte == b'A').count();
            }
            Ok(bytes)
        }));
    }

    while clients.iter().any(Option::is_some) {
        // The nearest moment at which a channel wants to be looked at although its socket is silent.
        let soonest = clients.iter().flatten().filter_map(|client| client.channel.timeout()).min();
        let timeout = soonest.map_or(EpollTimeout::NONE, |left| {
            EpollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
        });
        let mut events = [EpollEvent::empty(); 8];
        let count = epoll.wait(&mut events, timeout)?;
        let mut ready: Vec<u64> = events[..count].iter().map(EpollEvent::data).collect();
        // Whose time has come is looked at like whose socket is ready.
        ready.extend(
            (0_u64..).zip(&clients).filter_map(|(number, client)| {
                client.as_ref()?.channel.timeout()?.is_zero().then_some(number)
            }),
        );
        for number in ready {
            let place = &mut clients[usize::try_from(number)?];
            let Some(client) = place else { continue };
            match client.step() {
                Ok(()) => {
                    let mut event = EpollEvent::new(client.events(), number);
                    epoll.modify(client.channel.as_fd(), &mut event)?;
                }
                Err(error) => {
                    tell(format!("client {number}: {} answers, then: {error}", client.served));
                    epoll.delete(&client.channel)?;
                    *place = None;
                }
            }
        }
    }
    for peer in peers {
        let bytes = peer.join().map_err(|_| "a peer panicked")??;
        tell(format!("{bytes} bytes came back"));
    }
    Ok(())
}

#[allow(dead_code, reason = "a test runs `serve`")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    serve(|line| println!("{line}"))
}
