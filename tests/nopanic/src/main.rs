//! Links only if the decoders cannot panic, whatever bytes they are given and however many.
//!
//! `no-panic` leaves an undefined symbol behind every function of which the optimiser could not
//! show that it never unwinds. So `cargo build --release` of this program is the proof; running
//! it shows only that the functions do something. `make nopanic` also builds it with a planted
//! panic, and expects the linker to refuse.

use std::hint::black_box;

use fdpost::Head;
use fdpost::broker::{Answer, Request};
use fdpost::profile::{Libcamera, Next, Packet, Profile, Stream};
use fdpost::send_fd::{self, Scan};
use fdpost::wire::control::{self, Item, Layout};
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
    println!("{:x} {:x}", broker_request(&head, &bytes), broker_answer(&head, &bytes, limit));
    #[cfg(feature = "planted")]
    println!("{:x}", planted(&bytes));
}
