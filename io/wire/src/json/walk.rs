//! Steps over one JSON value at a time, at one vector level. Knows the grammar just well enough to find where a value ends; what
//! a value means belongs to `scan` and `cursor`, whether it is well formed throughout to `validate`.

use super::error::{JsonError, JsonErrorKind};
use super::range::Range32;
use super::simd::{self, BLOCK, Lanes};
use super::text;

/// Bits 0, 2, 4, ...
const EVEN: u64 = 0x5555_5555_5555_5555;

/// First byte at or behind `at` that is not whitespace, with its offset.
#[inline(always)]
pub(super) fn token(bytes: &[u8], mut at: usize) -> Result<(u8, usize), JsonError> {
    loop {
        match bytes.get(at) {
            // Most are neither space nor control: one comparison for them.
            Some(&byte) if byte > b' ' => return Ok((byte, at)),
            Some(b' ' | b'\n' | b'\r' | b'\t') => at += 1,
            Some(&byte) => return Ok((byte, at)),
            None => return Err(JsonError::new(JsonErrorKind::UnexpectedEnd, at)),
        }
    }
}

/// Refuses anything but whitespace from `at` on.
#[inline(always)]
pub(super) fn end_of_text(bytes: &[u8], at: usize) -> Result<(), JsonError> {
    match token(bytes, at) {
        Err(_) => Ok(()),
        Ok((_, at)) => Err(JsonError::new(JsonErrorKind::TrailingBytes, at)),
    }
}

/// Offset behind a value whose first byte is `first` at `at`. Containers may nest `depth` deep.
#[inline(always)]
pub(super) fn skip_value<L: Lanes>(
    lanes: L,
    bytes: &[u8],
    first: u8,
    at: usize,
    depth: u32,
) -> Result<usize, JsonError> {
    match first {
        b'"' => Ok(skip_string(lanes, bytes, at)?.end),
        b'{' | b'[' => skip_container(lanes, bytes, at, depth),
        b'-' | b'0'..=b'9' => skip_number(bytes, at),
        _ => skip_literal(bytes, first, at),
    }
}

pub(super) struct StringEnd {
    /// Offset behind the closing quote.
    pub end: usize,
    pub escaped: bool,
}

/// The string whose opening quote is at `at`. Escapes are stepped over, not checked.
#[inline(always)]
pub(super) fn skip_string<L: Lanes>(lanes: L, bytes: &[u8], at: usize) -> Result<StringEnd, JsonError> {
    let special = lanes.plain_end(bytes, at + 1);
    match bytes.get(special) {
        Some(b'"') => Ok(StringEnd { end: special + 1, escaped: false }),
        Some(b'\\') => Ok(StringEnd { end: escaped_string_end(lanes, bytes, special)?, escaped: true }),
        Some(_) => Err(JsonError::new(JsonErrorKind::ControlInString, special)),
        None => Err(JsonError::new(JsonErrorKind::UnexpectedEnd, special)),
    }
}

/// `at` is inside a string and not behind a backslash.
#[inline(always)]
fn escaped_string_end<L: Lanes>(lanes: L, bytes: &[u8], mut at: usize) -> Result<usize, JsonError> {
    let mut carry = 0;
    let mut spare = [b' '; BLOCK];
    while at < bytes.len() {
        let (block, shift) = simd::block(bytes, at, &mut spare);
        let masks = lanes.strings(block);
        let unescaped = (masks.quote >> shift) & !escaped(masks.backslash >> shift, &mut carry);
        let ends = unescaped | masks.control >> shift;
        if ends != 0 {
            let end = at + ends.trailing_zeros() as usize;
            return match bytes.get(end) {
                Some(b'"') => Ok(end + 1),
                _ => Err(JsonError::new(JsonErrorKind::ControlInString, end)),
            };
        }
        at += BLOCK;
    }
    Err(JsonError::new(JsonErrorKind::UnexpectedEnd, bytes.len()))
}

/// The bytes that a backslash escapes. `carry` is 1 if the byte before the block was an escaping backslash.
///
/// In a run of backslashes the first, third, ... escape. Adding the start of a run to the run carries it away, which tells the
/// runs that start on an even bit from those that start on an odd one without a loop.
#[inline(always)]
fn escaped(backslash: u64, carry: &mut u64) -> u64 {
    let before = *carry;
    if backslash == 0 {
        *carry = 0;
        return before;
    }
    let runs = backslash & !before;
    let starts = runs & !(runs << 1);
    let even_runs = runs & !runs.wrapping_add(starts & EVEN);
    let escaping = (even_runs & EVEN) | ((runs ^ even_runs) & !EVEN);
    *carry = escaping >> 63;
    (escaping << 1) | before
}

