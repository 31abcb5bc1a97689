//! Writes heads and chunk frames. Whatever is handed in, nothing ambiguous goes out: names, values and targets are
//! checked, and framing headers have one door.

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::headers::Entry;
use super::{Framing, Header, Headers, Hop, Known, scan};

/// The interim response that asks for the body (RFC 9110 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// What follows the data of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Why a head was not written. The caller's doing, never the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The method is not a token.
    Method,
    /// The target holds a byte outside visible ASCII, or nothing.
    Target,
    /// The status is outside 100..=599.
    Status,
    /// A header name is not a token.
    HeaderName,
    /// A header value holds CR, LF, NUL or another control character.
    HeaderValue,
    /// Content-Length or Transfer-Encoding were given as plain headers instead of through `framing`.
    FramingHeader,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EncodeError::Method => "method is not a token",
            EncodeError::Target => "target holds a byte that no target has",
            EncodeError::Status => "status out of range",
            EncodeError::HeaderName => "header name is not a token",
            EncodeError::HeaderValue => "header value holds a control character",
            EncodeError::FramingHeader => "framing header set by hand",
        })
    }
}

impl std::error::Error for EncodeError {}

/// Starts a request head at the end of `dst`: `method SP target SP HTTP/1.1`.
pub fn request_head<'a>(dst: &'a mut BytesMut, method: &str, target: &str) -> HeadWriter<'a> {
    let mut writer = HeadWriter::at_end(dst, method.len() + target.len() + 256);
    if !scan::is_token(method.as_bytes()) {
        writer.fail(EncodeError::Method);
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        writer.fail(EncodeError::Target);
    }
    writer.dst.extend_from_slice(method.as_bytes());
    writer.dst.put_u8(b' ');
    writer.dst.extend_from_slice(target.as_bytes());
    writer.dst.extend_from_slice(b" HTTP/1.1\r\n");
    writer
}

/// Starts a response head at the end of `dst` with the reason phrase that RFC 9110 registers for `status`.
pub fn response_head(dst: &mut BytesMut, status: u16) -> HeadWriter<'_> {
    let mut writer = HeadWriter::at_end(dst, 256);
    match status {
        // By far the most frequent ones, written in one copy.
        200 => writer.dst.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
        202 => writer.dst.extend_from_slice(b"HTTP/1.1 202 Accepted\r\n"),
        100..=599 => {
            let digits = [b'0' + (status / 100) as u8, b'0' + (status / 10 % 10) as u8, b'0' + (status % 10) as u8];
            writer.dst.extend_from_slice(b"HTTP/1.1 ");
            writer.dst.extend_from_slice(&digits);
            writer.dst.put_u8(b' ');
            writer.dst.extend_from_slice(reason_phrase(status).as_bytes());
            writer.dst.extend_from_slice(b"\r\n");
        }
        _ => writer.fail(EncodeError::Status),
    }
    writer
}

/// Writes header lines after a start line. The first error is kept, and [`HeadWriter::finish`] then takes everything
/// back, so that a refused head leaves no byte behind.
#[must_use = "a head ends with `finish`"]
pub struct HeadWriter<'a> {
    dst: &'a mut BytesMut,
    start: usize,
    error: Option<EncodeError>,
}

impl HeadWriter<'_> {
    fn at_end(dst: &mut BytesMut, room: usize) -> HeadWriter<'_> {
        dst.reserve(room);
        HeadWriter { start: dst.len(), dst, error: None }
    }

    fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    /// Adds one header line.
    pub fn header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        if !scan::is_token(name.as_bytes()) {
            self.fail(EncodeError::HeaderName);
        } else if !value.iter().all(|&byte| scan::is_value_byte(byte)) {
            self.fail(EncodeError::HeaderValue);
        } else if is_framing(Known::of(name.as_bytes())) {
            self.fail(EncodeError::FramingHeader);
        } else {
            self.line(name.as_bytes(), value);
        }
        self
    }

    /// Adds one header line when there is a value.
    pub fn header_opt(&mut self, name: &str, value: Option<impl AsRef<[u8]>>) -> &mut Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// Writes the one header that frames the body. [`Framing::None`] and [`Framing::UntilClose`] write nothing.
    pub fn framing(&mut self, framing: Framing) -> &mut Self {
        match framing {
            Framing::Length(length) => {
                self.dst.extend_from_slice(b"content-length: ");
                decimal(self.dst, length);
                self.dst.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => self.dst.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::None | Framing::UntilClose => {}
        }
        self
    }

    /// Copies the end-to-end headers of a received message except the framing ones and those that `skip` names.
    ///
    /// Runs of lines that arrived in plain form go over in one copy; others are written anew without odd white space.
    pub fn forward(&mut self, headers: &Headers, mut skip: impl FnMut(&Header<'_>) -> bool) -> &mut Self {
        let hop = Hop::of(headers);
        let head = &headers.head;
        let mut run = 0..0;
        for (entry, header) in headers.entries.iter().zip(headers.iter()) {
            if is_framing(header.known) || hop.removes(&header) || skip(&header) {
                continue;
            }
            let line = entry.line();
            if entry.tidy && line.start == run.end {
                run.end = line.end;
                continue;
            }
            self.dst.extend_from_slice(&head[run.clone()]);
            run = if entry.tidy { line } else { 0..0 };
            if !entry.tidy {
                self.line(header.name.as_bytes(), header.value);
            }
        }
        self.dst.extend_from_slice(&head[run]);
        self
    }

    /// Ends the head with the empty line and gives its length in bytes.
    pub fn finish(&mut self) -> Result<usize, EncodeError> {
        if let Some(error) = self.error {
            self.dst.truncate(self.start);
            return Err(error);
        }
        self.dst.extend_from_slice(b"\r\n");
        Ok(self.dst.len() - self.start)
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.dst.reserve(name.len() + value.len() + 4);
        self.dst.extend_from_slice(name);
        self.dst.extend_from_slice(b": ");
        self.dst.extend_from_slice(value);
        self.dst.extend_from_slice(b"\r\n");
    }
}

impl Entry {
    /// The range of a tidy line with its CRLF.
    fn line(&self) -> std::ops::Range<usize> {
        self.name as usize..self.value as usize + self.value_len as usize + 2
    }
}

const fn is_framing(known: Known) -> bool {
    matches!(known, Known::ContentLength | Known::TransferEncoding)
}

/// Appends `length` in hexadecimal and CRLF: what precedes the data of a chunk. `length` must not be 0, which would end
/// the body.
pub fn chunk_head(dst: &mut BytesMut, length: usize) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        dst.put_u8(b"0123456789abcdef"[length >> (4 * digit) & 15]);
    }
    dst.extend_from_slice(b"\r\n");
}

