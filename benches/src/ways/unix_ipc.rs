//! `unix-ipc`, its raw channels: one way each, so a conversation has two.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use unix_ipc::{RawReceiver, RawSender, raw_channel};

use super::{Locked, Shared, lock, send_locked};
use crate::way::{Check, Parcel, Shape, Way};

/// `unix-ipc`'s `raw_channel`.
pub struct UnixIpc;

/// An end sends on one channel and receives on the other.
pub struct End {
    sender: RawSender,
    receiver: RawReceiver,
    numbers: Vec<RawFd>,
}

impl Way for UnixIpc {
    const NAME: &'static str = "unix-ipc";

    type Load = Parcel;
    type Seed = End;
    type End = End;

    fn seeds(_: &Shape) -> (End, End) {
        let (there, from_here) = raw_channel().expect("a channel");
        let (back, from_there) = raw_channel().expect("a channel");
        let end = |sender, receiver| End { sender, receiver, numbers: Vec::new() };
        (end(there, from_there), end(back, from_here))
    }

    fn end(seed: End) -> End {
        seed
    }

    fn load(shape: &Shape) -> Parcel {
        Parcel::new(shape)
    }

    fn blank(_: &Shape) -> Parcel {
        Parcel::default()
    }

    async fn send(end: &mut End, load: &mut Parcel) {
        end.numbers.clear();
        end.numbers.extend(load.descriptors.iter().map(AsRawFd::as_raw_fd));
        end.sender.send(&load.payload, &end.numbers).expect("sent");
        load.descriptors.clear();
    }

    async fn receive(end: &mut End, load: &mut Parcel, check: &mut impl Check) {
        let (payload, numbers) = end.receiver.recv().expect("received");
        load.payload = payload;
        load.descriptors.clear();
        // SAFETY: the channel hands out the numbers that the kernel just installed, once.
        let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
        load.descriptors.extend(numbers.into_iter().flatten().map(owned));
        check.message(&load.payload, load.descriptors.len());
    }
}

impl Shared for UnixIpc {
    // It sends in two parts, so it cannot be shared without a lock.
    type Handle = Locked<Self>;

    fn share(seed: End) -> Self::Handle {
        lock::<Self>(seed)
    }

    fn send_shared(handle: &Self::Handle, load: &mut Parcel) {
        send_locked::<Self>(handle, load);
    }
}
