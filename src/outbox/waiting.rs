//! Who waits, and who is to be told what.
//!
//! Whoever is told is taken off the list by the one who tells, so that nobody is told twice
//! before he has looked.

use super::call::{Numbers, Own};
use super::{Bounds, Patience};
use crate::machine::Sending;
use crate::sync::broken;

/// What a waiting thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Room in the queue.
    Room,
    /// That all up to this number left or were lost, or that nobody flushes any more.
    Settled(u64),
}

/// The threads that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Those who wait for room, and were not told yet; and how often such were told.
    for_room: usize,
    told_of_room: u64,
    /// The same of the others, and the lowest number that one of them waits for.
    others: usize,
    told_others: u64,
    due: u64,
    /// Senders to whom a steadfast flusher may hand over, told or not: each of them looks after
    /// the queue before it returns.
    successors: usize,
    /// The numbers of messages whose senders wait.
    owned: Vec<Numbers>,
}

/// Which conditions are to be notified, once the lock is released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "who was taken off the list must be told"]
pub(super) struct Calls {
    pub(super) room: bool,
    pub(super) others: bool,
}

/// What a waiting thread left on the list.
pub(super) struct Ticket {
    awaited: Awaited,
    round: u64,
    succeeds: bool,
}

impl Waiting {
    pub(super) const fn new() -> Self {
        Self {
            for_room: 0,
            told_of_room: 0,
            others: 0,
            told_others: 0,
            due: u64::MAX,
            successors: 0,
            owned: Vec::new(),
        }
    }

    /// Puts a thread on the list. What the kernel refuses of its own meanwhile comes back to it.
    pub(super) fn enter(&mut self, awaited: Awaited, own: &Own, patience: Patience, sends: bool) -> Ticket {
        let round = match awaited {
            Awaited::Room => {
                self.for_room = self.for_room.saturating_add(1);
                self.told_of_room
            }
            Awaited::Settled(number) => {
                self.others = self.others.saturating_add(1);
                self.due = self.due.min(number);
                self.told_others
            }
        };
        let succeeds = sends && patience == Patience::Forever;
        self.successors = self.successors.saturating_add(usize::from(succeeds));
        self.own(own);
        Ticket { awaited, round, succeeds }
    }

    /// Takes it off again, wherever it was not taken off by being told.
    pub(super) fn leave(&mut self, ticket: &Ticket, own: &Own) {
        match ticket.awaited {
            Awaited::Room if ticket.round == self.told_of_room => {
                self.for_room = self.for_room.saturating_sub(1);
            }
            Awaited::Settled(_) if ticket.round == self.told_others => {
                self.others = self.others.saturating_sub(1);
            }
            Awaited::Room | Awaited::Settled(_) => {}
        }
        self.successors = self.successors.saturating_sub(usize::from(ticket.succeeds));
        self.disown(own);
    }

    /// The sender of these is there: what the kernel refuses of them goes back to it. Without memory
    /// to note that it is closed and counted, as if its sender had left.
    pub(super) fn own(&mut self, own: &Own) {
        if self.owned.try_reserve(own.ranges().count()).is_ok() {
            self.owned.extend(own.ranges());
        }
    }

    /// It is gone, or was told.
    pub(super) fn disown(&mut self, own: &Own) {
        self.owned.retain(|numbers| !own.contains(numbers.first()));
    }

    pub(super) const fn has_successors(&self) -> bool {
        self.successors > 0
    }

    pub(super) fn owns(&self, number: u64) -> bool {
        self.owned.iter().any(|numbers| numbers.contain(number))
    }

    /// Some of it left: `settled` are all numbers up to which all left, `load` is what is queued.
    pub(super) fn call_for_progress(&mut self, settled: u64, load: &Sending, bounds: &Bounds) -> Calls {
        let room = bounds.is_half_free(load) && !broken("no-wake");
        self.call(room, settled >= self.due)
    }

    /// Nothing leaves for a while.
    pub(super) fn call_for_room(&mut self, load: &Sending, bounds: &Bounds) -> Calls {
        self.call(bounds.has_room(load) && !broken("sleeps-beside-room"), false)
    }

    /// Everybody is to look for himself.
    pub(super) fn call_all(&mut self) -> Calls {
        self.call(true, true)
    }

