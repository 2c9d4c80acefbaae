//! Ends a run in which a seed does not come to its end: a loop without an end in the engine would say nothing for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A thousand times the duration of a seed, so that a busy machine ends none.
const LONGEST_SEED: Duration = Duration::from_secs(120);

/// The seeds that run, with the times at which they began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchdog(Arc<Mutex<BTreeMap<u64, Instant>>>);

impl Watchdog {
    /// Looks at the seeds once a second until one takes too long: `end` is called with it.
    pub(crate) fn start(end: impl FnOnce(u64) + Send + 'static) -> Self {
        let watchdog = Self::default();
        let watched = watchdog.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                if let Some(seed) = watched.overdue(Instant::now()) {
                    return end(seed);
                }
            }
        });
        watchdog
    }

    /// Watches a seed while it runs.
    pub(crate) fn watch<T>(&self, seed: u64, run: impl FnOnce() -> T) -> T {
        self.lock().insert(seed, Instant::now());
        let result = run();
        self.lock().remove(&seed);
        result
    }

    fn overdue(&self, now: Instant) -> Option<u64> {
        let is_overdue = |began_at: Instant| now.saturating_duration_since(began_at) > LONGEST_SEED;
        self.lock().iter().find(|(_, began_at)| is_overdue(**began_at)).map(|(seed, _)| *seed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_overdue_only_while_it_runs_for_too_long() {
        let watchdog = Watchdog::default();
        watchdog.watch(7, || {
            assert_eq!(watchdog.overdue(Instant::now()), None);
            assert_eq!(watchdog.overdue(Instant::now() + LONGEST_SEED * 2), Some(7));
        });
        assert_eq!(watchdog.overdue(Instant::now() + LONGEST_SEED * 2), None);
    }
}
