//! The count and the sum of the bits of a part of a block, in the instructions of each level.

use super::counted::{BLOCK, Packed, packed};
use super::weight::Weight;
use crate::tally::RESIDUE_SUMS;

/// The count of a query's block, in which the levels differ.
pub(crate) trait Tail: Copy {
    /// The total of the bytes of block `index` before byte `last`, and of the bits of `mask` in byte `last`.
    fn tail<W: Weight>(block: &[u8; BLOCK], index: usize, last: usize, mask: u8) -> Packed;
}

/// Words for the count, and a table for the sum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Tail for Portable {
    #[inline(always)]
    fn tail<W: Weight>(block: &[u8; BLOCK], index: usize, last: usize, mask: u8) -> Packed {
        if W::IS_SUM { sum(block, index, last, mask) } else { packed(count(block, last, mask), 0) }
    }
}

#[inline(always)]
fn count(block: &[u8; BLOCK], last: usize, mask: u8) -> u64 {
    let (words, _) = block.as_chunks::<8>();
    let word = |index: usize| u64::from_le_bytes(words[index]);
    let whole: u32 = (0..last / 8).map(|index| word(index).count_ones()).sum();
    let shift = 8 * (last % 8) as u32;
    let part = word(last / 8) & (u64::from(mask) << shift | ((1 << shift) - 1));
    u64::from(whole + part.count_ones())
}

#[inline(always)]
fn sum(block: &[u8; BLOCK], index: usize, last: usize, mask: u8) -> Packed {
    let (mut count, mut sum) = (0, 0);
    let mut add = |byte: usize, bits: u8| {
        let ones = u64::from(bits.count_ones());
        count += ones;
        sum += 30 * (byte as u64) * ones + u64::from(RESIDUE_SUMS[usize::from(bits)]);
    };
    for (byte, &bits) in block[..last].iter().enumerate() {
        add(byte, bits);
    }
    add(last, block[last] & mask);
    packed(count, sum + 30 * (index * BLOCK) as u64 * count)
}

#[cfg(target_arch = "x86_64")]
pub(crate) use vectors::Avx512;

#[cfg(target_arch = "x86_64")]
mod vectors {
    use std::arch::x86_64::*;

    use super::*;

    /// The block as one vector.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Avx512;

    impl Tail for Avx512 {
        #[inline(always)]
        fn tail<W: Weight>(block: &[u8; BLOCK], index: usize, last: usize, mask: u8) -> Packed {
            if !W::IS_SUM {
                return packed(count(block, last, mask), 0);
            }
            #[expect(unsafe_code, reason = "a call into AVX-512 code")]
            // SAFETY: only code for AVX-512 is compiled for this type.
            unsafe {
                sum(block, index, last, mask)
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bitalg,avx512vl,avx512dq,popcnt,bmi1,bmi2")]
    fn sum(block: &[u8; BLOCK], index: usize, last: usize, mask: u8) -> Packed {
        let before = (1u64 << last) - 1;
        #[expect(unsafe_code, reason = "vector loads take pointers")]
        // SAFETY: the block is one vector long.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(before | 1 << last, block.as_ptr().cast()) };
        let masks = _mm512_mask_set1_epi8(_mm512_set1_epi8(-1), 1 << last, mask as i8);
        let bytes = _mm512_and_si512(bytes, masks);
        let ones = _mm512_popcnt_epi8(bytes);
        let lane = lanes();
        let zero = _mm512_setzero_si512();
        let indices = _mm512_dpbusd_epi32(zero, ones, lane);
        let residues = _mm512_dpbusd_epi32(zero, residue_sums(bytes), _mm512_set1_epi8(1));
        let offsets = _mm512_sub_epi32(_mm512_slli_epi32::<5>(indices), _mm512_slli_epi32::<1>(indices));
        let sum = _mm512_reduce_add_epi32(_mm512_add_epi32(offsets, residues)) as u32;
        let count = _mm512_reduce_add_epi32(_mm512_dpbusd_epi32(zero, ones, _mm512_set1_epi8(1))) as u32;
        packed(count.into(), u64::from(sum) + 30 * (index * BLOCK) as u64 * u64::from(count))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn residue_sums(bytes: __m512i) -> __m512i {
        let low_sums =
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 7, 8, 11, 12, 18, 19, 13, 14, 20, 21, 24, 25, 31, 32));
        let high_sums =
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 17, 19, 36, 23, 40, 42, 59, 29, 46, 48, 65, 52, 69, 71, 88));
        let nibble = _mm512_set1_epi8(15);
        let low = _mm512_and_si512(bytes, nibble);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
        _mm512_add_epi8(_mm512_shuffle_epi8(low_sums, low), _mm512_shuffle_epi8(high_sums, high))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn lanes() -> __m512i {
        const NUMBERS: [u8; BLOCK] = {
            let mut numbers = [0; BLOCK];
            let mut lane = 0;
            while lane < BLOCK {
                numbers[lane] = lane as u8;
                lane += 1;
            }
            numbers
        };
        #[expect(unsafe_code, reason = "vector loads take pointers")]
        // SAFETY: the array is one vector long.
        unsafe {
            _mm512_loadu_si512(NUMBERS.as_ptr().cast())
        }
    }
}
