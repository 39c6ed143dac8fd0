//! Writes the seed corpora of the fuzz targets into a directory, the same files at every run; `make
//! fuzz-seeds` minimises them: `cargo run --example seeds -- DIRECTORY`. libcamera's come from `tests/vectors/libcamera.json`, send_fd's from
//! `send_fd.json`; there is one for every wire and every corruption.

use std::fs;
use std::path::Path;

use fdpost::broker::{
    ASK, Answer, Ask, Audience, Name, Peer, REGISTER, Refusal, Registration, Request, Wire,
};
use fdpost::profile::Packet;
use fdpost::wire::control::{Credentials, encode_credentials, encode_rights};
use fdpost_proptests::control::LAYOUTS;
use fdpost_proptests::script::{Script, Spec, Step};
use fdpost_proptests::transcript::of_script;
use serde_json::Value;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let corpus = std::env::args_os().nth(1).expect("a directory to write to");
    let corpus = Path::new(&corpus);
    let vectors = fs::read_to_string(root.join("tests/vectors/libcamera.json")).expect("the vectors");
    let vectors: Value = serde_json::from_str(&vectors).expect("the vectors are JSON");
    receiver(&corpus.join("receiver"), &vectors);
    transcript(&corpus.join("transcript"), &corpus.join("receiver"));
    calls(&corpus.join("calls"));
    control(&corpus.join("control"));
    sender(&corpus.join("sender"));
    conversation(&corpus.join("conversation"));
    broker(&corpus.join("broker"));
    let vectors = fs::read_to_string(root.join("tests/vectors/send_fd.json")).expect("the vectors");
    send_fd(&corpus.join("send_fd"), &serde_json::from_str(&vectors).expect("the vectors are JSON"));
}

fn write(directory: &Path, name: &str, bytes: &[u8]) {
    fs::create_dir_all(directory).expect("a directory to write to");
    fs::write(directory.join(name), bytes).expect("a file to write to");
}

/// A receiver of everyday limits.
fn listener(wire: u8, habits: u8) -> Script {
    Script {
        wire,
        batch: 4,
        habits,
        descriptors: 4,
        payload: 4096,
        held_kib: 256,
        held_descriptors: 64,
        timeout_ms: 1000,
        rate: u16::MAX,
        cuts: [0, 7],
        steps: Vec::new(),
    }
}

fn receiver(directory: &Path, vectors: &Value) {
    let mut conversation = listener(0, 0);
    for message in vectors["messages"].as_array().expect("messages") {
        let part = |field: &str, descriptors| Step::Raw(hex(&message[field]), descriptors, 0);
        let descriptors = message["descriptors"].as_u64().and_then(|count| count.try_into().ok());
        let steps =
            [part("header", 0), part("payload", descriptors.expect("a few descriptors")), Step::Drain];
        let script = Script { steps: steps.to_vec(), ..listener(0, 0) };
        let name = |field: &str| message[field].as_str().expect("a name");
        let file = format!("libcamera-{}-{}", name("name"), name("direction"));
        write(directory, &file, &script.to_bytes());
        conversation.steps.extend(steps);
    }
    conversation.steps.push(Step::Close);
    write(directory, "libcamera-conversation", &conversation.to_bytes());
    // What an honest spec with one thing wrong seldom comes to: a header of nothing, and a payload that
    // the buffer for it cuts.
    let raw = |bytes: &[u8]| Step::Raw(bytes.to_vec(), 0, 0);
    let nothing = Script { steps: vec![raw(&[0; 8])], ..listener(0, 0) };
    write(directory, "libcamera-empty-message", &nothing.to_bytes());
    let (header, five) = ([&4_u32.to_ne_bytes()[..], &[0; 4]].concat(), [7; 5]);
    let cut = Script { payload: 4, steps: vec![raw(&header), raw(&five)], ..listener(0, 0) };
    write(directory, "libcamera-payload-truncated", &cut.to_bytes());
    // The byte that carries a stream's descriptors is another one than it must be.
    let header = [&[7; 4][..], &1_u32.to_ne_bytes(), &[1, 0, 0, 0]].concat();
    let steps = vec![raw(&header), raw(b"x"), Step::Raw(vec![0x78], 1, 0)];
    let another = Script { steps, ..listener(2, 0) };
    write(directory, "stream-marker", &another.to_bytes());
    let frame = Spec { size: 1, corruption: 255, joined: 255, ..Spec::default() };
    let frames = Script { steps: vec![Step::Say(frame)], ..listener(1, 0) };
    write(directory, "packet-too-many-frames", &frames.to_bytes());
    for wire in 0..4 {
        let name = ["libcamera", "packet", "stream", "vhost-user"][usize::from(wire)];
        for corruption in 0..=16 {
            let good = Spec { size: 9, count: 2, corruption: 255, argument: 3, head: 11, joined: 0 };
            let bad = Spec { corruption, joined: corruption & 1, ..good };
            let late = [Step::Wait(2000), Step::Drain, Step::Say(good), Step::Close];
            let mut script =
                Script { steps: vec![Step::Say(good), Step::Say(bad)], ..listener(wire, corruption * 4) };
            script.steps.extend(late);
            write(directory, &format!("{name}-corruption-{corruption:02}"), &script.to_bytes());
        }
        // Found by a property: descriptors alone, without a byte of payload.
        let alone = Spec { size: 0, count: 1, corruption: 255, ..Spec::default() };
        let script = Script { steps: vec![Step::Say(alone), Step::Say(alone)], ..listener(wire, 0) };
        write(directory, &format!("{name}-descriptors-alone"), &script.to_bytes());
        let steps = (0..40).map(|count| {
            Step::Say(Spec {
                size: 0x8000,
                count: count % 3,
                corruption: 255,
                head: count,
                joined: 1,
                argument: 0,
            })
        });
        let script = Script { steps: steps.collect(), payload: 64, ..listener(wire, 63) };
        write(directory, &format!("{name}-many"), &script.to_bytes());
    }
}

