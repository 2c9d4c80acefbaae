//! Leases that take far longer than their like, which a free slot may run a second time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use model::AttemptId;

use crate::pace::Pace;

/// A lease is late after this many times what its tasks take on the job's best worker.
const LATE_TIMES: u32 = 3;

/// No lease is late before this: a request and a busy machine may cost as much.
const LEAST_LATE: Duration = Duration::from_millis(200);

/// When a lease of `tasks` tasks that starts after `rounds_ahead` others like it is late; never as long as nothing is
/// known of the job's cost.
pub(crate) fn late_after(best: Option<Pace>, tasks: u64, setup: Duration, rounds_ahead: u32) -> Option<Duration> {
    let expected = best?.expect(tasks).saturating_add(setup);
    let rounds = rounds_ahead.saturating_add(1);
    Some(expected.saturating_mul(rounds).saturating_mul(LATE_TIMES).max(LEAST_LATE))
}

/// The leases by when they are late, and those that are.
#[derive(Debug, Default)]
pub(crate) struct Stragglers {
    due: BTreeSet<(Instant, AttemptId)>,
    late: BTreeSet<AttemptId>,
}

impl Stragglers {
    pub(crate) fn watch(&mut self, attempt: AttemptId, late_at: Instant) {
        self.due.insert((late_at, attempt));
    }

    /// The lease is over, or has its second attempt.
    pub(crate) fn forget(&mut self, attempt: AttemptId, late_at: Option<Instant>) {
        if let Some(late_at) = late_at {
            self.due.remove(&(late_at, attempt));
        }
        self.late.remove(&attempt);
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(late_at, _)| *late_at)
    }

    pub(crate) fn note_late(&mut self, now: Instant) {
        while let Some((late_at, attempt)) = self.due.first().copied()
            && late_at <= now
        {
            self.due.pop_first();
            self.late.insert(attempt);
        }
    }

    pub(crate) fn late(&self) -> impl Iterator<Item = AttemptId> {
        self.late.iter().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.late.is_empty()
    }
}
