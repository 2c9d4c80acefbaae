//! Leases that take far longer than others of their job, which an idle slot may run a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use model::{AttemptId, JobId};

use crate::id_map::IdMap;
use crate::queue::ClassId;
use crate::speed::Speed;

/// Factor between the time after which a lease is late and the time that its tasks take on the job's best worker.
const LATE_TIMES: u32 = 3;

/// Shortest time after which a lease is late: a request and a busy machine may take as long.
const LEAST_LATE: Duration = Duration::from_millis(200);

/// The time after which a lease of `tasks` tasks that starts after `rounds_ahead` others like it is late; `None` while the job's
/// cost is unknown.
pub(crate) fn late_after(best: Option<Speed>, tasks: u64, setup: Duration, rounds_ahead: u32) -> Option<Duration> {
    let expected = best?.expect(tasks).saturating_add(setup);
    let rounds = rounds_ahead.saturating_add(1);
    Some(expected.saturating_mul(rounds).saturating_mul(LATE_TIMES).max(LEAST_LATE))
}

/// The leases by the time at which they become late, and the late leases.
#[derive(Debug, Default)]
pub(crate) struct Stragglers {
    due: BTreeSet<(Instant, AttemptId)>,
    late: IdMap<JobId, BTreeSet<AttemptId>>,
    /// Jobs with late leases and without open tasks: a second attempt is worth a slot.
    ready: BTreeMap<ClassId, BTreeSet<JobId>>,
}

impl Stragglers {
    pub(crate) fn watch(&mut self, attempt: AttemptId, late_at: Instant) {
        self.due.insert((late_at, attempt));
    }

    /// Forgets a lease that is over, or has its second attempt.
    pub(crate) fn forget(&mut self, job: JobId, attempt: AttemptId, late_at: Option<Instant>) {
        if let Some(late_at) = late_at {
            self.due.remove(&(late_at, attempt));
        }
        if let Some(late) = self.late.get_mut(&job) {
            late.remove(&attempt);
            if late.is_empty() {
                self.late.remove(&job);
            }
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(late_at, _)| *late_at)
    }

    /// The next lease that has become late.
    pub(crate) fn pop_late(&mut self, now: Instant) -> Option<AttemptId> {
        let (late_at, _) = self.due.first()?;
        if *late_at > now { None } else { self.due.pop_first().map(|(_, attempt)| attempt) }
    }

    pub(crate) fn note_late(&mut self, job: JobId, attempt: AttemptId) {
        self.late.entry(job).or_default().insert(attempt);
    }

    pub(crate) fn has_late(&self, job: JobId) -> bool {
        self.late.contains_key(&job)
    }

    pub(crate) fn late(&self, job: JobId) -> impl Iterator<Item = AttemptId> {
        self.late.get(&job).into_iter().flatten().copied()
    }

    /// Sets whether second attempts of the job may be leased. Returns whether that is new.
    pub(crate) fn set_ready(&mut self, class: ClassId, job: JobId, is_ready: bool) -> bool {
        if is_ready {
            return self.ready.entry(class).or_default().insert(job);
        }
        if let Some(jobs) = self.ready.get_mut(&class) {
            jobs.remove(&job);
            if jobs.is_empty() {
                self.ready.remove(&class);
            }
        }
        false
    }

    /// The classes with jobs that have tasks for second attempts.
    pub(crate) fn ready_classes(&self) -> impl Iterator<Item = ClassId> {
        self.ready.keys().copied()
    }

    pub(crate) fn ready_jobs(&self, class: ClassId) -> impl Iterator<Item = JobId> {
        self.ready.get(&class).into_iter().flatten().copied()
    }
}