/// Plans by hand, for each wire: what fuzzing finds by changing a byte of them.
fn calls(directory: &Path) {
    /// A reply to what is out; one that fails; and what does not leave.
    const REPLY: u8 = 33;
    const ERROR: u8 = 35;
    const STAYS: u8 = 16;
    let op = |tag: u8, which: u8, command: u8, grant: u8, descriptors: u8, deadline: u8, bits: u8| {
        vec![tag, which, command, grant, descriptors, deadline, bits]
    };
    let start = |grant, deadline| op(0, 0, 1, grant, 1, deadline, 0);
    let come = |which, descriptors, bits| op(90, which, 1, 2, descriptors, 0, bits);
    let answer = |which, descriptors, bits| op(170, which, 1, 0, descriptors, 0, bits);
    let (wait, give_up) = (|time| vec![215, time], |which| vec![245, which]);
    for (wire, name) in (0..).zip(["packet", "libcamera", "stream"]) {
        let plans = [
            ("answered", 0, vec![start(2, 0), come(0, 2, REPLY), start(0, 9), come(1, 0, ERROR)]),
            (
                "any-order",
                0,
                vec![start(0, 5), start(1, 9), start(2, 0), come(2, 2, 1), come(0, 0, 1), come(1, 1, 1)],
            ),
            ("late", 0, vec![start(1, 5), wait(5), come(0, 1, REPLY), start(0, 5), wait(4), wait(1)]),
            ("given-up", 0, vec![start(0, 0), give_up(0), give_up(0), start(0, 0), come(0, 0, 1)]),
            ("full", 0, (0..9).map(|_| start(0, 0)).collect()),
            ("twice", 0, vec![start(0, 0), come(0, 0, REPLY), come(0, 0, 1)]),
            ("unknown", 0, vec![start(0, 0), come(207, 0, 1)]),
            ("descriptors", 0, vec![start(1, 0), come(0, 2, REPLY)]),
            ("command", 0, vec![start(1, 0), op(90, 0, 2, 0, 0, 0, REPLY)]),
            ("short", 0, vec![op(0, 3, 0, 0, 0, 0, 8), come(3, 0, 8)]),
            ("stays", 0, vec![op(0, 0, 1, 2, 1, 0, STAYS), start(0, 0), come(0, 0, REPLY)]),
            (
                "asked",
                1,
                vec![come(201, 1, 0), answer(0, 2, 0), answer(0, 2, 0), come(200, 0, 0), answer(1, 0, 2)],
            ),
            ("overlap", 1, vec![come(201, 0, 0), answer(0, 0, STAYS), come(202, 0, 0), answer(1, 3, 4)]),
        ];
        for (plan, answers, ops) in plans {
            let bytes = [vec![wire, answers, 8], ops.concat()].concat();
            write(directory, &format!("{name}-{plan}"), &bytes);
        }
    }
}

