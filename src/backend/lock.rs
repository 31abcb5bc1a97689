//! One target's lock: what was approved of it, by which rules it is judged, and what the verdicts are. Control judges and
//! shards look up; the verdicts are the one thing in a snapshot that changes while it is in use.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::fault::{Fault, Kind as FaultKind};
use crate::protocol::mcp::lock::definition::{Hash, Kind};
use crate::protocol::mcp::lock::drift::{Mode, Rules};
use crate::protocol::mcp::lock::file::LockedTarget;
use crate::protocol::mcp::lock::verdict::{Verdict, Verdicts};

#[derive(Debug)]
pub struct TargetLock {
    /// Its name in the lock file.
    pub key: String,
    pub rules: Rules,
    /// `None`: there is no lock file.
    pub locked: Option<LockedTarget>,
    pub verdicts: ArcSwap<Verdicts>,
}

/// What a lock says to a request for one thing.
#[derive(Debug)]
pub enum Gate {
    Open,
    Refused(Fault),
    /// Nothing yet: its list must be judged first.
    Unjudged,
}

impl TargetLock {
    pub fn new(key: String, rules: Rules, locked: Option<LockedTarget>) -> Self {
        TargetLock { key, rules, locked, verdicts: ArcSwap::default() }
    }

    /// Whether anything can be refused at all.
    pub fn refuses(&self) -> bool {
        self.rules.risk_max.is_some() || self.is_strict()
    }

    /// Whether what was never approved is refused.
    fn is_strict(&self) -> bool {
        self.locked.is_some() && self.rules.mode != Mode::Warn
    }

    /// Whether a thing may be asked for, by the target's own name for it: one look-up.
    pub fn gate(&self, kind: Kind, name: &str) -> Gate {
        if !self.refuses() {
            return Gate::Open;
        }
        let verdicts = self.verdicts.load();
        if verdicts.blocked.is_some() {
            return Gate::Refused(self.refusal(kind, name, None));
        }
        match verdicts.get(kind, name) {
            Some(verdict) if verdict.hidden => Gate::Refused(self.refusal(kind, name, Some(verdict))),
            Some(_) => Gate::Open,
            None if self.is_strict() || !verdicts.has_seen(kind) => Gate::Unjudged,
            None => Gate::Open,
        }
    }

    /// Of a thing that is still unjudged after its list was asked for: it is not in it.
    pub fn unlisted(&self, kind: Kind, name: &str) -> Option<Fault> {
        self.is_strict().then(|| self.refusal(kind, name, None))
    }

    /// Whether a URI is served: not if it is of a template that is hidden, and of none that is not.
    pub fn gate_uri(&self, uri: &str, matches: fn(&str, &str) -> bool) -> Gate {
        if !self.refuses() {
            return Gate::Open;
        }
        let verdicts = self.verdicts.load();
        if verdicts.blocked.is_some() {
            return Gate::Refused(self.refusal(Kind::Template, uri, None));
        }
        let mut hidden = None;
        for (template, verdict) in verdicts.of_kind(Kind::Template) {
            if matches(template, uri) {
                match verdict.hidden {
                    true => hidden = Some((template, verdict)),
                    false => return Gate::Open,
                }
            }
        }
        match hidden {
            Some((template, verdict)) => Gate::Refused(self.refusal(Kind::Template, template, Some(verdict))),
            None if verdicts.has_seen(Kind::Template) => Gate::Open,
            None => Gate::Unjudged,
        }
    }

    fn refusal(&self, kind: Kind, name: &str, verdict: Option<&Verdict>) -> Fault {
        let message = match (self.verdicts.load().blocked.is_some(), kind) {
            (true, _) => BLOCKED,
            (false, Kind::Tool) => "tool is quarantined: it is not what was approved",
            (false, Kind::Prompt) => "prompt is quarantined: it is not what was approved",
            (false, _) => "resource is quarantined: its template is not what was approved",
        };
        let why = verdict.map_or("not listed", |verdict| verdict.state.as_str());
        let risk = verdict.map_or(0, |verdict| verdict.risk);
        Fault::new(FaultKind::Forbidden, message)
            .with(format!("{} {name:?} of {}: {why}, risk {risk}", kind.as_str(), self.key))
            .by(format!("lock {}/{}/{name}: {why}", self.key, kind.as_str()))
    }

    /// Whether the target is not served at all.
    pub fn is_blocked(&self) -> bool {
        self.verdicts.load().blocked.is_some()
    }

    /// Why the target is not served, where it is not.
    pub fn blocked(&self) -> Option<Fault> {
        let verdicts = self.verdicts.load();
        let why = verdicts.blocked.as_ref()?;
        Some(Fault::new(FaultKind::Forbidden, BLOCKED).with(why).by(format!("lock {}: blocked", self.key)))
    }

    /// The hash of a thing's definition as it was judged last, by the target's own name for it.
    pub fn hash_of(&self, kind: Kind, name: &str) -> Option<Hash> {
        self.verdicts.load().get(kind, name)?.hash
    }

    /// Replaces the verdicts; control alone does.
    pub fn publish(&self, verdicts: Verdicts) {
        self.verdicts.store(Arc::new(verdicts));
    }
}

const BLOCKED: &str = "target is blocked: it is not what was approved";
