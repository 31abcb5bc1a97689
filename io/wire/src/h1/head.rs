//! The head of a message as its readers see it, and the resumable parser that makes one. The rules of framing are in
//! `request` and `response`.

use bytes::{Bytes, BytesMut};

use super::headers::{Entries, Entry};
use super::scan::Scan;
use super::target::TargetForm;
use super::{H1Error, Headers, Known, Method, request, response};

/// The limits of one head. What exceeds one is refused, never truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head with the final empty line: 431 beyond.
    pub bytes: usize,
    /// Bytes of the start line without its CRLF: 414 beyond.
    pub start_line_bytes: usize,
    /// Header lines: 431 beyond.
    pub headers: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits { bytes: 64 * 1024, start_line_bytes: 16 * 1024, headers: 100 }
    }
}

/// The protocol version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2, whose heads are read by the rules of HTTP/1.1.
    Http2,
}

impl Version {
    /// As a protocol is written in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// How the end of a body is found (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body and no framing header.
    None,
    /// Exactly this many bytes, possibly none.
    Length(u64),
    /// Chunks up to the last one.
    Chunked,
    /// Everything until the peer closes; responses only.
    UntilClose,
}

impl Framing {
    /// Whether no body byte can follow the head.
    pub const fn is_empty(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }

    /// The exact number of body bytes, when the head tells.
    pub const fn length(self) -> Option<u64> {
        match self {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }
}

/// A checked request head. It shares the buffer in which it arrived and owns no other memory.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method; the text of an extension is in [`RequestHead::method_str`].
    pub method: Method,
    /// The sender's version.
    pub version: Version,
    /// How the body ends: never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the sender wants the connection kept (RFC 9112 9.3).
    pub keep_alive: bool,
    /// Whether the sender waits for `100 Continue` (RFC 9110 10.1.1). Never set for HTTP/1.0.
    pub expect_continue: bool,
    /// All header lines.
    pub headers: Headers,
    pub(super) form: TargetForm,
    pub(super) method_len: u32,
    pub(super) target: Span,
    pub(super) path: Span,
    pub(super) query: Span,
    pub(super) authority: Span,
}

impl RequestHead {
    /// The method's text.
    pub fn method_str(&self) -> &str {
        text(&self.headers.head[..self.method_len as usize])
    }

    /// The request target as it was sent.
    pub fn target(&self) -> &str {
        self.target.str(&self.headers.head)
    }

    /// The form of the target (RFC 9112 3.2).
    pub fn target_form(&self) -> TargetForm {
        self.form
    }

    /// The path without the query: `/` for an absolute target without path, `*` for `OPTIONS *`, empty for CONNECT.
    pub fn path(&self) -> &str {
        match self.form {
            TargetForm::Absolute if self.path.is_empty() => "/",
            _ => self.path.str(&self.headers.head),
        }
    }

    /// What follows the first `?`, when there is one.
    pub fn query(&self) -> Option<&str> {
        if self.query.is_empty() && !self.target().ends_with('?') {
            return None;
        }
        Some(self.query.str(&self.headers.head))
    }

    /// The target in origin form, as it goes to an origin server.
    pub fn path_and_query(&self) -> &str {
        let end = if self.query().is_some() { self.query.end } else { self.path.end };
        let whole = Span { start: self.path.start, end };
        if whole.is_empty() { self.path() } else { whole.str(&self.headers.head) }
    }

    /// Host and port as the client named them: from the target or from Host, which agree. Empty only in HTTP/1.0.
    pub fn authority(&self) -> &str {
        self.authority.str(&self.headers.head)
    }

    /// The bytes of the head, start line to empty line, to rebuild the stream when a connection moves.
    pub fn raw(&self) -> &Bytes {
        &self.headers.head
    }
}

/// A checked response head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 100..=599
    pub status: u16,
    /// The sender's version.
    pub version: Version,
    /// How the body ends, with the rules for HEAD, 1xx, 204 and 304 applied.
    pub framing: Framing,
    /// Whether the connection can carry another request after this message. False on any framing doubt.
    pub keep_alive: bool,
    /// All header lines.
    pub headers: Headers,
}

impl ResponseHead {
    /// Whether a final response is still to come (RFC 9110 15.2). 101 is final.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// The bytes of the head, status line to empty line.
    pub fn raw(&self) -> &Bytes {
        &self.headers.head
    }

    /// The length that Content-Length tells even where no body follows (HEAD, 304).
    pub fn declared_length(&self) -> Option<u64> {
        self.headers.known(Known::ContentLength).and_then(|value| content_length(value).ok())
    }
}

