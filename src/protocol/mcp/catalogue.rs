//! Where names and URIs live in a federation: an index learned from the merged lists, shared by every session of one
//! backend on one shard. It routes; whether a caller may is decided elsewhere.

use std::collections::HashMap;

/// A target's place in its backend.
pub type TargetIndex = usize;

/// Bound of each map; a list beyond it is served, but its tail is not remembered.
const ENTRIES_MAX: usize = 100_000;

/// The index. Empty until a list was merged; `known` tells which lists were.
#[derive(Default)]
pub struct Catalogue {
    tools: HashMap<Box<str>, TargetIndex>,
    prompts: HashMap<Box<str>, TargetIndex>,
    resources: HashMap<Box<str>, TargetIndex>,
    templates: Vec<(Box<str>, TargetIndex)>,
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

    /// Replaces what one shelf knows.
    pub fn learn(&mut self, shelf: Shelf, entries: impl Iterator<Item = (String, TargetIndex)>) {
        let map = match shelf {
            Shelf::Tools => &mut self.tools,
            Shelf::Prompts => &mut self.prompts,
            Shelf::Resources => &mut self.resources,
        };
        map.clear();
        for (key, target) in entries.take(ENTRIES_MAX) {
            map.entry(key.into_boxed_str()).or_insert(target);
        }
    }

    /// Replaces the templates.
    pub fn learn_templates(&mut self, templates: impl Iterator<Item = (String, TargetIndex)>) {
        self.templates =
            templates.take(ENTRIES_MAX).map(|(template, target)| (template.into_boxed_str(), target)).collect();
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
fn template_matches(template: &str, uri: &str) -> bool {
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
        catalogue.learn_templates(templates.into_iter().map(|(t, i)| (t.to_owned(), i)));
        assert_eq!(catalogue.find_template("a://b/1"), Some(1));
        assert_eq!(catalogue.find_template("a://c/1"), Some(0));
        assert_eq!(catalogue.find_template("c://"), None);
        assert_eq!(catalogue.find_template_text("a://b/{x}"), Some(1));
    }

    #[test]
    fn the_first_target_keeps_a_name() {
        let mut catalogue = Catalogue::default();
        catalogue.learn(Shelf::Tools, [("t".to_owned(), 0), ("t".to_owned(), 1)].into_iter());
        assert_eq!(catalogue.find(Shelf::Tools, "t"), Some(0));
        assert!(catalogue.is_empty(Shelf::Prompts));
    }
}
