//! One target's list: its pages as they came, where their items are, and how clients of older revisions see them. It knows
//! neither the target nor who asked.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use agentlane_wire::json::{self, JsonError, ListItem, ListKind, Range32, list_items};
use bytes::Bytes;

use super::cache::Hints;
use super::content::{Annotations, Edits};
use super::method::Method;
use super::modern::results::{self, Reader};
use super::revision::Revision;

/// What a list was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A revision with sessions.
    Legacy(Revision),
    /// 2026-07-28. What becomes of `x-mcp-header` for older clients.
    Modern(Annotations),
}

/// A whole list, or as much of it as was read so far.
#[derive(Debug)]
pub struct Listing {
    origin: Origin,
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
    pub fn new(origin: Origin) -> Self {
        Listing { origin, pages: Vec::new(), items: Vec::new(), hints: None, hasher: DefaultHasher::new() }
    }

    /// The list as a client of `revision` shall see it; `None`: as it is.
    pub fn translated(&self, kind: ListKind, revision: Revision) -> Option<Listing> {
        if matches!(self.origin, Origin::Legacy(sent) if sent <= revision) {
            return None;
        }
        let mut translated = Listing::new(self.origin);
        for page in &self.pages {
            let page = self.page_in(kind, revision, page.clone());
            let Some(result) = json::scan(&page, &LIMITS).ok().and_then(|envelope| envelope.result) else { continue };
            // A page that was a list before is one now; else it has nothing to show.
            let _ = translated.add_page(page, result, kind);
        }
        Some(translated)
    }

    fn page_in(&self, kind: ListKind, revision: Revision, page: Bytes) -> Bytes {
        let Ok(envelope) = json::scan(&page, &LIMITS) else { return page };
        let (method, wrapped) = (Method::List(kind), false);
        match (self.origin, envelope.result) {
            (Origin::Modern(annotations), _) => {
                results::to_legacy(page, &envelope, Reader { method, revision, annotations, wrapped })
            }
            (Origin::Legacy(_), Some(result)) => {
                let mut edits = Edits::default();
                edits.down(method, revision, &page, result, wrapped);
                edits.apply(page, result)
            }
            (Origin::Legacy(_), None) => page,
        }
    }

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

    /// The items that can be named, by name, as JSON text.
    pub fn texts(&self) -> impl Iterator<Item = (Cow<'_, str>, &[u8])> {
        self.items.iter().filter_map(|listed| {
            let page = self.page_of(listed);
            let name = json::string(page, listed.item.name.ok()?).ok()?;
            Some((name, listed.item.range.of(page)?))
        })
    }

    /// Whether it shows the same items, byte by byte and in the same order.
    pub fn same_items(&self, other: &Listing) -> bool {
        self.items.len() == other.items.len() && self.texts().zip(other.texts()).all(|((_, a), (_, b))| a == b)
    }

    /// Without the items of some names. It is for showing: its pages still hold them.
    pub fn without(&self, is_hidden: impl Fn(&str) -> bool) -> Listing {
        let mut shown = Listing { hasher: DefaultHasher::new(), pages: self.pages.clone(), items: Vec::new(), ..*self };
        for listed in &self.items {
            let page = self.page_of(listed);
            let name = listed.item.name.ok().and_then(|range| json::string(page, range).ok());
            if !name.is_some_and(|name| is_hidden(&name)) {
                listed.item.range.of(page).hash(&mut shown.hasher);
                shown.items.push(*listed);
            }
        }
        shown
    }

    /// What the list was sent in.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The pages' messages.
    pub fn pages(&self) -> &[Bytes] {
        &self.pages
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

/// A page was validated when it came.
const LIMITS: json::ScanLimits = json::ScanLimits { max_depth: 128, validate_below: 0 };

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
        let mut listing = Listing::new(Origin::Legacy(Revision::NEWEST));
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
        let mut listing = Listing::new(Origin::Legacy(Revision::NEWEST));
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
        assert_eq!((listing.pages().len(), listing.hints()), (2, None));
    }

    #[test]
    fn a_page_that_is_no_list_leaves_nothing_behind() {
        let mut listing = Listing::new(Origin::Legacy(Revision::NEWEST));
        for text in [r#"{"tools":"many"}"#, "{}", r#"{"tools":[{"name":"a"}"#] {
            let (message, result) = page(text);
            assert!(listing.add_page(message, result, ListKind::Tools).is_err(), "{text}");
        }
        assert!(listing.items().is_empty() && listing.pages().is_empty());
        assert_eq!(listing.digest(), Listing::new(Origin::Legacy(Revision::NEWEST)).digest());
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

    #[test]
    fn older_clients_see_a_list_in_their_revision() {
        let item = r#"{"name":"a","title":"A","icons":[],"inputSchema":{"type":"object"}}"#;
        let bad = r#"{"name":"b","inputSchema":{"properties":{"x":{"type":"number","x-mcp-header":"R"}}}}"#;
        let result = format!(r#"{{"resultType":"complete","tools":[{item},{bad}],"ttlMs":5,"cacheScope":"public"}}"#);
        let shown = |origin, revision| {
            let mut listing = Listing::new(origin);
            let (message, result) = page(&result);
            listing.add_page(message, result, ListKind::Tools).unwrap();
            let translated = listing.translated(ListKind::Tools, revision)?;
            let pages: Vec<String> =
                translated.pages().iter().map(|page| String::from_utf8_lossy(page).into_owned()).collect();
            Some((translated.items().len(), pages.concat()))
        };
        let legacy = Origin::Legacy(Revision::V2025_06_18);
        assert_eq!(shown(legacy, Revision::V2025_11_25), None);
        assert_eq!(shown(legacy, Revision::V2025_06_18), None);
        let (items, text) = shown(legacy, Revision::V2025_03_26).unwrap();
        assert!(items == 2 && !text.contains("icons"), "{text}");
        let (items, text) = shown(Origin::Modern(Annotations::Checked), Revision::V2025_11_25).unwrap();
        assert_eq!(items, 1, "a tool that could not be called is left out");
        assert!(text.contains("icons") && !text.contains("ttlMs") && !text.contains("resultType"), "{text}");
    }
}
