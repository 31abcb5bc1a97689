//! What one reader has yet to be told: each list once, each resource once, however often it changed meanwhile. So a reader
//! that takes nothing costs no more than one that does. A list that changed is told a moment later, because what makes one
//! change is often heard more than once: of several targets, or on two streams of one.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::filter::{Change, List, Uri};
use crate::limits::UPDATES_PENDING_MAX;

/// How long the change of a list waits for others.
pub const SETTLE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    /// When each list that changed is due, in the order of [`List::ALL`].
    lists: [Option<Instant>; 3],
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
    pub fn note(&mut self, now: Instant, change: &Change) -> bool {
        match change {
            Change::List(list) => drop(self.lists[*list as usize].get_or_insert(now + SETTLE)),
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
        let due = |list: &List| self.lists[*list as usize].is_some_and(|due| due <= now);
        if let Some(list) = List::ALL.into_iter().find(due) {
            self.lists[list as usize] = None;
            return Next::Change(Change::List(list));
        }
        if let Some(uri) = self.order.pop_front() {
            self.waiting.remove(&uri);
            return Next::Change(Change::Resource(uri));
        }
        self.lists.iter().flatten().min().map_or(Next::Nothing, |&due| Next::At(due))
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
                assert!(outbox.note(now, &change));
            }
        }
        let expected = [Change::List(List::Tools), Change::List(List::Prompts), resource("b"), resource("a")];
        for change in expected {
            assert_eq!(outbox.take(now + SETTLE), Next::Change(change));
        }
        assert_eq!(outbox.take(now + SETTLE), Next::Nothing);
        assert!(outbox.note(now, &resource("b")));
        assert_eq!(outbox.take(now), Next::Change(resource("b")), "what was taken may change again");
    }

    #[test]
    fn a_list_waits_for_what_comes_with_it_and_no_longer() {
        let now = Instant::now();
        let later = now + SETTLE / 2;
        let mut outbox = Outbox::default();
        let tools = Change::List(List::Tools);
        outbox.note(now, &tools);
        outbox.note(later, &tools);
        outbox.note(later, &Change::List(List::Prompts));
        outbox.note(later, &resource("a"));
        assert_eq!(outbox.take(later), Next::Change(resource("a")), "a resource does not wait");
        assert_eq!(outbox.take(later), Next::At(now + SETTLE));
        assert_eq!(outbox.take(now + SETTLE), Next::Change(tools.clone()));
        assert_eq!(outbox.take(now + SETTLE), Next::At(later + SETTLE));
        assert_eq!(outbox.take(later + SETTLE), Next::Change(Change::List(List::Prompts)));
        outbox.note(later + SETTLE, &tools);
        assert_eq!(outbox.take(later + 2 * SETTLE), Next::Change(tools));
    }

    #[test]
    fn a_reader_that_takes_nothing_has_a_bound() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        let kept = (0..2 * UPDATES_PENDING_MAX).filter(|number| outbox.note(now, &resource(&format!("memo:{number}"))));
        assert_eq!(kept.count(), UPDATES_PENDING_MAX);
        assert!(outbox.note(now, &resource("memo:0")), "what waits already is not lost");
        assert!(outbox.note(now, &Change::List(List::Tools)));
    }
}
