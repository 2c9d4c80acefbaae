//! A lock per job: a change of a job is on the disk before the engine acts on it, and changes of one job happen in the same
//! order in both. Changes of different jobs do not wait for each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::DashMap;
use model::JobId;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The locks that are held or waited for.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobLocks(Arc<DashMap<JobId, Arc<Mutex<()>>>>);

/// The right to change one job.
#[derive(Debug)]
pub(crate) struct JobLock {
    locks: JobLocks,
    id: JobId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl JobLocks {
    /// Waits for the right to change a job.
    pub(crate) async fn lock(&self, id: JobId) -> JobLock {
        let mutex = Arc::clone(&self.0.entry(id).or_default());
        // Made before the wait: a caller that gives up may be the last one that knows of the lock.
        let mut lock = JobLock { locks: self.clone(), id, guard: None };
        lock.guard = Some(mutex.lock_owned().await);
        lock
    }

    /// Waits for the right to change several jobs. Each caller takes them in the same order, so that no two wait for each
    /// other.
    pub(crate) async fn lock_all(&self, ids: &[JobId]) -> Vec<JobLock> {
        let ids: BTreeSet<_> = ids.iter().copied().collect();
        let mut locks = Vec::with_capacity(ids.len());
        for id in ids {
            locks.push(self.lock(id).await);
        }
        locks
    }
}

impl Drop for JobLock {
    fn drop(&mut self) {
        self.guard = None;
        // Kept while another task holds or waits for it.
        self.locks.0.remove_if(&self.id, |_, mutex| Arc::strong_count(mutex) == 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn changes_of_one_job_wait_for_each_other_and_those_of_others_do_not() {
        let (locks, one, other) = (JobLocks::default(), JobId(Uuid::from_u128(1)), JobId(Uuid::from_u128(2)));
        let held = locks.lock(one).await;
        let _other = locks.lock(other).await;
        assert!(timeout(Duration::from_millis(10), locks.lock(one)).await.is_err());
        drop(held);
        drop(locks.lock(one).await);
        assert_eq!(locks.0.len(), 1, "a lock that nobody holds is forgotten");
    }

    #[tokio::test]
    async fn a_lock_whose_last_caller_gives_up_is_forgotten() {
        let (locks, id) = (JobLocks::default(), JobId(Uuid::from_u128(1)));
        let held = locks.lock(id).await;
        {
            let mut waiting = pin!(locks.lock(id));
            assert!((&mut waiting).now_or_never().is_none());
            drop(held);
        }
        assert!(locks.0.is_empty());
    }

    #[tokio::test]
    async fn those_that_lock_the_same_jobs_in_different_orders_do_not_wait_for_each_other_for_ever() {
        let locks = JobLocks::default();
        let [first, second, third] = [1, 2, 3].map(|number| JobId(Uuid::from_u128(number)));
        let (one, other) = ([third, first, third], [first, third, second]);
        let first = locks.lock(first).await;
        let mut one = pin!(locks.lock_all(&one));
        let mut other = pin!(locks.lock_all(&other));
        assert!((&mut one).now_or_never().is_none() && (&mut other).now_or_never().is_none());
        drop(first);
        let held = (&mut one).now_or_never().expect("nobody else holds any of them");
        assert!((&mut other).now_or_never().is_none());
        drop(held);
        assert_eq!((&mut other).now_or_never().map(|held| held.len()), Some(3));
    }
}
