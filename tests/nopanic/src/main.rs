//! Links only if the decoders cannot panic, whatever bytes they are given and however many, nor the
//! receiver's step (`windows`, `handle`, `poll_into`), in whatever state it is and whatever came.
//!
//! `Vec` may panic on a capacity that overflows. The receiver asks for room by `try_reserve_exact`
//! before everything that it appends, beside it, so that the optimiser sees that there is room. What
//! takes memory elsewhere is not proved so: in the calls `begin` and `handle` (what is out lies in a
//! `Vec`), in the broker its registry. `make model` walks those over every state and input of its
//! alphabet instead, and a panic there is a finding.
//!
//! The parser of transcripts is left out: it reads what its user recorded, not what a peer sends, and makes
//! a list of events on the way. The fuzz target `transcript` gives it any text.
//!
//! `no-panic` leaves an undefined symbol behind every function of which the optimiser could not
//! show that it never unwinds. So `cargo build --release` of this program is the proof; running
//! it shows only that the functions do something. `make nopanic` also builds it with a planted
//! panic, and expects the linker to refuse.

use std::hint::black_box;
use std::time::Duration;

use fdpost::accept::{Accept, Found, Policy};
use fdpost::broker::{Answer, Request};
use fdpost::calls::{Correlate, Kind, Role};
use fdpost::machine::Receiver;
use fdpost::machine::table::{self, Input, State};
use fdpost::message::Message;
use fdpost::profile::{Libcamera, Next, Packet, Profile, Stream};
use fdpost::send_fd::{self, Scan};
use fdpost::wire::control::{self, Item, Layout};
use fdpost::{Head, Limits};
use no_panic::no_panic;

/// Everything that `items` says, folded so that nothing is optimised away.
fn fold(bytes: &[u8], layout: Layout) -> u64 {
    control::items(bytes, layout).fold(0, |sum: u64, item| {
        sum.rotate_left(5)
            ^ match item {
                Item::Descriptor(number) | Item::Pidfd(number) => number as u64,
                Item::Credentials(credentials) => credentials.pid as u64,
                Item::Unknown { level, kind } => (level ^ kind) as u64,
                Item::Malformed(_) => 1,
                _ => 2,
            }
    })
}

#[no_panic]
fn control_glibc_64(bytes: &[u8]) -> u64 {
    fold(bytes, Layout::GLIBC_64)
}

#[no_panic]
fn control_musl_64(bytes: &[u8]) -> u64 {
    fold(bytes, Layout::MUSL_64)
}

#[no_panic]
fn control_bits_32(bytes: &[u8]) -> u64 {
    fold(bytes, Layout::BITS_32)
}

fn bytes_of(next: Result<Next, fdpost::Violation>) -> u32 {
    match next {
        Ok(Next::Part(part)) => part.bytes,
        Ok(_) => 1,
        Err(_) => 2,
    }
}

#[no_panic]
fn libcamera_header(bytes: &[u8]) -> u32 {
    bytes_of(Libcamera::next(&mut Default::default(), bytes))
}

#[no_panic]
fn packet_header(bytes: &[u8]) -> u32 {
    bytes_of(Packet::next(&mut Default::default(), bytes))
}

/// Header and marker: all that the wire's own bytes can say.
#[no_panic]
fn stream_header(bytes: &[u8]) -> u32 {
    let mut declared = Default::default();
    bytes_of(Stream::next(&mut declared, bytes))
        ^ bytes_of(Stream::next(&mut declared, &[]))
        ^ bytes_of(Stream::next(&mut declared, bytes))
        ^ Stream::head(&declared).kind
}

#[no_panic]
fn send_fd_scan(bytes: &[u8], limit: usize) -> usize {
    match send_fd::scan(bytes, limit) {
        Ok(Scan::Needs(needed)) => needed,
        Ok(Scan::Whole { reply, used }) => used ^ reply.text.len() ^ usize::from(reply.status),
        Err(_) => 3,
    }
}

#[no_panic]
fn send_fd_descriptors(status: u8, received: u32, cut: bool) -> bool {
    send_fd::check_descriptors(status, received, cut).is_ok()
}

