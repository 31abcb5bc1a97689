//! Byte masks with the vector instructions that every x86-64 processor has.

use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
};

use super::{BLOCK, Brackets, Lanes, Strings};

/// SSE2 belongs to the x86-64 baseline, so the value proves nothing that the target does not.
#[derive(Clone, Copy)]
pub(super) struct Sse2;

impl Lanes for Sse2 {
    #[inline(always)]
    fn strings(self, block: &[u8; BLOCK]) -> Strings {
        let [a, b, c, d] = load(block);
        Strings {
            quote: mask(equal(a, b'"'), equal(b, b'"'), equal(c, b'"'), equal(d, b'"')),
            backslash: mask(equal(a, b'\\'), equal(b, b'\\'), equal(c, b'\\'), equal(d, b'\\')),
            control: mask(control(a), control(b), control(c), control(d)),
        }
    }

    #[inline(always)]
    fn brackets(self, block: &[u8; BLOCK]) -> Brackets {
        let [a, b, c, d] = load(block);
        let (a, b, c, d) = (fold(a), fold(b), fold(c), fold(d));
        Brackets {
            open: mask(equal(a, b'{'), equal(b, b'{'), equal(c, b'{'), equal(d, b'{')),
            close: mask(equal(a, b'}'), equal(b, b'}'), equal(c, b'}'), equal(d, b'}')),
        }
    }

    #[inline(always)]
    fn plain_end(self, bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(chunk) = bytes.get(at..).unwrap_or_default().first_chunk::<16>() {
            let special = special(load16(chunk));
            if special != 0 {
                return at + special.trailing_zeros() as usize;
            }
            at += 16;
        }
        if at < bytes.len()
            && let Some(chunk) = bytes.last_chunk::<16>()
        {
            let start = bytes.len() - 16;
            let special = special(load16(chunk)) >> (at - start);
            return if special == 0 { bytes.len() } else { at + special.trailing_zeros() as usize };
        }
        super::plain_end_bytewise(bytes, at)
    }
}

#[inline(always)]
fn special(v: __m128i) -> u32 {
    bits(or(or(equal(v, b'"'), equal(v, b'\\')), control(v))) as u32
}

#[inline(always)]
fn mask(a: __m128i, b: __m128i, c: __m128i, d: __m128i) -> u64 {
    bits(a) | bits(b) << 16 | bits(c) << 32 | bits(d) << 48
}

#[inline(always)]
fn load(block: &[u8; BLOCK]) -> [__m128i; 4] {
    let (chunks, _) = block.as_chunks::<16>();
    [load16(&chunks[0]), load16(&chunks[1]), load16(&chunks[2]), load16(&chunks[3])]
}

#[inline(always)]
fn load16(chunk: &[u8; 16]) -> __m128i {
    // SAFETY: the reference covers sixteen readable bytes, and the load has no alignment demand.
    unsafe { _mm_loadu_si128(chunk.as_ptr().cast()) }
}

#[inline(always)]
fn equal(v: __m128i, byte: u8) -> __m128i {
    // SAFETY: SSE2 is part of the x86-64 baseline; the same holds for each block below.
    unsafe { _mm_cmpeq_epi8(v, _mm_set1_epi8(byte as i8)) }
}

#[inline(always)]
fn control(v: __m128i) -> __m128i {
    // SAFETY: as in `equal`.
    unsafe { _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v) }
}

/// Folds `[` onto `{` and `]` onto `}`; no other byte folds onto them.
#[inline(always)]
fn fold(v: __m128i) -> __m128i {
    // SAFETY: as in `equal`.
    unsafe { _mm_or_si128(v, _mm_set1_epi8(0x20)) }
}

#[inline(always)]
fn or(a: __m128i, b: __m128i) -> __m128i {
    // SAFETY: as in `equal`.
    unsafe { _mm_or_si128(a, b) }
}

#[inline(always)]
fn bits(v: __m128i) -> u64 {
    // SAFETY: as in `equal`.
    u64::from(unsafe { _mm_movemask_epi8(v) } as u32)
}
