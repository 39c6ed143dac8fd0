//! Fuzz target: a sender, and a kernel that takes what it likes. What
//! must hold stands in `fdpost_proptests::sender`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::sender::check_bytes(data));
