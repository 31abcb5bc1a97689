//! JSON strings as text: decoding, comparing without decoding, and encoding. Never allocates where there is no escape.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use super::error::{JsonError, JsonErrorKind};
use super::range::Range32;

/// The text of a string value; `range` includes the quotes. Borrowed unless it holds an escape.
///
/// # Errors
/// `WrongKind` if the value is no string, `BadUtf8`, `BadEscape` (a lone surrogate included), `ControlInString`.
pub fn string(bytes: &[u8], range: Range32) -> Result<Cow<'_, str>, JsonError> {
    let inner = inner(bytes, range)?;
    unescape(inner).map_err(|error| JsonError::new(error.kind, range.start() + 1 + error.offset as usize))
}

/// The bytes between the quotes of a string value.
fn inner(bytes: &[u8], range: Range32) -> Result<&[u8], JsonError> {
    let raw = range.of(bytes).ok_or_else(|| JsonError::new(JsonErrorKind::BadRange, range.start()))?;
    raw.strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
        .ok_or_else(|| JsonError::new(JsonErrorKind::WrongKind, range.start()))
}

/// Decodes the inside of a string. Offsets of errors count from its start.
pub(super) fn unescape(inner: &[u8]) -> Result<Cow<'_, str>, JsonError> {
    let text =
        std::str::from_utf8(inner).map_err(|error| JsonError::new(JsonErrorKind::BadUtf8, error.valid_up_to()))?;
    if let Some(at) = inner.iter().position(|byte| *byte < 0x20) {
        return Err(JsonError::new(JsonErrorKind::ControlInString, at));
    }
    let Some(mut at) = memchr::memchr(b'\\', inner) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut plain = String::with_capacity(inner.len());
    let mut done = 0;
    loop {
        plain.push_str(&text[done..at]);
        let (character, length) = escape(&inner[at..]).ok_or_else(|| JsonError::new(JsonErrorKind::BadEscape, at))?;
        plain.push(character);
        done = at + length;
        match memchr::memchr(b'\\', &inner[done..]) {
            Some(next) => at = done + next,
            None => break,
        }
    }
    plain.push_str(&text[done..]);
    Ok(Cow::Owned(plain))
}

/// The character that an escape at the start of `bytes` stands for, and how many bytes the escape takes.
fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let character = match bytes.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes),
        _ => return None,
    };
    Some((character, 2))
}

fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = hex4(bytes.get(2..6)?)?;
    if !(0xd800..0xdc00).contains(&unit) {
        return Some((char::from_u32(unit)?, 6));
    }
    if bytes.get(6..8)? != b"\\u" {
        return None;
    }
    let low = hex4(bytes.get(8..12)?)?;
    if !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    let scalar = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    Some((char::from_u32(scalar)?, 12))
}

pub(super) fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

/// True if the value is a string that decodes to `text`. Decodes only a value that holds an escape.
#[inline]
pub fn raw_eq(bytes: &[u8], range: Range32, text: &str) -> bool {
    let Ok(inner) = inner(bytes, range) else {
        return false;
    };
    if inner == text.as_bytes() {
        // Equal bytes with a backslash are an escape in one and a character in the other.
        return memchr::memchr(b'\\', inner).is_none();
    }
    inner.len() > text.len()
        && memchr::memchr(b'\\', inner).is_some()
        && unescape(inner).is_ok_and(|plain| plain == text)
}

/// Appends `text` as the inside of a JSON string, without quotes. Escapes what RFC 8259 section 7 demands, and no more.
pub fn escape_into(out: &mut BytesMut, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)) {
        out.put_slice(&rest[..at]);
        let byte = rest[at];
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            _ => {
                out.put_slice(b"\\u00");
                out.put_u8(HEX[usize::from(byte >> 4)]);
                out.put_u8(HEX[usize::from(byte & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}

/// Appends `text` as a JSON string with its quotes.
pub fn quote_into(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    escape_into(out, text);
    out.put_u8(b'"');
}
