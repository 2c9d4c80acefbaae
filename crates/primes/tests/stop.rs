//! The stop flag ends a call soon, wherever it is, and leaves the sieve usable.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use primes::{Sieve, Stopped};

/// Generous against a loaded machine; the sieve itself aims at 20 ms.
const PATIENCE: Duration = Duration::from_millis(500);

#[test]
fn call_stops_everywhere_and_the_sieve_goes_on() {
    let mut sieve = Sieve::new();
    for range in [
        0..=u64::MAX,
        1_000_000_000_000..=1 << 45,
        1_000_000_000_000_000..=1 << 50,
        4_000_000_000_000_000..=1 << 52,
        1_000_000_000_000_000_000..=1 << 60,
        u64::MAX - (1 << 50)..=u64::MAX,
    ] {
        let stop = AtomicBool::new(false);
        let (result, waited) = thread::scope(|scope| {
            let call = scope.spawn(|| sieve.sum(range.clone(), &stop));
            // The sieve shows nothing of itself before it ends: by now it computes.
            thread::sleep(Duration::from_millis(30));
            stop.store(true, Ordering::Relaxed);
            let stopped_at = Instant::now();
            (call.join().expect("the sieve does not panic"), stopped_at.elapsed())
        });
        assert_eq!(result, Err(Stopped));
        assert!(waited < PATIENCE, "{waited:?} in {range:?}");
        assert_eq!(sieve.count(1..=1_000_000, &AtomicBool::new(false)), Ok(78_498));
    }
}

#[test]
fn call_that_is_stopped_from_the_start_does_nothing() {
    let mut sieve = Sieve::new();
    assert_eq!(sieve.sum(1..=100, &AtomicBool::new(true)), Err(Stopped));
    assert_eq!(sieve.sum(1..=100, &AtomicBool::new(false)), Ok(1060));
}
