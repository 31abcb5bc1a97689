//! Heads of HTTP/2 (RFC 9113, 8.3) in the form that the rest of the house reads: the text of HTTP/1.1, checked by the same
//! parser, so that both versions have one set of rules. Frames, HPACK and streams are another crate's.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use crate::h1::{self, Framing, H1Error, HeadLimits, Known, RequestHead, ResponseHead, Version};

/// What a head that this side wrote may be: it was bounded when it was read, and edits of policies are few.
const OWN: HeadLimits = HeadLimits { bytes: 16 << 20, start_line_bytes: 1 << 20, headers: 16 << 10 };

/// A request as its pseudo header fields say it.
#[derive(Clone, Copy, Debug)]
pub struct RequestLine<'a> {
    /// `:method`
    pub method: &'a str,
    /// `:scheme`; `None` for CONNECT.
    pub scheme: Option<&'a str>,
    /// `:authority`
    pub authority: Option<&'a str>,
    /// `:path`, or the authority again for CONNECT.
    pub target: &'a str,
    /// The stream was ended with the head: there is no body.
    pub ends: bool,
}

/// Reads a request head. Names are lower case already.
///
/// A body without a length becomes [`Framing::Chunked`], which is how it goes to a server of HTTP/1.1.
///
/// # Errors
/// What the parser of HTTP/1.1 refuses; a field that belongs to a connection (8.2.2); a Host that is not `:authority`
/// (8.3.1); a body where none may be.
pub fn request_head<'a>(
    line: RequestLine<'_>,
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    limits: &HeadLimits,
) -> Result<RequestHead, H1Error> {
    let mut text = BytesMut::with_capacity(256 + line.target.len());
    text.put_slice(line.method.as_bytes());
    text.put_u8(b' ');
    text.put_slice(line.target.as_bytes());
    text.put_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = line.authority {
        put_line(&mut text, "host", authority.as_bytes());
    }
    let mut crumbs: SmallVec<[&[u8]; 4]> = SmallVec::new();
    for (name, value) in fields {
        match Known::of(name.as_bytes()) {
            Known::Host => match line.authority {
                Some(authority) if !h1::same_host(authority, value, line.scheme) => return Err(H1Error::HostMismatch),
                Some(_) => {}
                None => put_line(&mut text, name, value),
            },
            Known::Te if value.eq_ignore_ascii_case(b"trailers") => {}
            known if is_connections(known) => return Err(H1Error::ConnectionOptions),
            Known::Cookie => crumbs.push(value),
            _ => put_line(&mut text, name, value),
        }
        check_size(&text, limits)?;
    }
    // One field again (8.2.3).
    if !crumbs.is_empty() {
        put_line(&mut text, "cookie", &crumbs.join(&b"; "[..]));
    }
    text.put_slice(b"\r\n");
    let mut head = h1::parse_request(&mut text, limits)?.ok_or(H1Error::Truncated)?;
    if !text.is_empty() {
        return Err(H1Error::HeaderValue);
    }
    head.version = Version::Http2;
    head.keep_alive = false;
    if !line.ends && head.framing == Framing::None {
        if matches!(head.method, h1::Method::Connect | h1::Method::Trace) {
            return Err(H1Error::UnexpectedBody);
        }
        head.framing = Framing::Chunked;
    }
    Ok(head)
}

/// Writes a response head as text, for the parser of HTTP/1.1. What is wrong in it is that parser's to find.
pub fn put_response<'a>(text: &mut BytesMut, status: u16, fields: impl Iterator<Item = (&'a str, &'a [u8])>) {
    text.put_slice(format!("HTTP/1.1 {status} \r\n").as_bytes());
    for (name, value) in fields {
        // A server that sends these is wrong, and they are nobody else's.
        if !is_connections(Known::of(name.as_bytes())) {
            put_line(text, name, value);
        }
    }
    text.put_slice(b"\r\n");
}

/// Whether a header of a head that goes out as HTTP/2 is left out: it frames or concerns one connection of HTTP/1.1.
pub fn is_left_out(known: Known) -> bool {
    is_connections(known)
}

/// Reads a response head that this side wrote as text.
///
/// # Errors
/// It is none.
pub fn read_response(text: bytes::Bytes) -> Result<ResponseHead, H1Error> {
    let mut text = BytesMut::from(text);
    h1::parse_response(&mut text, &OWN, h1::Method::Get)?.ok_or(H1Error::Truncated)
}

/// Reads a request head that this side wrote as text.
///
/// # Errors
/// It is none.
pub fn read_request(text: bytes::Bytes) -> Result<RequestHead, H1Error> {
    let mut text = BytesMut::from(text);
    h1::parse_request(&mut text, &OWN)?.ok_or(H1Error::Truncated)
}

