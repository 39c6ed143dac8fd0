//! Which ways meet where, and what is asked of them there.

use fdpost::{Libcamera, Packet, Stream};

use crate::bench::{Bench, Better, Entry, Goal, Row, Timing};
use crate::clock::{Clock, Placement};
use crate::exchange::{in_turn, one_way, round_trip, send_calls, senders};
use crate::kernel_free::{allocations, decoding};
use crate::stats::Estimate;
use crate::way::{Shape, Way};
use crate::ways::{
    Buffered, Dgram, Fdpost, FourCalls, IpcChannel, Packed, Prefix, Seqpacket, SixCalls, TokioSeqpacket,
    UnixIpc,
};

const PACKET: &str = Fdpost::<Packet>::NAME;
const LIBCAMERA: &str = Fdpost::<Libcamera>::NAME;
const STREAM: &str = Fdpost::<Stream>::NAME;

/// One entry for each way, made by the function with the arguments.
macro_rules! entries {
    ($make:ident $arguments:tt: $($way:ty),+ $(,)?) => {
        vec![$(Entry::of::<$way>(move || $make::<$way> $arguments.into())),+]
    };
}

/// Everything, or what the plan wants of it.
pub fn all(bench: &mut Bench) {
    core_alone(bench);
    crate::footprint::weigh(bench);
    crate::kinds::ask(bench);
    crate::hostile::refuse(bench);
    for (size, descriptors) in [(64, 0), (64, 1), (4096, 0), (4096, 1), (65_536, 0), (65_536, 1)] {
        alone(bench, Shape::new(size, descriptors));
        for burst in [16, 64] {
            bursts(bench, Shape::new(size, descriptors).burst(burst));
        }
        // Goal 2 asks for sizes between those of the tables.
        match (size, descriptors) {
            (64, 1) => between(bench, 1024, &[16, 64]),
            (4096, 1) => between(bench, 16_384, &[16]),
            _ => {}
        }
    }
    threads(bench);
    placed(bench);
    over_depth(bench);
    over_descriptors(bench);
}

/// `64 B`, `4 KiB`, with its descriptors.
fn words(shape: &Shape) -> String {
    let size = match shape.size {
        size if size % 1024 == 0 => format!("{} KiB", size / 1024),
        size => format!("{size} B"),
    };
    match shape.descriptors {
        0 => size,
        1 => format!("{size} with a descriptor"),
        count => format!("{size} with {count} descriptors"),
    }
}

/// Distinguishes scenes of a kind that differ in size and descriptors.
const fn key(shape: &Shape) -> usize {
    shape.size * 2 + shape.descriptors
}

fn core_alone(bench: &mut Bench) {
    let shape = Shape::new(64, 0);
    let decodings = ["decoding, packet", "decoding, libcamera"];
    let mut entries = entries![in_turn(shape): Seqpacket];
    entries.push(Entry::new(decodings[0], || Some(decoding::<Packet>())));
    entries.push(Entry::new(decodings[1], || Some(decoding::<Libcamera>())));
    let goal = |wire: &str, subject, wanted| {
        let name = format!("raw SEQPACKET send + receive against decoding the same 64 B, {wire}");
        Goal::faster(1, name, subject, Seqpacket::NAME, wanted)
    };
    let goals = vec![goal("packet", decodings[0], 30.0), goal("libcamera", decodings[1], 25.0)];
    bench.scene(("core", 0, "64 B"), "the core alone, 64 B", Timing::Cpu, entries, goals);
    if bench.plan.wants(1) {
        for (wire, count) in [("packet", allocations::<Packet>()), ("libcamera", allocations::<Libcamera>())]
        {
            let name = format!("allocations in decoding 1000 messages of 64 B, {wire}");
            let estimate = Estimate::exactly(count as f64);
            bench.rows.push(Row::new(1, name, estimate, 0.0, Better::Lower, "allocations"));
        }
    }
}

