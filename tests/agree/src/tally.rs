//! What was played and what was not, counted.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::Refusal;
use crate::{Feats, Outcome};

/// Counters over many scripts.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub played: u64,
    pub messages: u64,
    pub verdicts: BTreeMap<&'static str, u64>,
    pub refused: BTreeMap<Refusal, u64>,
    pub feats: Feats,
}

impl Tally {
    pub fn note(&mut self, result: Result<Outcome, Refusal>) {
        let outcome = match result {
            Err(refusal) => return *self.refused.entry(refusal).or_default() += 1,
            Ok(outcome) => outcome,
        };
        self.played += 1;
        self.messages += outcome.heard.len() as u64;
        *self.verdicts.entry(outcome.verdict).or_default() += 1;
        self.feats += outcome.feats;
    }

    /// Scripts that were looked at.
    pub fn scripts(&self) -> u64 {
        self.played + self.refused.values().sum::<u64>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Feats { full, lost, unknown, descriptors, overdue, met } = self.feats;
        write!(f, "{} of {} scripts played twice, ", self.played, self.scripts())?;
        write!(f, "{} messages, {} verdicts, ", self.messages, self.verdicts.len())?;
        write!(f, "{descriptors} descriptors sent, {met} reads compared; ")?;
        write!(f, "{full} times a full socket, {lost} losses, {unknown} unknown control messages, ")?;
        write!(f, "{overdue} overdue")?;
        for (refusal, count) in &self.refused {
            write!(f, "; refused {count}: {}", refusal.reason())?;
        }
        Ok(())
    }
}
