//! Sums and counts of all primes up to a limit without a sieve, as a check that shares nothing with one.

/// The sum of all primes up to `n`, by Lucy_Hedgehog's method (Project Euler, problem 10, 2010): the sum of the numbers
/// up to every `n / i`, from which the multiples of one prime after the other are taken away.
///
/// Takes time in O(n^(3/4)) and 32 √n bytes of memory.
///
/// # Panics
///
/// If `n` is above 2^56, where the memory would pass 8 GiB.
pub fn sum_up_to(n: u64) -> u128 {
    up_to(n, sum_from_two, u128::from)
}

/// The number of primes up to `n`, as [`sum_up_to`] finds their sum.
///
/// # Panics
///
/// If `n` is above 2^56.
pub fn count_up_to(n: u64) -> u128 {
    up_to(n, |n| u128::from(n.saturating_sub(1)), |_| 1)
}

/// Sums a completely multiplicative function over the primes: `from_two` gives its sum over all numbers from 2, `of` its
/// value.
fn up_to(n: u64, from_two: impl Fn(u64) -> u128, of: impl Fn(u64) -> u128) -> u128 {
    assert!(n <= 1 << 56, "n is at most 2^56");
    if n < 2 {
        return 0;
    }
    let root = n.isqrt();
    let quotient = |i: u64| n / i;
    // `small[v]` and `large[i]` hold the sum of what is left of 2 to `v` and to `n / i`.
    let mut small: Vec<u128> = (0..=root).map(&from_two).collect();
    let mut large: Vec<u128> = (0..=root).map(|i| if i == 0 { 0 } else { from_two(quotient(i)) }).collect();
    for p in 2..=root {
        let below = small[p as usize - 1];
        if small[p as usize] == below {
            continue;
        }
        let prime = of(p);
        let square = p * p;
        let last_large = root.min(n / square);
        let split = root / p;
        for i in 1..=last_large.min(split) {
            large[i as usize] -= prime * (large[(i * p) as usize] - below);
        }
        for i in split + 1..=last_large {
            large[i as usize] -= prime * (small[quotient(i * p) as usize] - below);
        }
        for v in (square..=root).rev() {
            small[v as usize] -= prime * (small[(v / p) as usize] - below);
        }
    }
    large[1]
}

fn sum_from_two(n: u64) -> u128 {
    let n = u128::from(n);
    (n * (n + 1) / 2).saturating_sub(1)
}
