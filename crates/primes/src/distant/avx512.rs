//! Sixteen primes at a time.

use std::arch::x86_64::*;

use super::portable;
use crate::wheel::{HITS, Hit, RESIDUES};

const LANES: usize = 16;

/// Appends the numbers of the bits of `map`, which are below 2^32.
pub(super) fn collect(map: &[u8], first_byte: u64, primes: &mut Vec<u32>) {
    let (words, rest) = map.as_chunks::<8>();
    #[expect(unsafe_code, reason = "a call into AVX-512 code")]
    // SAFETY: the caller has found AVX-512 on this CPU.
    unsafe {
        collect_words(words, first_byte, primes);
    }
    portable::collect(rest, first_byte + 8 * words.len() as u64, primes);
}

/// Appends the hits of `primes`, none of which is below `len`, in the `len` bytes from `first_byte`.
pub(super) fn find(primes: &[u32], first_byte: u64, len: u32, hits: &mut Vec<Hit>) {
    let (vectors, rest) = primes.as_chunks::<LANES>();
    #[expect(unsafe_code, reason = "a call into AVX-512 code")]
    // SAFETY: the caller has found AVX-512 on this CPU.
    unsafe {
        find_in_vectors(vectors, first_byte, len, hits);
    }
    portable::find(rest, first_byte, len, hits);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
fn collect_words(words: &[[u8; 8]], first_byte: u64, primes: &mut Vec<u32>) {
    /// Distance of each bit's number of a word from the word's first number.
    const OFFSETS: [u8; 64] = {
        let mut offsets = [0; 64];
        let mut bit = 0;
        while bit < 64 {
            offsets[bit] = 30 * (bit / 8) as u8 + RESIDUES[bit % 8];
            bit += 1;
        }
        offsets
    };
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the array is one vector long.
    let offsets = unsafe { _mm512_loadu_si512(OFFSETS.as_ptr().cast()) };
    let mut number = (30 * first_byte) as u32;
    for word in words {
        let mut bits = u64::from_le_bytes(*word);
        let base = _mm512_set1_epi32(number as i32);
        // Sixteen at a time, few words have more.
        while bits != 0 {
            let packed = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(bits, offsets));
            let numbers = _mm512_add_epi32(base, _mm512_cvtepu8_epi32(packed));
            let ones = bits.count_ones() as usize;
            primes.reserve(LANES);
            append(primes, numbers, ones.min(LANES));
            bits = if ones <= LANES { 0 } else { without_lowest(bits, LANES) };
        }
        number = number.wrapping_add(240);
    }
}

fn without_lowest(mut bits: u64, count: usize) -> u64 {
    for _ in 0..count {
        bits &= bits - 1;
    }
    bits
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,popcnt")]
fn find_in_vectors(vectors: &[[u32; LANES]], first_byte: u64, len: u32, hits: &mut Vec<Hit>) {
    let len = _mm512_set1_epi32(len as i32);
    let table = |of: fn(Hit) -> Hit| -> [__m512i; 8] {
        std::array::from_fn(|s| load(&std::array::from_fn(|lane| of(HITS[lane % 8][s]))))
    };
    let (carries, bits) = (table(|hit| hit / 8), table(|hit| hit % 8));
    for vector in vectors {
        let primes = load(vector);
        let Lanes { quotient, class, passed } = Lanes::new(primes, first_byte);
        hits.reserve(RESIDUES.len() * LANES);
        for s in 0..RESIDUES.len() {
            let offset = _mm512_mullo_epi32(quotient, _mm512_set1_epi32(RESIDUES[s].into()));
            let offset = _mm512_add_epi32(offset, _mm512_permutexvar_epi32(class, carries[s]));
            let byte = _mm512_sub_epi32(offset, passed);
            // The next period's, if this one's is before the range.
            let byte = _mm512_mask_add_epi32(byte, _mm512_cmplt_epu32_mask(offset, passed), byte, primes);
            let found = _mm512_cmplt_epu32_mask(byte, len);
            let bit = _mm512_permutexvar_epi32(class, bits[s]);
            let hit = _mm512_or_si512(_mm512_slli_epi32::<3>(byte), bit);
            append(hits, _mm512_maskz_compress_epi32(found, hit), found.count_ones() as usize);
        }
    }
}

/// Primes `30 quotient + RESIDUES[class]` with how many bytes of the period that the range starts in are before it.
struct Lanes {
    quotient: __m512i,
    class: __m512i,
    passed: __m512i,
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
            passed: _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low.passed), high.passed),
        }
    }
}

struct Half {
    quotient: __m256i,
    passed: __m256i,
}

impl Half {
    /// The division in floating point may be one off, for its result is below 2^52; the remainder shows it.
    #[target_feature(enable = "avx512f,avx512dq,avx512vl")]
    fn new(primes: __m256i, first_byte: u64) -> Self {
        let primes = _mm512_cvtepu32_epi64(primes);
        let real = _mm512_cvtepu64_pd(primes);
        let thirtieth = _mm512_mul_pd(_mm512_add_pd(real, _mm512_set1_pd(0.5)), _mm512_set1_pd(1.0 / 30.0));
        let first = _mm512_set1_epi64(first_byte as i64);
        let periods = _mm512_cvttpd_epu64(_mm512_div_pd(_mm512_cvtepu64_pd(first), real));
        let rest = _mm512_sub_epi64(first, _mm512_mullo_epi64(periods, primes));
        let is_negative = _mm512_movepi64_mask(rest);
        let rest = _mm512_mask_add_epi64(rest, is_negative, rest, primes);
        let is_large = _mm512_cmpge_epi64_mask(rest, primes);
        let rest = _mm512_mask_sub_epi64(rest, is_large, rest, primes);
        Self { quotient: _mm512_cvttpd_epu32(thirtieth), passed: _mm512_cvtepi64_epi32(rest) }
    }
}

#[target_feature(enable = "avx512f")]
fn load(words: &[u32; LANES]) -> __m512i {
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the array is one vector long.
    unsafe {
        _mm512_loadu_si512(words.as_ptr().cast())
    }
}

/// Appends the first `count` lanes.
#[target_feature(enable = "avx512f")]
fn append(words: &mut Vec<u32>, lanes: __m512i, count: usize) {
    let len = words.len();
    assert!(words.capacity() - len >= LANES && count <= LANES, "room was reserved");
    #[expect(unsafe_code, reason = "a store into the spare room of a vector")]
    // SAFETY: the vector has room for all lanes, and the first ones are initialised.
    unsafe {
        _mm512_storeu_si512(words.as_mut_ptr().add(len).cast(), lanes);
        words.set_len(len + count);
    }
}
