//! The tally over vectors of 64 bytes.
//!
//! Four vectors at a time are first added byte by byte, then as dot products; the index of the group comes from adding
//! the running count once a group (summation by parts).

use std::arch::x86_64::*;

use super::{LONGEST, Moments, portable};

const VECTOR: usize = 64;
const GROUP: usize = 4 * VECTOR;

/// In each 32-bit lane the running count ends at 32 bits a vector and is added once a group.
const _: () = assert!(32 * 4 * (LONGEST / GROUP) * (LONGEST / GROUP) < 1 << 31);

pub(super) fn moments(map: &[u8]) -> Moments {
    let (groups, rest) = map.as_chunks::<GROUP>();
    #[expect(unsafe_code, reason = "a call into AVX-512 code")]
    // SAFETY: the caller has found AVX-512 on this CPU.
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
    #[expect(unsafe_code, reason = "a call into AVX-512 code")]
    // SAFETY: the caller has found AVX-512 on this CPU.
    let ones = unsafe { ones_of_groups(groups) };
    ones + portable::ones(rest)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bitalg")]
fn moments_of_groups(groups: &[[u8; GROUP]]) -> Moments {
    let one = _mm512_set1_epi8(1);
    let lane = lane_numbers();
    let zero = _mm512_setzero_si512();
    let (mut count, mut running, mut lanes, mut vectors) = (zero, zero, zero, zero);
    let mut residues = [zero; 2];
    for group in groups {
        let [a, b, c, d] = load(group);
        let [pa, pb, pc, pd] = [a, b, c, d].map(|v| _mm512_popcnt_epi8(v));
        let last_two = _mm512_add_epi8(pc, pd);
        let last_three = _mm512_add_epi8(pb, last_two);
        let all = _mm512_add_epi8(pa, last_three);
        let by_vector = _mm512_add_epi8(_mm512_add_epi8(pd, last_two), last_three);
        count = _mm512_dpbusd_epi32(count, all, one);
        running = _mm512_add_epi32(running, count);
        lanes = _mm512_dpbusd_epi32(lanes, all, lane);
        vectors = _mm512_dpbusd_epi32(vectors, by_vector, one);
        residues[0] = _mm512_dpbusd_epi32(residues[0], _mm512_add_epi8(residue_sums(a), residue_sums(b)), one);
        residues[1] = _mm512_dpbusd_epi32(residues[1], _mm512_add_epi8(residue_sums(c), residue_sums(d)), one);
    }
    let bits = total(count);
    let groups_before = groups.len() as u64 * bits - total(running);
    Moments {
        bits,
        indices: GROUP as u64 * groups_before + VECTOR as u64 * total(vectors) + total(lanes),
        residues: total(residues[0]) + total(residues[1]),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bitalg")]
fn ones_of_groups(groups: &[[u8; GROUP]]) -> u64 {
    let mut count = _mm512_setzero_si512();
    for group in groups {
        let [a, b, c, d] = load(group).map(|v| _mm512_popcnt_epi8(v));
        let all = _mm512_add_epi8(_mm512_add_epi8(a, b), _mm512_add_epi8(c, d));
        count = _mm512_dpbusd_epi32(count, all, _mm512_set1_epi8(1));
    }
    total(count)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn load(group: &[u8; GROUP]) -> [__m512i; 4] {
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the group holds four vectors, and the load needs no alignment.
    [0, 1, 2, 3].map(|v| unsafe { _mm512_loadu_si512(group.as_ptr().add(v * VECTOR).cast()) })
}

/// The sum of the residues of each byte's bits, at most 120.
#[target_feature(enable = "avx512f,avx512bw")]
fn residue_sums(bytes: __m512i) -> __m512i {
    let low_sums = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 7, 8, 11, 12, 18, 19, 13, 14, 20, 21, 24, 25, 31, 32));
    let high_sums =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 17, 19, 36, 23, 40, 42, 59, 29, 46, 48, 65, 52, 69, 71, 88));
    let nibble = _mm512_set1_epi8(15);
    let low = _mm512_and_si512(bytes, nibble);
    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
    _mm512_add_epi8(_mm512_shuffle_epi8(low_sums, low), _mm512_shuffle_epi8(high_sums, high))
}

#[target_feature(enable = "avx512f,avx512bw")]
fn lane_numbers() -> __m512i {
    let numbers: [u8; VECTOR] = std::array::from_fn(|lane| lane as u8);
    #[expect(unsafe_code, reason = "vector loads take pointers")]
    // SAFETY: the array is one vector long.
    unsafe {
        _mm512_loadu_si512(numbers.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
fn total(lanes: __m512i) -> u64 {
    let low = _mm512_cvtepu32_epi64(_mm512_castsi512_si256(lanes));
    let high = _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64::<1>(lanes));
    _mm512_reduce_add_epi64(_mm512_add_epi64(low, high)) as u64
}
