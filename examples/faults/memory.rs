//! Allocations that end the process when they fail, as std has it for `Arc`, `Box` and vectors that
//! nobody asked beforehand. Each of the crate's stands here with the reason why that is sound: none of
//! them is as large as a peer, or anybody, likes. What fails and stands not here fails the run.

/// Set: a case says on standard error where the allocation stands that failed.
pub(crate) const SAY: &str = "FAULTS_WHERE";

/// Whose an allocation is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The scenario's own: it makes messages, as any user does.
    Scenarios,
    /// Tokio's, or std's threads and channels.
    Foreign,
    /// The crate's, and in [`INFALLIBLE`] at this place.
    Listed(usize),
}

/// A file below `src`, a function there, and why it need not ask whether there is memory.
///
/// What they have in common: each is of a size that the code knows, at most a name that its caller gave;
/// so it is as likely to fail as std's own, and whoever wants to survive that has to do so beneath them.
/// What grows with a peer's bytes, descriptors, messages, calls, names or connections is asked for and is
/// not here.
///
/// What only two faults at once meet is not found: on an error's path one message of fixed size is put
/// into `SendError`'s vector.
pub(crate) const INFALLIBLE: &[(&str, &str, &str)] = &[
    ("driver/address.rs", "abstract_name", "an address, its caller's"),
    ("accept/policy.rs", "every", "a kind of a policy, its caller's"),
    (
        "driver/channel.rs",
        "over",
        "the socket that a channel and its closers share: some words, once a channel",
    ),
    ("driver/listener.rs", "over", "the socket that a listener and its closers share"),
    ("driver/channel.rs", "split_within", "what two halves share: once, and std has no fallible Arc"),
    ("driver/sending.rs", "new", "what the handles of a sending half share: once"),
    ("driver/asynchronous/channel.rs", "new", "what a channel and its halves share of the reactor: once"),
    ("broker/answer.rs", "message", "an answer of a broker's, at most 80 bytes"),
    ("broker/request.rs", "message", "a request to a broker, at most 104 bytes: its caller's"),
    ("broker/registry.rs", "paired", "the place of one descriptor in a hand-over"),
    ("broker/registry.rs", "grant", "the place of one descriptor in an answer"),
];

/// Where the allocation of this backtrace stands: the innermost frame that is the crate's, or a
/// scenario's.
pub(crate) fn place(backtrace: &str) -> Result<Place, String> {
    let lines: Vec<&str> = backtrace.lines().map(str::trim).collect();
    for pair in lines.windows(2) {
        let [symbol, file] = pair else { continue };
        let Some(file) = file.strip_prefix("at ") else { continue };
        let path = file.split(':').next().unwrap_or(file);
        // Whoever makes a message has asked for its memory.
        if path.ends_with("examples/faults/shim.rs") || path == "./src/message.rs" {
            continue;
        }
        if path.contains("/tokio-") || path.contains("/mio-") {
            return Ok(Place::Foreign);
        }
        if path.starts_with("./examples/") {
            return Ok(Place::Scenarios);
        }
        if let Some(path) = path.strip_prefix("./src/") {
            let function = function(symbol);
            if function == "{{closure}}" {
                continue;
            }
            let listed =
                INFALLIBLE.iter().position(|(file, name, _)| (*file, *name) == (path, function.as_str()));
            return listed.map(Place::Listed).ok_or_else(|| {
                format!("aborts for want of memory at {file} in {function}, which examples/faults/memory.rs does not list")
            });
        }
    }
    if backtrace.contains("std::thread") || backtrace.contains("std::sync::mpmc") {
        return Ok(Place::Foreign);
    }
    Err(format!("aborts for want of memory, nobody knows where: {backtrace}"))
}

/// `12: <fdpost::Channel<P>>::over::<Q>` is `over`.
fn function(symbol: &str) -> String {
    let mut plain = String::new();
    let mut depth = 0_u32;
    for letter in symbol.chars() {
        match letter {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => plain.push(letter),
            _ => {}
        }
    }
    let name = plain.trim_end_matches(':').rsplit("::").next().unwrap_or_default();
    name.rsplit(' ').next().unwrap_or_default().to_owned()
}
