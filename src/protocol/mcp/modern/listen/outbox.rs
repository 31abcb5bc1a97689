//! What one reader has yet to be told: each list once, each resource once, however often it changed meanwhile. So a reader
//! that takes nothing costs no more than one that does. Lists that change in bursts are told at once and then not sooner
//! than [`LIST_GAP`].

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::filter::{Change, List, Lists, Uri};
use crate::limits::UPDATES_PENDING_MAX;

/// The least time between two changes of one list that a reader is told.
pub const LIST_GAP: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    lists: Lists,
    /// When each list was last told, in the order of [`List::ALL`].
    told: [Option<Instant>; 3],
    order: VecDeque<Uri>,
    waiting: HashSet<Uri>,
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Change(Change),
    /// Something, but not before.
    At(Instant),
    Nothing,
}

impl Outbox {
    /// Notes a change. False: too many wait, and this one is lost.
    pub fn note(&mut self, change: &Change) -> bool {
        match change {
            Change::List(list) => self.lists = self.lists.with(Lists::one(*list)),
            Change::Resource(uri) if self.waiting.contains(uri) => {}
            Change::Resource(_) if self.order.len() >= UPDATES_PENDING_MAX => return false,
            Change::Resource(uri) => {
                self.waiting.insert(uri.clone());
                self.order.push_back(uri.clone());
            }
        }
        true
    }

    /// Takes what is due: lists first, then resources in the order of their first change.
    pub fn take(&mut self, now: Instant) -> Next {
        let due = |list: &List| self.told[*list as usize].map_or(now, |told| told + LIST_GAP);
        let first = self.lists.iter().min_by_key(due);
        let wait = first.as_ref().map(due);
        if let Some(list) = first.filter(|list| due(list) <= now) {
            self.lists = self.lists.without(Lists::one(list));
            self.told[list as usize] = Some(now);
            return Next::Change(Change::List(list));
        }
        if let Some(uri) = self.order.pop_front() {
            self.waiting.remove(&uri);
            return Next::Change(Change::Resource(uri));
        }
        wait.map_or(Next::Nothing, Next::At)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(uri: &str) -> Change {
        Change::Resource(Uri::from(uri))
    }

    #[test]
    fn changes_fold_until_they_are_taken() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        for _ in 0..1_000 {
            for change in [resource("b"), Change::List(List::Prompts), resource("a"), Change::List(List::Tools)] {
                assert!(outbox.note(&change));
            }
        }
        let expected = [Change::List(List::Tools), Change::List(List::Prompts), resource("b"), resource("a")];
        for change in expected {
            assert_eq!(outbox.take(now), Next::Change(change));
        }
        assert_eq!(outbox.take(now), Next::Nothing);
        assert!(outbox.note(&resource("b")));
        assert_eq!(outbox.take(now), Next::Change(resource("b")), "what was taken may change again");
    }

    #[test]
    fn a_list_that_changes_in_a_burst_is_told_at_its_begin_and_after_it() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        let tools = Change::List(List::Tools);
        outbox.note(&tools);
        assert_eq!(outbox.take(now), Next::Change(tools.clone()));
        outbox.note(&tools);
        assert_eq!(outbox.take(now), Next::At(now + LIST_GAP));
        outbox.note(&Change::List(List::Prompts));
        outbox.note(&resource("a"));
        assert_eq!(outbox.take(now), Next::Change(Change::List(List::Prompts)), "another list does not wait");
        assert_eq!(outbox.take(now), Next::Change(resource("a")), "nor does a resource");
        assert_eq!(outbox.take(now + LIST_GAP), Next::Change(tools));
        assert_eq!(outbox.take(now + LIST_GAP), Next::Nothing);
    }

    #[test]
    fn a_reader_that_takes_nothing_has_a_bound() {
        let mut outbox = Outbox::default();
        let kept = (0..2 * UPDATES_PENDING_MAX).filter(|number| outbox.note(&resource(&format!("memo:{number}"))));
        assert_eq!(kept.count(), UPDATES_PENDING_MAX);
        assert!(outbox.note(&resource("memo:0")), "what waits already is not lost");
        assert!(outbox.note(&Change::List(List::Tools)));
    }
}
