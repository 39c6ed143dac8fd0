//! The machine at its edges, without a socket: what only another kernel, or another driver, would do.

mod hunk;
mod receiver;
mod sender;
mod windows;
mod wire;
