//! What a slot can compute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use api::{Nap, Stretch, Work};
use model::JobKind;
use primes::Sieve;

use crate::executor::{Compute, ComputeError};

/// The kinds of job that a worker runs by itself.
pub(crate) const KINDS: [JobKind; 3] = [JobKind::SumOfPrimes, JobKind::CountPrimes, JobKind::Sleep];

/// How soon a sleeping slot notices that it was stopped.
const LONGEST_NAP: Duration = Duration::from_millis(20);

/// Everything, on a sieve of its own.
pub(crate) fn every_kind() -> Compute {
    let mut sieve = Sieve::new();
    Box::new(move |work, stop| match *work {
        Work::SumOfPrimes(Stretch { a, b, horizon }) => {
            sieve.sum_towards(a..=b, horizon, stop).map_err(|_| ComputeError::Stopped)
        }
        Work::CountPrimes(Stretch { a, b, horizon }) => {
            sieve.count_towards(a..=b, horizon, stop).map(u128::from).map_err(|_| ComputeError::Stopped)
        }
        Work::Sleep(nap) => sleep(nap, stop),
    })
}

fn sleep(nap: Nap, stop: &AtomicBool) -> Result<u128, ComputeError> {
    // A time that does not fit was refused where it came in; no task is worth a panic.
    let task = Duration::try_from_secs_f64(nap.seconds).unwrap_or_default();
    let started_at = Instant::now();
    for done in 1..=nap.tasks {
        let until = task.saturating_mul(u32::try_from(done).unwrap_or(u32::MAX));
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(ComputeError::Stopped);
            }
            let left = until.saturating_sub(started_at.elapsed());
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(LONGEST_NAP));
        }
        if fastrand::f64() < nap.fail_rate {
            return Err(ComputeError::Simulated);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    #[test]
    fn simulated_work_takes_its_time_for_each_task() {
        let started_at = Instant::now();
        assert_eq!(sleep(Nap { seconds: 0.02, fail_rate: 0.0, tasks: 3 }, &NEVER), Ok(0));
        assert!(started_at.elapsed() >= Duration::from_millis(60));
        assert_eq!(sleep(Nap { seconds: 0.0, fail_rate: 1.0, tasks: 1 }, &NEVER), Err(ComputeError::Simulated));
    }

    #[test]
    fn simulated_work_stops_when_it_is_told_to() {
        let stop = AtomicBool::new(true);
        assert_eq!(sleep(Nap { seconds: 3600.0, fail_rate: 0.0, tasks: 1 }, &stop), Err(ComputeError::Stopped));
    }
}