/// The object or array that opens at `at`, strings within it respected. Counts both kinds of bracket as one: a text in which
/// they are crossed is no JSON, and is left to `validate`.
#[inline(always)]
pub(super) fn skip_container<L: Lanes>(lanes: L, bytes: &[u8], at: usize, limit: u32) -> Result<usize, JsonError> {
    let mut pos = at + 1;
    let mut depth = 1u32;
    let mut in_string = 0u64;
    let mut carry = 0u64;
    let mut spare = [b' '; BLOCK];
    if limit == 0 {
        return Err(JsonError::new(JsonErrorKind::TooDeep, at));
    }
    while pos < bytes.len() {
        let (block, shift) = simd::block(bytes, pos, &mut spare);
        let masks = lanes.strings(block);
        let (quote, backslash) = (masks.quote >> shift, masks.backslash >> shift);
        if quote | backslash | carry == 0 && in_string != 0 {
            // Nothing but the inside of a string.
            pos += BLOCK;
            continue;
        }
        let brackets = lanes.brackets(block);
        let (open, close) = (brackets.open >> shift, brackets.close >> shift);
        let quote = quote & !escaped(backslash, &mut carry);
        let inside = lanes.prefix_xor(quote) ^ in_string;
        in_string = ((inside as i64) >> 63) as u64;
        let (open, close) = (open & !inside, close & !inside);
        let (opens, closes) = (open.count_ones(), close.count_ones());
        if closes < depth && depth + opens <= limit {
            // Neither the end nor the limit can be met within this block.
            depth = depth + opens - closes;
            pos += BLOCK;
            continue;
        }
        let mut brackets = open | close;
        while brackets != 0 {
            let bit = brackets.trailing_zeros();
            if open >> bit & 1 == 0 {
                depth -= 1;
                if depth == 0 {
                    return Ok(pos + bit as usize + 1);
                }
            } else if depth == limit {
                return Err(JsonError::new(JsonErrorKind::TooDeep, pos + bit as usize));
            } else {
                depth += 1;
            }
            brackets &= brackets - 1;
        }
        pos += BLOCK;
    }
    Err(JsonError::new(JsonErrorKind::UnexpectedEnd, bytes.len()))
}

/// RFC 8259 section 6, whole. The number must be followed by the end, whitespace or punctuation.
#[inline(always)]
pub(super) fn skip_number(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut pos = at;
    if bytes.get(pos) == Some(&b'-') {
        pos += 1;
    }
    let whole = digits(bytes, pos)?;
    if bytes.get(pos) == Some(&b'0') && whole > pos + 1 {
        return Err(JsonError::new(JsonErrorKind::BadNumber, pos));
    }
    pos = whole;
    if bytes.get(pos) == Some(&b'.') {
        pos = digits(bytes, pos + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(pos) {
        pos += 1;
        if let Some(b'+' | b'-') = bytes.get(pos) {
            pos += 1;
        }
        pos = digits(bytes, pos)?;
    }
    match bytes.get(pos) {
        None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') => Ok(pos),
        Some(_) => Err(JsonError::new(JsonErrorKind::BadNumber, pos)),
    }
}

/// Offset behind one or more digits.
#[inline(always)]
fn digits(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut end = at;
    while let Some(b'0'..=b'9') = bytes.get(end) {
        end += 1;
    }
    if end > at {
        return Ok(end);
    }
    let kind = if at >= bytes.len() { JsonErrorKind::UnexpectedEnd } else { JsonErrorKind::BadNumber };
    Err(JsonError::new(kind, at))
}

#[inline(always)]
pub(super) fn skip_literal(bytes: &[u8], first: u8, at: usize) -> Result<usize, JsonError> {
    let word: &[u8] = match first {
        b't' => b"true",
        b'f' => b"false",
        b'n' => b"null",
        _ => return Err(JsonError::new(JsonErrorKind::UnexpectedByte, at)),
    };
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.starts_with(word) {
        return Ok(at + word.len());
    }
    let kind = if word.starts_with(rest) { JsonErrorKind::UnexpectedEnd } else { JsonErrorKind::BadLiteral };
    Err(JsonError::new(kind, at))
}

/// What stands between two members or elements: true if another follows, false at `close`. Gives the offset behind the byte.
#[inline(always)]
pub(super) fn another(bytes: &[u8], at: usize, close: u8) -> Result<(bool, usize), JsonError> {
    match token(bytes, at)? {
        (b',', at) => Ok((true, at + 1)),
        (byte, at) if byte == close => Ok((false, at + 1)),
        (_, at) => Err(JsonError::new(JsonErrorKind::UnexpectedByte, at)),
    }
}

pub(super) struct Key {
    /// Offset of the opening quote.
    pub start: usize,
    /// Offset behind the closing quote.
    pub end: usize,
    pub escaped: bool,
    pub value_first: u8,
    pub value_at: usize,
}

impl Key {
    /// True if the key decodes to `name`.
    #[inline(always)]
    pub(super) fn is(&self, bytes: &[u8], name: &str) -> bool {
        if self.escaped {
            return text::raw_eq(bytes, Range32::walked(self.start, self.end), name);
        }
        bytes.get(self.start + 1..self.end - 1) == Some(name.as_bytes())
    }
}

/// A key, its colon, and the first byte of its value.
#[inline(always)]
pub(super) fn key<L: Lanes>(lanes: L, bytes: &[u8], first: u8, at: usize) -> Result<Key, JsonError> {
    if first != b'"' {
        return Err(JsonError::new(JsonErrorKind::UnexpectedByte, at));
    }
    let string = skip_string(lanes, bytes, at)?;
    let (colon, colon_at) = token(bytes, string.end)?;
    if colon != b':' {
        return Err(JsonError::new(JsonErrorKind::UnexpectedByte, colon_at));
    }
    let (value_first, value_at) = token(bytes, colon_at + 1)?;
    Ok(Key { start: at, end: string.end, escaped: string.escaped, value_first, value_at })
}
