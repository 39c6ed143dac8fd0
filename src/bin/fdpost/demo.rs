//! `fdpost demo`: what the crate is for, shown with real processes. Every line that it prints was
//! checked before it was printed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::process;

use fdpost::profile::packet::REPLY;
use fdpost::{Channel, Deadline, Head, Limits, Memfd, Message, Packet};

use crate::Outcome;
use crate::child::{PATIENCE, Peer};
use crate::footprint::Footprint;
use crate::hostile::{self, Attack, LIMITS};
use crate::picture::{PICTURE, Picture};

/// All acts. The error of the first that failed.
pub(crate) fn run() -> Outcome {
    let out = &mut io::stdout().lock();
    let before = Footprint::now()?.descriptors;
    picture_goes_round(out)?;
    let Limits { payload, descriptors, .. } = LIMITS;
    writeln!(
        out,
        "\nNow hostile peers; accepted are {payload} bytes and {descriptors} descriptors a message"
    )?;
    for attack in Attack::ALL {
        writeln!(out, "\n{}", attack.title())?;
        hostile::refuse(out, attack)?;
    }
    let after = Footprint::now()?.descriptors;
    if after != before {
        return Err(format!("descriptors were left open: {before:?} before, {after:?} now").into());
    }
    writeln!(out, "\nAll held")?;
    writeln!(
        out,
        "  open descriptors: {} before the demo, {} now, the same ones",
        before.len(),
        after.len()
    )?;
    out.flush()?;
    Ok(())
}

fn picture_goes_round(out: &mut impl Write) -> Outcome {
    writeln!(out, "A picture goes to another process and back, as file descriptors")?;
    let (mut channel, theirs) = Channel::<Packet>::pair(Limits::new().descriptors(1))?;
    let peer = Peer::start(&["demo-inverter"], theirs)?;
    match exchange(out, &mut channel, peer.pid()) {
        Ok(()) => peer.finish(),
        Err(error) => Err(peer.blame(error)),
    }
}

fn exchange(out: &mut impl Write, channel: &mut Channel<Packet>, pid: u32) -> Outcome {
    let sent = Picture::ramp(64, 3);
    let memfd = Memfd::sealed("ramp", &sent.pixels)?;
    let sent_file = file(memfd.as_fd())?;
    let head = Head { kind: PICTURE, correlation: 1, flags: 0, reply_descriptors: 1 };
    channel.send(Message::new(sent.size()).with_head(head).with(memfd))?;
    writeln!(out, "  process {} sent it in a sealed memfd:", process::id())?;
    sent.show(out)?;

    let mut reply = channel.receive_by(Deadline::after(PATIENCE))?;
    if *reply.head() != (Head { flags: REPLY, reply_descriptors: 0, ..head }) {
        return Err(format!("this is no reply to the picture: {:?}", reply.head()).into());
    }
    let came_file = file(reply.descriptor(0).ok_or("a reply without a memfd")?.as_fd())?;
    let came = Picture::from_message(&mut reply)?;
    if came_file == sent_file {
        return Err("the other process sent our own memfd back".into());
    }
    let inverted = Picture { pixels: sent.pixels.iter().map(|pixel| 255 - pixel).collect(), ..sent };
    if came != inverted {
        return Err("the picture that came back is not the inverted one".into());
    }
    writeln!(out, "  process {pid} sent it back inverted, in a sealed memfd of its own:")?;
    came.show(out)?;
    writeln!(out, "  checked: all {} pixels are inverted", came.pixels.len())?;
    Ok(())
}

/// Which file a descriptor refers to.
fn file(descriptor: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let metadata = File::from(descriptor.try_clone_to_owned()?).metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}
