//! A small grey picture in a memfd, and the process that inverts it.

use std::io::{self, IsTerminal, Write};

use fdpost::profile::packet::REPLY;
use fdpost::{Channel, Deadline, Head, Limits, Memfd, Message, Packet};

use crate::Outcome;
use crate::child::{PATIENCE, own_end};

/// The `kind` of a message that brings a picture: its payload is width and height, 16 bits each,
/// little-endian; its one descriptor a sealed memfd of a byte per pixel.
pub(crate) const PICTURE: u32 = 1;

/// Pixels that the inverter takes at most: a peer's numbers are not believed unchecked.
const MOST: usize = 1 << 20;

/// Bytes of grey, row by row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) pixels: Vec<u8>,
}

impl Picture {
    /// From black on the left to white on the right, each row a little brighter.
    pub(crate) fn ramp(width: u16, height: u16) -> Self {
        let columns = usize::from(width).max(2) - 1;
        let shade = |x: usize, y: usize| u8::try_from(x * 255 / columns + y * 8).unwrap_or(u8::MAX);
        let rows = (0..usize::from(height)).flat_map(|y| (0..usize::from(width)).map(move |x| (x, y)));
        Self { width, height, pixels: rows.map(|(x, y)| shade(x, y)).collect() }
    }

    /// What a message of [`PICTURE`] says about it.
    pub(crate) fn size(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.width.to_le_bytes(), self.height.to_le_bytes());
        [a, b, c, d]
    }

    /// The picture that a message brought, mapped only if nobody can change or shrink it any more.
    pub(crate) fn from_message(message: &mut Message) -> Outcome<Self> {
        let &[a, b, c, d] = message.payload() else { return Err("a picture's size has four bytes".into()) };
        let (width, height) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        let length = usize::from(width) * usize::from(height);
        if length > MOST {
            return Err(format!("a picture of {length} pixels, at most {MOST} are taken").into());
        }
        let memfd = message.take(0).ok_or("a picture without its memfd")?;
        Ok(Self { width, height, pixels: Memfd::map(&memfd, length)?.to_vec() })
    }

    /// Prints it: in 24 shades on a terminal that may show colours, else in five characters.
    pub(crate) fn show(&self, out: &mut impl Write) -> io::Result<()> {
        const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
        // https://no-color.org: set and not empty.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let greys = io::stdout().is_terminal() && !plain;
        for row in self.pixels.chunks(usize::from(self.width).max(1)) {
            write!(out, "    ")?;
            for &pixel in row {
                let pixel = u16::from(pixel);
                match SHADES.get(usize::from(pixel * 5 / 256)) {
                    // The greys of the 256 colours are 232 to 255.
                    _ if greys => write!(out, "\x1b[48;5;{}m ", 232 + pixel * 24 / 256)?,
                    Some(shade) => write!(out, "{shade}")?,
                    None => {}
                }
            }
            writeln!(out, "{}", if greys { "\x1b[0m" } else { "" })?;
        }
        Ok(())
    }
}

/// The second process: takes a picture, inverts it into a memfd of its own, sends that back.
pub(crate) fn invert() -> Outcome {
    let mut channel = Channel::<Packet>::from_fd(own_end()?, Limits::new().descriptors(1))?;
    let mut request = channel.receive_by(Deadline::after(PATIENCE))?;
    let Picture { pixels, .. } = Picture::from_message(&mut request)?;
    let inverted: Vec<u8> = pixels.into_iter().map(|pixel| !pixel).collect();
    let head = Head { flags: REPLY, reply_descriptors: 0, ..*request.head() };
    let reply = Message::new(request.payload()).with_head(head).with(Memfd::sealed("inverted", &inverted)?);
    channel.send(reply)?;
    Ok(())
}
