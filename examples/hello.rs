//! A message with a file descriptor, from one end of a channel to the other.

use fdpost::{Channel, Deadline, Limits, Memfd, Message, Packet};
use std::{error::Error, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut ours, theirs) = Channel::<Packet>::pair(Limits::new())?;
    let mut theirs = Channel::<Packet>::from_fd(theirs, Limits::new().descriptors(1))?; // usually elsewhere
    ours.send(Message::new(b"frame 7").with(Memfd::sealed("frame", b"hello from a memfd")?))?;

    let mut message = theirs.receive_by(Deadline::after(Duration::from_secs(1)))?;
    let memfd = message.take(0).ok_or("frame 7 has one descriptor")?;
    let bytes = Memfd::map(&memfd, 18)?;
    println!("{}: {}", message.payload().escape_ascii(), bytes.escape_ascii());
    Ok(())
}
