//! Reads a response head and decides its framing from the method that it answers (RFC 9112 4, 6.3).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::head::{self, Fields};
use super::scan::{self, Scan};
use super::{Framing, H1Error, HeadLimits, HeadParser, Headers, Method, ResponseHead, Version};

/// Takes one response head, interim or final, off the front of `buf`, or `None` when it is incomplete.
///
/// `request` is the method that is answered. A connection uses [`HeadParser`], which remembers how far it looked.
pub fn parse_response(
    buf: &mut BytesMut,
    limits: &HeadLimits,
    request: Method,
) -> Result<Option<ResponseHead>, H1Error> {
    HeadParser::default().response(buf, limits, request)
}

pub(super) fn parse(
    parser: &mut HeadParser,
    buf: &mut BytesMut,
    limits: &HeadLimits,
    request: Method,
) -> Result<Option<ResponseHead>, H1Error> {
    match buf.first() {
        None => return Ok(None),
        Some(b'H') => {}
        // Left-over body bytes of an earlier response would otherwise be waited on.
        Some(_) => return Err(H1Error::StatusLine),
    }
    let Some(end) = parser.scan.advance(buf, limits)? else {
        return Ok(None);
    };
    parser.scan = Scan::default();
    read(buf.split_to(end.len).freeze(), end.headers, request).map(Some)
}

fn read(bytes: Bytes, lines: usize, request: Method) -> Result<ResponseHead, H1Error> {
    let mut lines_parsed: SmallVec<[MaybeUninit<httparse::Header<'_>>; 32]> = SmallVec::new();
    lines_parsed.resize(lines, MaybeUninit::uninit());
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let (status, version) = match config.parse_response_with_uninit_headers(&mut parsed, &bytes, &mut lines_parsed) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => match (parsed.code, parsed.version) {
            (Some(status @ 100..=599), Some(0)) => (status, Version::Http10),
            (Some(status @ 100..=599), Some(_)) => (status, Version::Http11),
            _ => return Err(H1Error::StatusLine),
        },
        Ok(_) => return Err(scan::classify(&bytes, None, false)),
        Err(error) => return Err(scan::classify(&bytes, Some(error), false)),
    };
    let (entries, fields) = head::collect(&bytes, parsed.headers)?;
    drop(lines_parsed);
    let (framing, sound) = framing(status, version, &fields, request)?;
    Ok(ResponseHead {
        status,
        version,
        framing,
        keep_alive: sound && framing != Framing::UntilClose && fields.keeps_alive(version),
        headers: Headers { head: bytes, entries },
    })
}

/// The framing, and whether the connection may be used again: a body announced where none can be is a doubt.
fn framing(status: u16, version: Version, fields: &Fields, request: Method) -> Result<(Framing, bool), H1Error> {
    if fields.chunked && version == Version::Http10 {
        return Err(H1Error::TransferEncodingInHttp10);
    }
    let announced = fields.chunked || fields.length.is_some_and(|length| length > 0);
    match status {
        // The final response follows on the same stream: a body here cannot be told from it.
        100..=199 if announced => return Err(H1Error::UnexpectedBody),
        100..=199 => return Ok((Framing::None, status != 101)),
        204 => return Ok((Framing::None, !announced)),
        304 => return Ok((Framing::None, true)),
        // From here on the stream is a tunnel (RFC 9110 9.3.6).
        200..=299 if request == Method::Connect => return Ok((Framing::UntilClose, false)),
        _ if request == Method::Head => return Ok((Framing::None, true)),
        _ => {}
    }
    Ok(match fields.length {
        _ if fields.chunked => (Framing::Chunked, true),
        Some(length) => (Framing::Length(length), true),
        None => (Framing::UntilClose, false),
    })
}
