//! The tally over vectors of 32 bytes, arranged as the one over 64.

use std::arch::x86_64::*;

use super::{Moments, portable};

const VECTOR: usize = 32;
const GROUP: usize = 4 * VECTOR;

pub(super) fn moments(map: &[u8]) -> Moments {
    let (groups, rest) = map.as_chunks::<GROUP>();
    #[expect(unsafe_code, reason = "a call into AVX2 code")]
    // SAFETY: the caller has found AVX2 on this CPU.
    let moments = unsafe { moments_of_groups(groups) };
    let tail = portable::moments(rest);
    Moments {
        bits: moments.bits + tail.bits,
        indices: moments.indices + tail.indices + (groups.len() * GROUP) as u64 * tail.bits,
        residues: moments.residues + tail.residues,
    }
}

pub(super) fn ones(map: &[u8]) -> u64 {
    let (groups, rest) = map.as_chunks::<GROUP>();
    #[expect(unsafe_code, reason = "a call into AVX2 code")]
    // SAFETY: the caller has found AVX2 on this CPU.
    let ones = unsafe { ones_of_groups(groups) };
    ones + portable::ones(rest)
}

#[target_feature(enable = "avx2,popcnt")]
fn moments_of_groups(groups: &[[u8; GROUP]]) -> Moments {
    let zero = _mm256_setzero_si256();
    let lane = lane_numbers();
    let (mut count, mut running, mut lanes, mut vectors, mut residues) = (zero, zero, zero, zero, zero);
    for group in groups {
        let split = load(group).map(|v| nibbles(v));
        let [pa, pb, pc, pd] = split.map(|n| look_up(n, POPULATIONS));
        let last_two = _mm256_add_epi8(pc, pd);
        let last_three = _mm256_add_epi8(pb, last_two);
        let all = _mm256_add_epi8(pa, last_three);
        let by_vector = _mm256_add_epi8(_mm256_add_epi8(pd, last_two), last_three);
        count = _mm256_add_epi64(count, _mm256_sad_epu8(all, zero));
        running = _mm256_add_epi64(running, count);
        let by_lane = _mm256_madd_epi16(_mm256_maddubs_epi16(all, lane), _mm256_set1_epi16(1));
        lanes = _mm256_add_epi32(lanes, by_lane);
        vectors = _mm256_add_epi64(vectors, _mm256_sad_epu8(by_vector, zero));
        let [ra, rb, rc, rd] = split.map(|n| look_up(n, RESIDUE_SUMS));
        let (first, second) = (_mm256_add_epi8(ra, rb), _mm256_add_epi8(rc, rd));
        let both = _mm256_add_epi64(_mm256_sad_epu8(first, zero), _mm256_sad_epu8(second, zero));
        residues = _mm256_add_epi64(residues, both);
    }
    let bits = total(count);
    let groups_before = groups.len() as u64 * bits - total(running);
    let (even, odd) = (_mm256_blend_epi32::<0b1010_1010>(lanes, zero), _mm256_srli_epi64::<32>(lanes));
    Moments {
        bits,
        indices: GROUP as u64 * groups_before + VECTOR as u64 * total(vectors) + total(_mm256_add_epi64(even, odd)),
        residues: total(residues),
    }
}

#[target_feature(enable = "avx2,popcnt")]
fn ones_of_groups(groups: &[[u8; GROUP]]) -> u64 {
    let zero = _mm256_setzero_si256();
    let mut count = zero;
    for group in groups {
        let [a, b, c, d] = load(group).map(|v| look_up(nibbles(v), POPULATIONS));
        let all = _mm256_add_epi8(_mm256_add_epi8(a, b), _mm256_add_epi8(c, d));
        count = _mm256_add_epi64(count, _mm256_sad_epu8(all, zero));
    }
    total(count)
}

#[target_feature(enable = "avx2")]
fn load(group: &[u8; GROUP]) -> [__m256i; 4] {
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the group holds four vectors, and the load needs no alignment.
    [0, 1, 2, 3].map(|v| unsafe { _mm256_loadu_si256(group.as_ptr().add(v * VECTOR).cast()) })
}

/// The low and the high four bits of each byte.
#[target_feature(enable = "avx2")]
fn nibbles(bytes: __m256i) -> [__m256i; 2] {
    let nibble = _mm256_set1_epi8(15);
    [_mm256_and_si256(bytes, nibble), _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble)]
}

const POPULATIONS: [[i8; 16]; 2] = [[0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4]; 2];
const RESIDUE_SUMS: [[i8; 16]; 2] = [
    [0, 1, 7, 8, 11, 12, 18, 19, 13, 14, 20, 21, 24, 25, 31, 32],
    [0, 17, 19, 36, 23, 40, 42, 59, 29, 46, 48, 65, 52, 69, 71, 88],
];

/// The sum of the two tables' entries for the nibbles of each byte.
#[target_feature(enable = "avx2")]
fn look_up(nibbles: [__m256i; 2], tables: [[i8; 16]; 2]) -> __m256i {
    let [low, high] = tables.map(|table| {
        #[expect(unsafe_code, reason = "vector loads take pointers")]
        // SAFETY: the table is sixteen bytes long.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        _mm256_broadcastsi128_si256(table)
    });
    _mm256_add_epi8(_mm256_shuffle_epi8(low, nibbles[0]), _mm256_shuffle_epi8(high, nibbles[1]))
}

#[target_feature(enable = "avx2")]
fn lane_numbers() -> __m256i {
    let numbers: [u8; VECTOR] = std::array::from_fn(|lane| lane as u8);
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the array is one vector long.
    unsafe {
        _mm256_loadu_si256(numbers.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn total(lanes: __m256i) -> u64 {
    [
        _mm256_extract_epi64::<0>(lanes),
        _mm256_extract_epi64::<1>(lanes),
        _mm256_extract_epi64::<2>(lanes),
        _mm256_extract_epi64::<3>(lanes),
    ]
    .into_iter()
    .map(|lane| lane as u64)
    .sum()
}
