//! What was decided of a target's things, as a call looks it up.

use std::collections::HashMap;

use super::definition::{Hash, Kind};

/// How a thing compares to what was approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No lock file says anything.
    Unlocked,
    Approved,
    New,
    Changed,
    /// New under this name; equal to what was approved under that one, which is not offered any more.
    Renamed(Box<str>),
    /// It could be read in two ways, so that nobody knows what a model would see.
    Unreadable,
}

/// What was decided of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    /// 0 to 100: how much in it is suspicious.
    pub risk: u8,
    /// `None` for what is unreadable.
    pub hash: Option<Hash>,
    /// Not listed, and refused when it is asked for.
    pub hidden: bool,
}

/// Of one target. Where a list depends on who asks, the last one seen counts, name by name.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// The target is not served at all, because of this.
    pub blocked: Option<Box<str>>,
    by_kind: [HashMap<Box<str>, Verdict>; 4],
    last: [Option<Hash>; 4],
}

impl State {
    pub const fn as_str(&self) -> &'static str {
        match self {
            State::Unlocked => "unlocked",
            State::Approved => "approved",
            State::New => "new",
            State::Changed => "changed",
            State::Renamed(_) => "renamed",
            State::Unreadable => "unreadable",
        }
    }

    /// Whether it differs from what was approved.
    pub const fn is_drift(&self) -> bool {
        !matches!(self, State::Unlocked | State::Approved)
    }
}

impl Verdicts {
    /// Of a thing by the target's own name for it; `None`: it was never listed.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Verdict> {
        self.by_kind[kind as usize].get(name)
    }

    /// Whether the list of such things was ever judged.
    pub fn has_seen(&self, kind: Kind) -> bool {
        self.last[kind as usize].is_some()
    }

    /// The digest of the list that was judged last.
    pub fn last(&self, kind: Kind) -> Option<Hash> {
        self.last[kind as usize]
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, &Verdict)> {
        self.by_kind[kind as usize].iter().map(|(name, verdict)| (&**name, verdict))
    }

    /// The same with what a list showed. `keep`: names that are not in it stay, up to `max` in all, because lists may depend on
    /// who asks.
    pub fn with(&self, kind: Kind, digest: Hash, judged: &[(Box<str>, Verdict)], max: usize, keep: bool) -> Verdicts {
        let mut next = self.clone();
        let (known, last) = (&mut next.by_kind[kind as usize], &mut next.last[kind as usize]);
        if !keep || known.len() + judged.len() > max {
            known.clear();
        }
        known.extend(judged.iter().take(max).cloned());
        *last = Some(digest);
        next
    }
}