fn alone(bench: &mut Bench, shape: Shape) {
    let mut entries = entries![in_turn(shape):
        FourCalls, SixCalls, Fdpost<Packet>, Fdpost<Libcamera>, Fdpost<Stream>, Seqpacket, Dgram,
        TokioSeqpacket, UnixIpc];
    let mut goals = Vec::new();
    let words = words(&shape);
    if shape.descriptors == 0 {
        entries.extend(entries![in_turn(shape): IpcChannel, Prefix, Buffered]);
        let name = format!("stream, {words}, against UnixStream with a length prefix");
        goals.push(Goal::faster(0, name, STREAM, Prefix::NAME, 1.0));
    }
    if shape.size == 64 {
        let wanted = if shape.descriptors == 0 { 1.9 } else { 1.55 };
        let name = format!("packet, {words}, one at a time, against libcamera's way (four calls)");
        goals.push(Goal::faster(3, name, PACKET, FourCalls::NAME, wanted));
    }
    if shape == Shape::new(64, 0) {
        let name = "packet, 64 B, one at a time, against raw SEQPACKET";
        goals.push(Goal::faster(3, name, PACKET, Seqpacket::NAME, 0.92));
    }
    bench.scene(
        ("alone", key(&shape), &words),
        &format!("{words}, one at a time"),
        Timing::Cpu,
        entries,
        goals,
    );
}

fn bursts(bench: &mut Bench, shape: Shape) {
    let mut entries = entries![in_turn(shape):
        FourCalls, SixCalls, Fdpost<Packet>, Fdpost<Libcamera>, Fdpost<Stream>, Seqpacket, Dgram,
        TokioSeqpacket, UnixIpc];
    let mut goals = Vec::new();
    let (words, burst) = (words(&shape), shape.burst);
    if shape.descriptors == 0 {
        entries.extend(entries![in_turn(shape): IpcChannel, Prefix, Buffered]);
        goals.extend(libcamera_goal(&shape));
    }
    if shape.size < 65_536 {
        entries.extend(entries![in_turn(shape): Packed]);
    }
    let wanted = match (shape.size, shape.descriptors, burst) {
        (64, 0, 16) => Some(20.0),
        (64, 0, 64) => Some(40.0),
        (64, 1, 16) => Some(8.0),
        (4096, 0, 16) => Some(5.0),
        _ => None,
    };
    if let Some(wanted) = wanted {
        let name = format!("packet, {words}, bursts of {burst}, against libcamera's way (four calls)");
        goals.push(Goal::faster(4, name, PACKET, FourCalls::NAME, wanted));
        let name = format!("packet, {words}, bursts of {burst}, against raw SEQPACKET packed by hand");
        goals.push(Goal::faster(4, name, PACKET, Packed::NAME, 0.8));
    }
    let title = format!("{words}, bursts of {burst}");
    bench.scene((&format!("burst-{burst}"), key(&shape), &words), &title, Timing::Cpu, entries, goals);
}

fn libcamera_goal(shape: &Shape) -> Option<Goal> {
    // Of larger ones as many as the socket holds go at a time, whatever the burst.
    if shape.size > 4096 && shape.burst > 16 {
        return None;
    }
    let wanted = if shape.size == 64 { 1.2 } else { 1.0 };
    let name =
        format!("libcamera, {}, bursts of {}, against the floor of four calls", words(shape), shape.burst);
    Some(Goal::faster(2, name, LIBCAMERA, FourCalls::NAME, wanted))
}

/// A size for goal 2 alone.
fn between(bench: &mut Bench, size: usize, bursts: &'static [usize]) {
    for &burst in bursts {
        let shape = Shape::new(size, 0).burst(burst);
        let entries = entries![in_turn(shape): FourCalls, SixCalls, Fdpost<Libcamera>];
        let title = format!("{}, bursts of {burst}", words(&shape));
        let goals = libcamera_goal(&shape).into_iter().collect();
        bench.scene(
            (&format!("between-{burst}"), key(&shape), &words(&shape)),
            &title,
            Timing::Cpu,
            entries,
            goals,
        );
    }
}

