//! Fuzz target: a broker, what its parties say and what becomes of what it sends. What
//! must hold stands in `fdpost_proptests::broker`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::broker::check_bytes(data));
