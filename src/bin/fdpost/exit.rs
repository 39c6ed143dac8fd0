//! How the command ends: exit statuses are a contract (docs/COMMAND.md).

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use fdpost::{Error, Refusal};

/// The command line, or what was handed over with it, is wrong (EX_USAGE).
pub(crate) const USAGE: u8 = 64;
/// The peer broke a rule of its wire (EX_DATAERR).
pub(crate) const VIOLATION: u8 = 65;
/// This process ran out of something, or a system call failed (EX_IOERR).
pub(crate) const IO: u8 = 74;
/// No reply in time: it may be tried again (EX_TEMPFAIL).
pub(crate) const NO_REPLY: u8 = 75;

/// Why the command ends otherwise than well: the one sentence that the user reads.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) sentence: String,
    /// Nothing can be said any more: it is no single peer's.
    pub(crate) fatal: bool,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(status: u8, sentence: impl Display) -> Self {
        Self { status, sentence: sentence.to_string(), fatal: false }
    }

    pub(crate) fn usage(sentence: impl Display) -> Self {
        Self::new(USAGE, sentence)
    }

    pub(crate) fn io(doing: impl Display, error: &io::Error) -> Self {
        Self::new(IO, format_args!("{doing}: {error}"))
    }

    /// What went wrong while `doing` something with a socket, and what can be done about it.
    pub(crate) fn of(doing: impl Display, error: Error) -> Self {
        let status = match error {
            Error::Violation(_) => VIOLATION,
            Error::Misuse(_) => USAGE,
            Error::TimedOut => NO_REPLY,
            _ => IO,
        };
        Self::new(status, format_args!("{doing}: {error}; {}", advice(&error)))
    }

    /// Says it on standard error.
    pub(crate) fn report(self) -> ExitCode {
        say(self.sentence.trim_end().replace('\n', " "));
        ExitCode::from(self.status)
    }
}

/// One sentence on standard error. Nobody may be there to read it: the status says enough.
pub(crate) fn say(sentence: impl Display) {
    let _nobody_reads = writeln!(io::stderr(), "fdpost: {sentence}");
}

/// What to do about an error.
fn advice(error: &Error) -> &'static str {
    match error {
        Error::Violation(violation) => match violation.rule() {
            "payload-too-large" | "payload-truncated" => "accept more with --max-payload, or send less",
            "too-many-descriptors" => "accept more with --max-descriptors, or send fewer",
            "descriptor-kind" => "accept this kind with --accept, or send what is accepted",
            "payload-missing" => "the peer must finish what it begins; --assembly-timeout gives it longer",
            "handshake" => "either both sides shake hands or neither does: see --handshake",
            _ => "compare what the peer sends with the rule in docs/PROTOCOL.md",
        },
        Error::Exhausted(_) => "raise this process's limits (ulimit -n for descriptors) and start again",
        Error::Misuse(_) => "change the command line accordingly",
        Error::PeerGone { .. } | Error::Closed => "start the peer again",
        Error::DescriptorsRefused => {
            "the other side must accept descriptors (--max-descriptors); or send none"
        }
        Error::PeerRefused { .. } => "see who listens there, or allow that user with --peer-uid",
        Error::BrokerRefused(refusal) => match refusal {
            Refusal::NameTaken => "end whoever serves it, or choose another --name",
            Refusal::NameUnknown => "see that somebody serves that name at this broker",
            Refusal::WireMismatch(_) => "choose the service's --profile",
            Refusal::NotPermitted => "the service, or the broker, says who may; ask it to include this user",
            _ => "try again when others have left, or give the broker more",
        },
        Error::AddressInUse => "end whoever serves it, or choose another path",
        Error::NotASocket => "choose another path, or remove the file yourself",
        Error::Io { call: "connect", .. } => "see that somebody listens there, with the same --profile",
        Error::Io { call: "bind", .. } => "see that the directory exists and may be written to",
        Error::TimedOut => "see that the peer reads and answers, or allow more time",
        _ => "see that the descriptor is a connected socket and try again",
    }
}

/// Standard output was written to, or could not be.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let sentence = format!("standard output: {error}; give it a reader that stays, or a file");
        Self { fatal: true, ..Self::new(IO, sentence) }
    }
}
