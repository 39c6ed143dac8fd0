//! The command `fdpost`.

fn main() {}
