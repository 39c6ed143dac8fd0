//! Three blames: the peer's ([`Violation`]), the caller's ([`Misuse`]), ours ([`Exhausted`]).
//!
//! No errno stands here: a system call that failed is the driver's to report.

mod misuse;

use crate::accept::{Accept, Found};

pub use misuse::Misuse;

/// A rule of the wire that the peer broke. It is final (P3).
///
/// Each variant carries the numbers; [`Violation::rule`] is its stable name, the one that
/// `docs/PROTOCOL.md` lists beside the rule and that logs and tools should match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A header of another length than the wire's.
    #[error("a header of {received} bytes where the wire has {expected}")]
    HeaderLength {
        /// Bytes of the wire's header.
        expected: u64,
        /// Bytes that came.
        received: u64,
    },
    /// A value that the wire reserves, or a combination that means nothing.
    #[error("the header's {field} is {value:#x}, which this version reserves")]
    HeaderReserved {
        /// The field's name in `docs/PROTOCOL.md`.
        field: &'static str,
        /// What stood there.
        value: u32,
    },
    /// A version that this side does not speak.
    #[error("version {received} where this side speaks {supported}")]
    HeaderVersion {
        /// The one version spoken.
        supported: u32,
        /// What the header said.
        received: u32,
    },
    /// A message of no bytes and no descriptors on a wire that has none.
    #[error("a message of no bytes and no descriptors")]
    EmptyMessage,
    /// More payload declared than `Limits` allow. Nothing was allocated for it.
    #[error("a payload of {declared} bytes is declared, at most {limit} are accepted")]
    PayloadTooLarge {
        /// Bytes that the header declared.
        declared: u64,
        /// Bytes that `Limits` allow.
        limit: u64,
    },
    /// More descriptors declared than `Limits` or the wire's caps allow.
    #[error("{declared} descriptors are declared, at most {limit} are accepted")]
    TooManyDescriptors {
        /// Descriptors declared.
        declared: u32,
        /// Descriptors allowed.
        limit: u32,
    },
    /// A payload datagram of another length than its header declared.
    #[error("a payload of {received} bytes where {declared} were declared")]
    PayloadLength {
        /// Bytes that the header declared.
        declared: u64,
        /// Bytes that came.
        received: u64,
    },
    /// A packet longer than any that `Limits` allow; the kernel cut it (MSG_TRUNC).
    #[error("a packet of {received} bytes where at most {room} are accepted")]
    PayloadTruncated {
        /// Bytes of the largest packet allowed.
        room: u64,
        /// The packet's real length.
        received: u64,
    },
    /// A message was begun and not finished before its deadline or the end.
    #[error("a message was begun and {received} of {expected} bytes came of the part awaited")]
    PayloadMissing {
        /// Bytes of the part that was awaited.
        expected: u64,
        /// Bytes of it that came.
        received: u64,
    },
    /// Another number of descriptors than declared.
    #[error("{received} descriptors{more} came where {declared} were declared", more = or_more(.received > .declared))]
    DescriptorCount {
        /// Descriptors declared; for a grant of "at most", the most.
        declared: u32,
        /// Descriptors that came. Where it is more than declared, read "at least": the room
        /// offered to the kernel ends one above what is allowed.
        received: u32,
    },
    /// Descriptors where the wire has none.
    #[error("{received} descriptors (or more) came where none belong")]
    DescriptorUnexpected {
        /// Descriptors that came, as above "at least".
        received: u32,
    },
    /// Control data that is no sequence of control messages.
    #[error("malformed control data: {0}")]
    ControlMalformed(Malformed),
    /// A control message of a type that no wire has; it may have carried descriptors.
    #[error("a control message of unknown type: level {level}, type {kind}")]
    ControlUnknown {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
    },
    /// The kernel cut control data (MSG_CTRUNC) although all that was declared had come: the
    /// peer attached more than it declared.
    #[error("control data was cut after the {received} descriptors that were declared")]
    ControlTruncated {
        /// Descriptors that came.
        received: u32,
    },
    /// A frame that runs past the end of its packet.
    #[error("a frame declares {declared} bytes where {remaining} are left in its packet")]
    FrameOverrun {
        /// Payload bytes that the frame declared.
        declared: u64,
        /// Bytes left in the packet.
        remaining: u64,
    },
    /// A packet of zero bytes that carried descriptors (without, it is the end).
    #[error("a packet of no bytes with {descriptors} descriptors")]
    EmptyPacket {
        /// Descriptors that came.
        descriptors: u32,
    },
    /// More messages in one packet than the wire allows.
    #[error("more than {limit} frames in one packet")]
    TooManyFrames {
        /// Frames allowed in one packet.
        limit: u32,
    },
    /// A packet of several messages that is larger than such a packet may be.
    #[error("a packet of {received} bytes holds several frames, which may take at most {limit}")]
    PacketTooLarge {
        /// The packet's bytes.
        received: u64,
        /// Bytes allowed for a packet of several frames.
        limit: u64,
    },
    /// Another byte where the one belongs that carries the descriptors.
    #[error("marker {received:#04x} where {expected:#04x} is expected")]
    Marker {
        /// The wire's marker.
        expected: u8,
        /// What came.
        received: u8,
    },
    /// Another first message than the handshake's, or none in time.
    #[error("the handshake's {expected:#04x} did not come alone and in time; {bytes} bytes came")]
    Handshake {
        /// The one byte that is expected.
        expected: u8,
        /// Payload bytes of the message that came, 0 if none did.
        bytes: u64,
    },
    /// Bytes that end without a status, or go on behind it.
    #[error("{bytes} bytes with {zeros} zero bytes, where a zero byte and one status byte are the end")]
    Status {
        /// Bytes that came; more than the limit on the text and 2, read "at least".
        bytes: u64,
        /// Zero bytes among them.
        zeros: u64,
    },
    /// A descriptor of a kind that its place does not accept: the user's [`Policy`](crate::Policy)
    /// says which. Of several that it accepts, the one that comes closest stands here.
    #[error("descriptor {slot} is {found}, where {required} is accepted")]
    DescriptorKind {
        /// The descriptor's place in its message, from 0.
        slot: u32,
        /// What is accepted there.
        required: Accept,
        /// What came.
        found: Found,
    },
    /// An answer to no call whose answer may come: none had this id, or it was answered before.
    #[error("an answer to call {correlation}, which awaits none")]
    ReplyUnknown {
        /// The id that came; 0 where the wire has none.
        correlation: u32,
    },
    /// An answer that repeats its call's id with another command.
    #[error("an answer of command {received:#x} to a call of command {expected:#x}")]
    ReplyCommand {
        /// The call's command.
        expected: u32,
        /// What came.
        received: u32,
    },
    /// An answer with more descriptors than its call permits.
    #[error("an answer with {received} descriptors to a call that permits {allowed}")]
    ReplyDescriptors {
        /// Descriptors that the call permits.
        allowed: u32,
        /// Descriptors that came.
        received: u32,
    },
    /// A call before the one before it was answered, on a wire without ids.
    #[error("a call before the last one was answered, on a wire without ids")]
    CallOverlap,
    /// A message to or from a broker that is none.
    #[error("the broker message's {field} is {value:#x}, which means nothing there")]
    BrokerMessage {
        /// The field's name in `docs/PROTOCOL.md`.
        field: &'static str,
        /// What stood there.
        value: u32,
    },
    /// A rule of a wire that this crate does not know: for profiles written elsewhere.
    #[error("{rule}: {received:#x} where {expected:#x} is expected")]
    WireRule {
        /// The rule's stable kebab-case name.
        rule: &'static str,
        /// What the wire has there.
        expected: u64,
        /// What came.
        received: u64,
    },
}

