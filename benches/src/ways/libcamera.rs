//! What libcamera's `IPCUnixSocket` does (src/libcamera/ipc_unixsocket.cpp), call by call.
//!
//! `send`: the header by send(2), the payload by sendmsg(2). `dataNotifier`, woken by the event
//! loop's poll(2): the header by recv(2), poll(2) whether the payload is there, and `receive` by
//! recvmsg(2). Control buffers are vectors made for each call, and what is received is resized for
//! each message (`IPCPipeUnixSocket::readyRead` has a payload of its own each time), as there.

use std::os::fd::OwnedFd;

use super::{Locked, Shared, lock, send_locked};
use crate::sys::{self, Control};
use crate::way::{Check, Parcel, Shape, Way};

/// The floor: without the two polls, and without the control message of no descriptors that the
/// real one attaches to a payload that has none.
pub struct FourCalls;
/// The six calls that it really makes.
pub struct SixCalls;

fn send(socket: &OwnedFd, load: &mut Parcel, real: bool) {
    let mut header = [0; 8];
    header[..4].copy_from_slice(&(load.payload.len() as u32).to_ne_bytes());
    header[4] = load.descriptors.len() as u8;
    sys::send_plain(socket, &header);
    let mut control = Control::with_room(sys::control_space(load.descriptors.len()));
    let control = (real || !load.descriptors.is_empty()).then_some(&mut control);
    sys::send(socket, &load.payload, &load.descriptors, control);
    // The message was its sender's own, and ends here.
    *load = Parcel::default();
}

fn receive(socket: &OwnedFd, load: &mut Parcel, check: &mut impl Check, real: bool) {
    let mut header = [0; 8];
    if real {
        sys::poll(socket, None);
    }
    assert_eq!(sys::receive_plain(socket, &mut header), header.len());
    let [a, b, c, d, descriptors, ..] = header;
    if real {
        sys::poll(socket, Some(0));
    }
    load.payload = vec![0; u32::from_ne_bytes([a, b, c, d]) as usize];
    load.descriptors = Vec::with_capacity(descriptors.into());
    let mut control = Control::with_room(sys::control_space(descriptors.into()));
    let room = sys::control_length(descriptors.into());
    let length = sys::receive(socket, &mut load.payload, &mut control, room, &mut load.descriptors);
    check.message(&load.payload[..length], load.descriptors.len());
}

macro_rules! way {
    ($way:ident, $name:literal, $real:literal) => {
        impl Way for $way {
            const NAME: &'static str = $name;

            type Load = Parcel;
            type Seed = OwnedFd;
            type End = OwnedFd;

            fn seeds(_: &Shape) -> (OwnedFd, OwnedFd) {
                sys::pair(libc::SOCK_DGRAM)
            }

            fn end(seed: OwnedFd) -> OwnedFd {
                seed
            }

            fn load(shape: &Shape) -> Parcel {
                Parcel::new(shape)
            }

            fn blank(_: &Shape) -> Parcel {
                Parcel::default()
            }

            async fn send(socket: &mut OwnedFd, load: &mut Parcel) {
                send(socket, load, $real);
            }

            async fn receive(socket: &mut OwnedFd, load: &mut Parcel, check: &mut impl Check) {
                receive(socket, load, check, $real);
            }
        }

        impl Shared for $way {
            type Handle = Locked<Self>;

            fn share(seed: OwnedFd) -> Self::Handle {
                lock::<Self>(seed)
            }

            fn send_shared(handle: &Self::Handle, load: &mut Parcel) {
                send_locked::<Self>(handle, load);
            }
        }
    };
}

way!(FourCalls, "libcamera's way, four calls", false);
way!(SixCalls, "libcamera's way, its six calls", true);
