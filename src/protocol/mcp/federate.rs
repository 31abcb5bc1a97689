//! One list out of several: which items are shown, in what order and under what names. Pure: the lists come in, whole.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use agentlane_wire::json::{self, ListItem, ListKind};

use super::listing::Listing;
use super::names;

/// Other marks that are tried for a shortened name whose own is taken.
const ATTEMPTS_MAX: u32 = 16;

/// One target's part.
pub struct Member<'a> {
    /// The target's place.
    pub index: usize,
    pub target: &'a str,
    /// What is put before its names of tools and prompts; empty for nothing.
    pub prefix: &'a str,
    pub listing: &'a Listing,
}

/// An item under its outward name.
pub struct Item<'a> {
    pub page: &'a [u8],
    pub item: ListItem,
    pub name: String,
    /// The target's place.
    pub index: usize,
    /// The target's own name for it, where the outward one does not tell.
    pub own: Option<String>,
    /// A tool that changes nothing, its target says.
    pub read_only: bool,
}

impl Item<'_> {
    /// The target's own name for it; `prefix` is the target's.
    pub fn own_name<'a>(&'a self, prefix: &str) -> &'a str {
        self.own.as_deref().unwrap_or_else(|| self.name.strip_prefix(prefix).unwrap_or(&self.name))
    }
}

/// All items in order, with their outward names. Of two that would be called the same the first one's target keeps the
/// name: a tool or prompt of another is not reachable and left out, a resource gets its target's mark. Names of tools and
/// prompts over `name_length` characters are shortened.
pub fn items<'a>(kind: ListKind, members: &[Member<'a>], name_length: usize) -> Vec<Item<'a>> {
    let named = matches!(kind, ListKind::Tools | ListKind::Prompts);
    let mut items: Vec<Item<'a>> = Vec::with_capacity(members.iter().map(|member| member.listing.items().len()).sum());
    let mut taken = HashSet::new();
    for member in members {
        for listed in member.listing.items() {
            let page = member.listing.page_of(listed);
            let Ok(Ok(own)) = listed.item.name.map(|range| json::string(page, range)) else { continue };
            let outward = match named {
                true => tool_name(member.prefix, &own, name_length, &mut taken),
                false => uri(member.target, &own, &mut taken),
            };
            let Some(name) = outward else { continue };
            let told = named && name.strip_prefix(member.prefix) == Some(&own);
            let own = (!told && named).then(|| own.into_owned());
            let read_only = listed.read_only;
            items.push(Item { page, item: listed.item, name, index: member.index, own, read_only });
        }
    }
    items
}

fn tool_name(prefix: &str, own: &str, limit: usize, taken: &mut HashSet<String>) -> Option<String> {
    let whole = format!("{prefix}{own}");
    // A name that is too long is no outward name, so that it meets only its equals here.
    if !taken.insert(whole.clone()) {
        return None;
    }
    if names::shortened(&whole, limit, 0).is_none() {
        return Some(whole);
    }
    (0..ATTEMPTS_MAX)
        .filter_map(|attempt| names::shortened(&whole, limit, attempt))
        .find(|short| taken.insert(short.clone()))
}

fn uri(target: &str, own: &str, taken: &mut HashSet<String>) -> Option<String> {
    if taken.insert(own.to_owned()) {
        return Some(own.to_owned());
    }
    let marked = names::mark_uri(target, own);
    taken.insert(marked.clone()).then_some(marked)
}

/// Says whether two gatherings show the same: names, content and order.
pub fn content_digest(items: &[Item<'_>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for item in items {
        item.name.hash(&mut hasher);
        item.item.range.of(item.page).hash(&mut hasher);
    }
    hasher.finish()
}

