//! Lanes of AVX-512 IFMA: 52-bit limbs, one for moduli below 2^50 and two above.
//!
//! Products stay below twice the modulus and sums below four times it, which saves most reductions.

mod one_limb;
mod two_limbs;

use std::arch::x86_64::*;

use self::one_limb::OneLimb;
use self::two_limbs::TwoLimbs;
use super::bpsw;
use super::lanes::{Lanes, MOST_LANES};
use super::scalar::inverse;

/// Vectors side by side, so that one multiplication hides the latency of another.
const VECTORS: usize = 4;
const COUNT: usize = 8 * VECTORS;

const LIMB: u32 = 52;

type Limb = [__m512i; VECTORS];

pub(super) fn retain_primes(numbers: &mut Vec<u64>) {
    #[expect(unsafe_code, reason = "a call into AVX-512 code")]
    // SAFETY: the caller has found AVX-512 on this CPU.
    unsafe {
        if numbers.iter().all(|&n| n < one_limb::LIMIT) {
            retain_primes_in::<OneLimb>(numbers);
        } else {
            retain_primes_in::<TwoLimbs>(numbers);
        }
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn retain_primes_in<L: Lanes>(numbers: &mut Vec<u64>) {
    bpsw::retain::<L>(numbers, |numbers| bpsw::strong_to_base_two::<L>(numbers));
    bpsw::retain::<L>(numbers, |numbers| bpsw::lucas::<L>(numbers));
}

/// An array of the expression's values for each vector.
///
/// Written out, because a closure is compiled without the instructions, and each intrinsic in it becomes a call.
macro_rules! each {
    (|$v:ident| $vector:expr) => {{
        #[expect(unsafe_code, reason = "vector intrinsics")]
        // SAFETY: every use is inlined into `retain_primes_in`, whose caller has found the instructions.
        unsafe {
            [
                {
                    let $v: usize = 0;
                    $vector
                },
                {
                    let $v: usize = 1;
                    $vector
                },
                {
                    let $v: usize = 2;
                    $vector
                },
                {
                    let $v: usize = 3;
                    $vector
                },
            ]
        }
    }};
}
use each;

#[inline(always)]
fn load(words: &[u64]) -> Limb {
    let words: &[u64; COUNT] = words[..COUNT].try_into().expect("a word for each lane");
    each!(|v| _mm512_loadu_si512(words.as_ptr().add(8 * v).cast()))
}

#[inline(always)]
fn inverses(moduli: &[u64]) -> Limb {
    let mut inverses = [0; COUNT];
    for (inverted, &n) in inverses.iter_mut().zip(moduli) {
        *inverted = inverse(n);
    }
    load(&inverses)
}

#[inline(always)]
fn test(words: &[u64; MOST_LANES], bit: u32) -> u32 {
    let words = load(words);
    let masks = each!(|v| _mm512_test_epi64_mask(words[v], _mm512_set1_epi64(1 << bit)));
    u32::from_le_bytes(masks)
}

#[inline(always)]
fn select(lanes: u32, a: Limb, b: Limb) -> Limb {
    let masks = lanes.to_le_bytes();
    each!(|v| _mm512_mask_blend_epi64(masks[v], b[v], a[v]))
}

/// 2^`exponent` modulo each of the moduli, by doubling; `exponent` is above 32.
#[inline(always)]
fn power_of_two(moduli: &[u64], exponent: u32) -> Limb {
    let least = moduli.iter().min().expect("a modulus for each lane").ilog2();
    let n = load(moduli);
    let mut power = each!(|_v| _mm512_set1_epi64(1 << least));
    for _ in least..exponent {
        power = each!(|v| twice(power[v], n[v]));
    }
    power
}

/// `2 a` modulo `n`; `a` is below `n`.
#[inline]
#[target_feature(enable = "avx512f")]
fn twice(a: __m512i, n: __m512i) -> __m512i {
    let room = _mm512_sub_epi64(n, a);
    let wraps = _mm512_cmpge_epu64_mask(a, room);
    _mm512_mask_sub_epi64(_mm512_add_epi64(a, a), wraps, a, room)
}