fn threads(bench: &mut Bench) {
    let shape = Shape::new(64, 0);
    for count in [1, 2, 4, 8, 16, 32, 64] {
        let entries = entries![senders(shape, count):
            FourCalls, Fdpost<Packet>, Fdpost<Libcamera>, Seqpacket, IpcChannel, UnixIpc, Prefix];
        let goal = Goal::faster(
            5,
            "packet, 8 threads on one channel, messages/s against a mutex around two sends",
            PACKET,
            FourCalls::NAME,
            8.0,
        );
        let goals = if count == 8 { vec![goal] } else { Vec::new() };
        bench.scene(
            ("senders", count, &count.to_string()),
            &format!("64 B, {count} sending threads"),
            Timing::Threads,
            entries,
            goals,
        );
    }
    let (ours, theirs) = ("packet, 99th percentile", "mutex around two sends, median");
    let entries = vec![
        Entry::new(theirs, move || Some(send_calls::<FourCalls>(theirs, shape, 8, 0.5))),
        Entry::new(ours, move || Some(send_calls::<Fdpost<Packet>>(ours, shape, 8, 0.99))),
    ];
    let name = "packet, 8 threads, 99th percentile of a send call against a mutex's median";
    let goals = vec![Goal::dearer(5, name, ours, theirs, 1.0)];
    bench.scene(("calls", 8, "8"), "64 B, 8 threads, ns a send call", Timing::Threads, entries, goals);
}

fn placed(bench: &mut Bench) {
    for (place, placement) in [Placement::OneCore, Placement::TwoCores].into_iter().enumerate() {
        let where_ = placement.words();
        for size in [64, 4096, 65_536] {
            let shape = Shape::new(size, 0);
            let entries = entries![round_trip(shape, placement):
                FourCalls, SixCalls, Fdpost<Packet>, Fdpost<Libcamera>, Fdpost<Stream>, Seqpacket, Dgram,
                IpcChannel, TokioSeqpacket, UnixIpc, Prefix, Buffered];
            let peers = [(IpcChannel::NAME, 1.05), (TokioSeqpacket::NAME, 1.8), (UnixIpc::NAME, 2.0)];
            let goals = peers.map(|(peer, wanted)| {
                let name = format!("packet, round trip, 64 B, {where_}, against {peer}");
                Goal::faster(6, name, PACKET, peer, wanted)
            });
            // Two cores are shown beside, and count for nothing.
            let counts = size == 64 && placement == Placement::OneCore;
            let goals = goals.into_iter().filter(|_| counts).collect();
            let title = format!("{}, round trip, {where_}", words(&shape));
            bench.scene(
                (&format!("round-trip-{place}"), key(&shape), &words(&shape)),
                &title,
                Timing::Threads,
                entries,
                goals,
            );
        }
        let shape = Shape::new(64, 0).burst(64);
        let entries = entries![one_way(shape, placement, Clock::Wall, false):
            FourCalls, Fdpost<Packet>, Fdpost<Libcamera>, Fdpost<Stream>, Seqpacket, Dgram, IpcChannel,
            TokioSeqpacket, UnixIpc, Prefix, Buffered];
        let name = format!("packet, one way, 64 B, bursts of 64, {where_}, against ipc-channel's bytes");
        let goals = vec![Goal::faster(7, name, PACKET, IpcChannel::NAME, 10.0)];
        let title = format!("64 B, one way, bursts of 64, {where_}");
        bench.scene(("one-way", place, where_), &title, Timing::Threads, entries, goals);
    }
}

fn over_depth(bench: &mut Bench) {
    for depth in (0..=10).map(|power| 1 << power) {
        let shape = Shape::new(64, 0).burst(depth);
        let entries = entries![one_way(shape, Placement::OneCore, Clock::Process, true):
            FourCalls, Fdpost<Packet>, Fdpost<Libcamera>, Seqpacket, IpcChannel];
        let title = format!("64 B, at most {depth} under way, both ends on one core");
        bench.scene(("depth", depth, &depth.to_string()), &title, Timing::Threads, entries, Vec::new());
    }
}

fn over_descriptors(bench: &mut Bench) {
    for count in [0, 1, 2, 4, 8, 16, 32, 64, 128, 253] {
        let shape = Shape::new(64, count);
        let entries = entries![in_turn(shape):
            FourCalls, Fdpost<Packet>, Fdpost<Libcamera>, Fdpost<Stream>, Seqpacket, UnixIpc];
        bench.scene(
            ("descriptors", count, &count.to_string()),
            &words(&shape),
            Timing::Cpu,
            entries,
            Vec::new(),
        );
    }
}
