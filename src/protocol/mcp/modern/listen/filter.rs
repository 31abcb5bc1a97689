//! What a listener asks for, and what it is granted: kinds of lists, and resources by their URIs
//! (`SubscriptionFilter`, 2026-07-28).

use std::collections::BTreeSet;
use std::rc::Rc;

use agentlane_wire::json::{self, Range32, ValueKind};
use bytes::{BufMut, BytesMut};

use crate::limits::LISTEN_URIS_MAX;
use crate::protocol::mcp::method::ListKind;

/// A resource's URI, in the names of whoever speaks. Shared: the same one stands in many tables.
pub type Uri = Rc<str>;

/// A list that may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    Tools,
    Prompts,
    /// Resources and their templates.
    Resources,
}

impl List {
    pub const ALL: [List; 3] = [List::Tools, List::Prompts, List::Resources];

    /// The list whose change a client is told when one of this kind changed.
    pub const fn of(kind: ListKind) -> List {
        match kind {
            ListKind::Tools => List::Tools,
            ListKind::Prompts => List::Prompts,
            ListKind::Resources | ListKind::ResourceTemplates => List::Resources,
        }
    }

    /// The filter's member.
    pub const fn member(self) -> &'static str {
        match self {
            List::Tools => "toolsListChanged",
            List::Prompts => "promptsListChanged",
            List::Resources => "resourcesListChanged",
        }
    }

    /// The notification that says so.
    pub const fn notification(self) -> &'static str {
        match self {
            List::Tools => "notifications/tools/list_changed",
            List::Prompts => "notifications/prompts/list_changed",
            List::Resources => "notifications/resources/list_changed",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            List::Tools => 1,
            List::Prompts => 2,
            List::Resources => 4,
        }
    }
}

/// A set of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lists(u8);

impl Lists {
    pub const NONE: Lists = Lists(0);
    pub const ALL: Lists = Lists(7);

    pub const fn one(list: List) -> Self {
        Lists(list.bit())
    }

    pub const fn has(self, list: List) -> bool {
        self.0 & list.bit() != 0
    }

    #[must_use]
    pub const fn with(self, other: Lists) -> Self {
        Lists(self.0 | other.0)
    }

    #[must_use]
    pub const fn and(self, other: Lists) -> Self {
        Lists(self.0 & other.0)
    }

    #[must_use]
    pub const fn without(self, other: Lists) -> Self {
        Lists(self.0 & !other.0)
    }

    pub const fn covers(self, other: Lists) -> bool {
        other.0 & !self.0 == 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = List> {
        List::ALL.into_iter().filter(move |&list| self.has(list))
    }
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    List(List),
    Resource(Uri),
}

/// What may be heard on one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub lists: Lists,
    pub uris: BTreeSet<Uri>,
}

/// Why a filter is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterFault {
    Wrong,
    TooManyUris,
}

impl FilterFault {
    pub const fn message(self) -> &'static str {
        match self {
            FilterFault::Wrong => "params.notifications is no subscription filter",
            FilterFault::TooManyUris => "too many resource subscriptions in one listen",
        }
    }
}

impl Filter {
    /// Reads the object at `range`. Members that are not known are not asked for: they belong to extensions that are not
    /// offered.
    pub fn parse(message: &[u8], range: Range32) -> Result<Filter, FilterFault> {
        let wrong = |_| FilterFault::Wrong;
        if json::kind_of(message, range) != Some(ValueKind::Object) {
            return Err(FilterFault::Wrong);
        }
        let mut filter = Filter::default();
        for list in List::ALL {
            if let Some(value) = json::get(message, range, list.member()).map_err(wrong)?
                && json::as_bool(message, value).ok_or(FilterFault::Wrong)?
            {
                filter.lists = filter.lists.with(Lists::one(list));
            }
        }
        let Some(uris) = json::get(message, range, "resourceSubscriptions").map_err(wrong)? else { return Ok(filter) };
        for uri in json::elements(message, uris) {
            let uri = json::string(message, uri.map_err(wrong)?).map_err(wrong)?;
            filter.uris.insert(Uri::from(&*uri));
            if filter.uris.len() > LISTEN_URIS_MAX {
                return Err(FilterFault::TooManyUris);
            }
        }
        Ok(filter)
    }

