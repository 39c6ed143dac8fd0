//! Fuzz target: control messages decoded from raw bytes. What
//! must hold stands in `fdpost_proptests::control`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::control::check_bytes(data));
