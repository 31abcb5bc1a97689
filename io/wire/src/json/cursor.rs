//! Random access to JSON bytes by range: members, elements, paths, scalars. Builds no tree; every function is safe on any bytes
//! and any range, and gives an error where a walk finds no JSON.

use super::error::{JsonError, JsonErrorKind};
use super::range::Range32;
use super::simd::{self, Kernel, Lanes};
use super::text;
use super::walk;

/// What a value is, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueKind {
    /// `{...}`
    Object,
    /// `[...]`
    Array,
    /// `"..."`
    String,
    /// Any number.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

/// One member of an object. Both ranges are of whole values: the key's includes its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The key, a JSON string.
    pub key: Range32,
    /// The value.
    pub value: Range32,
}

/// The range of the one value that `bytes` is, without the whitespace around it.
///
/// # Errors
/// Whatever keeps the walk from finding exactly one value.
pub fn root(bytes: &[u8]) -> Result<Range32, JsonError> {
    if bytes.len() >= u32::MAX as usize {
        return Err(JsonError::new(JsonErrorKind::TooLarge, 0));
    }
    let (_, start) = walk::token(bytes, 0)?;
    let value = simd::run(ValueAt { bytes, at: start })?;
    walk::end_of_text(bytes, value.end())?;
    Ok(value)
}

/// The kind of the value at `range`; none if no value starts so, or the range is outside `bytes`.
pub fn kind_of(bytes: &[u8], range: Range32) -> Option<ValueKind> {
    match range.of(bytes)?.first()? {
        b'{' => Some(ValueKind::Object),
        b'[' => Some(ValueKind::Array),
        b'"' => Some(ValueKind::String),
        b'-' | b'0'..=b'9' => Some(ValueKind::Number),
        b't' | b'f' => Some(ValueKind::Bool),
        b'n' => Some(ValueKind::Null),
        _ => None,
    }
}

/// The members of the object at `range`, in order. Ends after the first error.
pub fn members(bytes: &[u8], range: Range32) -> Members<'_> {
    Members { walk: Walk::new(bytes, range, b'{', b'}') }
}

/// The elements of the array at `range`, in order. Ends after the first error.
pub fn elements(bytes: &[u8], range: Range32) -> Elements<'_> {
    Elements { walk: Walk::new(bytes, range, b'[', b']') }
}

/// The value of `key` in the object at `range`; the last one if the key repeats, as most parsers have it.
///
/// # Errors
/// `WrongKind` if the value is no object, and whatever the walk meets: the whole object is read.
pub fn get(bytes: &[u8], range: Range32, key: &str) -> Result<Option<Range32>, JsonError> {
    let mut found = None;
    for member in members(bytes, range) {
        let member = member?;
        if text::raw_eq(bytes, member.key, key) {
            found = Some(member.value);
        }
    }
    Ok(found)
}

/// `get` from object to object along `path`; none where a step is absent.
///
/// # Errors
/// As `get`; `WrongKind` where a step leads through something that is no object.
pub fn get_path(bytes: &[u8], range: Range32, path: &[&str]) -> Result<Option<Range32>, JsonError> {
    let mut at = range;
    for key in path {
        match get(bytes, at, key)? {
            Some(value) => at = value,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// A non-negative integer without fraction or exponent that fits 64 bits.
pub fn as_u64(bytes: &[u8], range: Range32) -> Option<u64> {
    let digits = range.of(bytes)?;
    if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// `true` or `false`.
pub fn as_bool(bytes: &[u8], range: Range32) -> Option<bool> {
    match range.of(bytes)? {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Iterator of [`members`].
#[derive(Debug, Clone)]
pub struct Members<'a> {
    walk: Walk<'a>,
}

impl Iterator for Members<'_> {
    type Item = Result<Member, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.step(|bytes, first, at| simd::run(MemberAt { bytes, first, at }), |member| member.value.end())
    }
}

/// Iterator of [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    walk: Walk<'a>,
}

impl Iterator for Elements<'_> {
    type Item = Result<Range32, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.walk.step(|bytes, _, at| simd::run(ValueAt { bytes, at }), |value| value.end())
    }
}

/// Where an iterator over one container stands.
#[derive(Debug, Clone)]
struct Walk<'a> {
    /// Cut at the end of the container's range, so that no step leaves it.
    bytes: &'a [u8],
    at: usize,
    open: u8,
    close: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Between,
    Done,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8], range: Range32, open: u8, close: u8) -> Self {
        // A range outside the bytes leaves a walk that fails at its first step.
        let bytes = bytes.get(..range.end()).unwrap_or_default();
        Walk { bytes, at: range.start(), open, close, state: State::Start }
    }

    fn step<T>(
        &mut self,
        read: impl Fn(&'a [u8], u8, usize) -> Result<T, JsonError>,
        end: impl Fn(&T) -> usize,
    ) -> Option<Result<T, JsonError>> {
        let item = self.advance().and_then(|next| match next {
            Some((first, at)) => read(self.bytes, first, at).map(Some),
            None => Ok(None),
        });
        match item {
            Ok(Some(item)) => {
                self.at = end(&item);
                Some(Ok(item))
            }
            Ok(None) => {
                self.state = State::Done;
                None
            }
            Err(error) => {
                self.state = State::Done;
                Some(Err(error))
            }
        }
    }

    /// First byte of the next item and its offset; none at the end of the container.
    fn advance(&mut self) -> Result<Option<(u8, usize)>, JsonError> {
        match self.state {
            State::Done => Ok(None),
            State::Start => {
                match self.bytes.get(self.at) {
                    Some(&byte) if byte == self.open => {}
                    Some(_) => return Err(JsonError::new(JsonErrorKind::WrongKind, self.at)),
                    None => return Err(JsonError::new(JsonErrorKind::BadRange, self.at)),
                }
                self.state = State::Between;
                match walk::token(self.bytes, self.at + 1)? {
                    (byte, end) if byte == self.close => self.finish(end + 1),
                    next => Ok(Some(next)),
                }
            }
            State::Between => match walk::another(self.bytes, self.at, self.close)? {
                (true, at) => walk::token(self.bytes, at).map(Some),
                (false, end) => self.finish(end),
            },
        }
    }

    /// A container that ends before its range does was not what the range named.
    fn finish(&mut self, end: usize) -> Result<Option<(u8, usize)>, JsonError> {
        if end == self.bytes.len() {
            return Ok(None);
        }
        Err(JsonError::new(JsonErrorKind::BadRange, end))
    }
}

struct ValueAt<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Kernel for ValueAt<'_> {
    type Output = Result<Range32, JsonError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let (first, at) = walk::token(self.bytes, self.at)?;
        let end = walk::skip_value(lanes, self.bytes, first, at, u32::MAX)?;
        Ok(Range32::walked(at, end))
    }
}

struct MemberAt<'a> {
    bytes: &'a [u8],
    first: u8,
    at: usize,
}

impl Kernel for MemberAt<'_> {
    type Output = Result<Member, JsonError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let key = walk::key(lanes, self.bytes, self.first, self.at)?;
        let end = walk::skip_value(lanes, self.bytes, key.value_first, key.value_at, u32::MAX)?;
        Ok(Member { key: Range32::walked(key.start, key.end), value: Range32::walked(key.value_at, end) })
    }
}
