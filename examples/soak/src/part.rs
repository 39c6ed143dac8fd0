//! What a peer is told on its command line, and its server knows of it.

use std::fmt;

use crate::attacks::{self, Attack, Then};
use crate::support::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireName {
    Packet,
    Libcamera,
    Stream,
}

impl WireName {
    pub(crate) const ALL: [Self; 3] = [Self::Packet, Self::Libcamera, Self::Stream];
}

/// How a channel is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    Split,
    /// The server calls.
    Calls,
    /// The peer calls.
    Called,
    /// `send_fd`; the wire stands for a type of socket.
    HandOver,
}

/// One session's peer.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) way: Way,
    pub(crate) wire: WireName,
    pub(crate) handshake: bool,
    pub(crate) seed: u64,
    /// Which of [`Part::attacks`].
    pub(crate) attack: Option<usize>,
    /// A defect of the soak's own, to see that it fails.
    pub(crate) plant: Option<String>,
}

/// Rules of calls: who made the call, and what the peer does with it. The raw part is empty.
macro_rules! in_calls {
    ($($name:literal $rule:literal),*) => {
        &[$(Attack { name: $name, rule: $rule, sends: |_| Vec::new(), then: Then::Stay }),*]
    };
}

const PACKET_CALLS: &[Attack] = in_calls!("answer-to-nothing" "reply-unknown", "answered-twice" "reply-unknown", "more-descriptors" "reply-descriptors");
const LIBCAMERA_CALLS: &[Attack] = in_calls!("answer-to-nothing" "reply-unknown", "answered-twice" "reply-unknown", "more-descriptors" "reply-descriptors", "another-command" "reply-command", "short" "header-length");
const STREAM_CALLS: &[Attack] =
    in_calls!("answered-twice" "reply-unknown", "more-descriptors" "reply-descriptors");
const STREAM_CALLED: &[Attack] = in_calls!("two-calls" "call-overlap");

impl Part {
    /// Every rule that a peer in this place can break.
    pub(crate) fn attacks(&self) -> &'static [Attack] {
        match (self.way, self.wire) {
            (Way::HandOver, WireName::Stream) => attacks::HAND_OVER_STREAM,
            (Way::HandOver, _) => attacks::HAND_OVER_PACKETS,
            (Way::Calls, WireName::Packet) => PACKET_CALLS,
            (Way::Calls, WireName::Libcamera) => LIBCAMERA_CALLS,
            (Way::Calls, WireName::Stream) => STREAM_CALLS,
            (Way::Called, WireName::Stream) => STREAM_CALLED,
            (Way::Called, _) => &[],
            (_, WireName::Packet) => attacks::PACKET,
            (_, WireName::Libcamera) => attacks::LIBCAMERA,
            (Way::Whole, WireName::Stream) if self.handshake => attacks::HANDSHAKE,
            (_, WireName::Stream) => attacks::STREAM,
        }
    }

    pub(crate) fn attack(&self) -> Option<&'static Attack> {
        self.attacks().get(self.attack?)
    }

    /// Honest messages before the attack.
    pub(crate) fn honest_first(&self) -> u32 {
        if self.handshake { 0 } else { Random(self.seed).below(20) as u32 }
    }

    pub(crate) fn planted(&self, defect: &str) -> bool {
        self.plant.as_deref() == Some(defect)
    }

    pub(crate) fn words(&self) -> Vec<String> {
        let way = [Way::Whole, Way::Split, Way::Calls, Way::Called, Way::HandOver]
            .iter()
            .position(|way| *way == self.way);
        let wire = WireName::ALL.iter().position(|wire| *wire == self.wire);
        let numbers = [way, wire].map(Option::unwrap_or_default);
        let mut words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        words.push(u8::from(self.handshake).to_string());
        words.push(self.seed.to_string());
        words.push(self.attack.map_or("-".into(), |attack| attack.to_string()));
        words.push(self.plant.clone().unwrap_or("-".into()));
        words
    }

    pub(crate) fn parse(words: &[String]) -> Option<Self> {
        let [way, wire, handshake, seed, attack, plant] = words else { return None };
        Some(Self {
            way: [Way::Whole, Way::Split, Way::Calls, Way::Called, Way::HandOver]
                .into_iter()
                .nth(way.parse().ok()?)?,
            wire: WireName::ALL.into_iter().nth(wire.parse().ok()?)?,
            handshake: handshake == "1",
            seed: seed.parse().ok()?,
            attack: attack.parse().ok(),
            plant: Some(plant.clone()).filter(|plant| plant != "-"),
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?}{} seed {:#x}",
            self.wire,
            self.way,
            if self.handshake { " (handshake)" } else { "" },
            self.seed
        )?;
        self.attack().map_or(Ok(()), |attack| write!(f, " attack {}, {}", attack.name, attack.rule))
    }
}
