//! `tokio-seqpacket`, on a runtime of the thread's own: the least that tokio can be.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};

use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};

use super::raw::room;
use crate::sys;
use crate::way::{Check, Parcel, Shape, Way, template};

/// `tokio-seqpacket`.
pub struct TokioSeqpacket;

pub struct Seed {
    socket: OwnedFd,
    shape: Shape,
}

pub struct End {
    socket: UnixSeqpacket,
    bytes: Vec<u8>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
}

impl Way for TokioSeqpacket {
    const NAME: &'static str = "tokio-seqpacket";

    type Load = Parcel;
    type Seed = Seed;
    type End = End;

    fn seeds(shape: &Shape) -> (Seed, Seed) {
        let (ours, theirs) = sys::pair(libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK);
        [ours, theirs].map(|socket| Seed { socket, shape: *shape }).into()
    }

    fn end(Seed { socket, shape }: Seed) -> End {
        End {
            socket: UnixSeqpacket::try_from(socket).expect("registered"),
            bytes: vec![0; shape.size],
            incoming: vec![0; if shape.descriptors == 0 { 0 } else { room(&shape) }],
            outgoing: vec![0; sys::control_space(shape.descriptors)],
        }
    }

    fn load(shape: &Shape) -> Parcel {
        Parcel::new(shape)
    }

    fn blank(shape: &Shape) -> Parcel {
        Parcel { payload: template(shape.size), descriptors: Vec::new() }
    }

    async fn send(end: &mut End, load: &mut Parcel) {
        let sent = if load.descriptors.is_empty() {
            end.socket.send(&load.payload).await
        } else {
            let mut control = AncillaryMessageWriter::new(&mut end.outgoing);
            control.add_fds(load.descriptors.iter().map(AsFd::as_fd)).expect("room");
            end.socket.send_with_ancillary(&load.payload, &mut control).await
        };
        assert_eq!(sent.ok(), Some(load.payload.len()));
        load.descriptors.clear();
    }

    async fn receive(end: &mut End, load: &mut Parcel, check: &mut impl Check) {
        load.descriptors.clear();
        let info = if end.incoming.is_empty() {
            end.socket.recv(&mut end.bytes).await.expect("received")
        } else {
            let (info, control) =
                end.socket.recv_with_ancillary(&mut end.bytes, &mut end.incoming).await.expect("received");
            for message in control.into_messages() {
                if let OwnedAncillaryMessage::FileDescriptors(descriptors) = message {
                    load.descriptors.extend(descriptors);
                }
            }
            info
        };
        assert!(!info.truncated() && !info.ancillary_truncated());
        check.message(&end.bytes[..info.bytes_read()], load.descriptors.len());
    }

    fn run<F: Future>(work: F) -> F::Output {
        RUNTIME.with(|runtime| runtime.block_on(work))
    }
}
