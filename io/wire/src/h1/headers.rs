//! Headers as ranges into the one shared buffer that holds the head. Owns no string; knows no framing rule.

use bytes::Bytes;
use smallvec::SmallVec;

macro_rules! known {
    ($($variant:ident = $name:literal,)*) => {
        /// A header name that the codecs or the gateway ask for often, recognised once while parsing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Known {
            /// Any other name.
            Other = 0,
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Known {
            /// The name in lower case, empty for [`Known::Other`].
            pub const fn as_str(self) -> &'static str {
                match self { Known::Other => "", $(Known::$variant => $name,)* }
            }

            /// Recognises a name whatever its case.
            #[inline]
            pub fn of(name: &[u8]) -> Known {
                let Some(first) = name.first() else { return Known::Other };
                let first = first | 0x20;
                $(
                    // Length and first letter reject nearly all of the table before any comparison.
                    if name.len() == $name.len()
                        && first == $name.as_bytes()[0]
                        && name.eq_ignore_ascii_case($name.as_bytes())
                    {
                        return Known::$variant;
                    }
                )*
                Known::Other
            }
        }
    };
}

known! {
    Host = "host",
    ContentLength = "content-length",
    TransferEncoding = "transfer-encoding",
    Connection = "connection",
    ContentType = "content-type",
    Accept = "accept",
    UserAgent = "user-agent",
    McpSessionId = "mcp-session-id",
    McpProtocolVersion = "mcp-protocol-version",
    McpMethod = "mcp-method",
    McpName = "mcp-name",
    LastEventId = "last-event-id",
    Authorization = "authorization",
    Origin = "origin",
    Expect = "expect",
    KeepAlive = "keep-alive",
    ProxyConnection = "proxy-connection",
    Te = "te",
    Trailer = "trailer",
    Upgrade = "upgrade",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    Via = "via",
    Forwarded = "forwarded",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
    XForwardedHost = "x-forwarded-host",
    Date = "date",
    Server = "server",
    Cookie = "cookie",
    SetCookie = "set-cookie",
    CacheControl = "cache-control",
    ContentEncoding = "content-encoding",
    AcceptEncoding = "accept-encoding",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
}

/// One header line: ranges into the head. 16 bytes, so that a usual head stays inline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub name: u32,
    pub value: u32,
    pub value_len: u32,
    pub name_len: u16,
    pub known: Known,
    /// The line is exactly `name ": " value CRLF`, so that it can be forwarded as it stands.
    pub tidy: bool,
}

impl Entry {
    fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.name as usize..self.name as usize + self.name_len as usize]
    }

    fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.value as usize..self.value as usize + self.value_len as usize]
    }
}

pub(super) type Entries = SmallVec<[Entry; 16]>;

/// The headers of one message, in the order received. Cheap to move, `Send`, `'static`.
///
/// Names are tokens; values are free of CR, LF, NUL and other controls except HTAB, and without white space at
/// either end (RFC 9110 5.5). Bytes above 0x7f may occur in a value.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    pub(super) head: Bytes,
    pub(super) entries: Entries,
}

/// One header, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name as it was sent.
    pub name: &'a str,
    /// The value without surrounding white space.
    pub value: &'a [u8],
    /// The name, when it is a known one.
    pub known: Known,
}

impl<'a> Header<'a> {
    /// The value, when it is UTF-8.
    pub fn value_str(&self) -> Option<&'a str> {
        std::str::from_utf8(self.value).ok()
    }

    fn is(&self, name: &str, known: Known) -> bool {
        self.known == known && (known != Known::Other || self.name.eq_ignore_ascii_case(name))
    }
}

impl Headers {
    /// The number of header lines.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no header at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first value of `name`, compared without case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let known = Known::of(name.as_bytes());
        self.iter().find(|header| header.is(name, known)).map(|header| header.value)
    }

    /// Like [`Headers::get`], when the value is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every value of `name` in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let known = Known::of(name.as_bytes());
        self.iter().filter(move |header| header.is(name, known)).map(|header| header.value)
    }

    /// The first value of a known name; compares one byte per header.
    #[inline]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.entries.iter().find(|entry| entry.known == known).map(|entry| entry.value(&self.head))
    }

    /// Like [`Headers::known`], when the value is UTF-8.
    pub fn known_str(&self, known: Known) -> Option<&str> {
        self.known(known).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Every value of a known name in order.
    pub fn known_all(&self, known: Known) -> impl Iterator<Item = &[u8]> + '_ {
        self.entries.iter().filter(move |entry| entry.known == known).map(|entry| entry.value(&self.head))
    }

    /// The first value of `name`, sharing the head's buffer.
    pub fn value_bytes(&self, name: &str) -> Option<Bytes> {
        self.get(name).map(|value| self.head.slice_ref(value))
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'_>> + Clone + '_ {
        self.entries.iter().map(|entry| Header {
            // Names were checked to be tokens, which are ASCII.
            name: std::str::from_utf8(entry.name(&self.head)).unwrap_or_default(),
            value: entry.value(&self.head),
            known: entry.known,
        })
    }

    /// Whether the comma-separated list in all lines of `known` holds `token`, compared without case (RFC 9110 5.6.1).
    pub fn list_has(&self, known: Known, token: &str) -> bool {
        self.known_all(known).flat_map(list).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// The items of a comma-separated list, trimmed, empty ones skipped (RFC 9110 5.6.1.2).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_recognised_whatever_their_case() {
        assert_eq!(Known::of(b"HOST"), Known::Host);
        assert_eq!(Known::of(b"Mcp-Session-Id"), Known::McpSessionId);
        assert_eq!(Known::of(b"mcp-session-ie"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
        assert_eq!(size_of::<Entry>(), 16);
    }

    #[test]
    fn lists_skip_empty_items() {
        let items: Vec<_> = list(b" close ,, Foo,").collect();
        assert_eq!(items, [b"close".as_slice(), b"Foo"]);
    }
}