/// RFC 9113, 8.2.2.
const fn is_connections(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Te
    )
}

fn put_line(text: &mut BytesMut, name: &str, value: &[u8]) {
    text.reserve(name.len() + value.len() + 4);
    text.put_slice(name.as_bytes());
    text.put_slice(b": ");
    text.put_slice(value);
    text.put_slice(b"\r\n");
}

/// Refused before more of it is copied.
fn check_size(text: &BytesMut, limits: &HeadLimits) -> Result<(), H1Error> {
    if text.len() > limits.bytes { Err(H1Error::HeadTooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: RequestLine<'_> = RequestLine {
        method: "POST",
        scheme: Some("https"),
        authority: Some("a.example"),
        target: "/x?y",
        ends: false,
    };

    fn read(line: RequestLine<'_>, fields: &[(&str, &str)]) -> Result<RequestHead, H1Error> {
        let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
        request_head(line, fields, &HeadLimits::default())
    }

    #[test]
    fn a_request_reads_like_one_of_http_1() {
        let head = read(LINE, &[("accept", "*/*"), ("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2")]).unwrap();
        assert_eq!((head.method_str(), head.path(), head.query()), ("POST", "/x", Some("y")));
        assert_eq!((head.authority(), head.version, head.framing), ("a.example", Version::Http2, Framing::Chunked));
        assert_eq!(head.headers.get("cookie"), Some(b"a=1; b=2".as_slice()));
        assert_eq!(head.headers.get("te"), None);
        assert!(!head.keep_alive);
        let head = read(RequestLine { ends: true, ..LINE }, &[]).unwrap();
        assert_eq!(head.framing, Framing::None);
        let head = read(LINE, &[("content-length", "3")]).unwrap();
        assert_eq!(head.framing, Framing::Length(3));
        let head = read(RequestLine { authority: None, ..LINE }, &[("host", "b:1")]).unwrap();
        assert_eq!(head.authority(), "b:1");
    }

    #[test]
    fn own_heads_are_read_back() {
        let mut text = BytesMut::new();
        put_response(&mut text, 103, [("a", b"b".as_slice()), ("connection", b"close")].into_iter());
        let head = read_response(text.freeze()).unwrap();
        assert_eq!(
            (head.status, head.headers.get("a"), head.headers.get("connection")),
            (103, Some(b"b".as_slice()), None)
        );
        let head = read_request("GET /x HTTP/1.1\r\nhost: a\r\n\r\n".into()).unwrap();
        assert_eq!((head.path(), head.authority()), ("/x", "a"));
        assert!(read_response("HTTP/1.1 200 OK\r\n".into()).is_err());
    }

    #[test]
    fn a_host_agrees_with_the_authority() {
        for host in ["a.example", "A.EXAMPLE", "a.example:443"] {
            assert_eq!(read(LINE, &[("host", host)]).unwrap().authority(), "a.example", "{host}");
        }
        for host in ["b.example", "a.example:80", ""] {
            assert_eq!(read(LINE, &[("host", host)]).unwrap_err(), H1Error::HostMismatch, "{host}");
        }
    }

    #[test]
    fn what_no_request_is() {
        let check = |line: RequestLine<'_>, fields: &[(&str, &str)], error| {
            assert_eq!(read(line, fields).unwrap_err(), error, "{line:?} {fields:?}");
        };
        check(LINE, &[("connection", "close")], H1Error::ConnectionOptions);
        check(LINE, &[("transfer-encoding", "chunked")], H1Error::ConnectionOptions);
        check(LINE, &[("upgrade", "x")], H1Error::ConnectionOptions);
        check(LINE, &[("te", "gzip")], H1Error::ConnectionOptions);
        check(RequestLine { target: "x", ..LINE }, &[], H1Error::Target);
        check(RequestLine { target: "/#", ..LINE }, &[], H1Error::Target);
        check(RequestLine { authority: Some("a@b"), ..LINE }, &[], H1Error::Host);
        check(RequestLine { authority: None, ..LINE }, &[], H1Error::MissingHost);
        check(RequestLine { method: "TRACE", ..LINE }, &[], H1Error::UnexpectedBody);
        let many: Vec<_> = (0..101).map(|_| ("a", "b")).collect();
        check(LINE, &many, H1Error::TooManyHeaders);
        check(LINE, &[("a", &"x".repeat(70_000))], H1Error::HeadTooLarge);
        // Bytes that end a line cannot come through the crate below; if they did, nothing would be read behind them.
        assert!(read(LINE, &[("a", "b\r\n\r\nGET / HTTP/1.1")]).is_err());
    }
}
