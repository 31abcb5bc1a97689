//! Where an HTTP/1.1 message ends and what few fields matter here. Just enough for a load generator and its fake upstream, which trust each other;
//! the gateway between them has a strict codec of its own, and this one shares no code with it so that each checks the other.

use std::ops::Range;

/// Header fields accepted in one message.
const HEADERS_MAX: usize = 64;
/// Longest head, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A request or an answer whose last byte has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub start: Start,
    /// Value of `Mcp-Session-Id`, as a place in the buffer.
    pub session: Option<Range<usize>>,
    pub event_stream: bool,
    pub head_bytes: usize,
    /// Head and body, as they came.
    pub total_bytes: usize,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Request(Method),
    Status(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Delete,
    Other,
}

/// A message, or how many bytes must be there at the least before it is worth looking again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    Complete(Message),
    Partial { at_least: usize },
}

/// Looks for a request at the start of `bytes` (RFC 9112 section 3).
pub fn request(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return partial_head(bytes),
        Err(_) => return Err(Malformed("request head")),
    };
    let method = match head.method {
        Some("POST") => Method::Post,
        Some("GET") => Method::Get,
        Some("DELETE") => Method::Delete,
        _ => Method::Other,
    };
    let fields = Fields::read(bytes, head.headers)?;
    // A request without a length has no body (RFC 9112 section 6.3).
    let length = fields.length.unwrap_or(0);
    complete(bytes, Start::Request(method), fields, head_bytes, length)
}

/// Looks for an answer at the start of `bytes` (RFC 9112 section 4). One that ends with its connection is refused: every workload keeps connections.
pub fn answer(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return partial_head(bytes),
        Err(_) => return Err(Malformed("answer head")),
    };
    let status = head.code.unwrap_or(0);
    let fields = Fields::read(bytes, head.headers)?;
    let length = match fields.length {
        Some(length) => length,
        None if fields.chunked || matches!(status, 204 | 304) => 0,
        None => return Err(Malformed("answer without a length")),
    };
    complete(bytes, Start::Status(status), fields, head_bytes, length)
}

impl Message {
    /// The body's content; `scratch` holds it if it came in chunks. `bytes` is the buffer that the message was found in.
    pub fn body<'a>(&self, bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        let framed = &bytes[self.head_bytes..self.total_bytes];
        if !self.chunked {
            return framed;
        }
        scratch.clear();
        let mut rest = framed;
        while let Some(Chunk { data, end }) = next_chunk(rest).ok().flatten().filter(|chunk| !chunk.data.is_empty()) {
            scratch.extend_from_slice(&rest[data]);
            rest = &rest[end..];
        }
        scratch
    }

    pub fn status(&self) -> u16 {
        match self.start {
            Start::Status(status) => status,
            Start::Request(_) => 0,
        }
    }
}

#[derive(Default)]
struct Fields {
    length: Option<usize>,
    chunked: bool,
    session: Option<Range<usize>>,
    event_stream: bool,
}

impl Fields {
    fn read(bytes: &[u8], headers: &[httparse::Header<'_>]) -> Result<Fields, Malformed> {
        let mut fields = Fields::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let text = std::str::from_utf8(header.value).ok();
                fields.length =
                    Some(text.and_then(|text| text.trim().parse().ok()).ok_or(Malformed("content length"))?);
            } else if is("transfer-encoding") {
                fields.chunked = header.value.eq_ignore_ascii_case(b"chunked");
            } else if is("mcp-session-id") {
                // httparse lends from `bytes`, so the difference of addresses is the offset.
                let offset = header.value.as_ptr() as usize - bytes.as_ptr() as usize;
                fields.session = Some(offset..offset + header.value.len());
            } else if is("content-type") {
                fields.event_stream = header.value.starts_with(b"text/event-stream");
            }
        }
        Ok(fields)
    }
}

fn partial_head(bytes: &[u8]) -> Result<Parsed, Malformed> {
    if bytes.len() > HEAD_BYTES_MAX {
        return Err(Malformed("head too long"));
    }
    Ok(Parsed::Partial { at_least: bytes.len() + 1 })
}

