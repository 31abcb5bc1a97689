//! Where names and URIs live in a federation: an index learned from the merged lists, shared by every session of one
//! backend on one shard. It routes; whether a caller may is decided elsewhere.

use std::collections::{HashMap, HashSet};

/// A target's place in its backend.
pub type TargetIndex = usize;

/// Bound of each map; a list beyond it is served, but its tail is not remembered.
const ENTRIES_MAX: usize = 100_000;

/// The index. Empty until a list was merged.
#[derive(Default)]
pub struct Catalogue {
    tools: HashMap<Box<str>, TargetIndex>,
    prompts: HashMap<Box<str>, TargetIndex>,
    resources: HashMap<Box<str>, TargetIndex>,
    templates: Vec<(Box<str>, TargetIndex)>,
    /// Targets and own names of shortened names.
    shortened_tools: HashMap<Box<str>, (TargetIndex, Box<str>)>,
    shortened_prompts: HashMap<Box<str>, (TargetIndex, Box<str>)>,
    /// Own names of tools that change nothing, by their targets' places.
    read_only: Vec<HashSet<Box<str>>>,
}

/// Which map of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    Tools,
    Prompts,
    Resources,
}

impl Catalogue {
    /// The target that has `key`.
    pub fn find(&self, shelf: Shelf, key: &str) -> Option<TargetIndex> {
        self.shelf(shelf).get(key).copied()
    }

    /// The target whose template matches `uri`: the one with the longest literal front.
    pub fn find_template(&self, uri: &str) -> Option<TargetIndex> {
        self.templates
            .iter()
            .filter(|(template, _)| template_matches(template, uri))
            .max_by_key(|(template, target)| (literal_front(template), usize::MAX - target))
            .map(|&(_, target)| target)
    }

    /// The target that lists exactly this template.
    pub fn find_template_text(&self, template: &str) -> Option<TargetIndex> {
        self.templates.iter().find(|(text, _)| text.as_ref() == template).map(|&(_, target)| target)
    }

    /// The target of a shortened name, and its own name for the thing.
    pub fn find_shortened(&self, shelf: Shelf, name: &str) -> Option<(TargetIndex, &str)> {
        let map = match shelf {
            Shelf::Tools => &self.shortened_tools,
            Shelf::Prompts => &self.shortened_prompts,
            Shelf::Resources => return None,
        };
        map.get(name).map(|(target, own)| (*target, &**own))
    }

    /// Whether a target lists a tool as one that changes nothing.
    pub fn is_read_only(&self, target: TargetIndex, own: &str) -> bool {
        self.read_only.get(target).is_some_and(|names| names.contains(own))
    }

    /// Replaces what one shelf knows of the targets that are not `missing`: what those have is not known to have gone.
    pub fn learn(
        &mut self,
        shelf: Shelf,
        missing: &[TargetIndex],
        entries: impl Iterator<Item = (String, TargetIndex)>,
    ) {
        let map = match shelf {
            Shelf::Tools => &mut self.tools,
            Shelf::Prompts => &mut self.prompts,
            Shelf::Resources => &mut self.resources,
        };
        map.retain(|_, target| missing.contains(target));
        let room = ENTRIES_MAX.saturating_sub(map.len());
        for (key, target) in entries.take(room) {
            // The first target keeps a name, also before one that is missing.
            let keeps = map.entry(key.into_boxed_str()).or_insert(target);
            *keeps = (*keeps).min(target);
        }
    }

    /// As [`Catalogue::learn`], of shortened names, with the targets' own ones.
    pub fn learn_shortened(
        &mut self,
        shelf: Shelf,
        missing: &[TargetIndex],
        entries: impl Iterator<Item = (String, TargetIndex, String)>,
    ) {
        let map = match shelf {
            Shelf::Tools => &mut self.shortened_tools,
            Shelf::Prompts => &mut self.shortened_prompts,
            Shelf::Resources => return,
        };
        map.retain(|_, (target, _)| missing.contains(target));
        let room = ENTRIES_MAX.saturating_sub(map.len());
        for (name, target, own) in entries.take(room) {
            map.insert(name.into_boxed_str(), (target, own.into_boxed_str()));
        }
    }

    /// As [`Catalogue::learn`], of tools that change nothing, under their own names.
    pub fn learn_read_only<'a>(
        &mut self,
        missing: &[TargetIndex],
        tools: impl Iterator<Item = (TargetIndex, &'a str)>,
    ) {
        for (target, names) in self.read_only.iter_mut().enumerate() {
            if !missing.contains(&target) {
                names.clear();
            }
        }
        for (target, own) in tools.take(ENTRIES_MAX) {
            if self.read_only.len() <= target {
                self.read_only.resize_with(target + 1, HashSet::new);
            }
            self.read_only[target].insert(own.into());
        }
    }

    /// Replaces the templates, but for those of targets that are `missing`.
    pub fn learn_templates(&mut self, missing: &[TargetIndex], templates: impl Iterator<Item = (String, TargetIndex)>) {
        self.templates.retain(|(_, target)| missing.contains(target));
        let room = ENTRIES_MAX.saturating_sub(self.templates.len());
        self.templates.extend(templates.take(room).map(|(template, target)| (template.into_boxed_str(), target)));
        self.templates.sort_by_key(|&(_, target)| target);
    }

    /// Whether a list was ever merged into the shelf.
    pub fn is_empty(&self, shelf: Shelf) -> bool {
        self.shelf(shelf).is_empty()
    }

