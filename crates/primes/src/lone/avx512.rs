//! Hits of sixteen primes at a time.

use std::arch::x86_64::*;

use super::portable;
use crate::wheel::{HITS, Hit, RESIDUES};

const LANES: usize = 16;

/// Appends the hits of `primes` in the `len` bytes from `first_byte`.
pub(super) fn find(primes: &[u32], first_byte: u64, len: usize, hits: &mut Vec<Hit>) {
    let (vectors, rest) = primes.as_chunks::<LANES>();
    #[expect(unsafe_code, reason = "a call into AVX-512 code")]
    // SAFETY: the caller has found AVX-512 on this CPU.
    unsafe {
        find_in_vectors(vectors, first_byte, len, hits);
    }
    portable::find(rest, first_byte, len, hits);
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,popcnt")]
fn find_in_vectors(vectors: &[[u32; LANES]], first_byte: u64, len: usize, hits: &mut Vec<Hit>) {
    let end = _mm512_set1_epi32(8 * len as i32);
    let by_class = |s: usize| HITS.map(|hits| hits[s]);
    let tables: [__m512i; 8] = std::array::from_fn(|s| load(&[by_class(s), by_class(s)].concat()));
    for vector in vectors {
        let primes = load(vector);
        let lanes = Lanes::new(primes, first_byte);
        let mut start = _mm512_slli_epi32::<3>(lanes.position);
        while _mm512_cmplt_epi32_mask(start, end) != 0 {
            hits.reserve(RESIDUES.len() * LANES);
            for (s, &table) in tables.iter().enumerate() {
                let multiplier = _mm512_set1_epi32(8 * i32::from(RESIDUES[s]));
                let offset = _mm512_add_epi32(start, _mm512_mullo_epi32(lanes.quotient, multiplier));
                let hit = _mm512_add_epi32(offset, _mm512_permutexvar_epi32(lanes.class, table));
                append(hits, hit, _mm512_cmplt_epu32_mask(hit, end));
            }
            start = _mm512_add_epi32(start, _mm512_slli_epi32::<3>(primes));
        }
    }
}

/// Primes `30 quotient + RESIDUES[class]` with the byte at which their period starts, counted from the range's first.
struct Lanes {
    quotient: __m512i,
    class: __m512i,
    position: __m512i,
}

impl Lanes {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    fn new(primes: __m512i, first_byte: u64) -> Self {
        let low = Half::new(_mm512_castsi512_si256(primes), first_byte);
        let high = Half::new(_mm512_extracti64x4_epi64::<1>(primes), first_byte);
        let quotient = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low.quotient), high.quotient);
        let residue = _mm512_sub_epi32(primes, _mm512_mullo_epi32(quotient, _mm512_set1_epi32(30)));
        Self {
            quotient,
            // 17 r / 64 is the place of r among the eight residues.
            class: _mm512_srli_epi32::<6>(_mm512_mullo_epi32(residue, _mm512_set1_epi32(17))),
            position: _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low.position), high.position),
        }
    }
}

struct Half {
    quotient: __m256i,
    position: __m256i,
}

impl Half {
    /// The division in floating point may be one off, for its result is below 2^52; the remainder shows it.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    fn new(primes: __m256i, first_byte: u64) -> Self {
        let primes = _mm512_cvtepu32_epi64(primes);
        let real = _mm512_cvtepu64_pd(primes);
        let thirtieth = _mm512_mul_pd(_mm512_add_pd(real, _mm512_set1_pd(0.5)), _mm512_set1_pd(1.0 / 30.0));
        let quotient = _mm512_cvttpd_epu64(thirtieth);
        let first = _mm512_set1_epi64(first_byte as i64);
        let periods = _mm512_cvttpd_epu64(_mm512_div_pd(_mm512_cvtepu64_pd(first), real));
        let before = _mm512_sub_epi64(_mm512_mullo_epi64(periods, primes), first);
        let is_late = _mm512_cmpgt_epi64_mask(before, _mm512_setzero_si512());
        let before = _mm512_mask_sub_epi64(before, is_late, before, primes);
        let next = _mm512_add_epi64(before, primes);
        let is_early = _mm512_cmple_epi64_mask(next, _mm512_setzero_si512());
        let before = _mm512_mask_mov_epi64(before, is_early, next);
        let square = _mm512_sub_epi64(_mm512_mullo_epi64(quotient, primes), first);
        Self {
            quotient: _mm512_cvtepi64_epi32(quotient),
            position: _mm512_cvtepi64_epi32(_mm512_max_epi64(before, square)),
        }
    }
}

#[target_feature(enable = "avx512f")]
fn load(words: &[u32]) -> __m512i {
    let words: &[u32; LANES] = words.try_into().expect("a word for each lane");
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the array is one vector long.
    unsafe {
        _mm512_loadu_si512(words.as_ptr().cast())
    }
}

/// Appends the lanes of `mask`.
#[target_feature(enable = "avx512f,popcnt")]
fn append(hits: &mut Vec<Hit>, lanes: __m512i, mask: __mmask16) {
    let len = hits.len();
    let packed = _mm512_maskz_compress_epi32(mask, lanes);
    assert!(hits.capacity() - len >= LANES, "room was reserved");
    #[expect(unsafe_code, reason = "a store into the spare room of a vector")]
    // SAFETY: the vector has room for all lanes, and as many of them are initialised as the mask has bits.
    unsafe {
        _mm512_storeu_si512(hits.as_mut_ptr().add(len).cast(), packed);
        hits.set_len(len + mask.count_ones() as usize);
    }
}
