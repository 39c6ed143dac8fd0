//! Fuzz target: the classic two bytes. What
//! must hold stands in `fdpost_proptests::send_fd`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::send_fd::check_bytes(data));
