//! The recorded messages of both wires, in both directions, over real sockets: bytes that this
//! crate did not make give the message, and the message gives these bytes.

mod support;
#[path = "support/vimc.rs"]
mod vimc;

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use fdpost::{Channel, Deadline, Head, Limits, Message, Packet, Profile};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::Value;
use support::{Ledger, files, identity, raw_send};
use vimc::{unhex, vectors};

const LIMITS: Limits = Limits::new().descriptors(16);

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap()).unwrap()
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value) -> T {
    value.as_u64().unwrap().try_into().unwrap()
}

/// One datagram or packet as the kernel has it: bytes, and which files its descriptors are.
fn raw_receive(socket: &OwnedFd) -> nix::Result<(Vec<u8>, Vec<PathBuf>)> {
    let mut buffer = [0; 4096];
    let mut control = nix::cmsg_space!([RawFd; 17]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    assert!(!received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC));
    let mut names = Vec::new();
    for message in received.cmsgs().unwrap() {
        let ControlMessageOwned::ScmRights(descriptors) = message else { panic!("{message:?}") };
        for descriptor in descriptors {
            names.push(identity(&descriptor));
            nix::unistd::close(descriptor).unwrap();
        }
    }
    let length = received.bytes;
    Ok((buffer[..length].to_vec(), names))
}

/// Sends `message` and expects exactly these datagrams, each with these files, and no more.
#[track_caller]
fn assert_sends<P: Profile>(name: &str, message: Message, expected: &[(Vec<u8>, Vec<PathBuf>)]) {
    let (mut ours, theirs) = Channel::<P>::pair(LIMITS).unwrap();
    ours.send(message).unwrap();
    for (index, datagram) in expected.iter().enumerate() {
        assert_eq!(raw_receive(&theirs).as_ref(), Ok(datagram), "{name}, datagram {index}");
    }
    assert_eq!(raw_receive(&theirs), Err(Errno::EAGAIN), "{name}: nothing more");
}

/// The next message has this head, payload and these files.
#[track_caller]
fn assert_receives<P: Profile>(
    name: &str,
    channel: &mut Channel<P>,
    head: Head,
    payload: &[u8],
    files: &[PathBuf],
) {
    let received = channel.receive_by(Deadline::after(Duration::from_secs(5)));
    let mut message = received.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(*message.head(), head, "{name}");
    assert_eq!(message.payload(), payload, "{name}");
    let came: Vec<PathBuf> = message.take_all().map(|descriptor| identity(&descriptor)).collect();
    assert_eq!(came, files, "{name}");
}

fn names(descriptors: &[OwnedFd]) -> Vec<PathBuf> {
    descriptors.iter().map(identity).collect()
}

/// Recorded on a little-endian machine, in the machine's own byte order.
#[cfg(target_endian = "little")]
mod libcamera {
    use super::*;
    use fdpost::Libcamera;

    struct Recorded {
        name: String,
        header: Vec<u8>,
        payload: Vec<u8>,
        descriptors: usize,
    }

    fn recorded() -> Vec<Recorded> {
        let all: Vec<_> = vectors("libcamera.json", "messages")
            .unwrap()
            .iter()
            .map(|one| Recorded {
                name: format!("{} {}", one["name"], one["direction"]),
                header: bytes(&one["header"]),
                payload: bytes(&one["payload"]),
                descriptors: number(&one["descriptors"]),
            })
            .collect();
        assert!(all.len() >= 11, "vectors are only ever added: {}", all.len());
        all
    }

    #[test] // P1, P2
    fn recorded_datagrams_give_the_message() {
        let ledger = Ledger::open();
        for Recorded { name, header, payload, descriptors } in recorded() {
            let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
            let sent = files(descriptors);
            raw_send(&peer, &header, &[]);
            raw_send(&peer, &payload, &sent);
            assert_receives(&name, &mut channel, Head::default(), &payload, &names(&sent));
            assert_eq!(channel.try_receive().unwrap().map(Message::into_payload), None, "{name}");
        }
        ledger.close();
    }