    fn shelf(&self, shelf: Shelf) -> &HashMap<Box<str>, TargetIndex> {
        match shelf {
            Shelf::Tools => &self.tools,
            Shelf::Prompts => &self.prompts,
            Shelf::Resources => &self.resources,
        }
    }
}

fn literal_front(template: &str) -> usize {
    template.find('{').unwrap_or(template.len())
}

/// Whether `uri` could be an expansion of an RFC 6570 template: its literals in their order, and something (or, for
/// operators that may expand to nothing, anything) between them. A simple expression `{x}` does not cross a `/`.
pub fn template_matches(template: &str, uri: &str) -> bool {
    let front = literal_front(template);
    if !uri.starts_with(&template[..front]) {
        return false;
    }
    let Some(rest) = template[front..].strip_prefix('{') else { return uri.len() == front };
    let Some((expression, tail)) = rest.split_once('}') else { return false };
    let optional = expression.starts_with(['/', '?', '&', '#', ';', '.']);
    let crosses = optional || expression.starts_with('+') || expression.ends_with('*');
    let mut hole = &uri[front..];
    if tail.is_empty() {
        return (optional || !hole.is_empty()) && (crosses || !hole.contains('/'));
    }
    // Try every place where the tail's literals could begin; literals are short and uris bounded, so this stays small.
    let literal = &tail[..literal_front(tail)];
    let mut skipped = 0;
    loop {
        let Some(at) = hole.find(literal) else { return false };
        let value = &uri[front..front + skipped + at];
        if !crosses && value.contains('/') {
            return false;
        }
        if (optional || !value.is_empty()) && template_matches(tail, &uri[front + skipped + at..]) {
            return true;
        }
        let Some(step) = hole[at..].chars().next().map(char::len_utf8) else { return false };
        skipped += at + step;
        hole = &hole[at + step..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_what_they_expand_to() {
        let cases = [
            ("test://template/{id}/data", "test://template/7/data", true),
            ("test://template/{id}/data", "test://template//data", false),
            ("test://template/{id}/data", "test://template/a/b/data", false),
            ("test://template/{id}/data", "test://template/7/data/x", false),
            ("file:///{+path}", "file:///a/b/c", true),
            ("file:///{path*}", "file:///a/b", true),
            ("memo://{a}-{b}", "memo://1-2", true),
            ("memo://{a}-{b}", "memo://1-2-3", true),
            ("memo://{a}-{b}", "memo://12", false),
            ("q://x{?y}", "q://x?y=1", true),
            ("q://x{?y}", "q://x", true),
            ("plain://x", "plain://x", true),
            ("plain://x", "plain://xy", false),
            ("bad://{x", "bad://1", false),
        ];
        for (template, uri, expected) in cases {
            assert_eq!(template_matches(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn the_more_literal_template_and_the_first_target_win() {
        let mut catalogue = Catalogue::default();
        let templates = [("a://{+x}", 0), ("a://b/{x}", 1), ("a://b/{x}", 2)];
        catalogue.learn_templates(&[], templates.into_iter().map(|(t, i)| (t.to_owned(), i)));
        assert_eq!(catalogue.find_template("a://b/1"), Some(1));
        assert_eq!(catalogue.find_template("a://c/1"), Some(0));
        assert_eq!(catalogue.find_template("c://"), None);
        assert_eq!(catalogue.find_template_text("a://b/{x}"), Some(1));
    }

    #[test]
    fn the_first_target_keeps_a_name() {
        let mut catalogue = Catalogue::default();
        catalogue.learn(Shelf::Tools, &[], [("t".to_owned(), 0), ("t".to_owned(), 1)].into_iter());
        assert_eq!(catalogue.find(Shelf::Tools, "t"), Some(0));
        assert!(catalogue.is_empty(Shelf::Prompts));
    }

    #[test]
    fn what_a_missing_target_had_is_still_known() {
        let mut catalogue = Catalogue::default();
        let pairs = |pairs: &[(&str, usize)]| -> Vec<(String, usize)> {
            pairs.iter().map(|(name, target)| ((*name).to_owned(), *target)).collect()
        };
        let all = pairs(&[("a", 0), ("b", 1)]);
        catalogue.learn(Shelf::Tools, &[], all.clone().into_iter());
        catalogue.learn_templates(&[], all.clone().into_iter());
        catalogue.learn_shortened(
            Shelf::Tools,
            &[],
            all.into_iter().map(|(name, target)| (name, target, "own".into())),
        );
        catalogue.learn_read_only(&[], [(0, "a"), (1, "b")].into_iter());
        for missing in [&[1][..], &[]] {
            catalogue.learn(Shelf::Tools, missing, pairs(&[("c", 0)]).into_iter());
            catalogue.learn_templates(missing, std::iter::empty());
            catalogue.learn_shortened(Shelf::Tools, missing, std::iter::empty());
            catalogue.learn_read_only(missing, std::iter::empty());
            let stays = missing.contains(&1);
            assert_eq!(catalogue.find(Shelf::Tools, "a"), None);
            assert_eq!(catalogue.find(Shelf::Tools, "b").is_some(), stays);
            assert_eq!(catalogue.find_template_text("b").is_some(), stays);
            assert_eq!(catalogue.find_shortened(Shelf::Tools, "b"), stays.then_some((1, "own")));
            assert_eq!((catalogue.is_read_only(0, "a"), catalogue.is_read_only(1, "b")), (false, stays));
        }
    }
}
