//! Estimates of computing time, for leases of workers whose pace is not known yet.

use std::time::Duration;

/// What a worker pays before the first number of a range that ends at `b`, about: it finds the first multiple in the
/// range of each prime up to √b, at some 25 ns each as measured on a server core of 2024.
#[must_use]
pub fn setup_estimate(b: u64) -> Duration {
    let root = f64::from(u32::try_from(b.isqrt()).expect("a root of 64 bits has 32")).max(2.0);
    // About π(√b), by the prime number theorem.
    let primes = root / root.ln();
    Duration::from_secs_f64(primes * 25e-9)
}

/// What a worker takes for `numbers` numbers up to `b`, about: some 0.05 ns each up to 10^9 and four times that for each
/// factor of a thousand above, as measured on a server core of 2024.
#[must_use]
pub fn sieve_estimate(numbers: u64, b: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an estimate: 53 bits are plenty")]
    let (numbers, magnitude) = (numbers as f64, (b as f64 / 1e9).max(1.0));
    Duration::from_secs_f64(numbers * 0.05e-9 * magnitude.powf(0.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_up_grows_with_the_primes_up_to_the_root_of_the_end() {
        let setup_ms = |b| setup_estimate(b).as_secs_f64() * 1e3;
        assert!(setup_ms(0) < 0.001);
        // π(10^6) = 78,498 and π(2^32) = 203,280,221.
        assert!((1.7..2.5).contains(&setup_ms(1_000_000_000_000)), "{}", setup_ms(1_000_000_000_000));
        assert!((4_700.0..6_000.0).contains(&setup_ms(u64::MAX)), "{}", setup_ms(u64::MAX));
    }

    #[test]
    fn the_estimate_for_a_chunk_is_near_what_was_measured_near_and_far() {
        let chunk_ms = |b| sieve_estimate(2_500_000, b).as_secs_f64() * 1e3;
        assert!((0.1..0.15).contains(&chunk_ms(1_000)), "{}", chunk_ms(1_000));
        assert!((0.4..0.6).contains(&chunk_ms(1_000_000_000_000)), "{}", chunk_ms(1_000_000_000_000));
        assert!((7.0..17.0).contains(&chunk_ms(u64::MAX)), "{}", chunk_ms(u64::MAX));
    }
}
