//! Which vector instructions the JSON walk uses: chosen once, on first use, from what the processor has. Knows bytes and bit
//! masks, nothing of JSON's grammar.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;

use std::sync::atomic::{AtomicU8, Ordering};

/// Bytes examined at a time.
pub(super) const BLOCK: usize = 64;

/// Setting this to `portable`, `sse2` or `avx2` before first use lowers the level; it never raises it past the processor's.
pub const LEVEL_ENV: &str = "AGENTLANE_SIMD";

/// A set of vector instructions, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Eight bytes at a time in a general register; every target.
    Portable = 1,
    /// The baseline of x86-64.
    Sse2 = 2,
    /// 32 bytes at a time, and the instructions that came with it.
    Avx2 = 3,
}

impl Level {
    /// The best level that this processor has.
    pub fn best() -> Level {
        #[cfg(target_arch = "x86_64")]
        {
            if avx2::Avx2::detect().is_some() {
                return Level::Avx2;
            }
            Level::Sse2
        }
        #[cfg(not(target_arch = "x86_64"))]
        Level::Portable
    }

    /// Every level that this processor can run.
    pub fn available() -> impl Iterator<Item = Level> {
        [Level::Portable, Level::Sse2, Level::Avx2].into_iter().filter(|level| *level <= Level::best())
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(0);

/// The level in use.
#[inline]
pub fn level() -> Level {
    match LEVEL.load(Ordering::Relaxed) {
        1 => Level::Portable,
        2 => Level::Sse2,
        3 => Level::Avx2,
        _ => choose(),
    }
}

#[cold]
fn choose() -> Level {
    let wanted = match std::env::var(LEVEL_ENV).as_deref() {
        Ok("portable") => Level::Portable,
        Ok("sse2") => Level::Sse2,
        _ => Level::Avx2,
    };
    let level = wanted.min(Level::best());
    LEVEL.store(level as u8, Ordering::Relaxed);
    level
}

/// One bit per byte of a block, lowest bit first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strings {
    pub quote: u64,
    pub backslash: u64,
    /// Bytes below 0x20.
    pub control: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brackets {
    pub open: u64,
    pub close: u64,
}

/// What one level can do with a block. A value of the type is the proof that the processor has the instructions.
///
/// No closures in here or in a kernel's hot part: a closure is compiled without the level's instructions.
pub(super) trait Lanes: Copy {
    fn strings(self, block: &[u8; BLOCK]) -> Strings;

    /// `{` and `[`, `}` and `]`, wherever they stand.
    fn brackets(self, block: &[u8; BLOCK]) -> Brackets;

    /// Offset of the first quote, backslash or control byte at or behind `from`, or the length of `bytes`.
    fn plain_end(self, bytes: &[u8], from: usize) -> usize;

    /// Each bit becomes the parity of the bits at or below it: turns quotes into "inside a string".
    #[inline(always)]
    fn prefix_xor(self, mut bits: u64) -> u64 {
        for shift in [1, 2, 4, 8, 16, 32] {
            bits ^= bits << shift;
        }
        bits
    }
}

/// Work that is compiled once per level.
pub(super) trait Kernel {
    type Output;
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

#[inline]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            // SAFETY: `choose` alone sets the level, and never above what the processor was seen to have.
            let lanes = unsafe { avx2::Avx2::assume() };
            avx2::run(lanes, kernel)
        }
        lower => run_at(lower, kernel),
    }
}

/// Runs at `level`, or at the best available one below it.
#[inline]
pub(super) fn run_at<K: Kernel>(level: Level, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if level == Level::Avx2
            && let Some(lanes) = avx2::Avx2::detect()
        {
            return avx2::run(lanes, kernel);
        }
        if level >= Level::Sse2 {
            return kernel.run(sse2::Sse2);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = level;
    kernel.run(portable::Portable)
}

/// The block that holds `bytes[from..]`, and how far its masks must be shifted right so that bit 0 is the byte at `from`.
/// The last block of a long input is read again from its end instead of being copied; a short input is copied to `spare`.
/// `from` lies within `bytes`.
#[inline(always)]
pub(super) fn block<'a>(bytes: &'a [u8], from: usize, spare: &'a mut [u8; BLOCK]) -> (&'a [u8; BLOCK], u32) {
    let rest = bytes.get(from..).unwrap_or_default();
    if let Some(block) = rest.first_chunk::<BLOCK>() {
        return (block, 0);
    }
    if let Some(block) = bytes.last_chunk::<BLOCK>() {
        return (block, (BLOCK - rest.len()) as u32);
    }
    spare[..rest.len()].copy_from_slice(rest);
    (spare, 0)
}

/// `Lanes::plain_end` for what is shorter than a vector.
#[inline(always)]
fn plain_end_bytewise(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            return at;
        }
        at += 1;
    }
    bytes.len()
}
