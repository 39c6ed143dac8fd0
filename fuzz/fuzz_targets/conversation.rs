//! Fuzz target: two machines, both directions, and the kernel between them. What
//! must hold stands in `fdpost_proptests::conversation`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::conversation::check_bytes(data));