fn decimal(dst: &mut BytesMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    dst.extend_from_slice(&digits[at..]);
}

/// The registered reason phrase, empty for a status without one.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{HeadLimits, parse_request};

    fn text(dst: &BytesMut) -> &str {
        std::str::from_utf8(dst).unwrap()
    }

    #[test]
    fn heads() {
        let mut dst = BytesMut::new();
        request_head(&mut dst, "POST", "/x?y").header("host", "a").framing(Framing::Length(120)).finish().unwrap();
        assert_eq!(text(&dst), "POST /x?y HTTP/1.1\r\nhost: a\r\ncontent-length: 120\r\n\r\n");
        dst.clear();
        response_head(&mut dst, 418).framing(Framing::Chunked).finish().unwrap();
        assert_eq!(text(&dst), "HTTP/1.1 418 \r\ntransfer-encoding: chunked\r\n\r\n");
    }

    #[test]
    fn nothing_ambiguous_is_written() {
        let check = |error, write: &dyn Fn(&mut HeadWriter<'_>)| {
            let mut dst = BytesMut::from("kept");
            let mut writer = response_head(&mut dst, 200);
            write(&mut writer);
            assert_eq!(writer.finish(), Err(error));
            assert_eq!(text(&dst), "kept");
        };
        check(EncodeError::HeaderValue, &|w| _ = w.header("a", "x\r\nset-cookie: y"));
        check(EncodeError::HeaderValue, &|w| _ = w.header("a", "x\0"));
        check(EncodeError::HeaderValue, &|w| _ = w.header("a", "x\n"));
        check(EncodeError::HeaderName, &|w| _ = w.header("a b", "x"));
        check(EncodeError::HeaderName, &|w| _ = w.header("", "x"));
        check(EncodeError::FramingHeader, &|w| _ = w.header("Content-Length", "1"));
        let mut dst = BytesMut::new();
        assert_eq!(request_head(&mut dst, "GET", "/ HTTP/1.1\r\nx: y").finish(), Err(EncodeError::Target));
        assert_eq!(request_head(&mut dst, "G T", "/").finish(), Err(EncodeError::Method));
        assert_eq!(response_head(&mut dst, 99).finish(), Err(EncodeError::Status));
        assert!(dst.is_empty());
    }

    #[test]
    fn forwarding_keeps_order_and_tidies() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nConnection: x-b, b\r\nB: 2\r\nX-B: x\r\nX-E:\t 3 \r\nX-C: 4\r\nEmpty:\r\n\
                    Content-Length: 3\r\nX-D: 5\r\n\r\n";
        let parsed = parse_request(&mut BytesMut::from(head), &HeadLimits::default()).unwrap().unwrap();
        let mut dst = BytesMut::new();
        request_head(&mut dst, "POST", "/")
            .forward(&parsed.headers, |header| header.known == Known::Host)
            .framing(parsed.framing)
            .finish()
            .unwrap();
        let expected =
            "POST / HTTP/1.1\r\nX-A: 1\r\nX-E: 3\r\nX-C: 4\r\nEmpty: \r\nX-D: 5\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(text(&dst), expected);
    }

    #[test]
    fn chunk_heads() {
        for (length, expected) in
            [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (65536, "10000\r\n"), (0xabc, "abc\r\n")]
        {
            let mut dst = BytesMut::new();
            chunk_head(&mut dst, length);
            assert_eq!(text(&dst), expected);
        }
    }
}
