//! Memory that is read after it was freed, beyond its end, or never freed. That is wrong, on purpose:
//! `make asan` and `make miri` show with it that each is reported before they call the rest free of
//! them.
#![allow(unsafe_code, reason = "safe code has no such defect to report")]

use std::hint::black_box;
use std::process::ExitCode;

fn main() -> ExitCode {
    let bytes = vec![7_u8; 64];
    let length = bytes.len();
    match std::env::args().nth(1).as_deref() {
        Some("freed") => {
            let pointer = black_box(bytes.as_ptr());
            drop(bytes);
            // SAFETY: none; this is the planted defect. Run alone it reads what is left there.
            println!("{}", unsafe { *pointer });
        }
        Some("beyond") => {
            let pointer = black_box(bytes.as_ptr().wrapping_add(length));
            // SAFETY: none; see above.
            println!("{}", unsafe { *pointer });
        }
        Some("leaked") => std::mem::forget(black_box(bytes)),
        _ => {
            eprintln!("usage: stray freed|beyond|leaked");
            return ExitCode::from(64);
        }
    }
    ExitCode::SUCCESS
}
