//! Byte masks with 32-byte vectors, and the carry-less product that turns quotes into string interiors.

use std::arch::x86_64::{
    __m256i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_set1_epi8, _mm256_cmpeq_epi8,
    _mm256_loadu_si256, _mm256_min_epu8, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8,
};

use super::{BLOCK, Brackets, Kernel, Lanes, Strings};

/// Exists only where the processor has AVX2, PCLMULQDQ, BMI1, BMI2, LZCNT and POPCNT.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    #[inline]
    pub(super) fn detect() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        found.then_some(Avx2(()))
    }

    /// # Safety
    /// `detect` must have succeeded in this process.
    pub(super) unsafe fn assume() -> Avx2 {
        Avx2(())
    }
}

#[inline]
pub(super) fn run<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
    fn with_features<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
        kernel.run(lanes)
    }
    // SAFETY: `lanes` exists, so `detect` has found every feature that is enabled here.
    unsafe { with_features(lanes, kernel) }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn strings(self, block: &[u8; BLOCK]) -> Strings {
        let [low, high] = self.load(block);
        Strings {
            quote: self.mask(self.equal(low, b'"'), self.equal(high, b'"')),
            backslash: self.mask(self.equal(low, b'\\'), self.equal(high, b'\\')),
            control: self.mask(self.control(low), self.control(high)),
        }
    }

    #[inline(always)]
    fn brackets(self, block: &[u8; BLOCK]) -> Brackets {
        let [low, high] = self.load(block);
        let (low, high) = (self.fold(low), self.fold(high));
        Brackets {
            open: self.mask(self.equal(low, b'{'), self.equal(high, b'{')),
            close: self.mask(self.equal(low, b'}'), self.equal(high, b'}')),
        }
    }

    #[inline(always)]
    fn plain_end(self, bytes: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(chunk) = bytes.get(at..).unwrap_or_default().first_chunk::<32>() {
            let special = self.special(chunk);
            if special != 0 {
                return at + special.trailing_zeros() as usize;
            }
            at += 32;
        }
        if at < bytes.len()
            && let Some(chunk) = bytes.last_chunk::<32>()
        {
            let start = bytes.len() - 32;
            let special = self.special(chunk) >> (at - start);
            return if special == 0 { bytes.len() } else { at + special.trailing_zeros() as usize };
        }
        super::plain_end_bytewise(bytes, at)
    }

    #[inline(always)]
    fn prefix_xor(self, bits: u64) -> u64 {
        // SAFETY: `self` proves PCLMULQDQ; the other two are baseline.
        unsafe {
            let product = _mm_clmulepi64_si128(_mm_set_epi64x(0, bits as i64), _mm_set1_epi8(-1), 0);
            _mm_cvtsi128_si64(product) as u64
        }
    }
}

impl Avx2 {
    #[inline(always)]
    fn special(self, chunk: &[u8; 32]) -> u32 {
        let v = self.load32(chunk);
        self.bits(self.or(self.or(self.equal(v, b'"'), self.equal(v, b'\\')), self.control(v)))
    }

    #[inline(always)]
    fn mask(self, low: __m256i, high: __m256i) -> u64 {
        u64::from(self.bits(low)) | u64::from(self.bits(high)) << 32
    }

    #[inline(always)]
    fn load(self, block: &[u8; BLOCK]) -> [__m256i; 2] {
        let (chunks, _) = block.as_chunks::<32>();
        [self.load32(&chunks[0]), self.load32(&chunks[1])]
    }

    #[inline(always)]
    fn load32(self, chunk: &[u8; 32]) -> __m256i {
        // SAFETY: the reference covers 32 readable bytes, the load has no alignment demand, and `self` proves AVX2.
        unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) }
    }

    #[inline(always)]
    fn equal(self, v: __m256i, byte: u8) -> __m256i {
        // SAFETY: `self` proves AVX2; the same holds for each block below.
        unsafe { _mm256_cmpeq_epi8(v, _mm256_set1_epi8(byte as i8)) }
    }

    #[inline(always)]
    fn control(self, v: __m256i) -> __m256i {
        // SAFETY: as in `equal`.
        unsafe { _mm256_cmpeq_epi8(_mm256_min_epu8(v, _mm256_set1_epi8(0x1f)), v) }
    }

    /// Folds `[` onto `{` and `]` onto `}`; no other byte folds onto them.
    #[inline(always)]
    fn fold(self, v: __m256i) -> __m256i {
        // SAFETY: as in `equal`.
        unsafe { _mm256_or_si256(v, _mm256_set1_epi8(0x20)) }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as in `equal`.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn bits(self, v: __m256i) -> u32 {
        // SAFETY: as in `equal`.
        unsafe { _mm256_movemask_epi8(v) as u32 }
    }
}
