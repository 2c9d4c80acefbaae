//! The time that attempts have waited for a coordinator: for the inputs of their tasks, and for uploads of outputs. Tasks do
//! not compute meanwhile, so waiting does not add to the age of their lease.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::AttemptId;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<HashMap<AttemptId, Wait>>);

#[derive(Debug, Default)]
struct Wait {
    /// The sum of the waits that have ended.
    before: Duration,
    since: Option<Instant>,
}

/// Counts the time until it is dropped as waiting time of an attempt.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    attempt: AttemptId,
}

impl Waits {
    pub(super) fn begin(&self, attempt: AttemptId) -> Waiting<'_> {
        self.lock().entry(attempt).or_default().since = Some(Instant::now());
        Waiting { waits: self, attempt }
    }

    /// The sum of all waits of an attempt, the present one included.
    pub(super) fn total(&self, attempt: AttemptId) -> Duration {
        self.lock().get(&attempt).map_or(Duration::ZERO, Wait::total)
    }

    pub(super) fn forget(&self, attempt: AttemptId) {
        self.lock().remove(&attempt);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AttemptId, Wait>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    fn total(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(wait) = self.waits.lock().get_mut(&self.attempt) {
            *wait = Wait { before: wait.total(), since: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_time_of_all_outputs_of_an_attempt_counts_until_it_ends() {
        let (waits, attempt) = (Waits::default(), AttemptId(Uuid::nil()));
        let hour = Duration::from_hours(1);
        let begin_an_hour_ago = || {
            let waiting = waits.begin(attempt);
            let since = Instant::now().checked_sub(hour).expect("the machine runs for longer");
            waits.lock().get_mut(&attempt).expect("it waits").since = Some(since);
            waiting
        };
        drop(begin_an_hour_ago());
        let first = waits.total(attempt);
        assert!(first >= hour);
        assert_eq!(waits.total(attempt), first, "it computes again");
        let second = begin_an_hour_ago();
        assert!(waits.total(attempt) >= first + hour);
        drop(second);
        waits.forget(attempt);
        assert_eq!(waits.total(attempt), Duration::ZERO);
    }
}