/// Says whether two gatherings are the same list: a cursor into one is no place in another.
pub fn digest(items: &[Item<'_>]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for item in items {
        item.name.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use agentlane_wire::json::Range32;
    use bytes::Bytes;

    use super::*;
    use crate::protocol::mcp::listing::Origin;
    use crate::protocol::mcp::revision::Revision;

    fn listing(kind: ListKind, names: &[&str]) -> Listing {
        let items: Vec<_> = names.iter().map(|name| serde_json::json!({ kind.item_key(): name })).collect();
        let message = serde_json::json!({ kind.member(): items }).to_string();
        let range = Range32::new(0, message.len()).unwrap();
        let mut listing = Listing::new(Origin::Legacy(Revision::NEWEST));
        listing.add_page(Bytes::from(message), range, kind).unwrap();
        listing
    }

    /// The outward names with their targets' places and own names, of targets `a`, `b`, ...
    fn outward(
        kind: ListKind,
        lists: &[&[&str]],
        prefixed: bool,
        limit: usize,
    ) -> Vec<(String, usize, Option<String>)> {
        let listings: Vec<Listing> = lists.iter().map(|names| listing(kind, names)).collect();
        let targets: Vec<String> = (b'a'..).take(lists.len()).map(|letter| char::from(letter).to_string()).collect();
        let prefixes: Vec<String> =
            targets.iter().map(|target| if prefixed { names::prefix(target) } else { String::new() }).collect();
        let members: Vec<Member<'_>> = (0..lists.len())
            .map(|index| Member { index, target: &targets[index], prefix: &prefixes[index], listing: &listings[index] })
            .collect();
        items(kind, &members, limit).into_iter().map(|item| (item.name, item.index, item.own)).collect()
    }

    fn names_of(items: &[(String, usize, Option<String>)]) -> Vec<&str> {
        items.iter().map(|(name, ..)| name.as_str()).collect()
    }

    #[test]
    fn names_in_the_order_of_targets_and_lists() {
        let items = outward(ListKind::Tools, &[&["x", "y", "x"], &["x"]], true, 64);
        assert_eq!(names_of(&items), ["a__x", "a__y", "b__x"]);
        assert!(items.iter().all(|(_, _, own)| own.is_none()));
        let items = outward(ListKind::Prompts, &[&["x", "y"], &["x", "z"]], false, 64);
        assert_eq!(names_of(&items), ["x", "y", "z"], "the first target keeps a name");
    }

    #[test]
    fn uris_are_marked_and_never_shortened() {
        let long = format!("memo:{}", "x".repeat(200));
        let items = outward(ListKind::Resources, &[&["memo:x", &long], &["memo:x", "memo:x"]], true, 64);
        assert_eq!(names_of(&items), ["memo:x", &long, "x-b+memo:x"]);
    }

    #[test]
    fn long_names_are_shortened_and_say_their_own() {
        let (long, umlauts) = ("l".repeat(70), "ü".repeat(70));
        for prefixed in [true, false] {
            let items = outward(ListKind::Tools, &[&[&long, "short"], &[&umlauts]], prefixed, 64);
            let owns: Vec<Option<&str>> = items.iter().map(|(_, _, own)| own.as_deref()).collect();
            assert_eq!(owns, [Some(&*long), None, Some(&*umlauts)]);
            assert!(items.iter().all(|(name, ..)| name.chars().count() <= 64), "{items:?}");
        }
    }

    #[test]
    fn a_shortened_name_that_is_taken_gets_another_mark() {
        let long = "l".repeat(70);
        let short = names::shortened(&long, 64, 0).unwrap();
        let items = outward(ListKind::Tools, &[&[&short], &[&long]], false, 64);
        assert_eq!(names_of(&items), [&short, &names::shortened(&long, 64, 1).unwrap()]);
        let items = outward(ListKind::Tools, &[&[&long], &[&short]], false, 64);
        assert_eq!(names_of(&items), [&short], "the first target keeps a name");
        let items = outward(ListKind::Tools, &[&[&long, &long], &[&long]], false, 64);
        assert_eq!(names_of(&items), [&short], "of equal names the first one's target keeps it");
    }
}
