//! A channel over a channel.

#[path = "support/driver.rs"]
mod driver;
mod support;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use driver::{Wire, ends, fill_until_pending, message, set_option, soon, twin};
use fdpost::accept::{Domain, SocketType};
use fdpost::{
    Accept, Channel, Error, Libcamera, Limits, Message, Misuse, Packet, Policy, Profile, Stream, Violation,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, socketpair, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use support::{Ledger, files, identity, libcamera_header, packet_header, raw_send, try_raw_send};

const ONE: Limits = Limits::new().descriptors(1);

/// `Q` goes over `P`, with what its peer had sent; then both directions talk.
fn over<P: Wire, Q: Wire>() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<P>(ONE);
    let (mut here, there) = ends::<Q>(ONE);
    let name = identity(&twin(&there));
    here.send(Message::new(b"before")).unwrap();
    let mut carrier = Message::new(b"take this");
    carrier.attach_channel(there).unwrap();
    ours.send(carrier).unwrap();
    here.send(Message::new(b"meanwhile")).unwrap();
    let mut came = theirs.receive_by(soon()).unwrap();
    let mut there = came.take_channel::<Q>(0, ONE).unwrap();
    assert_eq!(identity(&twin(&there)), name);
    assert_eq!(came.take_channel::<Q>(0, ONE).unwrap_err(), Misuse::DescriptorTaken { index: 0 }.into());
    here.send(message(b"after", files(1))).unwrap();
    for payload in [&b"before"[..], b"meanwhile", b"after"] {
        assert_eq!(there.receive_by(soon()).unwrap().payload(), payload, "{} over {}", Q::NAME, P::NAME);
    }
    there.send(Message::new(b"back")).unwrap();
    assert_eq!(here.receive_by(soon()).unwrap().payload(), b"back");
    drop((came, ours, theirs, here, there));
    ledger.close();
}

#[test] // P1, P2
fn any_wire_goes_over_any_other() {
    over::<Packet, Packet>();
    over::<Packet, Stream>();
    over::<Stream, Libcamera>();
    over::<Libcamera, Packet>();
}

#[test] // P2: the third process talks to the first through a channel that the second passed on
fn from_hand_to_hand() {
    let ledger = Ledger::open();
    let (mut first, mut second) = ends::<Packet>(ONE);
    let (mut passing, mut third) = ends::<Packet>(ONE);
    let (mut here, there) = ends::<Packet>(ONE);
    let mut carrier = Message::new(b"");
    carrier.attach_channel(there).unwrap();
    first.send(carrier).unwrap();
    let between = second.receive_by(soon()).unwrap().take_channel::<Packet>(0, ONE).unwrap();
    let mut carrier = Message::new(b"");
    carrier.attach_channel(between).unwrap();
    passing.send(carrier).unwrap();
    let mut end = third.receive_by(soon()).unwrap().take_channel::<Packet>(0, ONE).unwrap();
    end.send(Message::new(b"here I am")).unwrap();
    assert_eq!(here.receive_by(soon()).unwrap().payload(), b"here I am");
    drop((first, second, passing, third, here, end));
    ledger.close();
}

/// Not attached, for this reason; the channel and the message are as they were.
#[track_caller]
fn refused<P: Wire>(channel: Channel<P>, misuse: Misuse) -> Channel<P> {
    let name = identity(&twin(&channel));
    let mut carrier = message(b"carrier", files(1));
    let back = carrier.attach_channel(channel).unwrap_err();
    assert_eq!(back.misuse, misuse);
    assert_eq!((carrier.payload(), carrier.descriptor_count()), (&b"carrier"[..], 1));
    assert_eq!(identity(&twin(&back.channel)), name);
    *back.channel
}

/// Half of a message in each wire.
fn begun<P: Wire>(bytes: &[u8], rest: &[u8]) {
    let ledger = Ledger::open();
    let (mut ours, peer) = Channel::<P>::pair(ONE).unwrap();
    raw_send(&peer, bytes, &[]);
    assert!(ours.try_receive().unwrap().is_none());
    let mut ours = refused(ours, BUSY);
    raw_send(&peer, rest, &[]);
    assert_eq!(ours.receive_by(soon()).unwrap().payload(), b"abcd");
    Message::new(b"").attach_channel(ours).unwrap();
    drop(peer);
    ledger.close();
}

#[test] // P1
fn not_while_a_message_has_begun_to_come() {
    begun::<Libcamera>(&libcamera_header(4, 0), b"abcd");
    let whole = [&[0, 0, 0, 0][..], &4_u32.to_ne_bytes(), &[0, 0, 0, 0], b"abcd"].concat();
    for cut in 1..whole.len() {
        let (bytes, rest) = whole.split_at(cut);
        begun::<Stream>(bytes, rest);
    }
}

const BUSY: Misuse = Misuse::ChannelBusy { holds: "input that was not received" };

