//! The same values as `Arbitrary` makes, for proptest: weighted towards long honest conversations
//! with one thing wrong, and shrinking to short ones.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::broker;
use crate::calls;
use crate::control;
use crate::conversation;
use crate::log::Wire;
use crate::peer::SLOWLY;
use crate::script::{Script, Spec, Step};
use crate::sender::{Op, Plan};

/// So many cases of a property, or what `PROPTEST_CASES` says, and says that. A failure is printed,
/// shrunk, as a value that a test can hold; nothing is written beside the sources.
pub fn config(cases: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = wanted.unwrap_or(cases);
    println!("property: {cases} cases");
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Scripts for one wire.
pub fn scripts(wire: Wire) -> impl Strategy<Value = Script> {
    let habits = prop_oneof![2 => Just(0_u8), 3 => any::<u8>()];
    let payload = prop_oneof![
        Just(0_u32),
        1..200_u32,
        Just(4095),
        Just(4096),
        4097..9000_u32,
        // About half of a packet's window, which is one of 65,536 bytes or a little more.
        32_750..32_800_u32,
        Just(65_520),
        65_530..140_000_u32
    ];
    let descriptors = prop_oneof![2 => Just(0_u8), 6 => 1..10_u8, 4 => 15..20_u8, 1 => Just(253)];
    let held = (prop_oneof![Just(0_u16), 1..1000_u16], prop_oneof![Just(0_u16), 1..600_u16]);
    let patience = (prop_oneof![Just(0_u16), 1..50_u16, 500..1500_u16], any::<u16>());
    let cuts = prop_oneof![Just([0_u8, 0]), any::<[u8; 2]>(), (1..8_u8, 1..40_u8).prop_map(|(a, b)| [a, b])];
    let receiver = (0..20_u8, habits, descriptors, payload, held, patience, cuts);
    (receiver, vec(steps(wire), 0..20)).prop_map(move |(receiver, steps)| {
        let (batch, habits, descriptors, payload, held, patience, cuts) = receiver;
        Script {
            wire: wire as u8,
            batch,
            habits,
            descriptors,
            payload,
            held_kib: held.0,
            held_descriptors: held.1,
            timeout_ms: patience.0,
            rate: patience.1,
            cuts,
            steps: steps.concat(),
        }
    })
}

/// A step, or a few that belong together.
fn steps(wire: Wire) -> impl Strategy<Value = Vec<Step>> {
    let raw = (vec(any::<u8>(), 0..40), 0..3_u8, any::<u8>());
    let wait = prop_oneof![3 => 0..60_u16, 1 => any::<u16>()];
    let silence = (spec(wire), wait.clone()).prop_map(|(spec, wait)| {
        let unfinished = Spec { corruption: 12, joined: 0, ..spec };
        vec![Step::Say(unfinished), Step::Drain, Step::Wait(wait), Step::Drain]
    });
    prop_oneof![
        180 => spec(wire).prop_map(|spec| vec![Step::Say(spec)]),
        3 => raw.prop_map(|(bytes, count, flags)| vec![Step::Raw(bytes, count, flags)]),
        40 => Just(vec![Step::Drain]),
        20 => wait.prop_map(|wait| vec![Step::Wait(wait)]),
        4 => silence,
        3 => Just(vec![Step::Close]),
    ]
}

fn spec(wire: Wire) -> impl Strategy<Value = Spec> {
    // About as large as a message may be; on packets several in a row, for the buffers they leave.
    let large = if wire == Wire::Packet { 8 } else { 1 };
    let size = prop_oneof![40 => 0..100_u16, 4 => 0xf000..0xf800_u16, large => 0xf800..=u16::MAX];
    let count = prop_oneof![30 => 0..4_u8, 10 => 0..20_u8, 1 => 250..=255_u8];
    let corruption = prop_oneof![30 => Just(255_u8), 2 => Just(SLOWLY), 1 => 0..16_u8];
    // Where a message is several sends, one in their place is a rule broken.
    let (one_in, often) = if wire == Wire::Packet { (1, 1) } else { (30, 0) };
    let joined = prop_oneof![one_in * 4 => Just(0_u8), 4 => Just(1), often => 225..=255_u8];
    (size, count, corruption, any::<u8>(), any::<u8>(), joined).prop_map(
        |(size, count, corruption, argument, head, joined)| Spec {
            size,
            count,
            corruption,
            argument,
            head,
            joined,
        },
    )
}

/// Plans for a sender on one wire.
pub fn plans(wire: Wire) -> impl Strategy<Value = Plan> {
    let refused = (spec(wire), 0..5_u8).prop_map(|(spec, corruption)| Spec { corruption, ..spec });
    let pushes = prop_oneof![8 => spec(wire), 1 => refused];
    let op = prop_oneof![
        10 => pushes.prop_map(Op::Push),
        14 => any::<u16>().prop_map(Op::Take),
        3 => any::<u8>().prop_map(Op::Fail),
        1 => Just(Op::Recall),
    ];
    vec(op, 0..40).prop_map(move |ops| Plan { wire: wire as u8, ops })
}

/// Conversations of two on one wire: long and mostly honest, with a kernel in the way.
pub fn conversations(wire: Wire) -> impl Strategy<Value = conversation::Plan> {
    use conversation::{Op, Plan};
    let one = || 0..2_u8;
    let specs = || spec(wire).prop_map(|spec| Spec { corruption: 255, ..spec });
    let op = prop_oneof![
        60 => (one(), specs()).prop_map(|(side, spec)| Op::Say { side, spec }),
        12 => (one(), any::<u8>(), specs(), any::<u16>())
            .prop_map(|(side, count, spec, fates)| Op::Burst { side, count, spec, fates }),
        60 => (one(), any::<u16>()).prop_map(|(side, how)| Op::Send { side, how }),
        10 => (one(), prop_oneof![4 => 0..2_u8, 1 => Just(2)])
            .prop_map(|(side, failure)| Op::Fail { side, failure }),
        3 => one().prop_map(|side| Op::Recall { side }),
        40 => (one(), 0..6_u8).prop_map(|(side, times)| Op::Read { side, times }),
        1 => (one(), any::<u8>()).prop_map(|(side, count)| Op::Lose { side, count }),
        10 => prop_oneof![4 => 0..80_u16, 1 => any::<u16>()].prop_map(|milliseconds| Op::Wait { milliseconds }),
        1 => (one(), any::<bool>()).prop_map(|(side, half)| Op::Close { side, half }),
    ];
    let payload = prop_oneof![1 => Just(0_u16), 4 => 1..5000_u16, 1 => Just(u16::MAX)];
    let descriptors = prop_oneof![1 => Just(0_u8), 6 => 1..20_u8, 1 => Just(253)];
    let timeout = prop_oneof![1 => 0..50_u16, 6 => 20_000..=u16::MAX];
    let capacity = prop_oneof![3 => 0..3000_u16, 1 => any::<u16>()];
    let cuts = prop_oneof![Just([0_u8, 0]), any::<[u8; 2]>(), (1..8_u8, 1..40_u8).prop_map(|(a, b)| [a, b])];
    (0..20_u8, descriptors, payload, timeout, capacity, cuts, vec(op, 0..64)).prop_map(
        move |(batch, descriptors, payload, timeout_ms, capacity, cuts, ops)| Plan {
            wire: wire as u8,
            batch,
            descriptors,
            payload,
            timeout_ms,
            capacity,
            cuts,
            ops,
        },
    )
}

/// Control messages, whole or damaged.
pub fn controls() -> impl Strategy<Value = control::Plan> {
    use control::{Control, Damage};
    let number = prop_oneof![0..400_i32, any::<i32>()];
    let message = prop_oneof![
        4 => vec(number.clone(), 0..6).prop_map(Control::Rights),
        1 => vec(number.clone(), 250..256).prop_map(Control::Rights),
        1 => (any::<i32>(), any::<u32>(), any::<u32>()).prop_map(|(p, u, g)| Control::Credentials(p, u, g)),
        1 => number.prop_map(Control::Pidfd),
        1 => (0..3_i32, 0..6_i32, 0..40_u8).prop_map(|(l, k, n)| Control::Unknown(l, k, n)),
    ];
    let length = prop_oneof![0..80_u32, any::<u32>()];
    let damage = prop_oneof![
        any::<u16>().prop_map(Damage::Cut),
        (any::<u8>(), length).prop_map(|(message, length)| Damage::Length(message, length)),
        any::<(u8, u8)>().prop_map(|(message, bit)| Damage::Header(message, bit)),
    ];
    (any::<u8>(), vec(message, 0..6), any::<bool>(), proptest::option::of(damage))
        .prop_map(|(layout, messages, unpadded, damage)| control::Plan { layout, messages, unpadded, damage })
}

/// What happens to a broker: mostly sound requests of a few parties, and sends that mostly arrive.
pub fn brokered() -> impl Strategy<Value = broker::Script> {
    use broker::{Spec, Step};
    let damage = prop_oneof![12 => Just([255_u8, 0]), 1 => (0..23_u8, any::<u8>()).prop_map(|(a, b)| [a, b])];
    let kind = prop_oneof![1 => Just(1_u8), 3 => Just(0), 8 => Just(2)];
    let audience = prop_oneof![2 => Just(3_u8), 1 => 0..3_u8];
    let about = (kind, (any::<u8>(), audience, any::<u8>()));
    let wire = prop_oneof![6 => Just(0_u8), 1 => 0..4_u8];
    let name = prop_oneof![2 => Just(1_u8), 1 => 0..4_u8];
    let spec = (about, wire, name, prop::bool::weighted(0.9), damage);
    let spec = spec.prop_map(|((kind, (accepts, audience, id)), wire, name, takes_ends, damage)| Spec {
        kind,
        accepts,
        audience,
        id,
        wire,
        name,
        takes_ends,
        damage,
    });
    let raw = (any::<u8>(), any::<[u8; 4]>(), vec(any::<u8>(), 0..30));
    let step = prop_oneof![
        8 => (any::<u8>(), any::<u8>()).prop_map(|(uid, gid)| Step::Connect { uid, gid }),
        30 => (any::<u8>(), spec).prop_map(|(party, spec)| Step::Say(party, spec)),
        1 => raw.prop_map(|(party, head, payload)| Step::Raw(party, head, payload)),
        2 => any::<u8>().prop_map(Step::Gone),
        1 => any::<u8>().prop_map(Step::Full),
        1 => any::<u8>().prop_map(Step::Room),
        1 => any::<u8>().prop_map(Step::Wait),
        1 => any::<u8>().prop_map(Step::Forbid),
    ];
    let fates = vec(prop_oneof![8 => Just(255_u8), 1 => 0..40_u8], 0..12);
    (any::<[u8; 4]>(), fates, vec(step, 0..60)).prop_map(|(quotas, fates, steps)| {
        let first = (0..3).map(|uid| Step::Connect { uid, gid: 0 });
        broker::Script { quotas, fates, steps: first.chain(steps).collect() }
    })
}

/// Mostly honest, so that conversations are long.
fn contents() -> impl Strategy<Value = calls::Content> {
    let which = prop_oneof![12 => 0..200_u8, 1 => 200..=255_u8];
    let command = prop_oneof![20 => Just(0_u8), 1 => 1..4_u8];
    let grant = prop_oneof![4 => Just(4_u8), 2 => 0..4_u8, 1 => Just(5)];
    let descriptors = prop_oneof![8 => 0..2_u8, 1 => 0..8_u8];
    let deadline = prop_oneof![1 => Just(0_u8), 3 => 1..40_u8];
    let bit = |often: u32, bit: u8| prop_oneof![often => Just(0), 1 => Just(bit)];
    let bits = (
        prop_oneof![1 => Just(0_u8), 2 => Just(1), 8 => Just(33)],
        bit(4, 2),
        bit(15, 4),
        bit(15, 8),
        bit(6, 16),
    );
    (which, command, grant, descriptors, deadline, bits).prop_map(
        |(which, command, grant, descriptors, deadline, (a, b, c, d, e))| calls::Content {
            which,
            command,
            grant,
            descriptors,
            deadline,
            bits: a | b | c | d | e,
        },
    )
}

/// What one side of calls says and hears.
pub fn called(wire: u8) -> impl Strategy<Value = calls::Plan> {
    use calls::{Op, Plan};
    let op = prop_oneof![
        6 => contents().prop_map(Op::Start),
        5 => contents().prop_map(Op::Come),
        3 => contents().prop_map(Op::Answer),
        2 => (0..30_u8).prop_map(Op::Wait),
        1 => any::<u8>().prop_map(Op::GiveUp),
    ];
    let answers = prop_oneof![3 => Just(false), 1 => Just(true)];
    (answers, 0..9_u8, vec(op, 0..40)).prop_map(move |(answers, most, ops)| Plan { wire, answers, most, ops })
}
