//! What a target shows now against what was approved.

use std::collections::HashSet;

use super::definition::{Definition, Kind};
use super::file::LockedTarget;
use super::json::Broken;
use super::verdict::{State, Verdict};

/// What becomes of what differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is told, nothing else.
    Warn,
    /// It is hidden and refused until it is approved.
    Quarantine,
    /// The whole target is.
    Block,
}

/// What is asked of what is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub mode: Mode,
    /// What is riskier is hidden, unless it was approved; `None`: risk hides nothing.
    pub risk_max: Option<u8>,
}

/// One thing that a target shows.
#[derive(Debug)]
pub struct Seen {
    pub name: Box<str>,
    pub definition: Result<Definition, Broken>,
    pub risk: u8,
}

/// The verdicts of a whole list of `kind`, in its order. `locked` is `None` where there is no lock file.
pub fn judge(rules: Rules, locked: Option<&LockedTarget>, kind: Kind, seen: &[Seen]) -> Vec<(Box<str>, Verdict)> {
    let names: HashSet<&str> = seen.iter().map(|seen| &*seen.name).collect();
    let verdict = |seen: &Seen| {
        let state = match (&seen.definition, locked) {
            (Err(_), _) => State::Unreadable,
            (Ok(_), None) => State::Unlocked,
            (Ok(definition), Some(locked)) => compared(locked, kind, definition, &names),
        };
        let hidden = is_hidden(rules, &state, seen.risk);
        Verdict {
            state,
            risk: seen.risk,
            hash: seen.definition.as_ref().ok().map(|definition| definition.hash),
            hidden,
        }
    };
    seen.iter().map(|seen| (seen.name.clone(), verdict(seen))).collect()
}

fn is_hidden(rules: Rules, state: &State, risk: u8) -> bool {
    let differs = rules.mode != Mode::Warn && state.is_drift();
    let risky = *state != State::Approved && rules.risk_max.is_some_and(|max| risk > max);
    differs || risky
}

fn compared(locked: &LockedTarget, kind: Kind, definition: &Definition, listed: &HashSet<&str>) -> State {
    let approved = locked.get(kind, &definition.name);
    if approved.iter().any(|one| one.hash == definition.hash) {
        return State::Approved;
    }
    if !approved.is_empty() {
        return State::Changed;
    }
    match renamed_from(locked, definition, listed) {
        Some(from) => State::Renamed(from.into()),
        None => State::New,
    }
}

/// The name under which the same was approved that is not offered any more.
pub fn renamed_from<'a>(locked: &'a LockedTarget, definition: &Definition, listed: &HashSet<&str>) -> Option<&'a str> {
    let of_kind = locked.entries.iter().filter(|((kind, _), _)| *kind == definition.kind);
    let gone = of_kind.filter(|((_, name), _)| !listed.contains(name.as_str()));
    let mut same = gone.filter(|(_, known)| known.iter().any(|known| known.shape == definition.shape));
    same.next().map(|((_, name), _)| name.as_str())
}

/// What was approved of a kind and is not in a list of it.
pub fn gone<'a>(locked: &'a LockedTarget, kind: Kind, listed: &HashSet<&str>) -> Vec<&'a str> {
    let of_kind = locked.entries.keys().filter(|(known, _)| *known == kind);
    of_kind.map(|(_, name)| name.as_str()).filter(|name| !listed.contains(name)).collect()
}

/// One difference between what was approved of a target and what it shows.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    New(Definition),
    Changed(Definition),
    Renamed { from: String, now: Definition },
    Gone(Kind, String),
}

impl Change {
    pub const fn kind(&self) -> Kind {
        match self {
            Change::New(now) | Change::Changed(now) | Change::Renamed { now, .. } => now.kind,
            Change::Gone(kind, _) => *kind,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Change::New(now) | Change::Changed(now) | Change::Renamed { now, .. } => &now.name,
            Change::Gone(_, name) => name,
        }
    }