#[no_panic]
fn send_fd_parse(packet: &[u8], limit: usize) -> usize {
    match send_fd::parse(packet, limit) {
        Ok(reply) => reply.text.len() ^ usize::from(reply.status),
        Err(_) => 3,
    }
}

#[no_panic]
fn broker_request(head: &Head, payload: &[u8]) -> usize {
    match Request::decode(head, payload) {
        Ok(request) => request.name().as_bytes().len(),
        Err(_) => 65,
    }
}

#[no_panic]
fn broker_answer(head: &Head, payload: &[u8], descriptors: usize) -> u8 {
    match Answer::decode(head, payload, descriptors) {
        Ok(answer) => answer.descriptors(),
        Err(_) => 2,
    }
}

/// What a message is to calls: the decoder of the first words of its payload, or of its head.
fn kind<P: Correlate>(head: &Head, payload: &[u8], role: Role) -> u32 {
    match P::kind(head, payload, role) {
        Ok(Kind::Answer { id, command, error }) => id ^ command ^ u32::from(error),
        Ok(Kind::Request(request)) => request.correlation() ^ request.command(),
        Ok(_) => 1,
        Err(_) => 2,
    }
}

#[no_panic]
fn libcamera_kind(head: &Head, payload: &[u8], role: Role) -> u32 {
    kind::<Libcamera>(head, payload, role)
}

#[no_panic]
fn packet_kind(head: &Head, payload: &[u8], role: Role) -> u32 {
    kind::<Packet>(head, payload, role)
}

#[no_panic]
fn stream_kind(head: &Head, payload: &[u8], role: Role) -> u32 {
    kind::<Stream>(head, payload, role)
}

/// The receiver's step: where any input leads from any state.
#[no_panic]
fn table_step(state: State, input: Input) -> u8 {
    match table::step(state, input) {
        Some((next, action)) => next as u8 ^ action as u8,
        None => 255,
    }
}

/// What a driver asks of a receiver between two reads.
fn asked<P: Profile>(receiver: &Receiver<P, i32>) -> u64 {
    let due = receiver.deadline().unwrap_or(Duration::MAX).as_secs();
    let (held, most) = (receiver.held(), receiver.held_most());
    due ^ held.bytes as u64
        ^ most.descriptors as u64
        ^ receiver.received().bytes
        ^ u64::from(receiver.is_between())
        ^ u64::from(receiver.has_input())
}

#[no_panic]
fn libcamera_asked(receiver: &Receiver<Libcamera, i32>) -> u64 {
    asked(receiver)
}

#[no_panic]
fn packet_asked(receiver: &Receiver<Packet, i32>) -> u64 {
    asked(receiver)
}

#[no_panic]
fn stream_asked(receiver: &Receiver<Stream, i32>) -> u64 {
    asked(receiver)
}

/// Where the next bytes go.
fn windows<P: Profile>(receiver: &mut Receiver<P, i32>) -> usize {
    receiver.windows().ok().flatten().map_or(0, |hunks| hunks.len())
}

#[no_panic]
fn libcamera_windows(receiver: &mut Receiver<Libcamera, i32>) -> usize {
    windows(receiver)
}

#[no_panic]
fn packet_windows(receiver: &mut Receiver<Packet, i32>) -> usize {
    windows(receiver)
}

#[no_panic]
fn stream_windows(receiver: &mut Receiver<Stream, i32>) -> usize {
    windows(receiver)
}

#[no_panic]
fn libcamera_handle(receiver: &mut Receiver<Libcamera, i32>, now: Duration, filled: usize) {
    receiver.handle(now, filled);
}

#[no_panic]
fn packet_handle(receiver: &mut Receiver<Packet, i32>, now: Duration, filled: usize) {
    receiver.handle(now, filled);
}

#[no_panic]
fn stream_handle(receiver: &mut Receiver<Stream, i32>, now: Duration, filled: usize) {
    receiver.handle(now, filled);
}