/// The room offered to the kernel ends one above what is allowed.
const fn or_more(too_many: bool) -> &'static str {
    if too_many { " (or more)" } else { "" }
}

impl Violation {
    /// The rule's stable kebab-case name, as `docs/PROTOCOL.md` has it.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::HeaderLength { .. } => "header-length",
            Self::HeaderReserved { .. } => "header-reserved",
            Self::HeaderVersion { .. } => "header-version",
            Self::EmptyMessage => "empty-message",
            Self::PayloadTooLarge { .. } => "payload-too-large",
            Self::TooManyDescriptors { .. } => "too-many-descriptors",
            Self::PayloadLength { .. } => "payload-length",
            Self::PayloadTruncated { .. } => "payload-truncated",
            Self::PayloadMissing { .. } => "payload-missing",
            Self::DescriptorCount { .. } => "descriptor-count",
            Self::DescriptorUnexpected { .. } => "descriptor-unexpected",
            Self::ControlMalformed(_) => "control-malformed",
            Self::ControlUnknown { .. } => "control-unknown",
            Self::ControlTruncated { .. } => "control-truncated",
            Self::FrameOverrun { .. } => "frame-overrun",
            Self::EmptyPacket { .. } => "empty-packet",
            Self::TooManyFrames { .. } => "too-many-frames",
            Self::PacketTooLarge { .. } => "packet-too-large",
            Self::Marker { .. } => "marker",
            Self::Handshake { .. } => "handshake",
            Self::Status { .. } => "status",
            Self::DescriptorKind { .. } => "descriptor-kind",
            Self::ReplyUnknown { .. } => "reply-unknown",
            Self::ReplyCommand { .. } => "reply-command",
            Self::ReplyDescriptors { .. } => "reply-descriptors",
            Self::CallOverlap => "call-overlap",
            Self::BrokerMessage { .. } => "broker-message",
            Self::WireRule { rule, .. } => rule,
        }
    }
}

