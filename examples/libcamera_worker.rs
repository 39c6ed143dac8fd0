//! Drives the worker that Debian packages for libcamera's virtual camera: another project's
//! program, in another language, on the other end of a channel.

#[path = "../tests/support/vimc.rs"]
mod vimc;

fn main() -> vimc::Outcome {
    match vimc::find() {
        Some(installed) => vimc::drive(&installed, |step| println!("{step}")),
        None => {
            println!("{}", vimc::ABSENT);
            Ok(())
        }
    }
}
