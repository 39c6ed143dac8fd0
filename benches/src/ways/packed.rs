//! Raw SOCK_SEQPACKET with frames packed by hand: what the wire `packet` puts into a packet, put
//! there by a loop, and checked where it lies.

use super::raw::Bare;
use crate::sys;
use crate::way::{Check, Parcel, Shape, Way, template};

/// Bytes before each payload, as many as the wire's.
const HEADER: usize = 16;
/// The wire's caps on a packet.
const FRAMES: usize = 64;
const BYTES: usize = 64 * 1024;
const DESCRIPTORS: usize = 16;

/// Raw SOCK_SEQPACKET, packed by hand.
pub struct Packed;

pub struct End {
    bare: Bare,
    packet: Vec<u8>,
    descriptors: Vec<std::os::fd::OwnedFd>,
}

impl End {
    fn flush(&mut self) {
        if !self.packet.is_empty() {
            self.bare.send(&self.packet, &mut self.descriptors);
            self.packet.clear();
        }
    }
}

impl Way for Packed {
    const NAME: &'static str = "raw SEQPACKET, packed by hand";

    type Load = Parcel;
    type Seed = End;
    type End = End;

    fn seeds(shape: &Shape) -> (End, End) {
        let (ours, theirs) = sys::pair(libc::SOCK_SEQPACKET);
        [ours, theirs]
            .map(|socket| End {
                bare: Bare::new(socket, shape, BYTES.max(HEADER + shape.size)),
                packet: Vec::with_capacity(BYTES),
                descriptors: Vec::with_capacity(DESCRIPTORS),
            })
            .into()
    }

    fn end(seed: End) -> End {
        seed
    }

    fn load(shape: &Shape) -> Parcel {
        Parcel::new(shape)
    }

    fn blank(shape: &Shape) -> Parcel {
        Parcel { payload: template(shape.size), descriptors: Vec::new() }
    }

    async fn send(end: &mut End, load: &mut Parcel) {
        Self::send_all(end, &mut vec![std::mem::take(load)]).await;
    }

    async fn receive(end: &mut End, load: &mut Parcel, check: &mut impl Check) {
        let shape = Shape::new(load.payload.len(), 0);
        Self::receive_all(end, &mut vec![std::mem::take(load)], 1, check, &shape).await;
    }

    async fn send_all(end: &mut End, loads: &mut Vec<Parcel>) {
        let mut frames = 0;
        for load in loads {
            let full = frames == FRAMES
                || end.packet.len() + HEADER + load.payload.len() > BYTES
                || end.descriptors.len() + load.descriptors.len() > DESCRIPTORS;
            if full {
                end.flush();
                frames = 0;
            }
            let mut header = [0; HEADER];
            header[2] = load.descriptors.len() as u8;
            header[4..8].copy_from_slice(&(load.payload.len() as u32).to_le_bytes());
            end.packet.extend_from_slice(&header);
            end.packet.extend_from_slice(&load.payload);
            end.descriptors.append(&mut load.descriptors);
            frames += 1;
        }
        end.flush();
    }

    async fn receive_all(
        end: &mut End,
        loads: &mut Vec<Parcel>,
        count: usize,
        check: &mut impl Check,
        shape: &Shape,
    ) {
        let mut place = 0;
        while place < count {
            let mut bytes = end.bare.receive(&mut end.descriptors);
            let mut descriptors = end.descriptors.drain(..);
            while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
                let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
                let (payload, rest) = rest.split_at_checked(length).expect("the frame's payload");
                if place == loads.len() {
                    loads.push(Self::blank(shape));
                }
                let load = &mut loads[place];
                load.descriptors.clear();
                load.descriptors.extend(descriptors.by_ref().take(header[2].into()));
                check.message(payload, load.descriptors.len());
                bytes = rest;
                place += 1;
            }
        }
    }
}
