//! What a session's client was last shown of lists that are kept, and which of them its targets say have changed since.

use std::cell::Cell;

use crate::protocol::mcp::method::ListKind;
use crate::protocol::mcp::modern::listen::List;

#[derive(Default)]
pub struct Shown {
    /// By the number of the kind; 0: nothing, or nothing that is kept.
    digests: [Cell<u64>; 4],
    /// Bits by the number of the list.
    changed: Cell<u8>,
    /// Somebody looks at what has changed.
    pub looking: Cell<bool>,
}

impl Shown {
    /// The client was given a list; `None`: one that is not kept.
    pub fn show(&self, kind: ListKind, digest: Option<u64>) {
        self.digests[kind as usize].set(digest.map_or(0, |digest| digest.max(1)));
    }

    /// Whether the client has seen another list than this one of the kind, or none.
    pub fn differs(&self, kind: ListKind, digest: u64) -> bool {
        self.digests[kind as usize].get() != digest.max(1)
    }

    /// The kinds that a change of a list is about and that the client was shown.
    pub fn kinds(&self, list: List) -> impl Iterator<Item = ListKind> {
        const KINDS: [ListKind; 4] =
            [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::ResourceTemplates];
        KINDS.into_iter().filter(move |&kind| List::of(kind) == list && self.digests[kind as usize].get() != 0)
    }

    pub fn note_changed(&self, list: List) {
        self.changed.set(self.changed.get() | 1 << list as u8);
    }

    /// A list that changed since it was looked at.
    pub fn next_changed(&self) -> Option<List> {
        let list = List::ALL.into_iter().find(|&list| self.changed.get() & 1 << list as u8 != 0)?;
        self.changed.set(self.changed.get() & !(1 << list as u8));
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_and_what_is_left_to_look_at() {
        let shown = Shown::default();
        assert_eq!(shown.kinds(List::Resources).count(), 0);
        shown.show(ListKind::ResourceTemplates, Some(0));
        assert!(shown.kinds(List::Resources).eq([ListKind::ResourceTemplates]));
        assert!(!shown.differs(ListKind::ResourceTemplates, 0) && shown.differs(ListKind::ResourceTemplates, 7));
        shown.show(ListKind::ResourceTemplates, None);
        assert_eq!(shown.kinds(List::Resources).count(), 0);
        for list in [List::Resources, List::Tools, List::Resources] {
            shown.note_changed(list);
        }
        assert_eq!([shown.next_changed(), shown.next_changed()], [Some(List::Tools), Some(List::Resources)]);
        assert_eq!(shown.next_changed(), None);
    }
}