fn complete(bytes: &[u8], start: Start, fields: Fields, head_bytes: usize, length: usize) -> Result<Parsed, Malformed> {
    let total_bytes = if fields.chunked {
        match chunked_bytes(&bytes[head_bytes..])? {
            Some(framed) => head_bytes + framed,
            None => {
                return Ok(Parsed::Partial { at_least: bytes.len() + 1 });
            }
        }
    } else {
        head_bytes.checked_add(length).ok_or(Malformed("content length"))?
    };
    if bytes.len() < total_bytes {
        return Ok(Parsed::Partial { at_least: total_bytes });
    }
    let Fields { chunked, session, event_stream, .. } = fields;
    Ok(Parsed::Complete(Message { start, session, event_stream, head_bytes, total_bytes, chunked }))
}

/// Length of a whole chunked body with its framing, or `None` if its end has not come (RFC 9112 section 7.1).
fn chunked_bytes(framed: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    while let Some(Chunk { data, end }) = next_chunk(&framed[at..])? {
        at += end;
        if data.is_empty() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// One chunk: where its data is and where the next one begins. The last one has no data, and its end includes the trailers.
struct Chunk {
    data: Range<usize>,
    end: usize,
}

fn next_chunk(framed: &[u8]) -> Result<Option<Chunk>, Malformed> {
    let (line_bytes, size) = match httparse::parse_chunk_size(framed) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed("chunk size")),
    };
    if size == 0 {
        return Ok(
            trailers_bytes(&framed[line_bytes..]).map(|trailers| Chunk { data: 0..0, end: line_bytes + trailers })
        );
    }
    let size = usize::try_from(size).map_err(|_| Malformed("chunk size"))?;
    let end = size.checked_add(line_bytes + 2).ok_or(Malformed("chunk size"))?;
    if framed.len() < end {
        return Ok(None);
    }
    if &framed[end - 2..end] != b"\r\n" {
        return Err(Malformed("chunk end"));
    }
    Ok(Some(Chunk { data: line_bytes..line_bytes + size, end }))
}

fn trailers_bytes(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"\r\n") {
        return Some(2);
    }
    memchr::memmem::find(rest, b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shorter prefix must be partial, and the whole must be complete with this body.
    fn check_answer(text: &str, status: u16, body: &str) {
        for cut in 0..text.len() {
            let parsed = answer(&text.as_bytes()[..cut]);
            assert!(
                matches!(parsed, Ok(Parsed::Partial { at_least }) if at_least > cut && at_least <= text.len()),
                "{cut} of {text:?}: {parsed:?}"
            );
        }
        let Ok(Parsed::Complete(message)) = answer(text.as_bytes()) else { panic!("{text:?} is complete") };
        assert_eq!(message.status(), status);
        assert_eq!(message.total_bytes, text.len());
        assert_eq!(message.body(text.as_bytes(), &mut Vec::new()), body.as_bytes());
    }

    #[test]
    fn answers_of_every_framing() {
        check_answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, "abc");
        check_answer("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
        check_answer(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            200,
            "abcde",
        );
        check_answer("HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n", 202, "");
    }

    #[test]
    fn refused() {
        let check = |text: &str| assert!(answer(text.as_bytes()).is_err(), "{text:?}");
        check("HTTP/1.1 200 OK\r\n\r\nto the end");
        check("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n");
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcde");
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
        check("rubbish\r\n\r\n");
        assert!(request(b"GET / HTTP/1.1\r\ncontent-length: 18446744073709551615\r\n\r\n").is_err());
    }

    #[test]
    fn request_fields() {
        let text = b"POST /mcp HTTP/1.1\r\nMCP-SESSION-ID: abc\r\ncontent-type: text/event-stream\r\ncontent-length: 2\r\n\r\n{}GET";
        let Ok(Parsed::Complete(message)) = request(text) else { panic!("complete") };
        assert_eq!(message.start, Start::Request(Method::Post));
        assert_eq!(message.session.map(|range| &text[range]), Some(&b"abc"[..]));
        assert!(message.event_stream);
        assert_eq!(message.total_bytes, text.len() - 3);
    }
}
