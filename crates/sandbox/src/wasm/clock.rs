//! Clocks and random numbers that are the same in every run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

/// 2000-01-01T00:00:00Z.
const STARTS_AT: Duration = Duration::from_secs(946_684_800);
/// Advance of the clocks with each reading, so that a program that waits for them makes progress.
const NANOS_PER_READING: u64 = 1_000;
const SEED: u64 = 0x0d1f_f5ee_d000_0001;

#[derive(Clone)]
struct CountingClock(Arc<AtomicU64>);

impl CountingClock {
    fn read(&self) -> u64 {
        self.0.fetch_add(NANOS_PER_READING, Ordering::Relaxed)
    }
}

impl HostWallClock for CountingClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(NANOS_PER_READING)
    }

    fn now(&self) -> Duration {
        STARTS_AT + Duration::from_nanos(self.read())
    }
}

impl HostMonotonicClock for CountingClock {
    fn resolution(&self) -> u64 {
        NANOS_PER_READING
    }

    fn now(&self) -> u64 {
        self.read()
    }
}

/// Sets clocks that only count their readings, and random numbers from a fixed seed.
pub(super) fn make_reproducible(builder: &mut WasiCtxBuilder) {
    let clock = CountingClock(Arc::default());
    builder
        .wall_clock(clock.clone())
        .monotonic_clock(clock)
        .secure_random(ChaCha8Rng::seed_from_u64(SEED))
        .insecure_random(ChaCha8Rng::seed_from_u64(SEED))
        .insecure_random_seed(SEED.into());
}
