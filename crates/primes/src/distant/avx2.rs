//! Eight primes at a time.

use std::arch::x86_64::*;

use super::portable;
use crate::lone::avx2::{LANES, append, lanes_of, load};
use crate::wheel::{HITS, Hit, RESIDUES};

/// Appends the hits of `primes`, none of which is below `len`, in the `len` bytes from `first_byte`.
pub(super) fn find(primes: &[u32], first_byte: u64, len: u32, hits: &mut Vec<Hit>) {
    let (vectors, rest) = primes.as_chunks::<LANES>();
    #[expect(unsafe_code, reason = "a call into AVX2 code")]
    // SAFETY: the caller has found AVX2 on this CPU.
    unsafe {
        find_in_vectors(vectors, first_byte, len, hits);
    }
    portable::find(rest, first_byte, len, hits);
}

#[target_feature(enable = "avx2,popcnt")]
fn find_in_vectors(vectors: &[[u32; LANES]], first_byte: u64, len: u32, hits: &mut Vec<Hit>) {
    let last = _mm256_set1_epi32(len as i32 - 1);
    let table = |of: fn(Hit) -> Hit| -> [__m256i; 8] { std::array::from_fn(|s| load(&HITS.map(|hits| of(hits[s])))) };
    let (carries, bits) = (table(|hit| hit / 8), table(|hit| hit % 8));
    for vector in vectors {
        let primes = load(vector);
        let quotient = thirtieth(primes);
        let residue = _mm256_sub_epi32(primes, _mm256_mullo_epi32(quotient, _mm256_set1_epi32(30)));
        // 17 r / 64 is the place of r among the eight residues.
        let class = _mm256_srli_epi32::<6>(_mm256_mullo_epi32(residue, _mm256_set1_epi32(17)));
        let passed = remainders(primes, first_byte);
        hits.reserve(RESIDUES.len() * LANES);
        for (s, &carry) in carries.iter().enumerate() {
            let offset = _mm256_mullo_epi32(quotient, _mm256_set1_epi32(RESIDUES[s].into()));
            let offset = _mm256_add_epi32(offset, _mm256_permutevar8x32_epi32(carry, class));
            let is_ahead = _mm256_cmpeq_epi32(_mm256_max_epu32(offset, passed), offset);
            // The next period's, if this one's is before the range.
            let period = _mm256_andnot_si256(is_ahead, primes);
            let byte = _mm256_add_epi32(_mm256_sub_epi32(offset, passed), period);
            let found = lanes_of(_mm256_cmpeq_epi32(_mm256_min_epu32(byte, last), byte));
            let hit = _mm256_or_si256(_mm256_slli_epi32::<3>(byte), _mm256_permutevar8x32_epi32(bits[s], class));
            append(hits, hit, found);
        }
    }
}

/// The primes divided by 30, as the high half of a product with the reciprocal.
#[target_feature(enable = "avx2")]
fn thirtieth(primes: __m256i) -> __m256i {
    /// 2^36 / 30, rounded up: exact for every 32-bit dividend.
    const RECIPROCAL: u32 = 0x8888_8889;
    let reciprocal = _mm256_set1_epi64x(RECIPROCAL.into());
    let even = _mm256_srli_epi64::<36>(_mm256_mul_epu32(primes, reciprocal));
    let odd = _mm256_srli_epi64::<36>(_mm256_mul_epu32(_mm256_srli_epi64::<32>(primes), reciprocal));
    _mm256_or_si256(even, _mm256_slli_epi64::<32>(odd))
}

/// `number` modulo each of the primes.
#[target_feature(enable = "avx2")]
fn remainders(primes: __m256i, number: u64) -> __m256i {
    let even = half(_mm256_and_si256(primes, _mm256_set1_epi64x(u32::MAX.into())), number);
    let odd = half(_mm256_srli_epi64::<32>(primes), number);
    _mm256_or_si256(even, _mm256_slli_epi64::<32>(odd))
}

/// The division in floating point, rounded to the nearest, is at most one too large, for its result is below 2^40 and
/// its error far below 1/2; the sign of the remainder shows it.
#[target_feature(enable = "avx2")]
fn half(primes: __m256i, number: u64) -> __m256i {
    const TO_LOW_BITS: f64 = (1u64 << 52) as f64;
    let to_low_bits = _mm256_set1_pd(TO_LOW_BITS);
    let real = _mm256_castsi256_pd(_mm256_or_si256(primes, _mm256_castpd_si256(to_low_bits)));
    let real = _mm256_sub_pd(real, to_low_bits);
    let quotient = _mm256_add_pd(_mm256_div_pd(_mm256_set1_pd(number as f64), real), to_low_bits);
    let quotient = _mm256_xor_si256(_mm256_castpd_si256(quotient), _mm256_castpd_si256(to_low_bits));
    let low = _mm256_mul_epu32(quotient, primes);
    let high = _mm256_mul_epu32(_mm256_srli_epi64::<32>(quotient), primes);
    let product = _mm256_add_epi64(low, _mm256_slli_epi64::<32>(high));
    let rest = _mm256_sub_epi64(_mm256_set1_epi64x(number as i64), product);
    let is_negative = _mm256_cmpgt_epi64(_mm256_setzero_si256(), rest);
    _mm256_add_epi64(rest, _mm256_and_si256(is_negative, primes))
}
