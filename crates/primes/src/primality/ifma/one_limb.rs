//! Residues times 2^52 in a single limb.

use std::arch::x86_64::*;

use super::{COUNT, LIMB, Limb, each, inverses, load, power_of_two, select, test};
use crate::primality::lanes::{Lanes, MOST_LANES};

/// Four times a modulus below this fits a limb.
pub(super) const LIMIT: u64 = 1 << 50;

pub(super) struct OneLimb {
    n: Limb,
    inverse: Limb,
    one: Limb,
}

impl Lanes for OneLimb {
    const COUNT: usize = COUNT;

    type Value = Limb;

    #[inline(always)]
    fn new(moduli: &[u64]) -> Self {
        Self { n: load(moduli), inverse: inverses(moduli), one: power_of_two(moduli, LIMB) }
    }

    #[inline(always)]
    fn one(&self) -> Limb {
        self.one
    }

    #[inline(always)]
    fn add(&self, a: Limb, b: Limb) -> Limb {
        each!(|v| add(a[v], b[v], self.n[v]))
    }

    #[inline(always)]
    fn subtract(&self, a: Limb, b: Limb) -> Limb {
        each!(|v| subtract(a[v], b[v], self.n[v]))
    }

    #[inline(always)]
    fn multiply(&self, a: Limb, b: Limb) -> Limb {
        each!(|v| multiply(a[v], b[v], self.n[v], self.inverse[v]))
    }

    #[inline(always)]
    fn select(lanes: u32, a: Limb, b: Limb) -> Limb {
        select(lanes, a, b)
    }

    #[inline(always)]
    fn test(words: &[u64; MOST_LANES], bit: u32) -> u32 {
        test(words, bit)
    }

    #[inline(always)]
    fn equal(&self, a: Limb, b: Limb) -> u32 {
        u32::from_le_bytes(each!(|v| equal(a[v], b[v], self.n[v])))
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: __m512i, b: __m512i, n: __m512i) -> __m512i {
    let sum = _mm512_add_epi64(a, b);
    _mm512_min_epu64(sum, _mm512_sub_epi64(sum, _mm512_add_epi64(n, n)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn subtract(a: __m512i, b: __m512i, n: __m512i) -> __m512i {
    let difference = _mm512_sub_epi64(a, b);
    _mm512_min_epu64(difference, _mm512_add_epi64(difference, _mm512_add_epi64(n, n)))
}

/// `a b / 2^52` modulo `n`: the high limb of the product, less that of the multiple of `n` with the same low limb,
/// plus `n`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(a: __m512i, b: __m512i, n: __m512i, inverse: __m512i) -> __m512i {
    let zero = _mm512_setzero_si512();
    let low = _mm512_madd52lo_epu64(zero, a, b);
    let high = _mm512_madd52hi_epu64(n, a, b);
    let factor = _mm512_madd52lo_epu64(zero, low, inverse);
    _mm512_sub_epi64(high, _mm512_madd52hi_epu64(zero, factor, n))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn equal(a: __m512i, b: __m512i, n: __m512i) -> __mmask8 {
    let a = _mm512_min_epu64(a, _mm512_sub_epi64(a, n));
    let b = _mm512_min_epu64(b, _mm512_sub_epi64(b, n));
    _mm512_cmpeq_epu64_mask(a, b)
}
