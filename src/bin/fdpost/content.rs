//! What is to be sent, as the command line says it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use fdpost::{Deadline, Head, Message};

use crate::conversation::Conversation;
use crate::exit::{Failure, Outcome};
use crate::options::Profile;

/// A message, or an error in its place.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Content {
    /// The message's kind, where the wire has one: packet, and stream, whose `private` word it is
    #[arg(long, value_name = "N")]
    pub(crate) kind: Option<u32>,
    /// The payload; with --error, the error's text
    #[arg(long, value_name = "TEXT", conflicts_with = "data_file")]
    pub(crate) data: Option<String>,
    /// The payload from a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) data_file: Option<PathBuf>,
    /// Open this file read-only and send its descriptor; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) attach: Vec<PathBuf>,
    /// Send this error (1 to 255) instead of a descriptor (send-fd only)
    #[arg(long, value_name = "STATUS", conflicts_with = "attach")]
    pub(crate) error: Option<u8>,
}

impl Content {
    pub(crate) fn is_given(&self) -> bool {
        self.kind.is_some()
            || self.data.is_some()
            || self.data_file.is_some()
            || !self.attach.is_empty()
            || self.error.is_some()
    }

    /// Refuses what the wire has no place for.
    pub(crate) fn check(&self, profile: Profile) -> Outcome {
        let has_data = self.data.is_some() || self.data_file.is_some();
        let wrong = match profile {
            Profile::SendFd if self.kind.is_some() => "send-fd has no kind; leave --kind out",
            Profile::SendFd if self.error == Some(0) => {
                "status 0 is no error but a descriptor; give --error 1 to 255, or --attach FILE"
            }
            Profile::SendFd if self.error.is_some() => return Ok(()),
            Profile::SendFd if self.attach.len() != 1 => {
                "send-fd sends one descriptor or an error; give one --attach FILE, or --error STATUS"
            }
            Profile::SendFd if has_data => "send-fd sends text with an error only; give --error STATUS too",
            Profile::SendFd => return Ok(()),
            _ if self.error.is_some() => "only send-fd sends errors; leave --error out",
            Profile::Libcamera if self.kind.is_some() => "libcamera has no kind; leave --kind out",
            Profile::Libcamera if !has_data && self.attach.is_empty() => {
                "libcamera has no empty messages; give --data, --data-file or --attach"
            }
            _ => return Ok(()),
        };
        Err(Failure::usage(wrong))
    }

    fn bytes(&self) -> Outcome<Vec<u8>> {
        match (&self.data, &self.data_file) {
            (Some(text), _) => Ok(text.clone().into_bytes()),
            (None, Some(path)) if path == Path::new("-") => {
                let mut bytes = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut bytes);
                read.map(|_| bytes).map_err(|error| Failure::io("reading standard input", &error))
            }
            (None, Some(path)) => fs::read(path).map_err(|error| unreadable(path, &error)),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Refuses what the wire has no place for in a call.
    pub(crate) fn check_call(&self, profile: Profile) -> Outcome {
        match profile {
            Profile::SendFd => Err(Failure::usage(
                "send-fd has no calls; choose --profile packet, libcamera or stream, or use fdpost send",
            )),
            // Its kind is the command at the payload's beginning, so no call is empty either.
            Profile::Libcamera if self.error.is_none() => Ok(()),
            _ => self.check(profile),
        }
    }

    /// Opens and reads what is to be sent.
    pub(crate) fn message(&self) -> Outcome<Message> {
        self.message_of(self.bytes()?)
    }

    fn message_of(&self, bytes: Vec<u8>) -> Outcome<Message> {
        let mut message = Message::new(bytes).with_kind(self.kind.unwrap_or(0));
        for path in &self.attach {
            message = message.with(File::open(path).map_err(|error| unreadable(path, &error))?.into());
        }
        Ok(message)
    }

    /// Opens and reads what is to be sent, and sends it. `grant`: a reply is awaited, and may bring
    /// so many descriptors.
    pub(crate) fn send(
        &self,
        conversation: &mut Conversation,
        profile: Profile,
        grant: Option<u8>,
        until: Deadline,
    ) -> Outcome {
        let bytes = self.bytes()?;
        let sent = match self.error {
            Some(status) => conversation.send_error(status, &bytes, until),
            None => {
                let mut message = self.message_of(bytes)?;
                if let (Some(grant), Profile::Packet) = (grant, profile) {
                    let head = *message.head();
                    message = message.with_head(Head { correlation: 1, reply_descriptors: grant, ..head });
                }
                conversation.send(message, until)
            }
        };
        sent.map_err(|error| Failure::of("the message was not sent", error))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::io(format_args!("reading {} (give a file that you may read)", path.display()), error)
}
