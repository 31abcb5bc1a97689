//! Reads a request head and decides its framing (RFC 9112 3, 6, 9.3). Knows nothing of what a request is for.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use super::head::{self, Fields, Span};
use super::scan::{self, Scan};
use super::target::{self, TargetForm};
use super::{Framing, H1Error, HeadLimits, HeadParser, Headers, Known, Method, RequestHead, Version};

/// Takes one request head off the front of `buf`, or `None` when it is incomplete.
///
/// Looks at the whole buffer each time; a connection uses [`HeadParser`], which remembers how far it looked.
pub fn parse_request(buf: &mut BytesMut, limits: &HeadLimits) -> Result<Option<RequestHead>, H1Error> {
    HeadParser::default().request(buf, limits)
}

/// Methods in use have at most 17 bytes (UPDATEREDIRECTREF).
const METHOD_BYTES_MAX: usize = 32;

pub(super) fn parse(
    parser: &mut HeadParser,
    buf: &mut BytesMut,
    limits: &HeadLimits,
) -> Result<Option<RequestHead>, H1Error> {
    let Some(leading) = leading_empty_line(buf)? else {
        return Ok(None);
    };
    let Some(end) = parser.scan.advance(&buf[leading..], limits)? else {
        return Ok(None);
    };
    parser.scan = Scan::default();
    buf.advance(leading);
    read(buf.split_to(end.len).freeze(), end.headers).map(Some)
}

/// One empty line before a request line is tolerated (RFC 9112 2.2); anything else must begin a method. Gives the
/// bytes to skip, or `None` when too few have come to tell.
fn leading_empty_line(buf: &[u8]) -> Result<Option<usize>, H1Error> {
    let (skip, first) = match buf {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n'] => return Ok(None),
        [b'\r', b'\n', first, ..] => (2, *first),
        [b'\r', ..] => return Err(H1Error::BareCr),
        [first, ..] => (0, *first),
    };
    match first {
        b'\n' => Err(H1Error::BareLf),
        0 => Err(H1Error::Nul),
        b'\r' => Err(H1Error::RequestLine),
        _ if scan::is_token_byte(first) => Ok(Some(skip)),
        _ => Err(H1Error::Method),
    }
}

fn read(bytes: Bytes, lines: usize) -> Result<RequestHead, H1Error> {
    let mut lines_parsed: SmallVec<[MaybeUninit<httparse::Header<'_>>; 32]> = SmallVec::new();
    lines_parsed.resize(lines, MaybeUninit::uninit());
    let mut parsed = httparse::Request::new(&mut []);
    let (method, target_text, version) = match parsed.parse_with_uninit_headers(&bytes, &mut lines_parsed) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {
            match (parsed.method, parsed.path, parsed.version) {
                (Some(method), Some(target), Some(0)) => (method, target, Version::Http10),
                (Some(method), Some(target), Some(_)) => (method, target, Version::Http11),
                _ => return Err(H1Error::RequestLine),
            }
        }
        Ok(_) => return Err(scan::classify(&bytes, None, true)),
        Err(error) => return Err(scan::classify(&bytes, Some(error), true)),
    };
    if method.len() > METHOD_BYTES_MAX {
        return Err(H1Error::Method);
    }
    let method_len = method.len() as u32;
    let target_at = method_len + 1;
    let target_end = target_at + target_text.len() as u32;
    let method = Method::of(method.as_bytes());
    let target = target::parse(method, target_text.as_bytes())?;
    let (entries, fields) = head::collect(&bytes, parsed.headers)?;
    let framing = framing(method, version, &fields)?;
    let authority = authority(&bytes, version, &target, target_at, &fields)?;
    drop(lines_parsed);
    let headers = Headers { head: bytes, entries };
    let expect_continue = expectation(version, &headers, &fields)?;
    Ok(RequestHead {
        method,
        version,
        framing,
        keep_alive: fields.keeps_alive(version),
        expect_continue,
        form: target.form,
        method_len,
        target: Span { start: target_at, end: target_end },
        path: target.path.shifted(target_at),
        query: target.query.shifted(target_at),
        authority,
        headers,
    })
}

fn framing(method: Method, version: Version, fields: &Fields) -> Result<Framing, H1Error> {
    if fields.chunked && version == Version::Http10 {
        return Err(H1Error::TransferEncodingInHttp10);
    }
    let framing = match fields.length {
        _ if fields.chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::None,
    };
    // Neither has content (RFC 9110 9.3.6, 9.3.8); what follows would be read as a request by one side only.
    if matches!(method, Method::Connect | Method::Trace) && !framing.is_empty() {
        return Err(H1Error::UnexpectedBody);
    }
    Ok(framing)
}

/// Checks Host (RFC 9112 3.2) against the target and gives the one authority of the request.
fn authority(
    head: &[u8],
    version: Version,
    target: &target::Target,
    target_at: u32,
    fields: &Fields,
) -> Result<Span, H1Error> {
    let named = matches!(target.form, TargetForm::Absolute | TargetForm::Authority);
    let from_target = target.authority.shifted(target_at);
    let Some(host) = fields.host else {
        return match version {
            Version::Http10 if named => Ok(from_target),
            Version::Http10 => Ok(Span::default()),
            Version::Http11 | Version::Http2 => Err(H1Error::MissingHost),
        };
    };
    let host_text = &head[host.start as usize..host.end as usize];
    if !target::is_host(host_text) {
        return Err(H1Error::Host);
    }
    let target_text = &head[from_target.start as usize..from_target.end as usize];
    if named && !target::same_authority(target_text, host_text, target.default_port) {
        return Err(H1Error::HostMismatch);
    }
    Ok(host)
}

/// HTTP/1.0 expectations are ignored (RFC 9110 10.1.1), unknown ones refused.
fn expectation(version: Version, headers: &Headers, fields: &Fields) -> Result<bool, H1Error> {
    if version == Version::Http10 {
        return Ok(false);
    }
    let mut expectations = headers.known_all(Known::Expect);
    if expectations.any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(H1Error::Expectation);
    }
    Ok(fields.expect_continue)
}
