//! The ways that are compared.

mod fdpost;
mod ipc_channel;
mod libcamera;
mod packed;
mod prefix;
mod raw;
mod tokio_seqpacket;
mod unix_ipc;

pub use self::fdpost::{Fdpost, Wire};
pub use self::ipc_channel::IpcChannel;
pub use self::libcamera::{FourCalls, SixCalls};
pub use self::packed::Packed;
pub use self::prefix::{Buffered, Prefix};
pub use self::raw::{Dgram, Seqpacket};
pub use self::tokio_seqpacket::TokioSeqpacket;
pub use self::unix_ipc::UnixIpc;

use std::sync::{Arc, Mutex};

use crate::way::Way;

/// A way whose sending end several threads can use.
pub trait Shared: Way {
    type Handle: Clone + Send + Sync;
    fn share(seed: Self::Seed) -> Self::Handle;
    fn send_shared(handle: &Self::Handle, load: &mut Self::Load);
}

/// What everybody writes around a sending end that only one thread may use.
pub type Locked<W> = Arc<Mutex<<W as Way>::End>>;

fn lock<W: Way>(seed: W::Seed) -> Locked<W> {
    Arc::new(Mutex::new(W::end(seed)))
}

fn send_locked<W: Way>(handle: &Locked<W>, load: &mut W::Load) {
    let mut end = handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    W::run(W::send(&mut end, load));
}