    /// Approves it. `also`: beside what was approved before.
    pub fn apply(self, locked: &mut LockedTarget, also: bool) {
        match self {
            Change::New(now) | Change::Changed(now) => locked.approve(now, also),
            Change::Renamed { from, now } => {
                if !also {
                    locked.remove(now.kind, &from);
                }
                locked.approve(now, also);
            }
            Change::Gone(kind, name) => drop(locked.remove(kind, &name)),
        }
    }
}

/// Every difference, in the order of what is shown, what is gone last.
pub fn changes(locked: &LockedTarget, now: &[Definition]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut renamed: HashSet<(Kind, String)> = HashSet::new();
    let listed = Kind::ALL.map(|kind| {
        let of_kind = now.iter().filter(|definition| definition.kind == kind);
        of_kind.map(|definition| definition.name.as_str()).collect::<HashSet<&str>>()
    });
    for definition in now {
        match compared(locked, definition.kind, definition, &listed[definition.kind as usize]) {
            State::Changed => changes.push(Change::Changed(definition.clone())),
            State::Renamed(from) => {
                renamed.insert((definition.kind, from.to_string()));
                changes.push(Change::Renamed { from: from.into(), now: definition.clone() });
            }
            State::New => changes.push(Change::New(definition.clone())),
            State::Approved | State::Unlocked | State::Unreadable => {}
        }
    }
    let shown: HashSet<(Kind, &str)> =
        now.iter().map(|definition| (definition.kind, definition.name.as_str())).collect();
    let gone = locked.entries.keys().filter(|(kind, name)| !shown.contains(&(*kind, name.as_str())));
    let gone = gone.filter(|key| !renamed.contains(*key));
    changes.extend(gone.map(|(kind, name)| Change::Gone(*kind, name.clone())));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(text: &str) -> Definition {
        Definition::read(Kind::Tool, text).unwrap()
    }

    fn seen(text: &str, risk: u8) -> Seen {
        let definition = Definition::read(Kind::Tool, text);
        let name = definition.as_ref().map_or("?", |definition| definition.name.as_str()).into();
        Seen { name, definition, risk }
    }

    /// Names with states, the hidden ones marked.
    fn states(mode: Mode, risk_max: Option<u8>, locked: Option<&LockedTarget>, list: &[Seen]) -> String {
        let judged = judge(Rules { mode, risk_max }, locked, Kind::Tool, list);
        let text = judged.iter().map(|(name, verdict)| {
            format!("{name}:{}{}", verdict.state.as_str(), if verdict.hidden { "!" } else { "" })
        });
        text.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_differs_is_told_hidden_or_neither() {
        let mut locked = LockedTarget::default();
        for text in [r#"{"name":"a"}"#, r#"{"name":"b","title":"B"}"#, r#"{"name":"gone","title":"G"}"#] {
            locked.approve(definition(text), false);
        }
        locked.approve(definition(r#"{"name":"a","title":"for others"}"#), true);
        let list = [
            seen(r#"{"name":"a"}"#, 90),
            seen(r#"{"name":"a","title":"for others"}"#, 0),
            seen(r#"{"name":"b","title":"evil"}"#, 0),
            seen(r#"{"name":"went","title":"G"}"#, 0),
            seen(r#"{"name":"fresh"}"#, 0),
            seen(r#"{"name":"x","name":"y"}"#, 0),
        ];
        assert_eq!(
            states(Mode::Warn, Some(50), Some(&locked), &list),
            "a:approved a:approved b:changed went:renamed fresh:new ?:unreadable"
        );
        assert_eq!(
            states(Mode::Quarantine, None, Some(&locked), &list),
            "a:approved a:approved b:changed! went:renamed! fresh:new! ?:unreadable!"
        );
        let listed = list.iter().map(|seen| &*seen.name).collect();
        assert_eq!(gone(&locked, Kind::Tool, &listed), ["gone"]);
        assert_eq!(states(Mode::Quarantine, Some(50), None, &[seen(r#"{"name":"a"}"#, 51)]), "a:unlocked!");
        assert_eq!(states(Mode::Warn, Some(50), None, &[seen(r#"{"name":"a"}"#, 50)]), "a:unlocked");
    }
}
