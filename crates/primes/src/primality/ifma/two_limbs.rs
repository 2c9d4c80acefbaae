//! Residues times 2^104 in a low and a high limb.

use std::arch::x86_64::*;

use super::{COUNT, LIMB, Limb, each, inverses, load, power_of_two, select, test};
use crate::primality::lanes::{Lanes, MOST_LANES};

pub(super) struct TwoLimbs {
    n: Limb,
    inverse: Limb,
    one: [Limb; 2],
}

impl Lanes for TwoLimbs {
    const COUNT: usize = COUNT;

    type Value = [Limb; 2];

    #[inline(always)]
    fn new(moduli: &[u64]) -> Self {
        let one = power_of_two(moduli, 2 * LIMB);
        Self { n: load(moduli), inverse: inverses(moduli), one: separate(each!(|v| split(one[v]))) }
    }

    #[inline(always)]
    fn one(&self) -> Self::Value {
        self.one
    }

    #[inline(always)]
    fn add(&self, a: Self::Value, b: Self::Value) -> Self::Value {
        separate(each!(|v| add([a[0][v], a[1][v]], [b[0][v], b[1][v]])))
    }

    #[inline(always)]
    fn subtract(&self, a: Self::Value, b: Self::Value) -> Self::Value {
        separate(each!(|v| subtract([a[0][v], a[1][v]], [b[0][v], b[1][v]], self.n[v])))
    }

    #[inline(always)]
    fn multiply(&self, a: Self::Value, b: Self::Value) -> Self::Value {
        separate(each!(|v| multiply([a[0][v], a[1][v]], [b[0][v], b[1][v]], self.n[v], self.inverse[v])))
    }

    #[inline(always)]
    fn select(lanes: u32, a: Self::Value, b: Self::Value) -> Self::Value {
        [select(lanes, a[0], b[0]), select(lanes, a[1], b[1])]
    }

    #[inline(always)]
    fn test(words: &[u64; MOST_LANES], bit: u32) -> u32 {
        test(words, bit)
    }

    #[inline(always)]
    fn equal(&self, a: Self::Value, b: Self::Value) -> u32 {
        let masks = each!(|v| equal([a[0][v], a[1][v]], [b[0][v], b[1][v]], self.n[v]));
        u32::from_le_bytes(masks)
    }
}

/// All low limbs and all high ones.
#[inline(always)]
fn separate([a, b, c, d]: [[__m512i; 2]; 4]) -> [Limb; 2] {
    [[a[0], b[0], c[0], d[0]], [a[1], b[1], c[1], d[1]]]
}

/// The limbs of 64-bit numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn split(words: __m512i) -> [__m512i; 2] {
    [low_bits(words), _mm512_srli_epi64::<LIMB>(words)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn low_bits(words: __m512i) -> __m512i {
    _mm512_and_si512(words, _mm512_set1_epi64((1 << LIMB) - 1))
}

/// Brings the low limb between 0 and 2^52, where it may have been above or negative.
#[inline]
#[target_feature(enable = "avx512f")]
fn carry([low, high]: [__m512i; 2]) -> [__m512i; 2] {
    [low_bits(low), _mm512_add_epi64(high, _mm512_srai_epi64::<LIMB>(low))]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 2] {
    carry([_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1])])
}

/// `a − b + 2 n`.
#[inline]
#[target_feature(enable = "avx512f")]
fn subtract(a: [__m512i; 2], b: [__m512i; 2], n: __m512i) -> [__m512i; 2] {
    let [low, high] = split(n);
    let low = _mm512_add_epi64(_mm512_sub_epi64(a[0], b[0]), _mm512_add_epi64(low, low));
    let high = _mm512_add_epi64(_mm512_sub_epi64(a[1], b[1]), _mm512_add_epi64(high, high));
    carry([low, high])
}

/// Whether `a − b`, both below `2 n`, is −n, 0 or n.
#[inline]
#[target_feature(enable = "avx512f")]
fn equal(a: [__m512i; 2], b: [__m512i; 2], n: __m512i) -> __mmask8 {
    let difference = subtract(a, b, n);
    let one = split(n);
    let two = add(one, one);
    let three = add(two, one);
    same(difference, one) | same(difference, two) | same(difference, three)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn same(a: [__m512i; 2], b: [__m512i; 2]) -> __mmask8 {
    _mm512_cmpeq_epu64_mask(a[0], b[0]) & _mm512_cmpeq_epu64_mask(a[1], b[1])
}

/// `a b / 2^104` modulo `n`, below `2 n` for factors below 2^67: the two high limbs of the product, less those of the
/// multiples of `n` that have its low limbs, plus `n`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply(a: [__m512i; 2], b: [__m512i; 2], n: __m512i, inverse: __m512i) -> [__m512i; 2] {
    let n = split(n);
    let zero = _mm512_setzero_si512();
    let lowest = _mm512_madd52lo_epu64(zero, a[0], b[0]);
    let cross = _mm512_madd52lo_epu64(_mm512_madd52hi_epu64(zero, a[0], b[0]), a[0], b[1]);
    let middle = _mm512_madd52lo_epu64(cross, a[1], b[0]);
    let cross = _mm512_madd52hi_epu64(_mm512_madd52lo_epu64(n[0], a[1], b[1]), a[0], b[1]);
    let high = _mm512_madd52hi_epu64(cross, a[1], b[0]);

    let first = _mm512_madd52lo_epu64(zero, lowest, inverse);
    let less = _mm512_madd52lo_epu64(_mm512_madd52hi_epu64(zero, first, n[0]), first, n[1]);
    let middle = _mm512_sub_epi64(middle, less);
    let less = _mm512_madd52hi_epu64(zero, first, n[1]);

    let second = _mm512_madd52lo_epu64(zero, middle, inverse);
    let carried = _mm512_sub_epi64(middle, _mm512_madd52lo_epu64(zero, second, n[0]));
    let less = _mm512_madd52lo_epu64(_mm512_madd52hi_epu64(less, second, n[0]), second, n[1]);
    let low = _mm512_add_epi64(_mm512_sub_epi64(high, less), _mm512_srai_epi64::<LIMB>(carried));
    carry([low, _mm512_sub_epi64(n[1], _mm512_madd52hi_epu64(zero, second, n[1]))])
}
