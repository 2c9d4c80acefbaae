//! A slow method that shares nothing with the sieve: Miller–Rabin with the first twelve primes as bases, which is
//! proven below 3.18e23 (J. Sorenson and J. Webster, 2015).

use std::ops::RangeInclusive;

const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];

pub(crate) fn is_prime(n: u64) -> bool {
    if n < 2 {
        return false;
    }
    if let Some(base) = BASES.into_iter().find(|base| n.is_multiple_of(*base)) {
        return n == base;
    }
    let twos = (n - 1).trailing_zeros();
    BASES.into_iter().all(|base| {
        let mut power = power(base, (n - 1) >> twos, n);
        power == 1
            || (0..twos).any(|_| {
                let is_minus_one = power == n - 1;
                power = multiply(power, power, n);
                is_minus_one
            })
    })
}

pub(crate) fn sum(range: RangeInclusive<u64>) -> u128 {
    range.filter(|&n| is_prime(n)).map(u128::from).sum()
}

fn power(base: u64, exponent: u64, modulus: u64) -> u64 {
    let mut result = 1;
    for bit in (0..64).rev() {
        result = multiply(result, result, modulus);
        if exponent >> bit & 1 == 1 {
            result = multiply(result, base, modulus);
        }
    }
    result
}

fn multiply(a: u64, b: u64, modulus: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64
}
