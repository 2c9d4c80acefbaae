//! Hits of eight primes at a time.

use std::arch::x86_64::*;

use super::portable;
use crate::wheel::{HITS, Hit, RESIDUES};

pub(crate) const LANES: usize = 8;

/// Appends the hits of `primes` in the `len` bytes from `first_byte`.
pub(super) fn find(primes: &[u32], first_byte: u64, len: usize, hits: &mut Vec<Hit>) {
    let (vectors, rest) = primes.as_chunks::<LANES>();
    #[expect(unsafe_code, reason = "a call into AVX2 code")]
    // SAFETY: the caller has found AVX2 on this CPU.
    unsafe {
        find_in_vectors(vectors, first_byte, len, hits);
    }
    portable::find(rest, first_byte, len, hits);
}

#[target_feature(enable = "avx2,popcnt")]
fn find_in_vectors(vectors: &[[u32; LANES]], first_byte: u64, len: usize, hits: &mut Vec<Hit>) {
    let end = _mm256_set1_epi32(8 * len as i32);
    let last = _mm256_set1_epi32(8 * len as i32 - 1);
    let tables: [__m256i; 8] = std::array::from_fn(|s| load(&HITS.map(|hits| hits[s])));
    for vector in vectors {
        let primes = load(vector);
        let lanes = Lanes::new(primes, first_byte);
        let mut start = _mm256_slli_epi32::<3>(lanes.position);
        while lanes_of(_mm256_cmpgt_epi32(end, start)) != 0 {
            hits.reserve(RESIDUES.len() * LANES);
            for (s, &table) in tables.iter().enumerate() {
                let multiplier = _mm256_set1_epi32(8 * i32::from(RESIDUES[s]));
                let offset = _mm256_add_epi32(start, _mm256_mullo_epi32(lanes.quotient, multiplier));
                let hit = _mm256_add_epi32(offset, _mm256_permutevar8x32_epi32(table, lanes.class));
                append(hits, hit, lanes_of(_mm256_cmpeq_epi32(_mm256_min_epu32(hit, last), hit)));
            }
            start = _mm256_add_epi32(start, _mm256_slli_epi32::<3>(primes));
        }
    }
}

/// Primes `30 quotient + RESIDUES[class]` with the byte at which their period starts, counted from the range's first.
struct Lanes {
    quotient: __m256i,
    class: __m256i,
    position: __m256i,
}

impl Lanes {
    /// Positions are within 2^27 of the range, so 32 bits of the products hold them.
    #[target_feature(enable = "avx2")]
    fn new(primes: __m256i, first_byte: u64) -> Self {
        let low = Half::new(_mm256_castsi256_si128(primes), first_byte);
        let high = Half::new(_mm256_extracti128_si256::<1>(primes), first_byte);
        let quotient = _mm256_set_m128i(high.quotient, low.quotient);
        let residue = _mm256_sub_epi32(primes, _mm256_mullo_epi32(quotient, _mm256_set1_epi32(30)));
        let low_words = _mm256_shuffle_ps::<0b10_00_10_00>(low.periods, high.periods);
        let periods = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_castps_si256(low_words));
        let first = _mm256_set1_epi32(first_byte as i32);
        let before = _mm256_sub_epi32(_mm256_mullo_epi32(periods, primes), first);
        let is_late = _mm256_cmpgt_epi32(before, _mm256_setzero_si256());
        let before = _mm256_sub_epi32(before, _mm256_and_si256(is_late, primes));
        let is_early = _mm256_cmpgt_epi32(_mm256_set1_epi32(1), _mm256_add_epi32(before, primes));
        let before = _mm256_add_epi32(before, _mm256_and_si256(is_early, primes));
        let square = _mm256_sub_epi32(_mm256_mullo_epi32(quotient, primes), first);
        let is_square_ahead = _mm256_cmpgt_epi32(quotient, _mm256_set_m128i(high.bounded, low.bounded));
        Self {
            quotient,
            // 17 r / 64 is the place of r among the eight residues.
            class: _mm256_srli_epi32::<6>(_mm256_mullo_epi32(residue, _mm256_set1_epi32(17))),
            position: _mm256_blendv_epi8(before, square, is_square_ahead),
        }
    }
}

struct Half {
    quotient: __m128i,
    /// The number of periods before the range, in the low half of each double word.
    periods: __m256,
    /// The periods, or the largest number of 31 bits if there are more.
    bounded: __m128i,
}

impl Half {
    /// The division in floating point may be one off, for its result is below 2^52; the remainder shows it.
    #[target_feature(enable = "avx2")]
    fn new(primes: __m128i, first_byte: u64) -> Self {
        const TO_LOW_BITS: f64 = (1u64 << 52) as f64;
        let real = _mm256_cvtepi32_pd(primes);
        let thirtieth = _mm256_mul_pd(_mm256_add_pd(real, _mm256_set1_pd(0.5)), _mm256_set1_pd(1.0 / 30.0));
        let periods = _mm256_floor_pd(_mm256_div_pd(_mm256_set1_pd(first_byte as f64), real));
        Self {
            quotient: _mm256_cvttpd_epi32(thirtieth),
            periods: _mm256_castpd_ps(_mm256_add_pd(periods, _mm256_set1_pd(TO_LOW_BITS))),
            bounded: _mm256_cvttpd_epi32(_mm256_min_pd(periods, _mm256_set1_pd(i32::MAX.into()))),
        }
    }
}

#[target_feature(enable = "avx2")]
pub(crate) fn load(words: &[u32; LANES]) -> __m256i {
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the array is one vector long.
    unsafe {
        _mm256_loadu_si256(words.as_ptr().cast())
    }
}

/// The lanes of `mask` that are set, as bits.
#[target_feature(enable = "avx2")]
pub(crate) fn lanes_of(mask: __m256i) -> usize {
    _mm256_movemask_ps(_mm256_castsi256_ps(mask)) as usize
}

/// The set bits of every byte in order, to move lanes to the front.
static PLACES: [[u32; LANES]; 256] = {
    let mut places = [[0; LANES]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut place) = (0, 0);
        while lane < LANES {
            if mask >> lane & 1 == 1 {
                places[mask][place] = lane as u32;
                place += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    places
};

/// Appends the lanes of `mask`.
#[target_feature(enable = "avx2,popcnt")]
pub(crate) fn append(hits: &mut Vec<Hit>, lanes: __m256i, mask: usize) {
    let len = hits.len();
    let packed = _mm256_permutevar8x32_epi32(lanes, load(&PLACES[mask]));
    assert!(hits.capacity() - len >= LANES, "room was reserved");
    #[expect(unsafe_code, reason = "a store into the spare room of a vector")]
    // SAFETY: the vector has room for all lanes, and as many of them are initialised as the mask has bits.
    unsafe {
        _mm256_storeu_si256(hits.as_mut_ptr().add(len).cast(), packed);
        hits.set_len(len + mask.count_ones() as usize);
    }
}
