//! Machines whose states have no end, or that have none: every script, or every input, up to a
//! length.

use fdpost::wire::control::{SCM_CREDENTIALS, SCM_RIGHTS, SOL_SOCKET};

use super::{Broken, Walked, quietly};
use crate::broker::{self, Spec, Step};
use crate::calls::{self, Content, Op};
use crate::control::{self, Control, Damage};
use crate::send_fd;

/// Gives every sequence of up to `depth` of `alphabet` to `check`, the empty one too.
///
/// # Errors
/// The first that panicked.
pub fn every<T: Clone + std::fmt::Debug>(
    alphabet: &[T],
    depth: usize,
    check: &dyn Fn(&[T]),
) -> Result<Walked, Box<Broken>> {
    let mut walked = Walked { states: 0, steps: 0, depth, closed: false };
    let mut script: Vec<usize> = Vec::new();
    loop {
        let taken: Vec<T> = script.iter().map(|at| alphabet[*at].clone()).collect();
        walked.states += 1;
        walked.steps += taken.len() as u64;
        quietly(|| check(&taken)).map_err(|said| {
            let script = taken.iter().map(|input| format!("{input:?}")).collect();
            Box::new(Broken { walked, script, said })
        })?;
        if script.len() < depth {
            script.push(0);
            continue;
        }
        // The next in order: the last that can be another is, and what was behind it is no more.
        while script.last().is_some_and(|last| last + 1 == alphabet.len()) {
            script.pop();
        }
        match script.last_mut() {
            Some(last) => *last += 1,
            None => return Ok(walked),
        }
    }
}

/// Both roles of calls over `wire` (0: `packet`, 1: `libcamera`, 2: `stream`), with two calls out at
/// most.
///
/// # Errors
/// As [`every`].
pub fn calls(wire: u8, depth: usize) -> Result<Walked, Box<Broken>> {
    let content = Content { command: 1, grant: 1, ..Content::default() };
    let reply = Content { bits: 1 | 32, ..content };
    let alphabet = [
        Op::Start(content),
        Op::Start(Content { deadline: 5, ..content }),
        Op::Start(Content { bits: 16, ..content }),
        Op::Start(Content { bits: 4 | 8, ..content }),
        // An answer to the first that is out, to the second, and one that says more than it may.
        Op::Come(reply),
        Op::Come(Content { which: 1, descriptors: 1, bits: 1 | 2 | 32, ..content }),
        Op::Come(Content { descriptors: 2, ..reply }),
        Op::Come(Content { command: 2, ..reply }),
        // An answer to what was never asked, a call of the peer's, and what is neither.
        Op::Come(Content { which: 255, bits: 1, ..content }),
        Op::Come(Content { which: 255, ..content }),
        Op::Come(Content { which: 200, ..content }),
        Op::Come(Content { which: 3, bits: 8, ..content }),
        Op::Answer(content),
        Op::Answer(Content { descriptors: 2, bits: 2, ..content }),
        Op::Wait(5),
        Op::GiveUp(0),
        Op::GiveUp(1),
    ];
    let mut sum = Walked { depth, ..Walked::default() };
    for answers in [false, true] {
        let walked = every(&alphabet, depth, &|ops| {
            calls::check(&calls::Plan { wire, answers, most: 2, ops: ops.to_vec() });
        })?;
        (sum.states, sum.steps) = (sum.states + walked.states, sum.steps + walked.steps);
    }
    Ok(sum)
}

/// A broker of three connections and one name more than a user may have, and what comes of what it
/// tries: sent, no pair, full, refused, gone, short of memory.
///
/// # Errors
/// As [`every`].
pub fn registry(depth: usize) -> Result<Walked, Box<Broken>> {
    let spec = |kind, name| Spec {
        kind,
        accepts: 1,
        audience: 3,
        id: 0,
        wire: 0,
        name,
        takes_ends: true,
        damage: [255, 0],
    };
    let alphabet = [
        Step::Connect { uid: 0, gid: 0 },
        // Registering, leaving a name, asking for it: `kind % 3`.
        Step::Say(0, spec(0, 0)),
        Step::Say(0, spec(0, 1)),
        Step::Say(0, spec(1, 0)),
        Step::Say(1, spec(2, 0)),
        Step::Say(1, spec(0, 0)),
        Step::Say(1, Spec { takes_ends: false, ..spec(2, 0) }),
        Step::Say(0, Spec { audience: 1, ..spec(0, 0) }),
        Step::Say(1, Spec { wire: 1, ..spec(2, 0) }),
        Step::Say(1, Spec { damage: [0, 0], ..spec(2, 0) }),
        Step::Forbid(1),
        Step::Gone(0),
        Step::Full(0),
        Step::Room(0),
        Step::Wait(11),
    ];
    let mut sum = Walked { depth, ..Walked::default() };
    for (fate, depth) in [(255, depth), (0, depth - 1), (10, depth - 1), (20, depth - 1), (30, depth - 1)] {
        let walked = every(&alphabet, depth, &|steps| {
            let both = [Step::Connect { uid: 0, gid: 0 }, Step::Connect { uid: 1, gid: 1 }];
            // The pair is made (255), or both fail by the same fate.
            let fates = if fate == 0 { vec![0] } else { vec![255, fate] };
            let steps = both.iter().chain(steps).cloned().collect();
            broker::check(&broker::Script { quotas: [2, 1, 2, 1], fates, steps });
        })?;
        (sum.states, sum.steps) = (sum.states + walked.states, sum.steps + walked.steps);
    }
    Ok(sum)
}

/// `send_fd`: every text of up to `length` bytes out of four, under every limit near it.
///
/// # Errors
/// As [`every`].
pub fn two_bytes(length: usize) -> Result<Walked, Box<Broken>> {
    every(&[0_u8, 1, b'a', 255], length, &|bytes| {
        for limit in (0..=3).chain([length - 1, length, usize::MAX]) {
            send_fd::check(bytes, limit);
        }
    })
}

/// Control data of up to `messages` control messages in every layout, whole, cut at every byte, with
/// every bit of a header flipped, and with every length up to past its end.
///
/// # Errors
/// As [`every`].
pub fn controls(messages: usize) -> Result<Walked, Box<Broken>> {
    let alphabet = [
        Control::Rights(vec![]),
        Control::Rights(vec![0]),
        Control::Rights(vec![5, 6, 7]),
        Control::Rights(vec![8, -24, i32::MAX]),
        Control::Credentials(1, 2, 3),
        Control::Pidfd(9),
        Control::Pidfd(-24),
        Control::Unknown(41, SCM_RIGHTS, 4),
        Control::Unknown(SOL_SOCKET, SCM_CREDENTIALS + 1, 5),
    ];
    let cuts = (0..120).map(Damage::Cut);
    let lengths = (0..60).chain([u32::MAX - 1, u32::MAX]);
    let damages: Vec<Option<Damage>> = [None]
        .into_iter()
        .chain(cuts.map(Some))
        .chain((0..2).flat_map(|at| lengths.clone().map(move |length| Some(Damage::Length(at, length)))))
        .chain((0..2).flat_map(|at| (0..128).map(move |bit| Some(Damage::Header(at, bit)))))
        .collect();
    let mut walked = every(&alphabet, messages, &|messages| {
        for layout in 0..3 {
            for damage in &damages {
                for unpadded in [false, true] {
                    let messages = messages.to_vec();
                    control::check_plan(&control::Plan { layout, messages, unpadded, damage: *damage });
                }
            }
        }
    })?;
    walked.steps = (walked.states * 3 * 2 * damages.len()) as u64;
    Ok(walked)
}
