//! Fuzz target: calls, answers, deadlines, in any order. What
//! must hold stands in `fdpost_proptests::calls`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::calls::check_bytes(data));
