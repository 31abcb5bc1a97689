//! Finds, in one pass over one JSON-RPC message, the members that the gateway routes by. It steps over every other value
//! without reading it, and knows no method, session or policy.

use super::envelope::{Envelope, Id, IdKind};
use super::error::{JsonError, JsonErrorKind};
use super::range::Range32;
use super::simd::{self, Kernel, Lanes, Level};
use super::text;
use super::validate;
use super::walk;

/// What `scan` accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// Nested containers, the message itself being the first. At most [`validate::DEPTH_MAX`].
    pub max_depth: u32,
    /// Messages shorter than this many bytes are validated throughout; longer ones only where the scan reads them.
    /// `u32::MAX` validates all, 0 none. Validation of small values costs a nanosecond for each byte or less, so the default keeps
    /// it near the cost of a system call.
    pub validate_below: u32,
}

impl Default for ScanLimits {
    fn default() -> Self {
        ScanLimits { max_depth: 128, validate_below: 1024 }
    }
}

/// Scans one message. The whole of `bytes` must be one JSON object, whitespace around it allowed.
///
/// For valid JSON the ranges found are those that any parser finds. For text that is not JSON, and is long enough not to be
/// validated, either an error or in-bounds ranges come back.
///
/// # Errors
/// Broken JSON where the scan reads it, an array ([`JsonErrorKind::Batch`]), a scalar, nesting past the limit, and a routing key
/// that is repeated or spelt with escapes: two parsers could then disagree on what the message asks for.
#[inline]
pub fn scan(bytes: &[u8], limits: &ScanLimits) -> Result<Envelope, JsonError> {
    let mut envelope = Envelope::default();
    simd::run(Scan { bytes, limits, envelope: &mut envelope })?;
    Ok(envelope)
}

/// `scan` at a given level, for tests that compare levels.
pub fn scan_at(level: Level, bytes: &[u8], limits: &ScanLimits) -> Result<Envelope, JsonError> {
    let mut envelope = Envelope::default();
    simd::run_at(level, Scan { bytes, limits, envelope: &mut envelope })?;
    Ok(envelope)
}

struct Scan<'a> {
    bytes: &'a [u8],
    limits: &'a ScanLimits,
    /// Filled in place: a copy right after many small writes would wait for them.
    envelope: &'a mut Envelope,
}

impl Kernel for Scan<'_> {
    type Output = Result<(), JsonError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Self::Output {
        let Scan { bytes, limits, envelope } = self;
        if bytes.len() >= u32::MAX as usize {
            return Err(JsonError::new(JsonErrorKind::TooLarge, 0));
        }
        let (first, start) = walk::token(bytes, 0)?;
        match first {
            b'{' => {}
            b'[' => return Err(JsonError::new(JsonErrorKind::Batch, start)),
            b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                validate::check(lanes, bytes, limits.max_depth)?;
                return Err(JsonError::new(JsonErrorKind::NotAnObject, start));
            }
            _ => return Err(JsonError::new(JsonErrorKind::UnexpectedByte, start)),
        }
        if bytes.len() < limits.validate_below as usize {
            validate::check(lanes, bytes, limits.max_depth)?;
        }
        let mut walk = Walk { lanes, bytes, envelope, id: None };
        let end = walk.message(start, limits.max_depth)?;
        walk::end_of_text(bytes, end)?;
        if let Some(range) = walk.id {
            walk.envelope.id = Some(Id { kind: IdKind::of(&bytes[range.usize()]), range });
        }
        walk.envelope.classify(bytes);
        Ok(())
    }
}

/// The objects whose keys are read; the number is how deep they lie.
const TOP: u32 = 1;
const PARAMS: u32 = 2;
const META: u32 = 3;

struct Walk<'a, L> {
    lanes: L,
    bytes: &'a [u8],
    envelope: &'a mut Envelope,
    id: Option<Range32>,
}

impl<L: Lanes> Walk<'_, L> {
    /// Reads the message object that opens at `start`; gives the offset behind it. One loop for all three objects keeps the
    /// code small enough for the registers to last.
    #[inline(always)]
    fn message(&mut self, start: usize, max_depth: u32) -> Result<usize, JsonError> {
        let bytes = self.bytes;
        // Where `params` and `_meta` open, by level.
        let mut opened = [0usize; META as usize + 1];
        let mut level = TOP;
        if level > max_depth {
            return Err(JsonError::new(JsonErrorKind::TooDeep, start));
        }
        let (mut first, mut at) = walk::token(bytes, start + 1)?;
        if first == b'}' {
            return Ok(at + 1);
        }
        loop {
            let key = walk::key(self.lanes, bytes, first, at)?;
            let name = &bytes[key.start + 1..key.end - 1];
            if key.escaped {
                self.refuse_escaped(level, name, key.start)?;
            }
            let (lanes, value_at) = (self.lanes, key.value_at);
            let mut end;
            let slot = self.slot(level, name);
            if let Some(Some(_)) = slot {
                return Err(JsonError::new(JsonErrorKind::DuplicateKey, key.start));
            }
            if key.value_first == b'{' && nests(level, name) {
                if level >= max_depth {
                    return Err(JsonError::new(JsonErrorKind::TooDeep, value_at));
                }
                level += 1;
                opened[level as usize] = value_at;
                (first, at) = walk::token(bytes, value_at + 1)?;
                if first != b'}' {
                    continue;
                }
                end = self.close(level, &opened, at + 1);
                level -= 1;
            } else {
                end = walk::skip_value(lanes, bytes, key.value_first, value_at, max_depth - level)?;
                if let Some(slot) = slot {
                    *slot = Some(Range32::walked(value_at, end));
                }
            }
            loop {
                let (more, next) = walk::another(bytes, end, b'}')?;
                if more {
                    (first, at) = walk::token(bytes, next)?;
                    break;
                }
                if level == TOP {
                    return Ok(next);
                }
                end = self.close(level, &opened, next);
                level -= 1;
            }
        }
    }

    /// Notes where `params` or `_meta` has ended.
    #[inline(always)]
    fn close(&mut self, level: u32, opened: &[usize; META as usize + 1], end: usize) -> usize {
        let range = Some(Range32::walked(opened[level as usize], end));
        if level == PARAMS {
            self.envelope.params = range;
        } else {
            self.envelope.meta = range;
        }
        end
    }

    #[inline(always)]
    fn slot(&mut self, level: u32, name: &[u8]) -> Option<&mut Option<Range32>> {
        match level {
            TOP if name == b"id" => Some(&mut self.id),
            TOP => self.envelope.top_slot(name),
            PARAMS => self.envelope.params_slot(name),
            _ => self.envelope.meta_slot(name),
        }
    }

    /// A key that becomes a routing key once unescaped.
    #[cold]
    #[inline(never)]
    fn refuse_escaped(&mut self, level: u32, name: &[u8], at: usize) -> Result<(), JsonError> {
        let plain = text::unescape(name).map_err(|error| JsonError::new(error.kind, at + 1 + error.offset as usize))?;
        if self.slot(level, plain.as_bytes()).is_some() {
            return Err(JsonError::new(JsonErrorKind::EscapedKey, at));
        }
        Ok(())
    }
}

#[inline(always)]
fn nests(level: u32, name: &[u8]) -> bool {
    level == TOP && name == b"params" || level == PARAMS && name == b"_meta"
}