/// Raw control data; the same bytes are read as a plan too.
fn control(directory: &Path) {
    for (name, layout) in ["glibc-64", "musl-64", "bits-32"].into_iter().zip(LAYOUTS) {
        let mut all = vec![0; layout.space(12)];
        encode_credentials(&mut all, layout, Credentials { pid: 1, uid: 2, gid: 3 }).expect("room");
        for count in [0, 1, 2, 3, 253] {
            let mut rights = vec![0; layout.space(4 * count)];
            encode_rights(&mut rights, layout, (3..).take(count).collect::<Vec<i32>>().into_iter())
                .expect("room");
            write(directory, &format!("{name}-rights-{count:03}"), &rights);
            if count < 4 {
                all.extend(&rights);
            }
        }
        write(directory, &format!("{name}-all"), &all);
        write(directory, &format!("{name}-cut"), &all[..all.len() - 5]);
        let mut beyond = all;
        beyond[0] = 0xff;
        write(directory, &format!("{name}-beyond"), &beyond);
    }
    write(directory, "empty", &[]);
}

/// Plans by hand: push, take, fail.
fn sender(directory: &Path) {
    for wire in 0..4 {
        let name = ["libcamera", "packet", "stream", "vhost-user"][usize::from(wire)];
        let push = |corruption: u8| [0, 9, 0, 2, corruption, 3, 11, 0];
        let take = |count: u8| [100, count, 0];
        for corruption in 0..=4 {
            let plan = [&[wire][..], &push(255), &push(corruption), &take(4), &take(30), &take(9)].concat();
            write(directory, &format!("{name}-push-{corruption}"), &plan);
        }
        // Would block, pressure, refused, gone; before anything left and after some did.
        for fail in [0, 7, 13, 15] {
            let early = [&[wire][..], &push(255), &push(255), &[224, fail], &take(0), &[248]].concat();
            write(directory, &format!("{name}-fail-{fail:02}-early"), &early);
            let late =
                [&[wire][..], &push(255), &push(255), &take(0), &[224, fail], &push(255), &[255]].concat();
            write(directory, &format!("{name}-fail-{fail:02}-late"), &late);
        }
    }
}

/// Plans by hand, for each wire: both sides say something, the kernel does its part.
fn conversation(directory: &Path) {
    let say = |side: u8, size: u8, count: u8| vec![side, size, 0, count, 255, 0, 11, 0];
    let burst = |side: u8, count: u8, fates: u8| vec![80 + side, count, 9, 0, 1, 255, 0, 11, 0, fates, fates];
    let send = |side: u8, how: u8, more: u8| vec![104 + side, how, more];
    let fail = |side: u8, failure: u8| vec![168 + side, failure];
    let (recall, read) = (|side: u8| vec![188 + side], |side: u8| vec![194 + side, 0]);
    let (lose, wait) = (|side: u8| vec![236 + side, 1], |high: u8| vec![240, 0, high]);
    let (close, leave) = (|side: u8| vec![250 + side], |side: u8| vec![252 + side]);
    for wire in 0..4 {
        let name = ["libcamera", "packet", "stream", "vhost-user"][usize::from(wire)];
        let plans = [
            (
                "answer",
                vec![say(0, 9, 2), send(0, 255, 255), read(1), say(1, 5, 1), send(1, 255, 255), read(0)],
            ),
            ("cut", vec![say(0, 90, 2), send(0, 6, 0), read(1), send(0, 20, 0), read(1), fail(0, 0)]),
            ("packed", vec![say(0, 9, 1), say(0, 8, 0), say(0, 7, 2), send(0, 255, 255), read(1)]),
            ("packed-refused", vec![say(0, 9, 1), say(0, 8, 0), send(0, 255, 255), fail(0, 2), fail(0, 2)]),
            ("burst", vec![burst(0, 69, 0), read(1), burst(1, 40, 255), read(0)]),
            ("pressure", vec![say(0, 9, 1), fail(0, 1), wait(1), send(0, 0, 0), fail(0, 1), recall(0)]),
            ("refused-late", vec![say(0, 9, 1), send(0, 2, 0), fail(0, 2), read(1)]),
            ("lost", vec![say(0, 9, 3), lose(1), send(0, 255, 255), read(1), say(1, 1, 1)]),
            ("close", vec![say(0, 9, 3), send(0, 2, 0), close(0), read(1), say(1, 1, 1), send(1, 255, 255)]),
            ("leave", vec![say(0, 9, 3), send(0, 2, 0), leave(1), send(0, 2, 0), say(0, 1, 1)]),
            ("late", vec![say(0, 9, 3), send(0, 2, 0), read(1), wait(20), read(1), say(1, 1, 1)]),
            ("too-large", vec![say(0, 9, 3), vec![0, 16, 248, 0, 255, 0, 1, 0], send(0, 255, 255), read(1)]),
            ("too-many", vec![say(0, 9, 3), say(0, 9, 255), send(0, 255, 255), send(0, 255, 255), read(1)]),
        ];
        for (plan, ops) in plans {
            let head = [wire, 4, 4, 0, 16, 0, 10, 0, 16, 0, 7];
            write(directory, &format!("{name}-{plan}"), &[&head[..], &ops.concat()].concat());
        }
    }
    let most = [&[1, 0, 253, 0, 16, 0, 10, 0, 16, 0, 0][..], &say(0, 9, 252), &send(0, 255, 255)].concat();
    write(directory, "packet-253", &most);
}

