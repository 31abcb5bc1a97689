//! The pages of list results: walks one page's items, and writes the items of several into one result, each byte copied once.
//! Knows what a list's members are called; which items a client may see, and under what name, is the caller's.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{JsonError, JsonErrorKind};
use super::range::Range32;
use super::simd::{self, Kernel, Lanes};
use super::{text, walk};

/// The lists of MCP that a federation merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListKind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    ResourceTemplates,
}

impl ListKind {
    /// The member of the result that holds the items.
    pub fn member(self) -> &'static str {
        match self {
            ListKind::Tools => "tools",
            ListKind::Prompts => "prompts",
            ListKind::Resources => "resources",
            ListKind::ResourceTemplates => "resourceTemplates",
        }
    }

    /// The member of an item by which requests name it.
    pub fn item_key(self) -> &'static str {
        match self {
            ListKind::Tools | ListKind::Prompts => "name",
            ListKind::Resources => "uri",
            ListKind::ResourceTemplates => "uriTemplate",
        }
    }
}

/// One item of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListItem {
    /// The whole item.
    pub range: Range32,
    /// The string that names it, quotes included, or why the item cannot be named.
    pub name: Result<Range32, ItemFault>,
}

/// Why an item cannot be offered: a client could not name it, or two parsers would name it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemFault {
    /// The item is no object.
    NotAnObject,
    /// The naming member is absent.
    Missing,
    /// The naming member occurs twice.
    Duplicate,
    /// The naming member's key is spelt with escapes.
    Escaped,
    /// The naming member is no string.
    NotString,
}

/// The members of a page beside its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListTail {
    /// `nextCursor`: there is another page.
    pub next_cursor: Option<Range32>,
    /// `_meta`
    pub meta: Option<Range32>,
    /// `ttlMs`, from 2026-07-28 on.
    pub ttl_ms: Option<Range32>,
    /// `cacheScope`, from 2026-07-28 on.
    pub cache_scope: Option<Range32>,
}

/// The items of the page whose result object is at `result`, in one pass. After the last item [`ListItems::tail`] has the rest.
///
/// # Errors
/// `WrongKind` if the result is no object or its list no array, `MissingKey` without a list, `DuplicateKey` for a second list
/// or cursor, and whatever the walk meets. Errors past the list come out of the iterator.
pub fn list_items(bytes: &[u8], result: Range32, kind: ListKind) -> Result<ListItems<'_>, JsonError> {
    let Some(cut) = bytes.get(..result.end()) else {
        return Err(JsonError::new(JsonErrorKind::BadRange, result.end()));
    };
    if cut.get(result.start()) != Some(&b'{') {
        return Err(JsonError::new(JsonErrorKind::WrongKind, result.start()));
    }
    let mut items =
        ListItems { bytes: cut, kind, at: result.start() + 1, state: State::Done, tail: ListTail::default() };
    items.find_list()?;
    Ok(items)
}

/// Iterator of [`list_items`]. Ends after the first error.
#[derive(Debug, Clone)]
pub struct ListItems<'a> {
    bytes: &'a [u8],
    kind: ListKind,
    at: usize,
    state: State,
    tail: ListTail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    First,
    Between,
    Done,
}