    /// Whether the object at `range` asks for more than is known here: what an extension adds.
    pub fn has_more(message: &[u8], range: Range32) -> bool {
        let known = |key: Range32| {
            let mut names = List::ALL.into_iter().map(List::member).chain(["resourceSubscriptions"]);
            names.any(|name| json::raw_eq(message, key, name))
        };
        json::members(message, range).map_while(Result::ok).any(|member| !known(member.key))
    }

    pub fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.uris.is_empty()
    }

    pub fn covers(&self, other: &Filter) -> bool {
        self.lists.covers(other.lists) && self.uris.is_superset(&other.uris)
    }

    /// What both have.
    #[must_use]
    pub fn and(&self, other: &Filter) -> Filter {
        let uris = self.uris.intersection(&other.uris).cloned().collect();
        Filter { lists: self.lists.and(other.lists), uris }
    }

    /// The filter as JSON; what is not asked for is left out.
    pub fn write_into(&self, out: &mut BytesMut) {
        let mut first = true;
        let mut member = |out: &mut BytesMut, name: &str| {
            out.put_u8(if std::mem::take(&mut first) { b'{' } else { b',' });
            json::quote_into(out, name);
            out.put_u8(b':');
        };
        for list in self.lists.iter() {
            member(out, list.member());
            out.put_slice(b"true");
        }
        if !self.uris.is_empty() {
            member(out, "resourceSubscriptions");
            for (at, uri) in self.uris.iter().enumerate() {
                out.put_u8(if at == 0 { b'[' } else { b',' });
                json::quote_into(out, uri);
            }
            out.put_u8(b']');
        }
        if first {
            out.put_u8(b'{');
        }
        out.put_u8(b'}');
    }
}

/// Whether `uri` is a part of `whole`: an update may name a sub-resource of what was subscribed to
/// (`ResourceUpdatedNotificationParams`).
pub fn is_part_of(uri: &str, whole: &str) -> bool {
    let Some(rest) = uri.strip_prefix(whole) else { return false };
    rest.is_empty() || whole.ends_with('/') || rest.starts_with(['/', '?', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Filter, FilterFault> {
        Filter::parse(text.as_bytes(), json::root(text.as_bytes()).map_err(|_| FilterFault::Wrong)?)
    }

    fn written(filter: &Filter) -> String {
        let mut out = BytesMut::new();
        filter.write_into(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn filters_read_and_write() {
        let cases = [
            ("{}", "{}"),
            (r#"{"toolsListChanged":true}"#, r#"{"toolsListChanged":true}"#),
            (r#"{"toolsListChanged":false,"unknown":[1]}"#, "{}"),
            (
                r#"{"resourceSubscriptions":["b","a\u002fb","b"],"promptsListChanged":true}"#,
                r#"{"promptsListChanged":true,"resourceSubscriptions":["a/b","b"]}"#,
            ),
            (r#"{"resourcesListChanged":true,"resourceSubscriptions":[]}"#, r#"{"resourcesListChanged":true}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(written(&parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_extensions_add_is_seen() {
        for (text, expected) in [
            ("{}", false),
            (r#"{"toolsListChanged":true,"resourceSubscriptions":["a"]}"#, false),
            (r#"{"toolsListChanged":true,"taskIds":["a"]}"#, true),
        ] {
            let range = json::root(text.as_bytes()).unwrap();
            assert_eq!(Filter::has_more(text.as_bytes(), range), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "[]",
            "true",
            r#"{"toolsListChanged":1}"#,
            r#"{"resourceSubscriptions":"a"}"#,
            r#"{"resourceSubscriptions":[1]}"#,
        ] {
            assert_eq!(parse(text), Err(FilterFault::Wrong), "{text}");
        }
        let uris: Vec<String> = (0..=LISTEN_URIS_MAX).map(|number| format!("\"memo:{number}\"")).collect();
        let many = format!("{{\"resourceSubscriptions\":[{}]}}", uris.join(","));
        assert_eq!(parse(&many), Err(FilterFault::TooManyUris));
    }

    #[test]
    fn parts_of_a_resource() {
        for (uri, whole, expected) in [
            ("file:///a", "file:///a", true),
            ("file:///a/b", "file:///a", true),
            ("file:///a/b", "file:///a/", true),
            ("file:///a#x", "file:///a", true),
            ("file:///ab", "file:///a", false),
            ("file:///a", "file:///a/b", false),
        ] {
            assert_eq!(is_part_of(uri, whole), expected, "{uri} of {whole}");
        }
    }
}
