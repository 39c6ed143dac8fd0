//! The caller's mistakes.

/// A mistake of the caller's: harmless. A message that was handed in comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// A message of no bytes and no descriptors, on a wire that cannot say so.
    #[error("the {wire} wire has no message of no bytes and no descriptors")]
    EmptyMessage {
        /// The wire's name.
        wire: &'static str,
    },
    /// A payload larger than the wire or the socket ever takes.
    #[error("a payload of {bytes} bytes, at most {limit} can be sent")]
    PayloadTooLarge {
        /// Bytes of the payload.
        bytes: u64,
        /// The largest payload that fits.
        limit: u64,
    },
    /// More descriptors than one message can carry.
    #[error("{descriptors} descriptors, at most {limit} fit into one message")]
    TooManyDescriptors {
        /// Descriptors of the message.
        descriptors: u64,
        /// The most that the kernel or the wire takes.
        limit: u64,
    },
    /// A message from which a descriptor was taken: sending it would renumber the rest.
    #[error("descriptor {index} was taken out of the message")]
    DescriptorTaken {
        /// The descriptor's place.
        index: u64,
    },
    /// A place that the message does not have.
    #[error("descriptor {index} of a message that has {count}")]
    NoDescriptor {
        /// The place asked for.
        index: u64,
        /// Descriptors of the message.
        count: u64,
    },
    /// A channel that would lose something if its socket were handed over.
    #[error("the channel cannot be handed over while it holds {holds}")]
    ChannelBusy {
        /// What would be lost.
        holds: &'static str,
    },
    /// A value in the message's head that the wire cannot carry.
    #[error("the {wire} wire cannot carry {field} = {value:#x}")]
    HeadUnsupported {
        /// The wire's name.
        wire: &'static str,
        /// The field of `Head`.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A limit outside what has a meaning.
    #[error("limit {limit} is {value}, it may be {least} to {most}")]
    LimitOutOfRange {
        /// The field of `Limits`.
        limit: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The most allowed.
        most: u64,
    },
    /// `windows` was called while `poll` still had input to look at.
    #[error("windows() before poll() had seen all input")]
    InputPending,
    /// The sending direction was closed by an earlier error.
    #[error("this direction was closed by an earlier error")]
    DirectionClosed,
    /// The descriptor is no `AF_UNIX` socket.
    #[error("a socket of domain {domain} where AF_UNIX is needed")]
    NotUnix {
        /// SO_DOMAIN.
        domain: i32,
    },
    /// The socket's type is not the wire's.
    #[error("the {wire} wire needs a socket of type {expected}, this one is of type {found}")]
    SocketType {
        /// The wire's name.
        wire: &'static str,
        /// SO_TYPE needed.
        expected: i32,
        /// SO_TYPE found.
        found: i32,
    },
    /// The socket listens.
    #[error("the socket listens; hand over one that accept returned")]
    Listening,
    /// The socket does not listen.
    #[error("the socket does not listen; hand over one on which listen was called")]
    NotListening,
    /// A wire of datagrams lives on pairs only: a datagram socket has no accept, anybody may send
    /// to one that is bound, and two senders' headers and payloads would mix.
    #[error("the {wire} wire is for pairs: nobody can listen or connect with datagrams and have one peer")]
    PairsOnly {
        /// The wire's name.
        wire: &'static str,
    },
    /// A rule about the peer of a socket whose credentials tell nothing about it: on a pair they
    /// name whoever made it.
    #[error("this socket's credentials are of whoever made it and tell nothing about the peer")]
    PeerUnknown,
    /// No pidfd (pidfd_open(2)).
    #[error("the descriptor is no pidfd")]
    NoPidfd,
    /// A second process to be watched on one channel.
    #[error("a process is watched already")]
    PeerWatched,
    /// An address without a name.
    #[error("the address is empty")]
    AddressEmpty,
    /// A path or an abstract name that does not fit a socket's address (unix(7)).
    #[error("the address has {bytes} bytes, at most {limit} fit")]
    AddressTooLong {
        /// Its bytes.
        bytes: u64,
        /// The most that fit.
        limit: u64,
    },
    /// A zero byte in a path, where it would end the path.
    #[error("byte {index} of the path is zero, which would end it")]
    ZeroInPath {
        /// Its place.
        index: u64,
    },
    /// A variable of socket activation that says nothing sensible (sd_listen_fds(3)).
    #[error("the environment's {variable} makes no sense")]
    Activation {
        /// Its name.
        variable: &'static str,
    },
    /// The socket has no peer, so that anyone may send to it and two senders would mix.
    #[error("the socket is not connected to one peer")]
    NotConnected,
    /// An option of the socket takes room that descriptors need.
    #[error("the socket has {option} on, which takes room that descriptors need")]
    SocketOption {
        /// The option's name.
        option: &'static str,
    },
    /// A zero byte in an error text, where it would end the text.
    #[error("byte {index} of the error text is zero, which would end it")]
    ZeroInText {
        /// Its place.
        index: u64,
    },
    /// An error of status 0, which means "here is a descriptor".
    #[error("status 0 is no error")]
    StatusZero,
    /// The socket does not say who sent a message: SO_PASSCRED is off.
    #[error("SO_PASSCRED is off, so that nobody can tell who sends")]
    NoCredentials,
    /// Nothing drives an asynchronous channel: it was made outside a Tokio runtime, or the runtime
    /// in which it was made is gone.
    #[error("no Tokio runtime drives this channel")]
    NoRuntime,
    /// A memfd without a seal that is needed before its bytes may be trusted to stay.
    #[error("the memfd lacks seals: it has {found:#x}, {needed:#x} are needed")]
    SealsMissing {
        /// F_GET_SEALS.
        found: u32,
        /// Seals needed.
        needed: u32,
    },
    /// A memfd of huge pages (MFD_HUGETLB).
    #[error("the memfd is of huge pages, which are not mapped")]
    HugePages,
    /// A file smaller than was asked for.
    #[error("the file has {found} bytes, {needed} are needed")]
    FileTooSmall {
        /// Bytes of the file.
        found: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// A file larger than it may stay.
    #[error("the file has {found} bytes, more than {most}; it is not made smaller")]
    FileTooLarge {
        /// Bytes of the file.
        found: u64,
        /// Bytes that it was to have.
        most: u64,
    },
    /// A call by the side that is called, on a wire that cannot tell its request from an answer.
    #[error("on the {wire} wire one side calls, and this is the other")]
    OneSideCalls {
        /// The wire's name.
        wire: &'static str,
    },
    /// A message that is no call, on a wire where every message is one or answers one.
    #[error("on the {wire} wire every message is a call or answers one")]
    CallsOnly {
        /// The wire's name.
        wire: &'static str,
    },
    /// A call was given up on a wire without ids, which ended the conversation: its late answer
    /// could be taken for another call's.
    #[error(
        "a call was given up on the {wire} wire, which has no ids: its answer could be taken for another's"
    )]
    CallGivenUp {
        /// The wire's name.
        wire: &'static str,
    },
    /// A payload without room for what calls need at its beginning.
    #[error("a payload of {bytes} bytes where command and cookie take the first 8")]
    CallHeader {
        /// Bytes of the payload.
        bytes: u64,
    },
    /// A value that the call itself sets.
    #[error("{field} is {value:#x} in a message, where calls and answers set it themselves")]
    CallField {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A call that asks for more descriptors in its answer than this side accepts.
    #[error("an answer with {asked} descriptors is asked for where this side accepts {accepted}")]
    ReplyDescriptorsAsked {
        /// Descriptors asked for.
        asked: u8,
        /// Descriptors that `Limits` accept.
        accepted: u8,
    },
    /// An answer with more descriptors than the call permits.
    #[error("an answer with {descriptors} descriptors to a call that permits {allowed}")]
    ReplyDescriptors {
        /// Descriptors that the call permits.
        allowed: u8,
        /// Descriptors of the answer.
        descriptors: u64,
    },
    /// A second answer to one call.
    #[error("call {correlation} was answered before")]
    AnsweredBefore {
        /// The call's id; 0 where the wire has none.
        correlation: u32,
    },
    /// A name of no characters, or of more than there may be.
    #[error("a name of {bytes} bytes, it may have 1 to {limit}")]
    WordLength {
        /// Bytes of the name.
        bytes: u64,
        /// The most allowed.
        limit: u64,
    },
    /// A name with a character that is not printable ASCII, or a space.
    #[error("byte {index} of the name is {byte:#04x}, no printable ASCII character")]
    WordByte {
        /// Its place.
        index: u64,
        /// The byte.
        byte: u8,
    },
}
