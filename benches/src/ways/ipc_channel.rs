//! `ipc-channel`, its channels of bytes: one way each, so a conversation has two. Of descriptors it
//! carries its own channels and shared memory only.

use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, bytes_channel};

use super::Shared;
use crate::way::{Check, Parcel, Shape, Way};

/// `ipc-channel`'s `bytes_channel`.
pub struct IpcChannel;

/// An end sends on one channel and receives on the other.
pub struct End {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
}

impl Way for IpcChannel {
    const NAME: &'static str = "ipc-channel, bytes";

    type Load = Parcel;
    type Seed = End;
    type End = End;

    fn seeds(_: &Shape) -> (End, End) {
        let (there, from_here) = bytes_channel().expect("a channel");
        let (back, from_there) = bytes_channel().expect("a channel");
        (End { sender: there, receiver: from_there }, End { sender: back, receiver: from_here })
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
        end.sender.send(&load.payload).expect("sent");
    }

    async fn receive(end: &mut End, load: &mut Parcel, check: &mut impl Check) {
        load.payload = end.receiver.recv().expect("received");
        check.message(&load.payload, 0);
    }
}

impl Shared for IpcChannel {
    type Handle = IpcBytesSender;

    fn share(seed: End) -> IpcBytesSender {
        seed.sender
    }

    fn send_shared(sender: &IpcBytesSender, load: &mut Parcel) {
        sender.send(&load.payload).expect("sent");
    }
}
