//! A half-open byte range in a message, small enough that a whole envelope of them stays in a few cache lines.

use std::num::NonZeroU32;
use std::ops::Range;

/// `start..end` in bytes. A range of a JSON value is never empty, so `Option<Range32>` takes eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range32 {
    start: u32,
    end: NonZeroU32,
}

impl Range32 {
    /// None if the range is reversed, ends at zero, or does not fit 32 bits.
    pub fn new(start: usize, end: usize) -> Option<Self> {
        if start > end {
            return None;
        }
        let end = NonZeroU32::new(u32::try_from(end).ok()?)?;
        Some(Range32 { start: start as u32, end })
    }

    /// Offset of the first byte.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Offset behind the last byte.
    pub fn end(self) -> usize {
        self.end.get() as usize
    }

    /// In bytes.
    pub fn len(self) -> usize {
        self.end().saturating_sub(self.start())
    }

    /// True for a range of no bytes; a value's never is.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// For slicing.
    pub fn usize(self) -> Range<usize> {
        self.start()..self.end()
    }

    /// The bytes of the range, or none if it does not lie within `bytes`.
    pub fn of(self, bytes: &[u8]) -> Option<&[u8]> {
        bytes.get(self.usize())
    }

    /// This range moved right by `by` bytes: from an offset in a slice to an offset in the whole.
    pub fn shifted(self, by: usize) -> Option<Self> {
        Range32::new(self.start().checked_add(by)?, self.end().checked_add(by)?)
    }

    /// For offsets that a walk over at most `u32::MAX` bytes produced, `end` behind at least one byte.
    #[inline(always)]
    pub(super) fn walked(start: usize, end: usize) -> Self {
        debug_assert!(start < end && end <= u32::MAX as usize);
        let end = NonZeroU32::new(end as u32).unwrap_or(NonZeroU32::MIN);
        Range32 { start: start as u32, end }
    }
}