impl ListItems<'_> {
    /// The page's other members; complete once the iterator has ended without an error.
    pub fn tail(&self) -> ListTail {
        self.tail
    }

    /// Walks to the list's opening bracket.
    fn find_list(&mut self) -> Result<(), JsonError> {
        let (mut first, mut at) = walk::token(self.bytes, self.at)?;
        loop {
            if first == b'}' {
                return Err(JsonError::new(JsonErrorKind::MissingKey, at));
            }
            let step = simd::run(Step { bytes: self.bytes, first, at, kind: self.kind, tail: &mut self.tail })?;
            if let Some(open) = step.list {
                self.at = open + 1;
                self.state = State::First;
                return Ok(());
            }
            let (more, next) = walk::another(self.bytes, step.end, b'}')?;
            if !more {
                return Err(JsonError::new(JsonErrorKind::MissingKey, next));
            }
            (first, at) = walk::token(self.bytes, next)?;
        }
    }

    /// Walks from behind the list to the end of the result.
    fn finish(&mut self, mut end: usize) -> Result<(), JsonError> {
        loop {
            let (more, next) = walk::another(self.bytes, end, b'}')?;
            if !more {
                let whole = next == self.bytes.len();
                return if whole { Ok(()) } else { Err(JsonError::new(JsonErrorKind::BadRange, next)) };
            }
            let (first, at) = walk::token(self.bytes, next)?;
            let step = simd::run(Step { bytes: self.bytes, first, at, kind: self.kind, tail: &mut self.tail })?;
            if step.list.is_some() {
                return Err(JsonError::new(JsonErrorKind::DuplicateKey, at));
            }
            end = step.end;
        }
    }

    fn advance(&mut self) -> Result<Option<ListItem>, JsonError> {
        let (first, at) = match self.state {
            State::Done => return Ok(None),
            State::First => match walk::token(self.bytes, self.at)? {
                (b']', end) => return self.finish(end + 1).map(|()| None),
                next => next,
            },
            State::Between => match walk::another(self.bytes, self.at, b']')? {
                (true, at) => walk::token(self.bytes, at)?,
                (false, end) => return self.finish(end).map(|()| None),
            },
        };
        let item = simd::run(Item { bytes: self.bytes, first, at, key: self.kind.item_key() })?;
        self.state = State::Between;
        self.at = item.range.end();
        Ok(Some(item))
    }
}

impl Iterator for ListItems<'_> {
    type Item = Result<ListItem, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.advance().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.state = State::Done;
        }
        item
    }
}

/// One member of the result: notes it in the tail, or stops at the list.
struct Step<'a> {
    bytes: &'a [u8],
    first: u8,
    at: usize,
    kind: ListKind,
    tail: &'a mut ListTail,
}

struct Stepped {
    end: usize,
    /// Offset of the list's opening bracket; `end` means nothing then.
    list: Option<usize>,
}

impl Kernel for Step<'_> {
    type Output = Result<Stepped, JsonError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let Step { bytes, first, at, kind, tail } = self;
        let key = walk::key(lanes, bytes, first, at)?;
        if key.is(bytes, kind.member()) {
            if key.value_first != b'[' {
                return Err(JsonError::new(JsonErrorKind::WrongKind, key.value_at));
            }
            return Ok(Stepped { end: key.value_at, list: Some(key.value_at) });
        }
        let end = walk::skip_value(lanes, bytes, key.value_first, key.value_at, u32::MAX)?;
        let slot = if key.is(bytes, "nextCursor") {
            &mut tail.next_cursor
        } else if key.is(bytes, "_meta") {
            &mut tail.meta
        } else if key.is(bytes, "ttlMs") {
            &mut tail.ttl_ms
        } else if key.is(bytes, "cacheScope") {
            &mut tail.cache_scope
        } else {
            return Ok(Stepped { end, list: None });
        };
        if slot.replace(Range32::walked(key.value_at, end)).is_some() {
            return Err(JsonError::new(JsonErrorKind::DuplicateKey, at));
        }
        Ok(Stepped { end, list: None })
    }
}

/// One item, and its name on the way.
struct Item<'a> {
    bytes: &'a [u8],
    first: u8,
    at: usize,
    key: &'static str,
}

impl Kernel for Item<'_> {
    type Output = Result<ListItem, JsonError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let Item { bytes, first, at: start, key: wanted } = self;
        let mut name = Err(ItemFault::Missing);
        if first != b'{' {
            let end = walk::skip_value(lanes, bytes, first, start, u32::MAX)?;
            return Ok(ListItem { range: Range32::walked(start, end), name: Err(ItemFault::NotAnObject) });
        }
        let (mut first, mut at) = walk::token(bytes, start + 1)?;
        if first == b'}' {
            return Ok(ListItem { range: Range32::walked(start, at + 1), name });
        }
        loop {
            let key = walk::key(lanes, bytes, first, at)?;
            let end = walk::skip_value(lanes, bytes, key.value_first, key.value_at, u32::MAX)?;
            if key.is(bytes, wanted) {
                name = match name {
                    Err(ItemFault::Missing) if key.escaped => Err(ItemFault::Escaped),
                    Err(ItemFault::Missing) if key.value_first != b'"' => Err(ItemFault::NotString),
                    Err(ItemFault::Missing) => Ok(Range32::walked(key.value_at, end)),
                    _ => Err(ItemFault::Duplicate),
                };
            }
            let (more, next) = walk::another(bytes, end, b'}')?;
            if !more {
                return Ok(ListItem { range: Range32::walked(start, next), name });
            }
            (first, at) = walk::token(bytes, next)?;
        }
    }
}