    #[test] // P1, P2, P6
    fn the_message_gives_the_recorded_datagrams() {
        let ledger = Ledger::open();
        for Recorded { name, header, payload, descriptors } in recorded() {
            let sent = files(descriptors);
            let expected = [(header, Vec::new()), (payload.clone(), names(&sent))];
            let message = sent.into_iter().fold(Message::new(payload), Message::with);
            assert_sends::<Libcamera>(&name, message, &expected);
        }
        ledger.close();
    }

    #[test] // P1
    fn the_whole_recording_goes_over_one_channel() {
        let ledger = Ledger::open();
        let (mut channel, peer) = Channel::<Libcamera>::pair(LIMITS).unwrap();
        let all = recorded();
        for one in &all {
            raw_send(&peer, &one.header, &[]);
            raw_send(&peer, &one.payload, &files(one.descriptors));
        }
        for one in &all {
            let message = channel.receive_by(Deadline::after(Duration::from_secs(5))).unwrap();
            assert_eq!(message.payload(), one.payload, "{}", one.name);
            assert_eq!(message.descriptor_count(), one.descriptors, "{}", one.name);
        }
        drop((channel, peer));
        ledger.close();
    }
}

struct Frame {
    head: Head,
    payload: Vec<u8>,
    descriptors: usize,
}

/// The packets' names, bytes and frames.
fn packets() -> Vec<(String, Vec<u8>, Vec<Frame>)> {
    let frame = |one: &Value| Frame {
        head: Head {
            kind: number(&one["kind"]),
            correlation: number(&one["correlation"]),
            flags: number(&one["flags"]),
            reply_descriptors: number(&one["reply_descriptors"]),
        },
        payload: bytes(&one["payload"]),
        descriptors: number(&one["descriptors"]),
    };
    let packet = |one: &Value| {
        let frames: Vec<Frame> = one["frames"].as_array().unwrap().iter().map(frame).collect();
        assert!(!frames.is_empty(), "{}", one["name"]);
        (one["name"].to_string(), bytes(&one["bytes"]), frames)
    };
    let all: Vec<_> = vectors("packet.json", "packets").unwrap().iter().map(packet).collect();
    assert!(all.len() >= 15, "vectors are only ever added: {}", all.len());
    all
}

#[test] // P1, P2
fn recorded_packets_give_their_messages_in_order() {
    let ledger = Ledger::open();
    let mut coalesced = 0;
    for (name, packet, frames) in packets() {
        let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
        let sent = files(frames.iter().map(|frame| frame.descriptors).sum());
        raw_send(&peer, &packet, &sent);
        let mut pool = &names(&sent)[..];
        for Frame { head, payload, descriptors } in &frames {
            let (claimed, rest) = pool.split_at(*descriptors);
            assert_receives(&name, &mut channel, *head, payload, claimed);
            pool = rest;
        }
        assert!(channel.try_receive().unwrap().is_none(), "{name}");
        coalesced += usize::from(frames.len() > 1);
    }
    assert!(coalesced >= 5, "{coalesced} packets of several frames");
    ledger.close();
}

#[test] // P1, P2, P6
fn a_message_gives_the_recorded_packet() {
    let ledger = Ledger::open();
    let mut singles = 0;
    for (name, packet, mut frames) in packets() {
        let Some(Frame { head, payload, descriptors }) = frames.pop().filter(|_| frames.is_empty()) else {
            continue;
        };
        let sent = files(descriptors);
        let expected = [(packet, names(&sent))];
        let message = sent.into_iter().fold(Message::new(payload).with_head(head), Message::with);
        assert_sends::<Packet>(&name, message, &expected);
        singles += 1;
    }
    assert!(singles >= 10, "{singles} packets of a single frame");
    ledger.close();
}

#[test] // P4
fn the_most_that_was_held_is_no_less_than_what_is_held() {
    let ledger = Ledger::open();
    for (name, packet, frames) in packets() {
        let (mut channel, peer) = Channel::<Packet>::pair(LIMITS).unwrap();
        raw_send(&peer, &packet, &files(frames.iter().map(|frame| frame.descriptors).sum()));
        for _ in &frames {
            channel.receive_by(Deadline::after(Duration::from_secs(5))).unwrap();
            let stats = channel.stats();
            assert!(stats.held_most.bytes >= stats.held.bytes, "{name}: {stats:?}");
        }
    }
    ledger.close();
}
