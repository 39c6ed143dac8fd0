//! Bytes to values and back: pure, without allocation, and never a panic (P8; proved at link time
//! by `make nopanic`).
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod control;
pub mod cursor;
