//! What a coordinator asks of a worker, one HTTP request a lease: the lease lasts as long as the request does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{AttemptId, BootId, JobId, NumberRange, decimal};

/// Body of `POST /lease`: the right to run one attempt. The worker gives it up when the connection closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The job it is part of.
    pub job: JobId,
    /// The attempt, to be named in the outcome.
    pub attempt: AttemptId,
    /// The run of the worker process that it is meant for.
    pub boot_id: BootId,
    /// What to compute.
    pub work: Work,
}

/// What there is to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Work {
    /// The sum of all primes in a range.
    SumOfPrimes(NumberRange),
}

impl Work {
    /// What a worker pays before the first number, about: it finds the first multiple in the range of each prime up to
    /// √b, at some 15 ns each as measured on a server core of 2024.
    #[must_use]
    pub fn setup_estimate(self) -> Duration {
        let Self::SumOfPrimes(range) = self;
        let root = range.b().isqrt();
        let root = f64::from(u32::try_from(root).expect("a root of 64 bits has 32")).max(2.0);
        // About π(√b), by the prime number theorem.
        let primes = root / root.ln();
        Duration::from_secs_f64(primes * 15e-9)
    }
}

/// Answer to `POST /lease`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseOutcome {
    /// The attempt that this is the outcome of.
    pub attempt: AttemptId,
    /// The sum.
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
        let setup_ms =
            |b| Work::SumOfPrimes(NumberRange::new(0, b).expect("0 <= b")).setup_estimate().as_secs_f64() * 1e3;
        assert!(setup_ms(0) < 0.001);
        // π(10^6) = 78,498 and π(2^32) = 203,280,221.
        assert!((1.0..1.5).contains(&setup_ms(1_000_000_000_000)), "{}", setup_ms(1_000_000_000_000));
        assert!((2_800.0..3_600.0).contains(&setup_ms(u64::MAX)), "{}", setup_ms(u64::MAX));
    }
}