/// What is wrong with a buffer of control messages (cmsg(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Fewer bytes left than a `cmsghdr` takes.
    #[error("{remaining} bytes are left where a header takes {header}")]
    HeaderCut {
        /// Bytes left.
        remaining: u64,
        /// Bytes of a header.
        header: u64,
    },
    /// `cmsg_len` is smaller than the header that it counts.
    #[error("cmsg_len {length} is below the header's {header}")]
    LengthBelowHeader {
        /// `cmsg_len`.
        length: u64,
        /// Bytes of a header.
        header: u64,
    },
    /// `cmsg_len` runs past the buffer.
    #[error("cmsg_len {length} is beyond the {remaining} bytes left")]
    LengthBeyondBuffer {
        /// `cmsg_len`.
        length: u64,
        /// Bytes left, the header included.
        remaining: u64,
    },
    /// The data is no whole number of its elements.
    #[error("{length} bytes of data where its elements take {element} each")]
    ArrayLength {
        /// Bytes of data.
        length: u64,
        /// Bytes of one element.
        element: u64,
    },
    /// A negative number in a descriptor's place.
    #[error("descriptor {value} is negative")]
    NegativeDescriptor {
        /// The number.
        value: i32,
    },
}

/// What this process ran out of. Nobody misbehaved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exhausted {
    /// The kernel could not install descriptors that the peer did send (MSG_CTRUNC under
    /// RLIMIT_NOFILE, or a security module refused them). Their message is lost, so this is
    /// final like a violation.
    #[error(
        "{received} of up to {declared} descriptors could be installed (RLIMIT_NOFILE, or a security module)"
    )]
    DescriptorsLost {
        /// Descriptors that the message may have.
        declared: u32,
        /// Descriptors that were installed, and are closed again.
        received: u32,
    },
    /// An allocation failed. Nothing is lost: the same call may be tried again.
    #[error("no memory for {bytes} bytes")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// So many calls are out that no more may be, those given up included: their answers may
    /// still come. What is in flight goes on.
    #[error("{pending} calls await their answers and {given_up} were given up, {limit} together are allowed")]
    CallsInFlight {
        /// Calls that wait for their answer.
        pending: u32,
        /// Calls given up whose answer may still come.
        given_up: u32,
        /// Calls allowed.
        limit: u32,
    },
    /// So much waits to be received that nothing more is read for a call. Receive it first.
    #[error("{messages} messages with {bytes} bytes and {descriptors} descriptors wait to be received")]
    MessagesUnread {
        /// Messages that wait.
        messages: u64,
        /// Their payload bytes.
        bytes: u64,
        /// Their descriptors.
        descriptors: u64,
    },
}

impl Exhausted {
    /// The stable kebab-case name.
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::DescriptorsLost { .. } => "descriptors-lost",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::CallsInFlight { .. } => "calls-in-flight",
            Self::MessagesUnread { .. } => "messages-unread",
        }
    }
}

/// Why the core cannot go on: one of the three blames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The peer broke a rule. Final.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// We ran out. Final for descriptors, to be retried for memory.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The caller's order of calls is wrong. Nothing changed.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}