    fn call(&mut self, room: bool, others: bool) -> Calls {
        let calls = Calls { room: room && self.for_room > 0, others: others && self.others > 0 };
        if calls.room {
            self.for_room = 0;
            self.told_of_room = self.told_of_room.wrapping_add(1);
        }
        if calls.others {
            self.others = 0;
            self.due = u64::MAX;
            self.told_others = self.told_others.wrapping_add(1);
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Patience = Patience::Forever;
    const NOBODY: Calls = Calls { room: false, others: false };

    fn load(messages: u64) -> Sending {
        Sending { messages, ..Sending::default() }
    }

    #[test] // P7: who was told is off the list, and his leaving takes nobody else off it.
    fn each_is_told_once_and_none_is_forgotten() {
        for awaited in [Awaited::Room, Awaited::Settled(9)] {
            let told = Calls { room: awaited == Awaited::Room, others: awaited != Awaited::Room };
            let (mut waiting, nothing) = (Waiting::new(), Own::new());
            assert_eq!(waiting.call_all(), NOBODY);
            let one = waiting.enter(awaited, &nothing, FOREVER, false);
            assert_eq!((waiting.call_all(), waiting.call_all()), (told, NOBODY));
            let two = waiting.enter(awaited, &nothing, FOREVER, false);
            waiting.leave(&one, &nothing);
            assert_eq!(waiting.call_all(), told, "the second came after the first was told");
            waiting.leave(&two, &nothing);
            let three = waiting.enter(awaited, &nothing, FOREVER, false);
            waiting.leave(&three, &nothing);
            assert_eq!(waiting.call_all(), NOBODY, "it went by itself");
        }
    }

    #[test] // P7
    fn those_are_told_for_whom_it_came_true() {
        let bounds = Bounds::new().messages(4);
        let (mut waiting, nothing) = (Waiting::new(), Own::new());
        let _tickets = [Awaited::Room, Awaited::Settled(5), Awaited::Settled(7)]
            .map(|awaited| waiting.enter(awaited, &nothing, FOREVER, false));
        assert_eq!(waiting.call_for_progress(4, &load(3), &bounds), NOBODY);
        assert_eq!(waiting.call_for_room(&load(4), &bounds), NOBODY, "there is none");
        assert_eq!(waiting.call_for_progress(5, &load(3), &bounds), Calls { room: false, others: true });
        assert_eq!(waiting.call_for_room(&load(3), &bounds), Calls { room: true, others: false });
        let _again = waiting.enter(Awaited::Room, &nothing, FOREVER, false);
        assert_eq!(waiting.call_for_progress(6, &load(2), &bounds), Calls { room: true, others: false });
        let _again = waiting.enter(Awaited::Settled(7), &nothing, FOREVER, false);
        assert_eq!(waiting.call_for_progress(6, &load(2), &bounds), NOBODY);
        assert_eq!(waiting.call_for_progress(7, &load(2), &bounds), Calls { room: false, others: true });
    }

    #[test] // P7: only a sender that stays may be handed to.
    fn successors_send_and_stay() {
        let nothing = Own::new();
        for (patience, sends, succeeds) in
            [(FOREVER, true, true), (FOREVER, false, false), (Patience::None, true, false)]
        {
            let mut waiting = Waiting::new();
            let ticket = waiting.enter(Awaited::Settled(1), &nothing, patience, sends);
            assert_eq!(waiting.has_successors(), succeeds);
            let _told = waiting.call_all();
            assert_eq!(waiting.has_successors(), succeeds, "told or not");
            waiting.leave(&ticket, &nothing);
            assert!(!waiting.has_successors());
        }
    }

    #[test] // P3: what comes back to whom, and to whom no longer.
    fn numbers_are_owned_while_their_sender_is_there() {
        let mut waiting = Waiting::new();
        let (mut burst, other) = (Own::of(3), Own::of(5));
        burst.add(4);
        waiting.own(&burst);
        waiting.own(&other);
        let owned = |waiting: &Waiting| (0..8).filter(|number| waiting.owns(*number)).collect::<Vec<_>>();
        assert_eq!(owned(&waiting), [3, 4, 5]);
        waiting.disown(&burst);
        assert_eq!(owned(&waiting), [5]);
        let ticket = waiting.enter(Awaited::Settled(4), &burst, FOREVER, true);
        assert_eq!(owned(&waiting), [3, 4, 5]);
        waiting.leave(&ticket, &burst);
        assert_eq!(owned(&waiting), [5]);
    }
}
