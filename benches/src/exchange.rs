//! What the ways are made to do.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Cores, Placement, on};
use crate::measure::Contestant;
use crate::stats::quantile;
use crate::sys;
use crate::way::{Echo, InOrder, Load, PerSender, STOP, Shape, Way, numbered, stamp, template};
use crate::ways::Shared;

/// One thread sends and receives in turn: a message alone, or bursts. What is timed is its CPU
/// time, which is that of both sides.
pub fn in_turn<W: Way>(shape: Shape) -> Contestant {
    let (ours, theirs) = W::seeds(&shape);
    let (mut ours, mut theirs) = W::run(async { (W::end(ours), W::end(theirs)) });
    let template = template(shape.size);
    let lot = shape.lot();
    let mut out: Vec<W::Load> = (0..lot).map(|_| W::load(&shape)).collect();
    let mut back: Vec<W::Load> = (0..lot).map(|_| W::blank(&shape)).collect();
    let mut check = InOrder::new(shape);
    Contestant::timed(W::NAME, shape.burst, move |turns| {
        // The messages travel, so what any of them changed is found in the last burst.
        check.whole = Some((check.next + ((turns - 1) * shape.burst) as u64, template.clone()));
        Clock::Cpu.time(|| {
            W::run(async {
                for _ in 0..turns {
                    if shape.burst == 1 {
                        stamp(out[0].renew(&template), check.next);
                        W::send(&mut ours, &mut out[0]).await;
                        W::receive(&mut theirs, &mut back[0], &mut check).await;
                        std::mem::swap(&mut out, &mut back);
                        continue;
                    }
                    let mut left = shape.burst;
                    while left > 0 {
                        // The last lot may be smaller: the rest waits for the next burst.
                        let count = lot.min(left);
                        let mut waiting = out.split_off(count);
                        for (number, load) in (check.next..).zip(&mut out) {
                            stamp(load.renew(&template), number);
                        }
                        W::send_all(&mut ours, &mut out).await;
                        W::receive_all(&mut theirs, &mut back, count, &mut check, &shape).await;
                        std::mem::swap(&mut out, &mut back);
                        out.truncate(count);
                        out.append(&mut waiting);
                        left -= count;
                    }
                }
            });
        })
    })
}

/// A message there and back, between two threads that are placed. Time that passes.
pub fn round_trip<W: Way>(shape: Shape, placement: Placement) -> Option<Contestant> {
    let mut talk = Talk::<W>::new(shape, placement)?;
    Some(Contestant::timed(W::NAME, 1, move |turns| talk.run(turns)))
}

/// The asking end; the other thread echoes.
struct Talk<W: Way> {
    cores: Cores,
    end: W::End,
    load: W::Load,
    check: InOrder,
    template: Vec<u8>,
    echo: Option<JoinHandle<()>>,
}

impl<W: Way> Talk<W> {
    fn new(shape: Shape, placement: Placement) -> Option<Self> {
        let (cores, there) = placement.cores()?;
        let (ours, theirs) = W::seeds(&shape);
        let template = template(shape.size);
        let pattern = template.clone();
        let echo = thread::spawn(move || {
            there.apply();
            W::run(async {
                let mut end = W::end(theirs);
                let mut load = W::blank(&shape);
                let mut check = Echo::default();
                while check.number != STOP {
                    W::receive(&mut end, &mut load, &mut check).await;
                    stamp(load.renew(&pattern), check.number);
                    W::send(&mut end, &mut load).await;
                }
            });
        });
        let end = W::run(async { W::end(ours) });
        let (load, check) = (W::load(&shape), InOrder::new(shape));
        Some(Self { cores, end, load, check, template, echo: Some(echo) })
    }

    fn run(&mut self, turns: usize) -> Duration {
        let Self { cores, end, load, check, template, .. } = self;
        on(cores, || {
            Clock::Wall.time(|| {
                W::run(async {
                    for _ in 0..turns {
                        stamp(load.renew(template), check.next);
                        W::send(end, load).await;
                        W::receive(end, load, check).await;
                    }
                });
            })
        })
    }
}

impl<W: Way> Drop for Talk<W> {
    fn drop(&mut self) {
        // A panic has its own words; nothing may wait behind it.
        if thread::panicking() {
            return;
        }
        self.check.next = STOP;
        stamp(self.load.renew(&self.template), STOP);
        W::run(W::send(&mut self.end, &mut self.load));
        if let Some(echo) = self.echo.take() {
            echo.join().expect("the echo ended well");
        }
    }
}

