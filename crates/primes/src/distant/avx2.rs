//! The portable code, compiled for AVX2.

use super::portable;
use crate::wheel::Hit;

pub(super) fn find(primes: &[u32], first_byte: u64, len: u32, hits: &mut Vec<Hit>) {
    #[expect(unsafe_code, reason = "a call into AVX2 code")]
    // SAFETY: the caller has found AVX2 on this CPU.
    unsafe {
        find_with_avx2(primes, first_byte, len, hits);
    }
}

#[target_feature(enable = "avx2")]
fn find_with_avx2(primes: &[u32], first_byte: u64, len: u32, hits: &mut Vec<Hit>) {
    portable::find(primes, first_byte, len, hits);
}
