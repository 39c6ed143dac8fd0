//! `--save-descriptors`: what came, as files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::conversation::Received;
use crate::exit::{Failure, Outcome};
use crate::kinds::kind;

/// Bytes of one descriptor that are copied at most: a sparse file can claim to have any number.
const MOST: u64 = 1 << 30;

/// Copies each descriptor into `directory`.
pub(crate) fn save(directory: &Path, reply: Received) -> Outcome {
    let descriptors: Vec<OwnedFd> = match reply {
        Received::Message(mut message) => message.take_all().collect(),
        Received::Descriptor(descriptor) => vec![descriptor],
        Received::PeerError { .. } => Vec::new(),
    };
    let failed = |error: &io::Error| {
        Failure::io(
            format_args!("saving to {} (give a directory that you may write)", directory.display()),
            error,
        )
    };
    fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    for (index, descriptor) in descriptors.into_iter().enumerate() {
        one(directory, index, descriptor).map_err(|error| failed(&error))?;
    }
    Ok(())
}

fn one(directory: &Path, index: usize, descriptor: OwnedFd) -> io::Result<()> {
    let kind = kind(&descriptor);
    let file = File::from(descriptor);
    let refused = match kind {
        // A FIFO has a path too; reading one might never end.
        "file" | "memfd" if file.metadata()?.is_file() => {
            match copy(&file, &directory.join(index.to_string()))? {
                Ok(()) => return Ok(()),
                Err(refused) => refused.to_string(),
            }
        }
        _ => "it has no contents to copy".to_owned(),
    };
    fs::write(directory.join(format!("{index}.txt")), format!("{kind}: {refused}\n"))
}

/// From its beginning, and without moving the file's offset, which its sender shares. The inner
/// error is the source's: it may be open for writing only.
fn copy(source: &File, target: &Path) -> io::Result<Result<(), io::Error>> {
    let mut chunk = vec![0; 64 * 1024];
    let mut length = match source.read_at(&mut chunk, 0) {
        Ok(length) => length,
        Err(error) => return Ok(Err(error)),
    };
    let mut target = File::create(target)?;
    let mut at = 0;
    while length > 0 {
        at += length as u64;
        if at > MOST {
            return Err(io::Error::other("a descriptor's file is larger than 1 GiB"));
        }
        target.write_all(chunk.get(..length).unwrap_or_default())?;
        length = source.read_at(&mut chunk, at)?;
    }
    Ok(Ok(()))
}