/// Writes one list result out of the items of several pages.
#[derive(Debug)]
pub struct ListMerger {
    out: BytesMut,
    items: usize,
}

impl ListMerger {
    /// `capacity` in bytes, best the sum of the pages and a little for longer names: then nothing is copied twice.
    pub fn new(kind: ListKind, capacity: usize) -> Self {
        let mut out = BytesMut::with_capacity(capacity + 64);
        out.put_slice(b"{\"");
        out.put_slice(kind.member().as_bytes());
        out.put_slice(b"\":[");
        ListMerger { out, items: 0 }
    }

    /// Items written so far.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Bytes written so far, for the caller's limit on a merged list.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True if no item was written.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Writes an item as it is.
    pub fn push(&mut self, item: &[u8]) {
        self.comma();
        self.out.put_slice(item);
    }

    /// Writes an item of `bytes` with `prefix` before its name. False, and nothing written, if the item cannot be named.
    pub fn push_prefixed(&mut self, bytes: &[u8], item: &ListItem, prefix: &str) -> bool {
        let Some((head, tail)) = cut(bytes, item, true) else {
            return false;
        };
        self.comma();
        self.out.put_slice(head);
        text::escape_into(&mut self.out, prefix);
        self.out.put_slice(tail);
        true
    }

    /// Writes an item of `bytes` under `name`. False, and nothing written, if the item cannot be named.
    pub fn push_renamed(&mut self, bytes: &[u8], item: &ListItem, name: &str) -> bool {
        let Some((head, tail)) = cut(bytes, item, false) else {
            return false;
        };
        self.comma();
        self.out.put_slice(head);
        text::quote_into(&mut self.out, name);
        self.out.put_slice(tail);
        true
    }

    /// Writes every nameable item of one page with `prefix` before its name. On an error the page leaves no trace.
    ///
    /// # Errors
    /// As [`list_items`] and its iterator.
    pub fn add_page(
        &mut self,
        bytes: &[u8],
        result: Range32,
        kind: ListKind,
        prefix: &str,
    ) -> Result<ListTail, JsonError> {
        let (length, count) = (self.out.len(), self.items);
        let added = self.try_add_page(bytes, result, kind, prefix);
        if added.is_err() {
            self.out.truncate(length);
            self.items = count;
        }
        added
    }

    fn try_add_page(
        &mut self,
        bytes: &[u8],
        result: Range32,
        kind: ListKind,
        prefix: &str,
    ) -> Result<ListTail, JsonError> {
        let mut items = list_items(bytes, result, kind)?;
        for item in items.by_ref() {
            self.push_prefixed(bytes, &item?, prefix);
        }
        Ok(items.tail())
    }

    /// Closes the list, adds `nextCursor` and further members (raw JSON values), and gives the result object.
    pub fn finish(mut self, next_cursor: Option<&str>, members: &[(&str, &[u8])]) -> Bytes {
        self.out.put_u8(b']');
        if let Some(cursor) = next_cursor {
            self.out.put_slice(b",\"nextCursor\":");
            text::quote_into(&mut self.out, cursor);
        }
        for (key, value) in members {
            self.out.put_u8(b',');
            text::quote_into(&mut self.out, key);
            self.out.put_u8(b':');
            self.out.put_slice(value);
        }
        self.out.put_u8(b'}');
        self.out.freeze()
    }

    fn comma(&mut self) {
        if self.items > 0 {
            self.out.put_u8(b',');
        }
        self.items += 1;
    }
}

/// An item before its name and behind it; `inside` keeps the name and cuts behind its opening quote.
fn cut<'a>(bytes: &'a [u8], item: &ListItem, inside: bool) -> Option<(&'a [u8], &'a [u8])> {
    let name = item.name.ok()?;
    let (start, end) = if inside { (name.start() + 1, name.start() + 1) } else { (name.start(), name.end()) };
    Some((bytes.get(item.range.start()..start)?, bytes.get(end..item.range.end())?))
}
