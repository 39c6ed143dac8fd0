//! `--broker PATH --name NAME`: a channel from a broker in place of one that was connected.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Args;
use fdpost::broker::{Audience, Name};
use fdpost::{Address, BrokerClient, Closer, Deadline, Error, Libcamera, Limits, Packet, PeerRule, Stream};
use nix::errno::Errno;

use crate::conversation::Opened;
use crate::exit::{Failure, Outcome};
use crate::options::{self, Profile};

/// Which broker, and which name.
#[derive(Args, Clone, Debug)]
pub(crate) struct Brokered {
    /// Meet through the broker at this path (`fdpost broker`), or under the abstract name that follows
    /// an @ (packet, stream, libcamera)
    #[arg(long, value_name = "PATH", value_parser = options::address, requires = "name", group = "place")]
    broker: Option<Address>,
    /// The name under which the broker knows the service
    #[arg(long, value_name = "NAME", value_parser = name, requires = "broker")]
    name: Option<String>,
}

fn name(text: &str) -> Result<String, String> {
    Name::new(text).map(|name| name.to_string()).map_err(|misuse| misuse.to_string())
}

impl Brokered {
    pub(crate) const fn is_given(&self) -> bool {
        self.broker.is_some()
    }

    fn place(&self) -> Option<(&Address, &str)> {
        self.broker.as_ref().zip(self.name.as_deref())
    }

    /// A channel to whoever serves the name; `None`, where no broker is given.
    pub(crate) fn ask(
        &self,
        profile: Profile,
        limits: Limits,
        rule: &PeerRule,
        until: Deadline,
    ) -> Option<Outcome<Opened>> {
        let (address, name) = self.place()?;
        let ask = || {
            let mut broker = connect(address, rule, until)?;
            let asked = match profile {
                Profile::Libcamera => {
                    broker.ask::<Libcamera>(name, limits, until).map(|fresh| Opened::Libcamera(fresh.channel))
                }
                Profile::Packet => {
                    broker.ask::<Packet>(name, limits, until).map(|fresh| Opened::Packet(fresh.channel))
                }
                Profile::Stream => {
                    broker.ask::<Stream>(name, limits, until).map(|fresh| Opened::Stream(fresh.channel))
                }
                Profile::SendFd => return Err(no_wire()),
            };
            asked.map_err(|error| Failure::of(format_args!("asking {address} for {name:?}"), error))
        };
        Some(ask())
    }

    /// Serves the name; `None`, where no broker is given.
    pub(crate) fn serve(
        &self,
        profile: Profile,
        limits: Limits,
        peer_uid: Option<u32>,
    ) -> Option<Outcome<Counter>> {
        let (address, name) = self.place()?;
        let serve = || {
            let audience = peer_uid.map_or(Audience::SameUser, Audience::User);
            let mut broker = connect(address, &PeerRule::new(), Deadline::NEVER)?;
            let never = Deadline::NEVER;
            match profile {
                Profile::Libcamera => broker.register::<Libcamera>(name, limits, audience, never),
                Profile::Packet => broker.register::<Packet>(name, limits, audience, never),
                Profile::Stream => broker.register::<Stream>(name, limits, audience, never),
                Profile::SendFd => return Err(no_wire()),
            }
            .map_err(|error| Failure::of(format_args!("serving {name:?} at {address}"), error))?;
            let closer = broker.closer();
            Ok(Counter { broker: Mutex::new(broker), closer, shut: AtomicBool::new(false), profile, limits })
        };
        Some(serve())
    }
}

fn connect(address: &Address, rule: &PeerRule, until: Deadline) -> Outcome<BrokerClient> {
    BrokerClient::connect_with(address, rule, until)
        .map_err(|error| Failure::of(format_args!("connecting to the broker at {address}"), error))
}

fn no_wire() -> Failure {
    Failure::usage("a broker hands out channels, and send-fd is none; choose another --profile")
}

/// Where clients come from, one after the other.
pub(crate) struct Counter {
    broker: Mutex<BrokerClient>,
    closer: Closer,
    shut: AtomicBool,
    profile: Profile,
    limits: Limits,
}

impl Counter {
    /// The next client. Of several threads one waits for the broker, the others for that one.
    pub(crate) fn accept(&self, until: Deadline) -> Result<Opened, Error> {
        let mut broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = match self.profile {
            Profile::Libcamera => {
                broker.accept_by(self.limits, until).map(|fresh| Opened::Libcamera(fresh.channel))
            }
            Profile::Packet => {
                broker.accept_by(self.limits, until).map(|fresh| Opened::Packet(fresh.channel))
            }
            Profile::Stream | Profile::SendFd => {
                broker.accept_by(self.limits, until).map(|fresh| Opened::Stream(fresh.channel))
            }
        };
        match accepted {
            // Nobody else can come any more, and it was not this side that wanted it so.
            Err(Error::Closed) if !self.shut.load(Ordering::SeqCst) => {
                Err(Error::PeerGone { errno: Errno::ECONNRESET as i32 })
            }
            accepted => accepted,
        }
    }

    /// Nobody is accepted any more.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        self.closer.shutdown();
    }
}
