//! Waiting for conditions, and a turn for the tests that need the cores for themselves.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest wait for any condition without a limit of its own: enough for a machine that is busy with other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Attempts at a condition with a short limit.
const ATTEMPTS: u32 = 8;

/// The value of `probe`, once it returns one.
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// The value of `probe`, which must come within `limit`.
pub(crate) fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let started_at = Instant::now();
    loop {
        // Looked at before the probe: what it finds in time counts, however long it looked.
        let is_late = started_at.elapsed() > limit;
        if let Some(found) = probe() {
            return found;
        }
        assert!(!is_late, "not within {limit:?}: {what}");
        sleep(POLL_INTERVAL);
    }
}

/// Repeats `attempt` until the time that it measures is within `limit`, [`ATTEMPTS`] times at most. Other processes of the
/// machine may make an attempt late; what is slow by itself is late each time.
pub(crate) fn in_time(limit: Duration, what: &str, mut attempt: impl FnMut() -> Duration) {
    let mut took = Duration::MAX;
    for _ in 0..ATTEMPTS {
        took = attempt();
        if took <= limit {
            return;
        }
    }
    panic!("not within {limit:?}: {what}: it took {took:?}");
}

/// Repeats `attempt` until it holds, [`ATTEMPTS`] times at most. A machine that stands still may spoil an attempt; a fault that
/// is there each time spoils all of them.
pub(crate) fn in_one_attempt(what: &str, mut attempt: impl FnMut() -> bool) {
    assert!((0..ATTEMPTS).any(|_| attempt()), "in none of {ATTEMPTS} attempts: {what}");
}

/// A turn among the tests that compute for seconds: side by side they would take each other's time.
pub(crate) fn heavy() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
