//! Which headers end at this hop (RFC 9110 7.6.1). `Via` and `X-Forwarded-*` are the gateway's business.

use smallvec::SmallVec;

use super::{Header, Headers, Known, list};

/// What one message's Connection header removes, on top of what never passes a hop.
#[derive(Clone, Debug)]
pub struct Hop<'a> {
    named: SmallVec<[&'a [u8]; 4]>,
}

impl<'a> Hop<'a> {
    /// Reads the Connection options of `headers`. Their number is bounded by the head parser.
    pub fn of(headers: &'a Headers) -> Self {
        let named = headers
            .known_all(Known::Connection)
            .flat_map(list)
            .filter(|option| !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive"))
            .filter(|option| !is_protected(option))
            .collect();
        Hop { named }
    }

    /// Whether `header` must not be forwarded.
    #[inline]
    pub fn removes(&self, header: &Header<'_>) -> bool {
        is_hop_by_hop(header.known)
            || (!self.named.is_empty()
                && self.named.iter().any(|option| option.eq_ignore_ascii_case(header.name.as_bytes())))
    }
}

/// The headers that may be forwarded, in order.
///
/// Content-Length is among them: its number holds as long as the body is forwarded unchanged. A message that is
/// written with `HeadWriter::forward` gets its framing from `HeadWriter::framing` alone.
pub fn end_to_end(headers: &Headers) -> impl Iterator<Item = Header<'_>> {
    let hop = Hop::of(headers);
    headers.iter().filter(move |header| !hop.removes(header))
}

/// Whether a header concerns one connection only, named in Connection or not.
///
/// Both proxy authentication fields are among them: a gateway neither demands nor answers them (RFC 9110 11.7), and
/// passing credentials meant for a proxy to an origin would leak them. Expect is answered by this hop.
#[inline]
pub const fn is_hop_by_hop(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::TransferEncoding
            | Known::Trailer
            | Known::Upgrade
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization
            | Known::Expect
    )
}

/// Whether a header stays even when Connection names it.
///
/// "A sender MUST NOT send a connection option corresponding to a field that is intended for all recipients" (RFC 9110
/// 7.6.1), so that nothing honest is lost; a client that could name `Authorization` or `X-Forwarded-For` would make the
/// gateway strip what a server behind it decides by.
pub fn is_protected(name: &[u8]) -> bool {
    const NAMES: [&str; 15] = [
        "host",
        "authorization",
        "cookie",
        "set-cookie",
        "origin",
        "forwarded",
        "via",
        "date",
        "cache-control",
        "last-event-id",
        "x-real-ip",
        "www-authenticate",
        "location",
        "traceparent",
        "tracestate",
    ];
    const PREFIXES: [&str; 6] = ["content-", "mcp-", "x-forwarded-", "accept", "sec-", "if-"];
    let starts =
        |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()));
    NAMES.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name)) || PREFIXES.iter().any(starts)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::h1::{HeadLimits, parse_request};

    #[track_caller]
    fn check(headers: &str, forwarded: &str) {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        let parsed = parse_request(&mut BytesMut::from(head.as_str()), &HeadLimits::default()).unwrap().unwrap();
        let names: Vec<_> = end_to_end(&parsed.headers).map(|header| header.name.to_ascii_lowercase()).collect();
        assert_eq!(names.join(" "), forwarded, "{headers}");
    }

    #[test]
    fn fields_of_one_connection_are_removed() {
        check(
            "Connection: close, Foo\r\nKeep-Alive: 1\r\nFoo: x\r\nProxy-Connection: a\r\nTE: trailers\r\nUpgrade: h2c\r\n\
             Trailer: x\r\nProxy-Authorization: b\r\nTransfer-Encoding: chunked\r\nAccept: */*\r\n",
            "host accept",
        );
        check("Connection: foo\r\nFOO: 1\r\nConnection: Bar\r\nbar: 2\r\nbaz: 3\r\n", "host baz");
    }

    #[test]
    fn a_connection_option_cannot_remove_what_others_decide_by() {
        check(
            "Connection: Content-Length, host, AUTHORIZATION, mcp-session-id, x-forwarded-for, origin, cookie\r\n\
             Content-Length: 0\r\nAuthorization: a\r\nMcp-Session-Id: b\r\nX-Forwarded-For: c\r\nOrigin: d\r\nCookie: e\r\n",
            "host content-length authorization mcp-session-id x-forwarded-for origin cookie",
        );
    }
}
