//! Moving the bytes: channels over `AF_UNIX` sockets (unix(7)).
//!
//! No type of `nix` or `libc` stands in a public signature. Unsafe code lives in `sys` alone.

mod channel;
mod deadline;
mod error;
mod memfd;
mod reaper;
mod socket;
mod stats;
mod sys;

pub use channel::{Channel, Closer, Sent};
pub use deadline::Deadline;
pub use error::{Error, SendError};
pub use memfd::{Mapped, Memfd};
pub use reaper::Reaper;
pub use stats::Stats;
