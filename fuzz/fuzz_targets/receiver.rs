//! Fuzz target: a conversation as a receiver meets it. What
//! must hold stands in `fdpost_proptests::oracle`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::oracle::check_bytes(data));
