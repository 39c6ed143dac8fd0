//! Meeting in Tokio's reactor, over real sockets.

#[path = "support/driver.rs"]
mod driver;
#[path = "support/meeting.rs"]
mod meeting;
#[path = "support/runtime.rs"]
mod runtime;
mod support;

use std::os::fd::AsFd;

use driver::Wire;
use fdpost::{
    Address, AsyncChannel, AsyncListener, Channel, Error, Limits, Listener, Listening, Message, Misuse,
    Packet, PeerRule, Stream,
};
use meeting::abstract_name;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, shutdown};
use runtime::{on_both, others, poll_once, polls};
use support::Ledger;

const LIMITS: Limits = Limits::new().descriptors(2);

fn bound<P: Wire>(address: &Address, listening: Listening) -> AsyncListener<P> {
    AsyncListener::new(Listener::bind_with(address.clone(), LIMITS, listening).unwrap()).unwrap()
}

/// More clients at once than the backlog holds, each with its own conversation; accepts given up in
/// between lose none of them.
fn a_crowd<P: Wire>() {
    const CLIENTS: u32 = 60;
    let ledger = Ledger::open();
    on_both(async || {
        let address = abstract_name();
        let listener = bound::<P>(&address, Listening::new().backlog(2));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let address = address.clone();
                tokio::spawn(async move {
                    let mut channel = AsyncChannel::<P>::connect(address, LIMITS).await.unwrap();
                    let flags = OFlag::from_bits_retain(fcntl(channel.as_fd(), FcntlArg::F_GETFL).unwrap());
                    assert!(!flags.contains(OFlag::O_NONBLOCK), "it was set for the connect alone");
                    channel.send(Message::new(number.to_le_bytes())).await.unwrap();
                    assert_eq!(channel.receive().await.unwrap().payload(), number.to_le_bytes());
                })
            })
            .collect();
        let mut served = Vec::new();
        while served.len() < CLIENTS as usize {
            let Some(accepted) = polls(1, listener.accept(), || {}).await else {
                others().await;
                continue;
            };
            let mut channel = accepted.unwrap();
            served.push(tokio::spawn(async move {
                let message = channel.receive().await.unwrap();
                channel.send(message).await.unwrap();
            }));
        }
        for task in clients.into_iter().chain(served) {
            task.await.unwrap();
        }
    });
    ledger.close();
}

#[test] // P1
fn packet_a_crowd() {
    a_crowd::<Packet>();
}

#[test] // P1
fn stream_a_crowd() {
    a_crowd::<Stream>();
}

#[test] // P5
fn an_accept_sleeps_and_is_woken() {
    let ledger = Ledger::open();
    on_both(async || {
        let address = abstract_name();
        let listener = bound::<Packet>(&address, Listening::new());
        let mut accept = Box::pin(listener.accept());
        for _ in 0..3 {
            assert!(poll_once(accept.as_mut()).await.is_pending());
            others().await;
        }
        let client = tokio::task::spawn_blocking({
            let address = address.clone();
            move || Channel::<Packet>::connect(address, LIMITS).unwrap()
        });
        let accepted = accept.as_mut().await.unwrap();
        drop((accepted, client.await.unwrap()));
        drop(accept);

        let closer = listener.closer();
        let mut accept = Box::pin(listener.accept());
        assert!(poll_once(accept.as_mut()).await.is_pending());
        closer.shutdown();
        assert_eq!(accept.await.unwrap_err(), Error::Closed);

        // By somebody else who holds it.
        let listener = bound::<Packet>(&abstract_name(), Listening::new());
        let mut accept = Box::pin(listener.accept());
        assert!(poll_once(accept.as_mut()).await.is_pending());
        shutdown(std::os::fd::AsRawFd::as_raw_fd(&listener.as_fd()), Shutdown::Both).unwrap();
        assert_eq!(accept.await.unwrap_err(), Error::Closed);
    });
    ledger.close();
}

#[test] // P9
fn who_is_refused() {
    let ledger = Ledger::open();
    on_both(async || {
        let nobody = PeerRule::new().uid(u32::MAX - 7);
        let address = abstract_name();
        let listener = bound::<Packet>(&address, Listening::new().rule(nobody.clone()));
        let connect = AsyncChannel::<Packet>::connect_with(address.clone(), LIMITS, &nobody);
        assert!(matches!(connect.await.unwrap_err(), Error::PeerRefused { .. }));
        let client = AsyncChannel::<Packet>::connect(address, LIMITS).await.unwrap();
        // Two came, and neither passes.
        for _ in 0..2 {
            assert!(matches!(listener.accept().await.unwrap_err(), Error::PeerRefused { .. }));
        }
        assert_eq!(listener.into_inner().refused(), 2);
        drop(client);
        let nobody_listens = AsyncChannel::<Packet>::connect(abstract_name(), LIMITS).await.unwrap_err();
        assert!(matches!(nobody_listens, Error::Io { call: "connect", .. }), "{nobody_listens:?}");
    });
    ledger.close();
}

#[test]
fn outside_a_runtime() {
    let ledger = Ledger::open();
    let listener = Listener::<Packet>::bind(abstract_name(), LIMITS).unwrap();
    assert_eq!(AsyncListener::new(listener).unwrap_err(), Misuse::NoRuntime.into());
    ledger.close();
}
