//! Finds the end of a head line by line and refuses line-level ambiguities, resuming where it stopped; names the
//! reason when httparse refused. Knows lines, not headers.

use super::{H1Error, HeadLimits};

/// Where the search for the end of a head stopped, so that a head that drips in is read once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    at: usize,
    line: usize,
    lines: usize,
}

/// A complete head: its length with the empty line, and its header lines without the start line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeadEnd {
    pub len: usize,
    pub headers: usize,
}

impl Scan {
    /// Looks at the bytes not seen before. `bytes` starts at the start line and only ever grows between calls.
    ///
    /// The verdict depends on the bytes alone, never on how they were cut: every check is made at a position.
    pub(super) fn advance(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<HeadEnd>, H1Error> {
        let window = &bytes[..bytes.len().min(limits.bytes)];
        let from = self.at;
        for offset in memchr::memchr_iter(b'\n', &window[from..]) {
            let lf = from + offset;
            if self.lines == 0 && lf > limits.start_line_bytes + 1 {
                return Err(H1Error::TargetTooLong);
            }
            if lf == 0 || window[lf - 1] != b'\r' {
                return Err(H1Error::BareLf);
            }
            if lf - 1 == self.line {
                return Ok(Some(HeadEnd { len: lf + 1, headers: self.lines.saturating_sub(1) }));
            }
            if self.lines > 0 && matches!(window[self.line], b' ' | b'\t') {
                return Err(H1Error::ObsFold);
            }
            if self.lines > limits.headers {
                return Err(H1Error::TooManyHeaders);
            }
            self.lines += 1;
            self.line = lf + 1;
        }
        self.at = window.len();
        if self.lines == 0 && window.len() > limits.start_line_bytes + 1 {
            return Err(H1Error::TargetTooLong);
        }
        if bytes.len() >= limits.bytes {
            return Err(H1Error::HeadTooLarge);
        }
        Ok(None)
    }
}

/// Why httparse refused a complete head. Runs only on the error path.
pub(super) fn classify(head: &[u8], error: Option<httparse::Error>, request: bool) -> H1Error {
    if head.contains(&0) {
        return H1Error::Nul;
    }
    if memchr::memchr_iter(b'\r', head).any(|at| head.get(at + 1) != Some(&b'\n')) {
        return H1Error::BareCr;
    }
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let start = lines.next().unwrap_or_default();
    match error {
        Some(httparse::Error::HeaderName) => header_name(lines),
        Some(httparse::Error::HeaderValue) => H1Error::HeaderValue,
        Some(httparse::Error::Version) if is_other_version(start, request) => H1Error::Version,
        _ if !request => H1Error::StatusLine,
        Some(httparse::Error::Token) if !start.first().is_some_and(|&byte| is_token_byte(byte)) => H1Error::Method,
        _ => H1Error::RequestLine,
    }
}

fn header_name<'a>(lines: impl Iterator<Item = &'a [u8]>) -> H1Error {
    for line in lines {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if name.len() < line.len() && name.ends_with(b" ") || name.ends_with(b"\t") {
            return H1Error::SpaceBeforeColon;
        }
        if !is_token(name) {
            return H1Error::HeaderName;
        }
    }
    H1Error::HeaderName
}

/// Whether the start line is well formed apart from an HTTP version that is not ours.
fn is_other_version(start: &[u8], request: bool) -> bool {
    let words: Vec<&[u8]> = start.split(|&byte| byte == b' ').collect();
    let version = match (request, words.as_slice()) {
        (true, [_, _, version]) | (false, [version, _, ..]) => *version,
        _ => return false,
    };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether `text` is a non-empty token (RFC 9110 5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| is_token_byte(byte))
}

pub(super) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Whether a header value may hold `byte` (RFC 9110 5.5: visible, obs-text, SP, HTAB).
pub(super) const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};
