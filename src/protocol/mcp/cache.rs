//! What is kept of targets' lists, and for whom: entries with an age, a mark and an audience. It knows no list, no
//! target and no clock: what is kept is a value of known size, and time comes in.

mod bounded;
#[cfg(test)]
mod tests;

use std::hash::Hash;
use std::time::{Duration, Instant};

use bounded::Bounded;
pub use bounded::Bounds;

use super::caller::Caller;

/// Who asks for a list, as far as a list may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Viewer {
    pub caller: Caller,
    /// Says what the client can do: servers tailor lists to that. Equal for equal capabilities and revisions.
    pub abilities: u64,
}

/// Whom an entry may be shown to, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// Every viewer: `cacheScope: public`.
    Everybody,
    /// Every caller whose client has the same abilities.
    Alike,
    /// The same caller, with the same abilities.
    Own,
}

/// What a modern client is told of a result (2026-07-28, caching): `ttlMs` and `cacheScope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    pub ttl: Duration,
    /// `public`: any cache may give it to anybody.
    pub public: bool,
}

/// Entries by what they are of, and whom they are for. Over a bound the oldest leave. Marks say whether an entry was made
/// after the last invalidation; they only grow.
pub struct Cache<I, M, V> {
    entries: Bounded<(I, Reader), Entry<M, V>>,
}

/// What an entry was made with.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<M> {
    pub made: Instant,
    /// The mark when the making began.
    pub mark: M,
    /// Until when it is as good as a new one.
    pub fresh_until: Instant,
    /// Until when it is better than nothing.
    pub stale_until: Instant,
}

/// An entry as it was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<M, V> {
    pub value: V,
    pub audience: Audience,
    pub mark: M,
    /// How long it stays fresh; `None`: it is a stale one.
    pub fresh_for: Option<Duration>,
}

struct Entry<M, V> {
    value: V,
    stamp: Stamp<M>,
}

/// An audience with its members; what it does not depend on is left out.
type Reader = (Option<Caller>, Option<u64>);

impl Audience {
    fn reader(self, viewer: &Viewer) -> Reader {
        match self {
            Audience::Everybody => (None, None),
            Audience::Alike => (None, Some(viewer.abilities)),
            Audience::Own => (Some(viewer.caller), Some(viewer.abilities)),
        }
    }

    /// Whether what `one` was given may be shown to `other`.
    pub fn shares(self, one: &Viewer, other: &Viewer) -> bool {
        self.reader(one) == self.reader(other)
    }
}

impl<I: Clone + Eq + Hash, M: Copy + Ord, V: Clone> Cache<I, M, V> {
    pub fn new(bounds: Bounds) -> Self {
        Cache { entries: Bounded::new(bounds) }
    }

    /// Keeps a value of `bytes` bytes that was made for `viewer`, in the place of the one before.
    pub fn insert(&mut self, of: I, audience: Audience, viewer: &Viewer, value: V, bytes: usize, stamp: Stamp<M>) {
        self.entries.insert((of, audience.reader(viewer)), Entry { value, stamp }, bytes);
    }

    /// The best that may be shown to `viewer`: a fresh one, whose mark is `since` or later, else the youngest that is not too
    /// old.
    pub fn find(&self, of: &I, viewer: &Viewer, since: M, now: Instant) -> Option<Found<M, V>> {
        let found = |audience, entry: &Entry<M, V>, fresh_for| Found {
            value: entry.value.clone(),
            audience,
            mark: entry.stamp.mark,
            fresh_for,
        };
        let mut best: Option<(Audience, &Entry<M, V>)> = None;
        for audience in [Audience::Everybody, Audience::Alike, Audience::Own] {
            let Some(entry) = self.entries.get(&(of.clone(), audience.reader(viewer))) else { continue };
            let stamp = &entry.stamp;
            if stamp.mark >= since && now < stamp.fresh_until {
                return Some(found(audience, entry, Some(stamp.fresh_until - now)));
            }
            let younger = best.is_none_or(|(_, other)| other.stamp.made < stamp.made);
            if now < stamp.stale_until && younger {
                best = Some((audience, entry));
            }
        }
        best.map(|(audience, entry)| found(audience, entry, None))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }
}

impl Hints {
    /// Nothing may be kept.
    pub const NONE: Hints = Hints { ttl: Duration::ZERO, public: false };

    /// Of one list, by what is kept of it.
    pub fn of(audience: Audience, fresh_for: Option<Duration>) -> Hints {
        Hints { ttl: fresh_for.unwrap_or_default(), public: audience == Audience::Everybody }
    }

    /// Of what is made out of several. `depends_on_caller`: a rule of ours reads who asks. `degraded`: something is missing
    /// or old.
    pub fn merged(parts: impl IntoIterator<Item = Hints>, depends_on_caller: bool, degraded: bool) -> Hints {
        let merged = parts
            .into_iter()
            .reduce(|one, other| Hints { ttl: one.ttl.min(other.ttl), public: one.public && other.public });
        let merged = merged.unwrap_or(Hints::NONE);
        Hints { ttl: if degraded { Duration::ZERO } else { merged.ttl }, public: merged.public && !depends_on_caller }
    }

    /// `ttlMs`.
    pub fn ttl_ms(&self) -> u64 {
        u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// `cacheScope`.
    pub const fn scope(&self) -> &'static str {
        if self.public { "public" } else { "private" }
    }
}
