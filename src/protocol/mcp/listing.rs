//! One target's list: its pages as they came, and where their items are. It knows neither the target nor who asked.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use agentlane_wire::json::{self, JsonError, ListItem, ListKind, Range32, list_items};
use bytes::Bytes;

use super::cache::Hints;

/// A whole list, or as much of it as was read so far.
#[derive(Debug, Default)]
pub struct Listing {
    /// JSON-RPC responses.
    pages: Vec<Bytes>,
    items: Vec<Listed>,
    hints: Option<Hints>,
    hasher: DefaultHasher,
}

/// An item that can be named.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    page: u32,
    pub item: ListItem,
    /// A tool with `annotations.readOnlyHint: true`.
    pub read_only: bool,
}

impl Listing {
    /// Takes a page in, the result at `result` of `message`, and gives the cursor of the next one as JSON text.
    ///
    /// # Errors
    /// The page is no list of this kind; nothing of it is kept.
    pub fn add_page(&mut self, message: Bytes, result: Range32, kind: ListKind) -> Result<Option<Bytes>, JsonError> {
        let mut items = list_items(&message, result, kind)?;
        let all: Vec<ListItem> = items.by_ref().collect::<Result<_, _>>()?;
        let tail = items.tail();
        let page = self.pages.len() as u32;
        for item in all {
            item.range.of(&message).hash(&mut self.hasher);
            if item.name.is_ok_and(|name| json::string(&message, name).is_ok()) {
                let read_only = kind == ListKind::Tools && is_read_only(&message, item.range);
                self.items.push(Listed { page, item, read_only });
            }
        }
        if let Some(ttl) = tail.ttl_ms {
            // One page that may not be kept is enough.
            let public = tail.cache_scope.is_some_and(|scope| json::raw_eq(&message, scope, "public"));
            let ttl = Duration::from_millis(json::as_u64(&message, ttl).unwrap_or_default());
            self.hints = Some(Hints::merged(self.hints.into_iter().chain([Hints { ttl, public }]), false, false));
        }
        let next = tail.next_cursor.filter(|range| range.of(&message).is_some_and(|text| text.starts_with(b"\"")));
        let next = next.map(|range| message.slice(range.usize()));
        self.pages.push(message);
        Ok(next)
    }

    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Bytes of all pages.
    pub fn bytes(&self) -> usize {
        self.pages.iter().map(Bytes::len).sum()
    }

    /// What the target says of keeping it (2026-07-28); `None`: nothing.
    pub fn hints(&self) -> Option<Hints> {
        self.hints
    }

    /// Equal for lists of the same items in the same order.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub fn items(&self) -> &[Listed] {
        &self.items
    }

    /// The page that an item of this list is on.
    pub fn page_of(&self, listed: &Listed) -> &[u8] {
        self.pages.get(listed.page as usize).map_or(&[], |page| &page[..])
    }
}

fn is_read_only(message: &[u8], item: Range32) -> bool {
    let hint = json::get_path(message, item, &["annotations", "readOnlyHint"]);
    hint.ok().flatten().and_then(|hint| json::as_bool(message, hint)) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(result: &str) -> (Bytes, Range32) {
        let message = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{result}}}");
        let start = message.find(result).unwrap();
        let range = Range32::new(start, start + result.len()).unwrap();
        (Bytes::from(message), range)
    }

    fn listing(pages: &[&str]) -> Listing {
        let mut listing = Listing::default();
        for text in pages {
            let (message, result) = page(text);
            listing.add_page(message, result, ListKind::Tools).unwrap();
        }
        listing
    }

    #[test]
    fn pages_are_read_once() {
        let (message, result) =
            page(r#"{"tools":[{"name":"a","annotations":{"readOnlyHint":true}},{"x":1},7],"nextCursor":"n"}"#);
        let mut listing = Listing::default();
        let next = listing.add_page(message, result, ListKind::Tools).unwrap();
        assert_eq!(next.as_deref(), Some(&b"\"n\""[..]));
        let (message, result) = page(r#"{"tools":[{"name":"b","annotations":{"readOnlyHint":"true"}}]}"#);
        assert_eq!(listing.add_page(message, result, ListKind::Tools).unwrap(), None);
        let items: Vec<(&str, bool)> = listing
            .items()
            .iter()
            .map(|listed| {
                let name = listed.item.name.unwrap().of(listing.page_of(listed)).unwrap();
                (std::str::from_utf8(name).unwrap(), listed.read_only)
            })
            .collect();
        assert_eq!(items, [("\"a\"", true), ("\"b\"", false)]);
        assert_eq!((listing.pages(), listing.hints()), (2, None));
    }

    #[test]
    fn a_page_that_is_no_list_leaves_nothing_behind() {
        let mut listing = Listing::default();
        for text in [r#"{"tools":"many"}"#, "{}", r#"{"tools":[{"name":"a"}"#] {
            let (message, result) = page(text);
            assert!(listing.add_page(message, result, ListKind::Tools).is_err(), "{text}");
        }
        assert!(listing.items().is_empty() && listing.pages() == 0);
        assert_eq!(listing.digest(), Listing::default().digest());
    }

    #[test]
    fn hints_are_those_of_the_most_careful_page() {
        let first = r#"{"tools":[],"ttlMs":5000,"cacheScope":"public"}"#;
        let hints = |pages: &[&str]| listing(pages).hints().map(|hints| (hints.ttl_ms(), hints.scope()));
        assert_eq!(hints(&[first]), Some((5000, "public")));
        assert_eq!(hints(&[first, r#"{"tools":[],"ttlMs":100,"cacheScope":"public"}"#]), Some((100, "public")));
        assert_eq!(hints(&[first, r#"{"tools":[],"ttlMs":9000,"cacheScope":"private"}"#]), Some((5000, "private")));
        assert_eq!(hints(&[r#"{"tools":[],"ttlMs":10}"#]), Some((10, "private")), "public is said, not guessed");
        assert_eq!(hints(&[r#"{"tools":[],"ttlMs":-1,"cacheScope":"public"}"#]), Some((0, "public")));
    }

    #[test]
    fn the_digest_is_that_of_the_items() {
        let one = listing(&[r#"{"tools":[{"name":"a"},{"name":"b"}],"ttlMs":1}"#]).digest();
        assert_eq!(
            one,
            listing(&[r#"{"tools":[{"name":"a"}],"nextCursor":"x"}"#, r#"{"tools":[{"name":"b"}]}"#]).digest()
        );
        assert_ne!(one, listing(&[r#"{"tools":[{"name":"b"},{"name":"a"}]}"#]).digest());
        assert_ne!(one, listing(&[r#"{"tools":[{"name":"a","x":1},{"name":"b"}]}"#]).digest());
    }
}
