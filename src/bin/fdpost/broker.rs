//! `fdpost broker`: hands out channels by name until a signal ends it.

mod told;

use std::ffi::OsString;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use fdpost::broker::Quotas;
use fdpost::{Address, Broker, Error, Listening};
use nix::sys::signal::{SigSet, Signal};

use crate::closing;
use crate::exit::{Failure, Outcome, USAGE};
use crate::options::{self, Format};

/// Hand out fresh channels by name: a service registers one, a client asks for it, and each gets an
/// end of a pair of sockets made for the two of them.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints one line per event: ready, connected, turned-away, registered, withdrawn, granted, refused,
left, closed. It ends with SIGINT or SIGTERM; channels that were handed out live on.

What services and clients say is in docs/PROTOCOL.md (BR); programs use fdpost's BrokerClient.

Exit status: 0 ended by a signal, 64 usage, 74 I/O failed.

Example: fdpost broker --listen /run/user/1000/broker.sock --json")]
pub(crate) struct Options {
    /// Path of the socket to make, or @NAME for an abstract one
    #[arg(long, value_name = "PATH")]
    listen: OsString,
    /// Permission bits of the socket's file, octal: who may write it may connect
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = options::mode)]
    mode: u32,
    /// Only processes of this user may connect
    #[arg(long, value_name = "UID")]
    peer_uid: Option<u32>,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = Quotas::new().connections)]
    max_connections: u32,
    /// Connections of one user at once
    #[arg(long, value_name = "N", default_value_t = Quotas::new().user_connections)]
    user_connections: u32,
    /// Names at once
    #[arg(long, value_name = "N", default_value_t = Quotas::new().names)]
    max_names: u32,
    /// Names of one user at once
    #[arg(long, value_name = "N", default_value_t = Quotas::new().user_names)]
    user_names: u32,
    /// How long a party may leave its socket full before it is let go
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    patience: u64,
    #[command(flatten)]
    format: Format,
}

pub(crate) fn run(options: &Options) -> Outcome {
    // Before any thread: each inherits that these wait for the one that asks for them.
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(|errno| Failure::io("blocking signals", &errno.into()))?;

    let quotas = Quotas::new()
        .connections(options.max_connections, options.user_connections)
        .names(options.max_names, options.user_names)
        .patience(Duration::from_millis(options.patience));
    let rule = options::peer_rule(options.peer_uid)?;
    let listening = Listening::new().mode(options.mode).rule(rule);
    let address = Address::parse(&options.listen);
    let mut broker =
        Broker::bind_with(&address, quotas, listening).map_err(|error| unbound(&address, error))?;

    let closer = broker.closer();
    closing::thread("signals", move || {
        let _either = signals.wait();
        closer.shutdown();
    })?;
    broker.set_reaper(closing::reaper()?);

    let json = options.format.json;
    let (failed, failure) = mpsc::channel::<io::Error>();
    let closer = broker.closer();
    broker.set_observer(move |event| {
        if let Err(error) = told::tell(json, event) {
            // Nobody reads what it does any more.
            let _told_before = failed.send(error);
            closer.shutdown();
        }
    });
    told::plain(json, "ready")?;
    broker.run().map_err(|error| Failure::of("the broker cannot go on", error))?;
    drop(broker);
    match failure.try_recv() {
        Ok(error) => Err(error.into()),
        Err(_) => Ok(told::plain(json, "closed")?),
    }
}

fn unbound(address: &Address, error: Error) -> Failure {
    let advice = match error {
        Error::AddressInUse => "end who serves it, or choose another",
        Error::NotASocket => "choose a path where no other file is",
        Error::Misuse(_) => return Failure::of(format_args!("--listen {address}"), error),
        _ => "see that the directory is there and may be written",
    };
    Failure::new(USAGE, format_args!("--listen {address}: {error}; {advice}"))
}
