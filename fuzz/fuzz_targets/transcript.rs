//! Fuzz target: the transcript parser, and the replay of what it accepts; what it finds is a file for
//! `fdpost replay`. What must hold stands in `fdpost_proptests::transcript`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| fdpost_proptests::transcript::check_bytes(data));
