//! Byte masks with general registers only: eight bytes at a time, exact per byte, any target and byte order.

use super::{BLOCK, Brackets, Lanes, Strings};

#[derive(Clone, Copy)]
pub(super) struct Portable;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

impl Lanes for Portable {
    #[inline(always)]
    fn strings(self, block: &[u8; BLOCK]) -> Strings {
        Strings {
            quote: mask(block, |word| equal(word, b'"')),
            backslash: mask(block, |word| equal(word, b'\\')),
            control: mask(block, control),
        }
    }

    #[inline(always)]
    fn brackets(self, block: &[u8; BLOCK]) -> Brackets {
        // `[` | 0x20 is `{`, `]` | 0x20 is `}`, and no other byte folds onto them.
        Brackets {
            open: mask(block, |word| equal(word | (ONES * 0x20), b'{')),
            close: mask(block, |word| equal(word | (ONES * 0x20), b'}')),
        }
    }

    #[inline(always)]
    fn plain_end(self, bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(chunk) = bytes.get(at..).unwrap_or_default().first_chunk::<8>() {
            let word = u64::from_le_bytes(*chunk);
            let special = equal(word, b'"') | equal(word, b'\\') | control(word);
            if special != 0 {
                return at + (special.trailing_zeros() / 8) as usize;
            }
            at += 8;
        }
        super::plain_end_bytewise(bytes, at)
    }
}

#[inline(always)]
fn mask(block: &[u8; BLOCK], test: impl Fn(u64) -> u64) -> u64 {
    let (chunks, _) = block.as_chunks::<8>();
    let mut bits = 0;
    for (index, chunk) in chunks.iter().enumerate() {
        let high = test(u64::from_le_bytes(*chunk));
        // Byte i of the low-bit form lands at bit 56 + i, and no two bytes meet there.
        bits |= ((high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (index * 8);
    }
    bits
}

/// The high bit of each byte that equals `byte`.
#[inline(always)]
fn equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (ONES * u64::from(byte));
    !(((difference & !HIGH) + !HIGH) | difference | !HIGH)
}

/// The high bit of each byte below 0x20.
#[inline(always)]
fn control(word: u64) -> u64 {
    !(((word & !HIGH) + ONES * 0x60) | word) & HIGH
}
