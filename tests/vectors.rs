//! The recorded messages of every wire, in both directions, over real sockets: bytes that this
//! crate did not make give the message, and the message gives these bytes. (`vectors_python.rs`
//! holds the conversations with whom made them.)

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

/// Written on a little-endian machine, in the machine's own byte order.
#[cfg(target_endian = "little")]
mod stream {
    use super::*;
    use fdpost::Stream;

    struct Written {
        name: String,
        /// Header and payload; the marker's send carries the descriptors.
        sends: [Vec<u8>; 2],
        head: Head,
        payload: Vec<u8>,
        descriptors: usize,
        canonical: bool,
    }

    fn written() -> Vec<Written> {
        let one = |one: &Value| Written {
            name: one["name"].to_string(),
            sends: [bytes(&one["bytes"]), bytes(&one["marker"])],
            head: Head { kind: number(&one["kind"]), ..Head::default() },
            payload: bytes(&one["payload"]),
            descriptors: number(&one["descriptors"]),
            canonical: one["canonical"].as_bool().unwrap(),
        };
        let all: Vec<_> = vectors("stream.json", "messages").unwrap().iter().map(one).collect();
        assert!(all.len() >= 15, "vectors are only ever added: {}", all.len());
        all
    }

    #[test] // P1, P2
    fn written_bytes_give_their_messages() {
        let ledger = Ledger::open();
        // One by one, and all of them over one channel: nothing marks where one ends.
        let (mut all, theirs) = Channel::<Stream>::pair(LIMITS).unwrap();
        for Written { name, sends: [plain, marker], head, payload, descriptors, .. } in written() {
            let (mut channel, peer) = Channel::<Stream>::pair(LIMITS).unwrap();
            let sent = files(descriptors);
            for peer in [&peer, &theirs] {
                raw_send(peer, &plain, &[]);
                if !marker.is_empty() {
                    raw_send(peer, &marker, &sent);
                }
            }
            assert_receives(&name, &mut channel, head, &payload, &names(&sent));
            assert_receives(&name, &mut all, head, &payload, &names(&sent));
            assert!(channel.try_receive().unwrap().is_none(), "{name}");
        }
        drop((all, theirs));
        ledger.close();
    }

    #[test] // P1, P2, P6
    fn messages_give_the_written_bytes() {
        let ledger = Ledger::open();
        for one in written().into_iter().filter(|one| one.canonical) {
            let Written { name, sends, head, payload, descriptors, .. } = one;
            let sent = files(descriptors);
            let files = names(&sent);
            let (mut ours, theirs) = Channel::<Stream>::pair(LIMITS).unwrap();
            ours.send(sent.into_iter().fold(Message::new(payload).with_head(head), Message::with)).unwrap();
            // The kernel hands a send with descriptors over by itself: how many sends there were
            // is no one's business, what they carried is.
            let (mut bytes, mut came) = (Vec::new(), Vec::new());
            while let Ok((more, found)) = raw_receive(&theirs) {
                bytes.extend(more);
                came.extend(found);
            }
            assert_eq!((bytes, came), (sends.concat(), files), "{name}");
        }
        ledger.close();
    }
}

mod send_fd {
    use super::*;
    use fdpost::driver::{FdReply, receive_fd, send_error, send_fd};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    #[test] // P1, P2
    fn written_messages_go_both_ways() {
        let ledger = Ledger::open();
        let all = vectors("send_fd.json", "messages").unwrap();
        assert!(all.len() >= 10, "vectors are only ever added: {}", all.len());
        for kind in [SockType::Stream, SockType::SeqPacket, SockType::Datagram] {
            for one in &all {
                let (name, wire, text) = (&one["name"], bytes(&one["bytes"]), bytes(&one["text"]));
                let (status, count): (u8, usize) = (number(&one["status"]), number(&one["descriptors"]));
                let (ours, theirs) =
                    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
                let sent = files(count);
                raw_send(&theirs, &wire, &sent);
                let reply = receive_fd(&ours, Deadline::after(Duration::from_secs(5))).unwrap();
                match (reply, &sent[..]) {
                    (FdReply::Descriptor(came), [sent]) => {
                        assert_eq!(identity(&came), identity(sent), "{name}");
                        send_fd(&ours, sent).unwrap();
                    }
                    (FdReply::Error { status: came, text: words }, []) => {
                        assert_eq!((came, &words), (status, &text), "{name}");
                        send_error(&ours, status, words).unwrap();
                    }
                    (reply, _) => panic!("{name}: {reply:?}"),
                }
                assert_eq!(raw_receive(&theirs), Ok((wire, names(&sent))), "{name}");
            }
        }
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
