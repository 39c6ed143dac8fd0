//! The broker's judgement, walked to the end: every state, under every input of [`Walk::inputs`].
//!
//! # The abstraction
//! What a registry does next depends on who is here, what names they hold and since when they are
//! full. [`Walk::key`] has these as the model sees them, which is asked after every step for all that
//! can be asked of both. Left out are
//!
//! - the *numbers* of ids: they are handed out upwards, and only the order of coming can matter;
//! - times but those since somebody is full, and of these what is beyond the patience;
//! - the order of a party's names: a name is found by itself;
//! - parties that left, but for whether there is one: an id that is no longer known is as any other.
//!
//! A request goes from its beginning to its end in one step, as it does in the driver, with what comes
//! of each pair and of each message as part of the input.

use super::{Fates, Play, Spec, Step};
use crate::walk::{Broken, Machine, Walked, walk};

/// Two connections and two names, and one user may have both connections and one name.
const QUOTAS: [u8; 4] = [1, 1, 1, 0];

/// What comes of the pair, and of the messages in their order; over and over.
/// 0: full (and no pair), 10: refused, 20: gone, 30: short of memory, 255: sent.
const FATES: [&[u8]; 12] = [
    // No pair (but for 20 and 30), and an answer that does not arrive.
    &[0],
    &[10],
    &[20],
    &[30],
    &[255, 0],
    &[255, 10],
    &[255, 20],
    &[255, 30],
    // The service has its end, and the asker's does not arrive.
    &[255, 255, 0],
    &[255, 255, 10, 255],
    &[255, 255, 20],
    &[255, 255, 30, 0],
];

struct Walk {
    play: Play,
    number: u32,
}

/// # Errors
/// The first step after which the registry and its model differ.
pub fn closed() -> Result<Walked, Box<Broken>> {
    walk(&|| Walk { play: Play::new(QUOTAS, &[255]), number: 0 }, usize::MAX)
}

impl Machine for Walk {
    type Input = (&'static [u8], Step);

    fn inputs(&self) -> Vec<Self::Input> {
        let spec = |kind, name| Spec {
            kind,
            accepts: 1,
            audience: 0,
            id: 1,
            wire: 0,
            name,
            takes_ends: true,
            damage: [255, 0],
        };
        let here = self.play.model.present();
        let gone = (0..self.play.ids.len()).rfind(|party| !here.contains(party));
        let mut inputs: Vec<Self::Input> = Vec::new();
        let sent = |step| (&[255_u8][..], step);
        inputs.extend([(0, 0), (1, 1)].map(|(uid, gid)| sent(Step::Connect { uid, gid })));
        inputs.extend([5, 10].map(|seconds| sent(Step::Wait(seconds))));
        for party in here.into_iter().chain(gone) {
            let party = party as u8;
            // Two names; of the first, for its own user, for user 1, group 1, and for all.
            let audiences = (0..4).map(|audience| Spec { audience, ..spec(0, 0) });
            let mut said: Vec<Spec> = audiences.collect();
            said.extend([spec(0, 1), spec(1, 0), spec(1, 1), spec(2, 0), spec(2, 1)]);
            said.push(Spec { takes_ends: false, ..spec(0, 0) });
            said.push(Spec { takes_ends: false, ..spec(2, 0) });
            said.push(Spec { wire: 1, ..spec(2, 0) });
            said.push(Spec { damage: [0, 0], ..spec(2, 0) });
            inputs.extend(said.iter().map(|spec| sent(Step::Say(party, *spec))));
            for fates in FATES {
                inputs.extend([spec(0, 0), spec(1, 0), spec(2, 0)].map(|one| (fates, Step::Say(party, one))));
            }
            inputs.extend([Step::Gone, Step::Full, Step::Room].map(|step| sent(step(party))));
            // The next request of this party's only, so that it is part of the state.
            inputs.push(sent(Step::Forbid(party)));
        }
        inputs
    }

    fn play(&mut self, (fates, step): &Self::Input) {
        self.number += 1;
        self.play.fates = Fates::new(fates);
        self.play.step(step, self.number);
    }

    fn check(&mut self) {
        self.play.compare();
    }

    fn key(&self) -> String {
        let Play { model, ids, now, forbidden, .. } = &self.play;
        let here = model.present();
        let gone = ids.len() > here.len();
        let forbidden = forbidden.map(|party| here.iter().position(|other| *other == party));
        format!("{} {gone} {forbidden:?}", model.key(*now))
    }

    fn finish(mut self, _: bool) {
        self.play.ends();
    }
}