/// Parses heads from a growing buffer and remembers how far it looked.
///
/// Use one per connection and direction; between calls on an incomplete head the buffer may only grow at its end.
#[derive(Clone, Debug, Default)]
pub struct HeadParser {
    pub(super) scan: Scan,
}

impl HeadParser {
    /// Takes a request head off the front of `buf` once it is complete.
    pub fn request(&mut self, buf: &mut BytesMut, limits: &HeadLimits) -> Result<Option<RequestHead>, H1Error> {
        request::parse(self, buf, limits)
    }

    /// Takes a response head, interim or final, off the front of `buf` once it is complete. `request` is the method
    /// that is answered.
    pub fn response(
        &mut self,
        buf: &mut BytesMut,
        limits: &HeadLimits,
        request: Method,
    ) -> Result<Option<ResponseHead>, H1Error> {
        response::parse(self, buf, limits, request)
    }
}

/// A range of the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(super) fn shifted(self, by: u32) -> Span {
        Span { start: self.start + by, end: self.end + by }
    }

    fn str(self, head: &[u8]) -> &str {
        text(&head[self.start as usize..self.end as usize])
    }
}

/// Start lines and hosts are checked to be ASCII before a head exists.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// What the framing-relevant headers of either kind of message say.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub length: Option<u64>,
    pub chunked: bool,
    pub close: bool,
    pub keep_alive: bool,
    pub host: Option<Span>,
    pub expect_continue: bool,
}

/// More connection options than this are refused: forwarding compares each with every header.
const CONNECTION_OPTIONS_MAX: usize = 32;

impl Fields {
    fn add(&mut self, known: Known, value: &[u8], span: Span) -> Result<(), H1Error> {
        match known {
            Known::ContentLength => {
                let length = content_length(value)?;
                if self.length.replace(length).is_some() {
                    return Err(H1Error::DuplicateContentLength);
                }
            }
            Known::TransferEncoding => {
                if self.chunked {
                    return Err(H1Error::DuplicateTransferEncoding);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(H1Error::TransferEncoding);
                }
                self.chunked = true;
            }
            Known::Connection => {
                for (count, option) in super::list(value).enumerate() {
                    if count >= CONNECTION_OPTIONS_MAX {
                        return Err(H1Error::ConnectionOptions);
                    }
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Known::Host => {
                let before = self.host.replace(span);
                before.map_or(Ok(()), |_| Err(H1Error::DuplicateHost))?;
            }
            Known::Expect => self.expect_continue = value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// `1*DIGIT` that fits 64 bits (RFC 9112 6.3): no sign, no list, no white space inside.
fn content_length(value: &[u8]) -> Result<u64, H1Error> {
    if value.contains(&b',') {
        return Err(H1Error::DuplicateContentLength);
    }
    if value.is_empty() || value.len() > 20 {
        return Err(H1Error::ContentLength);
    }
    let mut length: u64 = 0;
    for &byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(H1Error::ContentLength);
        }
        length = length
            .checked_mul(10)
            .and_then(|shifted| shifted.checked_add(u64::from(digit)))
            .ok_or(H1Error::ContentLength)?;
    }
    Ok(length)
}

/// Turns parsed header lines into ranges and gathers the framing fields in the same pass.
pub(super) fn collect(head: &[u8], parsed: &[httparse::Header<'_>]) -> Result<(Entries, Fields), H1Error> {
    let mut entries = Entries::with_capacity(parsed.len());
    let mut fields = Fields::default();
    for header in parsed {
        let name = header.name.as_bytes();
        let name_at = offset(head, name);
        let name_end = name_at + name.len();
        // An empty value may point anywhere.
        let value_at = if header.value.is_empty() { name_end } else { offset(head, header.value) };
        let value_end = value_at + header.value.len();
        if value_end > head.len() || name.len() > usize::from(u16::MAX) {
            return Err(H1Error::HeadTooLarge);
        }
        let known = Known::of(name);
        entries.push(Entry {
            name: name_at as u32,
            value: value_at as u32,
            value_len: header.value.len() as u32,
            name_len: name.len() as u16,
            known,
            tidy: value_at == name_end + 2 && head[name_end + 1] == b' ' && head[value_end..].starts_with(b"\r\n"),
        });
        if known != Known::Other {
            fields.add(known, header.value, Span { start: value_at as u32, end: value_end as u32 })?;
        }
    }
    if fields.chunked && fields.length.is_some() {
        return Err(H1Error::LengthWithTransferEncoding);
    }
    Ok((entries, fields))
}

fn offset(head: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize).min(head.len())
}
