//! A bare loop over sendmsg(2) and recvmsg(2): one packet or datagram a message, hot buffers, the
//! control room that a channel of the wire `packet` offers, nothing allocated.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Shared;
use crate::sys::{self, Control};
use crate::way::{Check, Parcel, Shape, Way, template};

/// Raw SOCK_SEQPACKET.
pub struct Seqpacket;
/// Raw SOCK_DGRAM.
pub struct Dgram;

/// A socket and its buffers.
pub struct Bare {
    socket: OwnedFd,
    bytes: Vec<u8>,
    incoming: Control,
    room: usize,
    outgoing: Control,
}

/// What the wire `packet` offers room for: one more than may come, and at least the sixteen that
/// a packet of several frames may bring, where any may.
pub fn room(shape: &Shape) -> usize {
    let most = if shape.descriptors == 0 { 0 } else { shape.descriptors.max(16) };
    sys::control_length(most + 1)
}

impl Bare {
    pub fn new(socket: OwnedFd, shape: &Shape, bytes: usize) -> Self {
        Self {
            socket,
            bytes: vec![0; bytes],
            incoming: Control::with_room(room(shape)),
            room: room(shape),
            outgoing: Control::with_room(sys::control_space(shape.descriptors.max(16))),
        }
    }

    pub fn send(&mut self, bytes: &[u8], descriptors: &mut Vec<OwnedFd>) {
        let control = (!descriptors.is_empty()).then_some(&mut self.outgoing);
        sys::send(&self.socket, bytes, descriptors, control);
        descriptors.clear();
    }

    pub fn receive(&mut self, descriptors: &mut Vec<OwnedFd>) -> &[u8] {
        let length = sys::receive(&self.socket, &mut self.bytes, &mut self.incoming, self.room, descriptors);
        &self.bytes[..length]
    }
}

macro_rules! way {
    ($way:ident, $name:literal, $kind:expr) => {
        impl Way for $way {
            const NAME: &'static str = $name;

            type Load = Parcel;
            type Seed = Bare;
            type End = Bare;

            fn seeds(shape: &Shape) -> (Bare, Bare) {
                let (ours, theirs) = sys::pair($kind);
                [ours, theirs].map(|socket| Bare::new(socket, shape, shape.size)).into()
            }

            fn end(seed: Bare) -> Bare {
                seed
            }

            fn load(shape: &Shape) -> Parcel {
                Parcel::new(shape)
            }

            // What is sent next is its own buffer, so that what was checked is what was received.
            fn blank(shape: &Shape) -> Parcel {
                Parcel { payload: template(shape.size), descriptors: Vec::new() }
            }

            async fn send(end: &mut Bare, load: &mut Parcel) {
                end.send(&load.payload, &mut load.descriptors);
            }

            async fn receive(end: &mut Bare, load: &mut Parcel, check: &mut impl Check) {
                load.descriptors.clear();
                let bytes = end.receive(&mut load.descriptors);
                check.message(bytes, load.descriptors.len());
            }
        }

        impl Shared for $way {
            type Handle = Arc<OwnedFd>;

            fn share(seed: Bare) -> Self::Handle {
                Arc::new(seed.socket)
            }

            fn send_shared(socket: &Self::Handle, load: &mut Parcel) {
                sys::send(socket, &load.payload, &load.descriptors, None);
            }
        }
    };
}

way!(Seqpacket, "raw SEQPACKET", libc::SOCK_SEQPACKET);
way!(Dgram, "raw DGRAM", libc::SOCK_DGRAM);
