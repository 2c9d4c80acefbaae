//! What a coordinator asks of a worker, one HTTP request a lease: the lease lasts as long as the request does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{AttemptId, BootId, JobId, decimal};

/// Body of `POST /lease`: the right to run one attempt. The worker gives it up when the connection closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The job it is part of.
    pub job: JobId,
    /// The attempt, to be named in the outcome.
    pub attempt: AttemptId,
    /// The run of the worker process that it is meant for.
    pub boot_id: BootId,
    /// The slot that computes it, from 0: leases of one slot run one after the other.
    pub slot: u32,
    /// What to compute.
    pub work: Work,
}

/// What there is to compute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// The sum of all primes in a range.
    SumOfPrimes(Stretch),
    /// How many primes a range holds.
    CountPrimes(Stretch),
    /// Nothing, for a while.
    Sleep(Nap),
}

/// A range that is part of a longer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first number.
    pub a: u64,
    /// The last number.
    pub b: u64,
    /// The number up to which the slot's next leases will probably go on, `b` at least: what makes it worth to keep
    /// what was computed for this one.
    pub horizon: u64,
}

/// Simulated work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nap {
    /// How long each task takes.
    pub seconds: f64,
    /// Share of the attempts that fail.
    pub fail_rate: f64,
    /// Tasks, one after the other.
    pub tasks: u64,
}

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

/// Answer to `POST /lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOutcome {
    /// The attempt that this is the outcome of.
    pub attempt: AttemptId,
    /// What the tasks add to the job's total: a sum, a count, 0 where there is nothing to add.
    #[serde(with = "decimal")]
    pub value: u128,
    /// Time the computation took, waiting not included.
    pub compute_us: u64,
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
