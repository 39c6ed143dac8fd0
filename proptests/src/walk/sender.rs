//! The sender, under every answer of the kernel.
//!
//! # The abstraction
//! [`Sending::key`] says what a sender's future depends on. The values of payload bytes and of
//! descriptors are not in it: they are borrowed and moved, and compared at every step all the same.
//! Of what the kernel answers there are the five kinds that the machine tells apart; the driver sorts
//! errno into them (EAGAIN would block; ENOBUFS, ENOMEM and ETOOMANYREFS are pressure; EMSGSIZE,
//! EPERM and EBADF refuse; EPIPE, ECONNRESET, ECONNREFUSED and ENOTCONN are gone; EINTR never comes
//! so far). With so many messages in the queue and no more, the states come to an end.

use fdpost::Profile;

use super::Machine;
use crate::log::Wire;
use crate::script::Spec;
use crate::sender::{Op, Sending};

/// What a walk is about.
pub struct Scope {
    pub wire: Wire,
    /// Messages that wait at most.
    pub queue: usize,
}

pub struct Walk<'a, P: Profile> {
    scope: &'a Scope,
    sending: Sending<P>,
}

impl<'a, P: Profile> Walk<'a, P> {
    pub fn new(scope: &'a Scope) -> Self {
        Self { scope, sending: Sending::new(scope.wire) }
    }
}

/// A message of so many bytes and descriptors; `corruption`: what is wrong with it, 255 nothing.
fn push(size: u16, count: u8, corruption: u8) -> Op {
    Op::Push(Spec { size, count, corruption, ..Spec::default() })
}

impl<P: Profile> Machine for Walk<'_, P> {
    type Input = Op;

    fn inputs(&self) -> Vec<Op> {
        let (queued, next) = self.sending.waiting();
        // Taken from, too many descriptors, too large, not of this wire: what is refused before the
        // queue is looked at.
        let wrong = if queued == 0 { 0..4 } else { 0..1 };
        let mut inputs: Vec<Op> = wrong.map(|corruption| push(2, 1, corruption)).collect();
        if queued < self.scope.queue {
            inputs.extend([(0, 0), (0, 1), (2, 0), (2, 2)].map(|(size, count)| push(size, count, 255)));
            // 3,000 bytes, which are gathered where they are; and more descriptors than a packet of
            // several frames takes.
            let packet = [push(0xf000 + 375, 0, 255), push(1, 16, 255)];
            inputs.extend(packet.into_iter().filter(|_| self.scope.wire == Wire::Packet));
        }
        inputs.extend([Op::Recall, Op::Close]);
        if queued > 0 {
            // In bytes of a stream: one, all but one, all. In packets: one, two, three.
            let streams = matches!(self.scope.wire, Wire::Stream | Wire::VhostUser);
            let most = next.saturating_sub(1) as u16;
            let takes = if streams { [0, most.saturating_sub(1), most] } else { [0, 1, 2] };
            inputs.extend(takes.map(Op::Take));
            inputs.extend([0, 7, 13, 15].map(Op::Fail));
            let packed = [0x8000, 0x8002, 0x8003].map(Op::Take);
            inputs.extend(packed.into_iter().filter(|_| self.scope.wire == Wire::Packet));
        }
        inputs
    }

    fn play(&mut self, input: &Op) {
        self.sending.op(*input);
    }

    fn check(&mut self) {
        self.sending.balance();
    }

    fn key(&self) -> String {
        self.sending.key()
    }

    /// What was taken makes the messages that were pushed, said by a receiver: the same for all ways
    /// to a state but for what left before.
    fn finish(self, fresh: bool) {
        if fresh {
            self.sending.finish();
        }
    }
}