/// One thread sends bursts, this one receives. With a window the sender waits after each burst until
/// all of it has been received: so many are under way and no more.
pub fn one_way<W: Way>(shape: Shape, placement: Placement, clock: Clock, window: bool) -> Option<Contestant> {
    let (cores, there) = placement.cores()?;
    let (ours, theirs) = W::seeds(&shape);
    let template = template(shape.size);
    let (acknowledge, acknowledged) = sys::pair(libc::SOCK_STREAM);
    let (ask, asked) = channel::<usize>();
    let sender = thread::spawn(move || {
        there.apply();
        W::run(async {
            let mut end = W::end(theirs);
            let mut loads: Vec<W::Load> = Vec::new();
            let mut number = 0;
            while let Ok(turns) = asked.recv() {
                for _ in 0..turns {
                    loads.resize_with(shape.burst, || W::blank(&shape));
                    for load in &mut loads {
                        stamp(load.renew(&template), number);
                        number += 1;
                    }
                    W::send_all(&mut end, &mut loads).await;
                    if window {
                        sys::receive_plain(&acknowledged, &mut [0]);
                    }
                }
            }
        });
    });
    let mut end = W::run(async { W::end(ours) });
    let mut loads = Vec::new();
    let mut check = InOrder::new(shape);
    let sending = Sending { ask: Some(ask), sender: Some(sender) };
    Some(Contestant::timed(W::NAME, shape.burst, move |turns| {
        on(&cores, || {
            clock.time(|| {
                sending.ask(turns);
                W::run(async {
                    for _ in 0..turns {
                        W::receive_all(&mut end, &mut loads, shape.burst, &mut check, &shape).await;
                        if window {
                            sys::send_plain(&acknowledge, &[0]);
                        }
                    }
                });
            })
        })
    }))
}

/// The thread that sends when asked; dropped, it ends.
struct Sending {
    ask: Option<Sender<usize>>,
    sender: Option<JoinHandle<()>>,
}

impl Sending {
    fn ask(&self, turns: usize) {
        self.ask.as_ref().and_then(|ask| ask.send(turns).ok()).expect("the sender is there");
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        drop(self.ask.take());
        if let (Some(sender), false) = (self.sender.take(), thread::panicking()) {
            sender.join().expect("the sender ended well");
        }
    }
}

/// Several threads send on one channel, this one receives. Time that passes.
pub fn senders<W: Shared>(shape: Shape, senders: usize) -> Contestant {
    let mut crowd = Crowd::<W>::new(shape, senders);
    Contestant::timed(W::NAME, senders, move |turns| crowd.run(turns, None))
}

/// As [`senders`]; the figure is the duration of a send call at `share` of all, in nanoseconds.
pub fn send_calls<W: Shared>(name: &str, shape: Shape, senders: usize, share: f64) -> Contestant {
    let mut crowd = Crowd::<W>::new(shape, senders);
    Contestant::new(name, move |turns| {
        let calls = Mutex::new(Vec::with_capacity(turns * senders));
        crowd.run(turns, Some(&calls));
        let mut calls = calls.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        quantile(&mut calls, share) as f64
    })
}

struct Crowd<W: Shared> {
    shape: Shape,
    handle: W::Handle,
    end: W::End,
    load: W::Load,
    check: PerSender,
}

impl<W: Shared> Crowd<W> {
    fn new(shape: Shape, senders: usize) -> Self {
        let (ours, theirs) = W::seeds(&shape);
        Self {
            shape,
            handle: W::share(ours),
            end: W::run(async { W::end(theirs) }),
            load: W::blank(&shape),
            check: PerSender { shape, next: vec![0; senders] },
        }
    }

    /// Each sender sends `turns` messages.
    fn run(&mut self, turns: usize, calls: Option<&Mutex<Vec<u64>>>) -> Duration {
        let Self { shape, handle, end, load, check } = self;
        let shape = *shape;
        let begin = Barrier::new(check.next.len() + 1);
        thread::scope(|scope| {
            for (sender, &first) in check.next.iter().enumerate() {
                let (handle, begin) = (handle.clone(), &begin);
                scope.spawn(move || {
                    let template = template(shape.size);
                    let mut load = W::blank(&shape);
                    let mut took = Vec::with_capacity(if calls.is_some() { turns } else { 0 });
                    begin.wait();
                    for number in first..first + turns as u64 {
                        stamp(load.renew(&template), numbered(sender, number));
                        if calls.is_some() {
                            let called = Instant::now();
                            W::send_shared(&handle, &mut load);
                            took.push(called.elapsed().as_nanos() as u64);
                        } else {
                            W::send_shared(&handle, &mut load);
                        }
                    }
                    if let Some(calls) = calls {
                        calls.lock().expect("no sender panicked").append(&mut took);
                    }
                });
            }
            let messages = turns * check.next.len();
            begin.wait();
            Clock::Wall.time(|| {
                W::run(async {
                    for _ in 0..messages {
                        W::receive(end, load, check).await;
                    }
                });
            })
        })
    }
}
