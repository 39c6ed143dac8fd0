//! What a log shows of each type: which it is and what it is about, on one line, and no payload.

#[path = "support/meeting.rs"]
mod meeting;
mod support;

use std::fmt::Debug;

use fdpost::broker::{Name, Quotas};
use fdpost::driver::Event;
use fdpost::{
    Address, AsyncChannel, AsyncListener, Broker, BrokerClient, Calls, Channel, Limits, Listener, Message,
    Packet, PeerRule,
};
use meeting::abstract_name;
use support::{Ledger, soon};

const LIMITS: Limits = Limits::new().descriptors(1);
const SECRET: &[u8] = b"secret payload";

/// It begins with its name and holds these words.
#[track_caller]
fn assert_shown(shown: &impl Debug, name: &str, words: &[&str]) {
    let text = format!("{shown:?}");
    assert!(text.starts_with(name), "{name}: {text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    assert!(!text.contains("secret") && !text.contains('\n'), "{text}");
}

#[test]
fn channels_and_their_halves() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    assert_shown(&ours, "Channel", &["packet"]);
    let mut theirs = Channel::<Packet>::from_fd(theirs, LIMITS).unwrap();
    let (sending, mut receiving) = ours.split();
    sending.send(Message::new(SECRET)).unwrap();
    theirs.send(Message::new(SECRET)).unwrap();
    assert_shown(&sending, "Sending", &["packet"]);
    assert_shown(&receiving, "Receiving", &["Channel", "packet"]);
    assert_eq!(receiving.receive_by(soon()).unwrap().payload(), SECRET);

    // Two messages in one packet, of which one was received.
    theirs.send_all(&mut vec![Message::new(SECRET), Message::new(SECRET)]).unwrap();
    drop((sending, receiving, theirs));
    let (mut ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let packet = [&support::packet_header(1, 0)[..], b"1", &support::packet_header(1, 0), b"2"].concat();
    support::raw_send(&theirs, &packet, &[]);
    ours.receive_by(soon()).unwrap();
    let unattached = Message::new(b"carrier").attach_channel(ours).unwrap_err();
    assert_shown(&unattached, "Unattached", &["ChannelBusy", "Channel {"]);
    assert_eq!(unattached.to_string(), unattached.misuse.to_string());
    assert!(unattached.to_string().contains("input that was not received"));
    drop((unattached, theirs));
    ledger.close();
}

#[test]
fn calls_brokers_and_what_they_name() {
    let ledger = Ledger::open();
    let (ours, theirs) = Channel::<Packet>::pair(LIMITS).unwrap();
    let mut client = Calls::new(ours);
    let mut server = Calls::new(Channel::<Packet>::from_fd(theirs, LIMITS).unwrap());
    assert_shown(&client, "Calls", &["Channel", "counters"]);
    let call = client.start(Message::new(SECRET), soon()).unwrap();
    assert_eq!(call.to_string(), call.get().to_string());
    let Event::Request { request, .. } = server.receive_by(soon()).unwrap() else { panic!("no request") };
    assert_shown(&request, "Request", &["correlation", "answered: false"]);
    drop((client, server, request));

    let (address, quotas) = (abstract_name(), Quotas::new());
    let broker = Broker::bind(&address, quotas).unwrap();
    assert_shown(&broker, "Broker", &["Listener", "packet", "BrokerStats"]);
    let client = BrokerClient::connect(&address).unwrap();
    assert_shown(&client, "BrokerClient", &["Channel", "names"]);
    assert_shown(&Name::new("camera").unwrap(), "\"camera\"", &[]);
    drop((broker, client));
    ledger.close();
}

#[test]
fn listeners_and_whom_they_let_pass() {
    let rule = PeerRule::new().uid(12).gid(34);
    assert_shown(&rule, "PeerRule", &["uid: Some(12)", "gid: Some(34)", "test: false"]);
    assert_shown(&rule.test(|_| true), "PeerRule", &["test: true"]);
    let ledger = Ledger::open();
    let listener = Listener::<Packet>::bind(abstract_name(), LIMITS).unwrap();
    assert_shown(&listener, "Listener", &["packet", "PeerRule"]);
    drop(listener);
    ledger.close();
}

#[test]
fn what_lives_in_a_reactor() {
    let ledger = Ledger::open();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener =
            AsyncListener::<Packet>::new(Listener::bind(abstract_name(), LIMITS).unwrap()).unwrap();
        assert_shown(&listener, "AsyncListener", &["Listener", "packet"]);
        let (channel, _theirs) = AsyncChannel::<Packet>::pair(LIMITS).unwrap();
        assert_shown(&channel, "AsyncChannel", &["Channel", "packet"]);
        let (sending, receiving) = channel.split();
        assert_shown(&sending, "AsyncSending", &["Sending", "packet"]);
        assert_shown(&receiving, "AsyncReceiving", &["Receiving", "packet"]);
    });
    drop(runtime);
    ledger.close();
}

#[test] // P5: a name that a peer chose does not write a log's lines.
fn an_address_stays_on_its_line() {
    assert_eq!(Address::from("/run/cam\nera\t1").to_string(), "/run/cam\\nera\\t1");
    assert_eq!(Address::from("/run/caméra ☃").to_string(), "/run/caméra ☃");
    let name = Address::abstract_name(b"a\0b\x7f");
    assert_eq!(name.to_string(), "@a\\0b\\u{7f}");
}
