//! Strict RFC 8259 validation: is the whole text one JSON value? Builds nothing.

use super::error::{JsonError, JsonErrorKind};
use super::scan::ScanLimits;
use super::simd::{self, Kernel, Lanes, Level};
use super::text::hex4;
use super::walk;

/// The deepest nesting that any limit can allow: the open containers are kept as one bit each, on the stack.
pub const DEPTH_MAX: u32 = 1024;

/// True to RFC 8259 throughout: grammar, UTF-8, escapes, numbers. A lone surrogate escape passes, as section 8.2 allows; a key
/// may repeat, as section 4 allows; a number may be of any size.
///
/// # Errors
/// The first offence and its offset; one that is not UTF-8 is found before any other. `max_depth` of the limits is held.
pub fn validate(bytes: &[u8], limits: &ScanLimits) -> Result<(), JsonError> {
    simd::run(Validate { bytes, max_depth: limits.max_depth })
}

/// `validate` at a given level, for tests that compare levels.
pub fn validate_at(level: Level, bytes: &[u8], limits: &ScanLimits) -> Result<(), JsonError> {
    simd::run_at(level, Validate { bytes, max_depth: limits.max_depth })
}

struct Validate<'a> {
    bytes: &'a [u8],
    max_depth: u32,
}

impl Kernel for Validate<'_> {
    type Output = Result<(), JsonError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        check(lanes, self.bytes, self.max_depth)
    }
}

#[inline(always)]
pub(super) fn check<L: Lanes>(lanes: L, bytes: &[u8], max_depth: u32) -> Result<(), JsonError> {
    if bytes.len() >= u32::MAX as usize {
        return Err(JsonError::new(JsonErrorKind::TooLarge, 0));
    }
    if let Err(error) = std::str::from_utf8(bytes) {
        return Err(JsonError::new(JsonErrorKind::BadUtf8, error.valid_up_to()));
    }
    let mut open = Open { bits: [0; (DEPTH_MAX / 64) as usize], depth: 0, limit: max_depth.min(DEPTH_MAX) };
    let (mut first, mut at) = walk::token(bytes, 0)?;
    loop {
        // Down to a scalar or an empty container.
        let mut end = match first {
            b'{' | b'[' => {
                open.push(first == b'{', at)?;
                let (inner, inner_at) = walk::token(bytes, at + 1)?;
                match (first, inner) {
                    (b'{', b'}') | (b'[', b']') => {
                        open.depth -= 1;
                        inner_at + 1
                    }
                    (b'{', _) => {
                        (first, at) = member_value(lanes, bytes, inner, inner_at)?;
                        continue;
                    }
                    _ => {
                        (first, at) = (inner, inner_at);
                        continue;
                    }
                }
            }
            b'"' => string(lanes, bytes, at)?,
            b'-' | b'0'..=b'9' => walk::skip_number(bytes, at)?,
            _ => walk::skip_literal(bytes, first, at)?,
        };
        // Up through every container that ends here, then on to the next value.
        loop {
            if open.depth == 0 {
                return walk::end_of_text(bytes, end);
            }
            let in_object = open.in_object();
            let (more, next) = walk::another(bytes, end, if in_object { b'}' } else { b']' })?;
            if more {
                (first, at) = walk::token(bytes, next)?;
                if in_object {
                    (first, at) = member_value(lanes, bytes, first, at)?;
                }
                break;
            }
            open.depth -= 1;
            end = next;
        }
    }
}

/// The containers around the current value: one bit each, set for an object.
struct Open {
    bits: [u64; (DEPTH_MAX / 64) as usize],
    depth: u32,
    limit: u32,
}

impl Open {
    #[inline(always)]
    fn push(&mut self, object: bool, at: usize) -> Result<(), JsonError> {
        if self.depth >= self.limit {
            return Err(JsonError::new(JsonErrorKind::TooDeep, at));
        }
        let (word, bit) = ((self.depth / 64) as usize, self.depth % 64);
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        Ok(())
    }

    #[inline(always)]
    fn in_object(&self) -> bool {
        let top = self.depth - 1;
        self.bits[(top / 64) as usize] >> (top % 64) & 1 == 1
    }
}

/// A whole key and its colon; gives the first byte of the value.
#[inline(always)]
fn member_value<L: Lanes>(lanes: L, bytes: &[u8], first: u8, at: usize) -> Result<(u8, usize), JsonError> {
    if first != b'"' {
        return Err(JsonError::new(JsonErrorKind::UnexpectedByte, at));
    }
    let end = string(lanes, bytes, at)?;
    match walk::token(bytes, end)? {
        (b':', colon) => walk::token(bytes, colon + 1),
        (_, at) => Err(JsonError::new(JsonErrorKind::UnexpectedByte, at)),
    }
}

/// The string that opens at `at`, its escapes checked; gives the offset behind it.
#[inline(always)]
fn string<L: Lanes>(lanes: L, bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut pos = at + 1;
    loop {
        pos = lanes.plain_end(bytes, pos);
        match bytes.get(pos) {
            Some(b'"') => return Ok(pos + 1),
            Some(b'\\') => pos = escape_end(bytes, pos)?,
            Some(_) => return Err(JsonError::new(JsonErrorKind::ControlInString, pos)),
            None => return Err(JsonError::new(JsonErrorKind::UnexpectedEnd, pos)),
        }
    }
}

#[inline(always)]
fn escape_end(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => match bytes.get(at + 2..at + 6).map(hex4) {
            Some(Some(_)) => Ok(at + 6),
            Some(None) => Err(JsonError::new(JsonErrorKind::BadEscape, at)),
            None => Err(JsonError::new(JsonErrorKind::UnexpectedEnd, bytes.len())),
        },
        Some(_) => Err(JsonError::new(JsonErrorKind::BadEscape, at)),
        None => Err(JsonError::new(JsonErrorKind::UnexpectedEnd, bytes.len())),
    }
}
