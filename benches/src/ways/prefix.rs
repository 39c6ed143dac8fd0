//! std's `UnixStream` with a length before each payload, in one writev(2).

use std::io::{BufReader, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;

use super::{Locked, Shared, lock, send_locked};
use crate::way::{Check, Parcel, Shape, Way, template};

/// Read as it is written down: the length, then the payload.
pub struct Prefix;
/// Read through std's `BufReader`.
pub struct Buffered;

/// A stream, what reads it, and a hot buffer.
pub struct End<R> {
    reader: R,
    writer: UnixStream,
    bytes: Vec<u8>,
}

impl<R: Read> End<R> {
    fn send(&mut self, payload: &[u8]) {
        let prefix = (payload.len() as u32).to_ne_bytes();
        let whole = prefix.len() + payload.len();
        let mut sent =
            self.writer.write_vectored(&[IoSlice::new(&prefix), IoSlice::new(payload)]).expect("sent");
        while sent < whole {
            // A stream takes what it has room for.
            sent += match sent.checked_sub(prefix.len()) {
                None => self.writer.write(&prefix[sent..]).expect("sent"),
                Some(sent) => self.writer.write(&payload[sent..]).expect("sent"),
            };
        }
    }

    fn receive(&mut self) -> &[u8] {
        let mut prefix = [0; 4];
        self.reader.read_exact(&mut prefix).expect("a length");
        let length = u32::from_ne_bytes(prefix) as usize;
        assert!(length <= self.bytes.len());
        self.reader.read_exact(&mut self.bytes[..length]).expect("a payload");
        &self.bytes[..length]
    }
}

macro_rules! way {
    ($way:ident, $name:literal, $reader:ty, $read:expr) => {
        impl Way for $way {
            const NAME: &'static str = $name;

            type Load = Parcel;
            type Seed = End<$reader>;
            type End = End<$reader>;

            fn seeds(shape: &Shape) -> (Self::Seed, Self::Seed) {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                [ours, theirs]
                    .map(|writer| {
                        let reader = $read(writer.try_clone().expect("a duplicate"));
                        End { reader, writer, bytes: vec![0; shape.size] }
                    })
                    .into()
            }

            fn end(seed: Self::Seed) -> Self::End {
                seed
            }

            fn load(shape: &Shape) -> Parcel {
                Parcel::new(shape)
            }

            fn blank(shape: &Shape) -> Parcel {
                Parcel { payload: template(shape.size), descriptors: Vec::new() }
            }

            async fn send(end: &mut Self::End, load: &mut Parcel) {
                end.send(&load.payload);
            }

            async fn receive(end: &mut Self::End, _: &mut Parcel, check: &mut impl Check) {
                check.message(end.receive(), 0);
            }
        }

        impl Shared for $way {
            type Handle = Locked<Self>;

            fn share(seed: Self::Seed) -> Self::Handle {
                lock::<Self>(seed)
            }

            fn send_shared(handle: &Self::Handle, load: &mut Parcel) {
                send_locked::<Self>(handle, load);
            }
        }
    };
}

way!(Prefix, "UnixStream, length prefix", UnixStream, |stream| stream);
way!(Buffered, "UnixStream, length prefix, BufReader", BufReader<UnixStream>, BufReader::new);