/// What `sends` bring comes in one read, and one message of it is delivered: nothing is lost.
#[track_caller]
fn half_received<P: Wire>(batch: u16, sends: &[&[u8]], descriptors: usize) {
    let (mut ours, peer) = Channel::<P>::pair(ONE).unwrap();
    ours.set_batch(batch);
    for bytes in sends {
        raw_send(&peer, bytes, &files(descriptors));
    }
    ours.receive_by(soon()).unwrap();
    let mut ours = refused(ours, BUSY);
    ours.receive_by(soon()).unwrap();
    Message::new(b"").attach_channel(ours).unwrap();
}

#[test] // P1
fn not_while_messages_wait_to_be_received() {
    let ledger = Ledger::open();
    half_received::<Packet>(1, &[&[packet_header(0, 1), packet_header(0, 0)].concat()], 1);
    half_received::<Packet>(16, &[&packet_header(0, 1), &packet_header(0, 1)], 1);
    let header = libcamera_header(4, 0);
    half_received::<Libcamera>(16, &[&header, b"abcd", &header, b"abcd"], 0);
    half_received::<Stream>(1, &[&[0; 24]], 0);
    ledger.close();
}

#[test] // P3: what no frame claims is a violation to come
fn not_while_a_violation_waits_to_be_found() {
    let ledger = Ledger::open();
    let (mut ours, peer) = Channel::<Packet>::pair(ONE).unwrap();
    raw_send(&peer, &packet_header(0, 1), &files(2));
    ours.receive_by(soon()).unwrap();
    let mut ours = refused(ours, BUSY);
    let error = ours.receive_by(soon()).unwrap_err();
    assert_eq!(error, Error::Violation(Violation::DescriptorCount { declared: 1, received: 2 }));
    refused(ours, Misuse::DirectionClosed);
    drop(peer);
    ledger.close();
}

#[test] // P6
fn not_while_a_part_is_to_be_sent() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(ONE);
    let last = fill_until_pending(&mut ours, &mut theirs, |ours, message| ours.try_send(message));
    let busy = Misuse::ChannelBusy { holds: "a part of a message that is to be sent" };
    let mut ours = refused(ours, busy);
    while theirs.try_receive().unwrap().is_some() {}
    ours.flush_by(soon()).unwrap();
    assert_eq!(driver::number(&theirs.receive_by(soon()).unwrap()), last);
    Message::new(b"").attach_channel(ours).unwrap();
    drop(theirs);
    ledger.close();
}

#[test] // P6: nothing is lost with a direction that died while nobody was told
fn not_while_messages_are_stranded_or_the_conversation_is_over() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Libcamera>(ONE);
    fill_until_pending(&mut ours, &mut theirs, |ours, message| ours.try_send(message));
    drop(theirs);
    // The receive works on what is pending, finds the peer gone, and keeps the message for the
    // next sender.
    assert!(ours.try_receive().is_err() || !ours.has_pending());
    let mut ours = refused(ours, Misuse::ChannelBusy { holds: "messages that did not leave" });
    let error = ours.flush_by(soon()).unwrap_err();
    assert!(matches!(error.error, Error::PeerGone { .. }) && error.messages.len() == 1, "{error:?}");
    refused(ours, Misuse::DirectionClosed);

    let (ours, theirs) = ends::<Packet>(ONE);
    ours.shutdown();
    refused(ours, Misuse::DirectionClosed);
    drop(theirs);
    ledger.close();
}

/// What is no channel of the wire is not taken, and stays in the message.
#[track_caller]
fn not_a_channel<P: Profile>(descriptor: OwnedFd, expected: impl Into<Error>) {
    let name = identity(&descriptor);
    let mut holder = Message::new(b"").with(descriptor);
    assert_eq!(holder.take_channel::<P>(0, ONE).unwrap_err(), expected.into());
    assert_eq!(identity(&holder.take(0).unwrap()), name);
}

#[test] // P2
fn domain_type_and_state_are_checked() {
    let ledger = Ledger::open();
    let pair = |kind| socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (stream, stream_peer) = pair(SockType::Stream);
    let misuse = Misuse::SocketType { wire: "packet", expected: 5, found: 1 };
    not_a_channel::<Packet>(stream, misuse);
    not_a_channel::<Stream>(
        pair(SockType::Datagram).0,
        Misuse::SocketType { wire: "stream", expected: 1, found: 2 },
    );
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    not_a_channel::<Stream>(tcp.into(), Misuse::NotUnix { domain: 2 });
    let lone = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    not_a_channel::<Packet>(lone, Misuse::NotConnected);
    let directory = std::env::temp_dir().join(format!("fdpost-attach-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let listening = UnixListener::bind(directory.join("socket")).unwrap();
    not_a_channel::<Stream>(listening.into(), Misuse::Listening);
    std::fs::remove_dir_all(&directory).unwrap();
    let (stamped, stamped_peer) = pair(SockType::SeqPacket);
    set_option(&stamped, 29, 1).unwrap();
    not_a_channel::<Packet>(stamped, Misuse::SocketOption { option: "SO_TIMESTAMP" });
    not_a_channel::<Packet>(files(1).remove(0), Error::Io { call: "getsockopt", errno: nix::libc::ENOTSOCK });
    // Limits that mean nothing.
    let mut holder = Message::new(b"").with(pair(SockType::SeqPacket).0);
    let error = holder.take_channel::<Packet>(0, ONE.descriptors(254)).unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::LimitOutOfRange { .. })), "{error:?}");
    assert!(holder.descriptor(0).is_some());
    let none = Misuse::NoDescriptor { index: 1, count: 1 };
    assert_eq!(holder.take_channel::<Packet>(1, ONE).unwrap_err(), none.into());
    drop((holder, stream_peer, stamped_peer));
    ledger.close();
}

