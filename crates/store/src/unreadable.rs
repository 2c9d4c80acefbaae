//! Rows that cannot be read: damaged rows, and rows of a later version. Each is left out of lists, so that nothing else fails,
//! and is logged once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::sync::{Mutex, MutexGuard, PoisonError};

use model::JobId;

/// Most remembered jobs, and most other rows. A store of a later release may have any number of them.
const MAX_REMEMBERED: usize = 1_000;

/// Rows that a store has found and could not read. Clones of a store's parts share one record.
#[derive(Debug, Default)]
pub struct Unreadable(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    /// The reason for each unreadable job.
    jobs: BTreeMap<JobId, String>,
    /// Jobs beyond those that are remembered; one that is found again counts again.
    more_jobs: u64,
    /// The sort of each row, and its key among the rows of the sort.
    rows: BTreeSet<(&'static str, String)>,
    told_of_more: bool,
    /// Jobs that are over though they cannot be read.
    dismissed: BTreeSet<JobId>,
}

impl Unreadable {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job is left alone.
    pub fn note_job(&self, job_id: JobId, error: &(impl Display + ?Sized)) {
        let mut found = self.lock();
        if found.jobs.contains_key(&job_id) || found.dismissed.contains(&job_id) {
            return;
        }
        if found.jobs.len() < MAX_REMEMBERED {
            tracing::warn!(%job_id, %error, "a stored job cannot be read: it waits for a version that can");
            found.jobs.insert(job_id, error.to_string());
            return;
        }
        found.more_jobs += 1;
        if !std::mem::replace(&mut found.told_of_more, true) {
            tracing::warn!("more stored jobs cannot be read than are told of one by one");
        }
    }

    /// The job is over: it waits for nothing any more.
    pub(crate) fn dismiss(&self, job_id: JobId) {
        let mut found = self.lock();
        found.jobs.remove(&job_id);
        if found.dismissed.len() < MAX_REMEMBERED {
            found.dismissed.insert(job_id);
        }
    }

    /// A row of some sort, such as `event`, is left out. `key` tells it from the others of its sort.
    pub fn note_row(&self, what: &'static str, key: &(impl Display + ?Sized), error: &(impl Display + ?Sized)) {
        let mut found = self.lock();
        if found.rows.len() < MAX_REMEMBERED && found.rows.insert((what, key.to_string())) {
            tracing::warn!(what, %key, %error, "a stored row cannot be read: it is left out");
        }
    }

    /// The value, or nothing where its row cannot be read.
    pub fn skip<T, E: Display>(
        &self,
        what: &'static str,
        key: &(impl Display + ?Sized),
        read: Result<T, E>,
    ) -> Option<T> {
        read.map_err(|error| self.note_row(what, key, &error)).ok()
    }

    /// Forgets the jobs: all that are not over are read anew.
    pub(crate) fn forget_jobs(&self) {
        let mut found = self.lock();
        (found.jobs, found.more_jobs, found.told_of_more) = (BTreeMap::new(), 0, false);
    }

    /// Number of unreadable jobs since the last read of all jobs. Beyond 1,000 an estimate.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        let found = self.lock();
        found.jobs.len() as u64 + found.more_jobs
    }

    /// The reason why a job cannot be read, if the job is known to be unreadable.
    #[must_use]
    pub fn why(&self, job: JobId) -> Option<String> {
        self.lock().jobs.get(&job).cloned()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_remembered_up_to_a_bound() {
        let unreadable = Unreadable::default();
        for number in 0..2 * MAX_REMEMBERED as u128 {
            unreadable.note_job(JobId(Uuid::from_u128(number)), "why");
            unreadable.note_row("event", &number, "why");
        }
        unreadable.note_job(JobId(Uuid::from_u128(0)), "why");
        assert_eq!(unreadable.jobs(), 2 * MAX_REMEMBERED as u64);
        assert_eq!(unreadable.lock().rows.len(), MAX_REMEMBERED);
        assert_eq!(unreadable.why(JobId(Uuid::from_u128(7))).as_deref(), Some("why"));
        unreadable.forget_jobs();
        assert_eq!((unreadable.jobs(), unreadable.why(JobId(Uuid::from_u128(7)))), (0, None));
    }
}
