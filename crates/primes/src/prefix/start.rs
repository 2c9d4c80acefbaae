//! The values of φ(v, b − 1), one v for each prime b, from which a sieve starts inside the range.
//!
//! φ(v / i, b) = φ(v / i, b − 1) − f(p) φ(v / (i p), b − 1), so φ of v needs those of v / i for the products i of larger
//! primes. Up to v / T, for a T whose numbers fit a map, they are kept; beyond, the map answers while the primes are
//! crossed off in it. Takes about (v / T)² / log² (v / T) queries and one sieve of T numbers: some milliseconds for 10^11.
//! It is the method of Lagarias, Miller and Odlyzko, where all stages are wanted in place of the last.

use std::sync::atomic::{AtomicBool, Ordering};

use super::counted::{BLOCK, Counted, Cursor, LONGEST, Strider, unpack};
use super::tail::{self, Tail};
use super::tiny::{self, FIRST_PRIMES};
use super::weight::{Total, Weight, total};
use crate::level::Level;
use crate::sieve::Stopped;

/// φ(v, b − 1) for each prime of `primes` behind the first seven; `primes` has 0 in front.
pub(crate) fn phi_by_prime<W: Weight>(
    v: u64,
    primes: &[u32],
    level: Level,
    stop: &AtomicBool,
) -> Result<Vec<Total>, Stopped> {
    match level {
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "a call into AVX-512 code")]
        // SAFETY: this level is only taken where the CPU has it.
        Level::Avx512 => unsafe { phi_avx512::<W>(v, primes, stop) },
        _ => phi::<W, tail::Portable>(v, primes, stop),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512bitalg,avx512vl,avx512dq,popcnt,bmi1,bmi2")]
fn phi_avx512<W: Weight>(v: u64, primes: &[u32], stop: &AtomicBool) -> Result<Vec<Total>, Stopped> {
    phi::<W, tail::Avx512>(v, primes, stop)
}

#[inline(always)]
fn phi<W: Weight, T: Tail>(v: u64, primes: &[u32], stop: &AtomicBool) -> Result<Vec<Total>, Stopped> {
    let len = LONGEST.min((v / 30 + 1) as usize).next_multiple_of(BLOCK);
    let mut counted = Counted::<W>::new(len);
    counted.fill::<T>(0);
    // The map has all numbers below this.
    let mapped = 30 * len as u64;
    let kept = v / mapped;
    let Some(&last) = primes.last() else {
        return Ok(Vec::new());
    };
    let mut products = products_up_to(kept.max(1), last);
    let mut values: Vec<Total> = (0..=kept.max(1)).map(|i| v.checked_div(i).map_or(total(0), tiny::phi::<W>)).collect();
    let mut found = Vec::new();
    for &prime in &primes[FIRST_PRIMES + 1..] {
        if stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        found.push(values[1]);
        let p = u64::from(prime);
        products.retain(|product| product.least_factor > prime);
        let mut cursor = Cursor::default();
        for product in &products {
            let i = u64::from(product.number);
            let part = if i * p <= kept {
                values[(i * p) as usize]
            } else {
                total(unpack::<W>(counted.up_to::<T>(v / (i * p), &mut cursor), 0))
            };
            values[i as usize] -= total(W::of(p)) * part;
        }
        counted.strike(&mut Strider::new(prime, 0));
    }
    Ok(found)
}

/// A product of different primes.
#[derive(Clone, Copy, Debug)]
struct Product {
    number: u32,
    least_factor: u32,
}

/// All products of different primes up to `last` that are at most `most`, the largest first, 1 with no factor below any.
fn products_up_to(most: u64, last: u32) -> Vec<Product> {
    let mut least_factors = vec![0u32; most as usize + 1];
    let mut is_product = vec![true; most as usize + 1];
    for number in 2..=most {
        if least_factors[number as usize] != 0 {
            continue;
        }
        for multiple in (number..=most).step_by(number as usize) {
            let least = &mut least_factors[multiple as usize];
            if *least == 0 {
                *least = number as u32;
            }
            if number > u64::from(last) || (multiple / number).is_multiple_of(number) {
                is_product[multiple as usize] = false;
            }
        }
    }
    least_factors[1] = u32::MAX;
    let numbers = (1..=most as u32).rev().filter(|&number| is_product[number as usize]);
    numbers.map(|number| Product { number, least_factor: least_factors[number as usize] }).collect()
}