#[test] // P9: by a policy another kind of socket is the sender's violation, and not the taker's error
fn a_policy_demands_a_channel() {
    let ledger = Ledger::open();
    let (mut ours, mut theirs) = ends::<Packet>(ONE);
    theirs.set_policy(Policy::new().every(Accept::socket_of(Domain::Unix, SocketType::SeqPacket)));
    let (here, there) = ends::<Packet>(ONE);
    let mut carrier = Message::new(b"");
    carrier.attach_channel(there).unwrap();
    ours.send(carrier).unwrap();
    theirs.receive_by(soon()).unwrap().take_channel::<Packet>(0, ONE).unwrap();
    let (wrong, _wrong) = ends::<Stream>(ONE);
    let mut carrier = Message::new(b"");
    carrier.attach_channel(wrong).unwrap();
    ours.send(carrier).unwrap();
    let error = theirs.receive_by(soon()).unwrap_err();
    assert_eq!(error.violation().map(|violation| violation.rule()), Some("descriptor-kind"));
    drop((ours, theirs, here, _wrong));
    ledger.close();
}

/// Whether the other end of `socket` admits descriptors, by trying.
fn admits(socket: &OwnedFd) -> bool {
    match try_raw_send(socket, &packet_header(0, 1), &files(1)) {
        Ok(_) => true,
        Err(Errno::EPERM) => false,
        Err(errno) => panic!("{errno}"),
    }
}

#[test] // P9: whether a socket refuses descriptors is its holder's wish, and goes with the holder
fn the_taker_says_whether_descriptors_are_refused() {
    let ledger = Ledger::open();
    for (giver, taker) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (mut ours, mut theirs) = ends::<Packet>(ONE);
        let (here, there) = socketpair_of_packets();
        // What a channel that accepts none does with a socket of its own.
        if giver == 0 && set_option(&there, 83, 0).is_err() {
            println!("skipped: this kernel has no SO_PASSRIGHTS (Linux 6.16)");
            break;
        }
        assert_eq!(admits(&here), giver > 0);
        let limits = Limits::new().descriptors(giver);
        let mut there = Channel::<Packet>::from_fd(there, limits).unwrap();
        if giver > 0 {
            drop(there.receive_by(soon()).unwrap());
        }
        let mut carrier = Message::new(b"");
        carrier.attach_channel(there).unwrap();
        assert!(admits(&here), "as the kernel made it, whoever gets it");
        ours.send(carrier).unwrap();
        let mut came = theirs.receive_by(soon()).unwrap();
        let limits = Limits::new().descriptors(taker);
        let mut there = came.take_channel::<Packet>(0, limits).unwrap();
        assert_eq!(admits(&here), taker > 0);
        // What came in between is judged as everything is.
        assert_eq!(there.receive_by(soon()).is_ok(), taker > 0);
    }
    ledger.close();
}

fn socketpair_of_packets() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// SO_RCVTIMEO, SO_SNDTIMEO, SO_RCVLOWAT and SO_PEEK_OFF go with the socket, whoever set them.
fn whatever_the_giver_set<P: Wire>() {
    let (mut here, there) = ends::<P>(ONE);
    let socket = twin(&there);
    let short = TimeVal::milliseconds(1);
    setsockopt(&socket, sockopt::ReceiveTimeout, &short).unwrap();
    setsockopt(&socket, sockopt::SendTimeout, &short).unwrap();
    set_option(&socket, libc::SO_RCVLOWAT, 100_000).unwrap();
    set_option(&socket, libc::SO_PEEK_OFF, 7).unwrap();
    drop(socket);
    let mut carrier = Message::new(b"");
    carrier.attach_channel(there).unwrap();
    let mut there = carrier.take_channel::<P>(0, ONE).unwrap();
    let receiving = std::thread::spawn(move || {
        let first = there.receive().map(|message| message.payload().to_vec());
        let second = there.receive_by(soon()).map(|message| message.payload().to_vec());
        (first, second, there)
    });
    // Long enough for the timeout to pass many times.
    std::thread::sleep(std::time::Duration::from_millis(50));
    here.send(Message::new(b"first")).unwrap();
    here.send(Message::new(b"second")).unwrap();
    let (first, second, there) = receiving.join().unwrap();
    assert_eq!((first, second), (Ok(b"first".to_vec()), Ok(b"second".to_vec())), "{}", P::NAME);
    drop((here, there));
}

#[test] // P5
fn what_the_giver_set_does_not_matter() {
    let ledger = Ledger::open();
    whatever_the_giver_set::<Packet>();
    whatever_the_giver_set::<Stream>();
    whatever_the_giver_set::<Libcamera>();
    ledger.close();
}