#[no_panic]
fn libcamera_poll(receiver: &mut Receiver<Libcamera, i32>, message: &mut Message<i32>) -> bool {
    receiver.poll_into(message).is_ok()
}

#[no_panic]
fn packet_poll(receiver: &mut Receiver<Packet, i32>, message: &mut Message<i32>) -> bool {
    receiver.poll_into(message).is_ok()
}

#[no_panic]
fn stream_poll(receiver: &mut Receiver<Stream, i32>, message: &mut Message<i32>) -> bool {
    receiver.poll_into(message).is_ok()
}

/// A receiver's step with what came: the three in turn. Returns what is asked afterwards.
macro_rules! step {
    ($wire:ident, $windows:ident, $handle:ident, $poll:ident, $asked:ident, $bytes:expr) => {
        Receiver::<$wire, i32>::new(black_box(Limits::new())).map(|mut receiver| {
            let mut message = Message::default();
            let hunks = $windows(&mut receiver);
            receiver.lent().iter_mut().for_each(|hunk| hunk.fill($bytes, []));
            $handle(&mut receiver, black_box(Duration::ZERO), hunks);
            $asked(&receiver) ^ u64::from($poll(&mut receiver, &mut message))
        })
    };
}

/// Whether what came is of a kind that its place accepts; asked of any policy, about anything.
#[no_panic]
fn permitted(policy: &Policy, place: usize, found: &Found) -> bool {
    let accepted = policy.alternatives(place).any(|accept: &Accept| accept.permits(found));
    accepted && policy.closest(place, found).permits(found)
}

#[no_panic]
fn rights_encoded(out: &mut [u8], descriptors: &[i32]) -> usize {
    control::encode_rights(out, Layout::NATIVE, descriptors.iter().copied()).unwrap_or(0)
}

#[cfg(feature = "planted")]
#[no_panic]
fn planted(bytes: &[u8]) -> u8 {
    bytes[7]
}

fn main() {
    let bytes: Vec<u8> = black_box(std::env::args().flat_map(String::into_bytes).collect());
    let sum = control_glibc_64(&bytes) ^ control_musl_64(&bytes) ^ control_bits_32(&bytes);
    println!("{sum:x} {:x} {:x}", libcamera_header(&bytes), packet_header(&bytes));
    let limit = black_box(bytes.len());
    let (scanned, parsed) = (send_fd_scan(&bytes, limit), send_fd_parse(&bytes, limit));
    println!("{:x} {scanned:x} {parsed:x}", stream_header(&bytes));
    let kind = black_box(limit as u32 % 8);
    let head = Head { kind, correlation: kind, flags: kind, reply_descriptors: 0 };
    println!("{}", send_fd_descriptors(kind as u8, kind, limit == 0));
    println!("{:x} {:x}", broker_request(&head, &bytes), broker_answer(&head, &bytes, limit));
    let role = if kind == 1 { Role::Caller } else { Role::Answerer };
    let kinds = [libcamera_kind, packet_kind, stream_kind].map(|kind| kind(&head, &bytes, role));
    let state = black_box([State::Idle, State::Header, State::Body, State::Ended, State::Failed]);
    let input = black_box(Input::Part);
    println!("{kinds:x?} {:x?}", state.map(|state| table_step(state, input)));
    let libcamera =
        step!(Libcamera, libcamera_windows, libcamera_handle, libcamera_poll, libcamera_asked, &bytes);
    let packet = step!(Packet, packet_windows, packet_handle, packet_poll, packet_asked, &bytes);
    let stream = step!(Stream, stream_windows, stream_handle, stream_poll, stream_asked, &bytes);
    println!("{libcamera:x?} {packet:x?} {stream:x?}");
    let found = black_box(Found { kind: fdpost::accept::Kind::Pipe, readable: true, writable: false });
    let policy = black_box(Policy::new().every(Accept::pipe()));
    let mut room = black_box([0; 64]);
    println!("{} {}", permitted(&policy, limit, &found), rights_encoded(&mut room, &[1, 2]));
    #[cfg(feature = "planted")]
    println!("{:x}", planted(&bytes));
}