/// Each request and each answer, as messages.
fn broker(directory: &Path) {
    let name = Name::new("camera/0").expect("a name");
    let wire = Wire::of::<Packet>().expect("a wire");
    let audiences = [Audience::SameUser, Audience::User(1000), Audience::Group(7), Audience::Anyone];
    let registrations = audiences.map(|audience| Registration { name, wire, accepts: 3, audience });
    let mut requests = registrations.map(Request::Register).to_vec();
    requests.extend([Request::Withdraw(name), Request::Ask(Ask { name, wire, accepts: 0 })]);
    let peer = Peer { credentials: Credentials { pid: 1, uid: 1000, gid: 7 }, accepts: 3 };
    let mut answers = vec![Answer::Done, Answer::Granted(peer), Answer::HandOver(name, peer)];
    answers.extend([Refusal::NameTaken, Refusal::WireMismatch(wire)].map(Answer::Refused));
    answers.extend([Refusal::Quota, Refusal::Full, Refusal::Exhausted].map(Answer::TurnedAway));
    let requests = requests.iter().map(|request| request.message::<()>(9, true));
    let kind = |answer: &Answer| if matches!(answer, Answer::Done) { REGISTER } else { ASK };
    let answers = answers.iter().map(|answer| answer.message::<()>(kind(answer), 9));
    for (number, message) in requests.chain(answers).enumerate() {
        let head = message.head();
        let fields = [head.kind, head.flags, head.correlation, head.reply_descriptors.into()];
        let head: Vec<u8> = fields.into_iter().map(|field| field as u8).collect();
        write(directory, &format!("message-{number:02}"), &[&head, message.payload()].concat());
    }
    // The oracle reads any bytes as a script too: a few that grow, where the generator finds its way.
    for length in [40, 80, 160, 320, 640, 1280_u32] {
        let bytes: Vec<u8> = (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        write(directory, &format!("script-{length:04}"), &bytes);
    }
}

/// Every conversation of the target `receiver`, as what its receiver met.
fn transcript(directory: &Path, receiver: &Path) {
    for entry in fs::read_dir(receiver).expect("the receiver's seeds") {
        let path = entry.expect("a seed").path();
        let script = Script::from_bytes(&fs::read(&path).expect("a seed"));
        let text = of_script(&script).to_string();
        // A large payload teaches the parser nothing that a small one does not.
        if text.len() <= 4096 {
            write(directory, &path.file_name().expect("a name").to_string_lossy(), text.as_bytes());
        }
    }
}

/// The limit of the text, then a stream or packet.
fn send_fd(directory: &Path, vectors: &Value) {
    for message in vectors["messages"].as_array().expect("messages") {
        let (name, bytes) = (message["name"].as_str().expect("a name"), hex(&message["bytes"]));
        let text = bytes.len() - 2;
        let limit = u8::try_from(text).unwrap_or(u8::MAX);
        write(directory, name, &[&[limit], &bytes[..]].concat());
        write(directory, &format!("{name}-cut"), &[&[limit], &bytes[..=text]].concat());
        write(directory, &format!("{name}-beyond"), &[&[limit.saturating_sub(1)], &bytes[..]].concat());
        write(directory, &format!("{name}-twice"), &[&[limit], &bytes[..], &bytes].concat());
    }
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("hexadecimal digits");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits");
    (0..text.len()).step_by(2).map(byte).collect()
}
