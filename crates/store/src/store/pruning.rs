//! Forgets jobs, figures and objects.

use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use model::JobId;

use super::Store;
use crate::batch::{Answer, Entry, Housekeeping, JobKey};
use crate::error::{PruneError, ReadError, WriteError};
use crate::queue::Work;
use crate::record::Pruned;
use crate::retention::Retention;
use crate::statistics::StatisticsRetention;

/// Jobs that are hidden in one batch.
const FORGOTTEN_AT_ONCE: usize = 256;
/// Hidden jobs whose rows are deleted in one batch: that of large ones takes about a tenth of a second.
const SWEPT_TOGETHER: usize = 8;
/// From so many jobs on there may be more: a store names only a part of very many.
const MANY_JOBS: usize = 10_000;
/// Most parts that one call forgets, so that other work of retention has its turn.
const MAX_PARTS: usize = 10;
/// Damaged jobs that one call leaves as they are. More of them may mean that the whole database is damaged.
const MAX_DAMAGED: u32 = 32;
/// Objects that are deleted between two batches.
const DROPPED_AT_ONCE: usize = 256;
/// Longest time that the newest event may be behind the clock when the store is opened; a clock that is further ahead may have
/// jumped.
const IDLE_TIME: SignedDuration = SignedDuration::from_hours(24);
/// Interval of the search for parts of objects that were never completed.
const PARTS_INTERVAL: Duration = Duration::from_mins(10);
/// Interval of the search for objects that no row names.
const LEFTOVERS_INTERVAL: Duration = Duration::from_hours(6);

/// Jobs whose damaged rows cannot be deleted.
#[derive(Default)]
struct Damaged {
    jobs: u32,
    last: Option<WriteError>,
}

impl Damaged {
    /// Leaves a job unchanged.
    ///
    /// # Errors
    /// The error is no damage, or more than [`MAX_DAMAGED`] jobs are damaged.
    fn leave(&mut self, error: WriteError) -> Result<(), WriteError> {
        if !is_damage(&error) || self.jobs == MAX_DAMAGED {
            return Err(error);
        }
        self.jobs += 1;
        self.last = Some(error);
        Ok(())
    }

    fn tell(&self) {
        if let Some(error) = &self.last {
            tracing::warn!(jobs = self.jobs, %error, "jobs with damaged rows are not forgotten: all others are");
        }
    }
}

/// Whether some rows were deleted.
fn deletes(answer: &Answer) -> bool {
    matches!(answer, Answer::Deleted(rows) if *rows > 0)
}

fn is_damage(error: &WriteError) -> bool {
    matches!(error, WriteError::Corrupt(_))
}

impl Store {
    /// Forgets jobs that are over, the oldest first, by the limits of [`Retention`], with their rows, events and results; and
    /// deletes objects that no row names. If the clock has jumped forward, the jump has no effect on retention before an hour of
    /// monotonic time has passed. A few jobs whose rows are damaged stay, and are logged.
    ///
    /// # Errors
    /// Something could not be deleted; the next call goes on with it.
    pub async fn prune(&self) -> Result<Pruned, PruneError> {
        self.prune_at(Instant::now(), Timestamp::now()).await
    }

    /// Like [`Self::prune`], at a moment by the monotonic clock and by the calendar of stored times.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub async fn prune_at(&self, instant: Instant, system: Timestamp) -> Result<Pruned, PruneError> {
        self.refuse_to_follow()?;
        let mut pruned = Pruned::default();
        let now = self.believed_time(instant, system).await?;
        for _ in 0..MAX_PARTS {
            let (before, mut damaged) = (pruned.jobs, Damaged::default());
            let expired = self.expired(now).await?;
            self.forget(&expired, &mut pruned, &mut damaged).await?;
            self.sweep_hidden(&mut damaged).await?;
            damaged.tell();
            if expired.len() < MANY_JOBS || pruned.jobs == before {
                break;
            }
        }
        self.delete_objects(now).await?;
        Ok(pruned)
    }

    /// Deletes the outputs and the rows of hidden jobs.
    async fn sweep_hidden(&self, damaged: &mut Damaged) -> Result<(), PruneError> {
        let unswept = self.reads.unswept().await?;
        // A single query for all of them: few jobs have outputs that are objects.
        let have_outputs = if unswept.is_empty() { HashSet::new() } else { self.objects.jobs_with_outputs().await? };
        for some in unswept.chunks(SWEPT_TOGETHER) {
            for (_, job) in some {
                self.blocks.forget(*job);
                if have_outputs.contains(job) {
                    self.delete_outputs_of_forgotten(*job).await?;
                }
            }
            let keys = some.iter().map(|&(key, _)| key).collect();
            self.sweep(keys, damaged).await?;
        }
        Ok(())
    }

    /// Hides jobs, many at a time. A batch with a damaged job is halved, so that its other jobs are hidden.
    async fn forget(
        &self,
        expired: &[(JobKey, u64)],
        pruned: &mut Pruned,
        damaged: &mut Damaged,
    ) -> Result<(), WriteError> {
        let mut parts: Vec<_> = expired.chunks(FORGOTTEN_AT_ONCE).rev().collect();
        while let Some(part) = parts.pop() {
            let keys = part.iter().map(|&(key, _)| key).collect();
            match self.housekeep(Housekeeping::Forget(keys)).await {
                Ok(0) => {}
                Ok(jobs) => {
                    pruned.jobs += jobs;
                    pruned.bytes += part.iter().map(|&(_, bytes)| bytes).sum::<u64>();
                }
                Err(error) if is_damage(&error) && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) => damaged.leave(error)?,
            }
        }
        Ok(())
    }

    /// Deletes the outputs of a hidden job. Outputs of a job that was accepted under the same id since are in the same place:
    /// then all stay, and those that do not count are deleted when that job is over.
    async fn delete_outputs_of_forgotten(&self, job: JobId) -> Result<(), PruneError> {
        // Before the job is looked for: one that is accepted after that has other outputs.
        let listed = self.objects.list_outputs(job).await?;
        // Another owner may have deleted the job's rows, and accepted a job.
        self.confirm().await?;
        match self.reads.job(job).await {
            Ok(Some(_)) | Err(ReadError::Unreadable { .. }) => {}
            Ok(None) => {
                self.objects.delete_outputs(listed).await?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Deletes the remaining rows of hidden jobs, some of each in a batch.
    async fn sweep(&self, mut keys: Vec<JobKey>, damaged: &mut Damaged) -> Result<(), WriteError> {
        while !keys.is_empty() {
            let sweeps: Vec<_> =
                keys.iter().map(|key| Work::Entry(Entry::Housekeeping(Housekeeping::Sweep(*key)))).collect();
            let answers = self.writer.call_all(sweeps.into_iter()).await;
            let mut left = Vec::new();
            for (key, answer) in keys.into_iter().zip(answers) {
                match answer.map(|answer| deletes(&answer)) {
                    Ok(true) => left.push(key),
                    Ok(false) => {}
                    Err(error) => damaged.leave(error)?,
                }
            }
            keys = left;
        }
        Ok(())
    }

    /// Jobs to be forgotten, without those that are only past their age and have unpublished events.
    async fn expired(&self, now: Timestamp) -> Result<Vec<(JobKey, u64)>, ReadError> {
        let mut expired = self.reads.expired(self.retention, now).await?;
        let from = self.unpublished_from.load(Ordering::Relaxed);
        if from == u64::MAX || expired.is_empty() {
            return Ok(expired);
        }
        let by_size = Retention { max_age: Duration::MAX, ..self.retention };
        let excess: HashSet<_> = self.reads.expired(by_size, now).await?.into_iter().map(|(key, _)| key).collect();
        let only_old = expired.iter().map(|&(key, _)| key).filter(|key| !excess.contains(key)).collect();
        let kept: HashSet<_> = self.reads.with_events_from(from, only_old).await?.into_iter().collect();
        expired.retain(|(key, _)| !kept.contains(key));
        Ok(expired)
    }

    /// Compares the clock with the newest stored event; otherwise the first [`Self::prune_at`] does. To be called before this
    /// owner stores an event, whose date is as wrong as the clock.
    ///
    /// # Errors
    /// The newest event cannot be read.
    pub async fn check_clock(&self, instant: Instant, system: Timestamp) -> Result<(), ReadError> {
        self.believed_time(instant, system).await.map(drop)
    }

    /// The time by which jobs may be deleted.
    async fn believed_time(&self, instant: Instant, system: Timestamp) -> Result<Timestamp, ReadError> {
        let calendar = || self.calendar.lock().unwrap_or_else(PoisonError::into_inner);
        let is_set = calendar().is_set();
        if !is_set {
            let latest = *self.latest_event().borrow();
            let newest = self.reads.events(latest.saturating_sub(1), None, 1).await?.pop();
            if let Some(event) = newest.filter(|event| system.duration_since(event.at) > IDLE_TIME) {
                calendar().set(instant, event.at);
            }
        }
        let reading = calendar().read(instant, system);
        if let Some(jump) = reading.jump.filter(|_| reading.is_new) {
            tracing::warn!(
                seconds = jump.as_secs(),
                "the clock is far from the time that was expected: nothing is forgotten by it until it has stayed there \
                 for an hour"
            );
        }
        Ok(reading.at)
    }

    /// Deletes statistics that are past their age. Returns the number of rows.
    ///
    /// # Errors
    /// Something could not be deleted; the next call goes on with it.
    pub async fn prune_statistics(&self, retention: StatisticsRetention) -> Result<u64, PruneError> {
        self.prune_statistics_at(retention, Instant::now(), Timestamp::now()).await
    }

    /// Like [`Self::prune_statistics`], at a moment by the clocks of [`Self::prune_at`].
    ///
    /// # Errors
    /// As [`Self::prune_statistics`].
    pub async fn prune_statistics_at(
        &self,
        retention: StatisticsRetention,
        instant: Instant,
        calendar: Timestamp,
    ) -> Result<u64, PruneError> {
        self.refuse_to_follow()?;
        let mut rows = 0;
        let now = self.believed_time(instant, calendar).await?;
        for (grain, before) in retention.bounds(now) {
            loop {
                let forgotten = self.housekeep(Housekeeping::ForgetStatistics(grain, before)).await?;
                if forgotten == 0 {
                    break;
                }
                rows += forgotten;
            }
        }
        Ok(rows)
    }

    async fn delete_objects(&self, now: Timestamp) -> Result<(), PruneError> {
        loop {
            let names = self.reads.dropped_objects(DROPPED_AT_ONCE).await?;
            if names.is_empty() {
                break;
            }
            self.confirm().await?;
            for name in &names {
                self.objects.delete(name).await?;
            }
            self.housekeep(Housekeeping::ObjectsDeleted(names)).await?;
        }
        let last = *self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > PARTS_INTERVAL) {
            let deleted = self.objects.delete_old_parts(now).await?;
            if deleted > 0 {
                tracing::info!(parts = deleted, "deleted parts of objects that were never completed");
            }
            *self.parts.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        let last = *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > LEFTOVERS_INTERVAL) {
            // A row that names an object may be waiting to be committed.
            self.confirm().await?;
            let mut deleted = self.objects.delete_leftovers(&*self.reads, now).await?;
            deleted += self.delete_leftover_programs(now).await?;
            deleted += self.objects.delete_uncounted_outputs(&*self.reads, now).await?;
            if deleted > 0 {
                tracing::info!(objects = deleted, "deleted objects that no row names");
            }
            *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(())
    }

    async fn delete_leftover_programs(&self, now: Timestamp) -> Result<u64, PruneError> {
        // An upload of the same program may be under way: its object must not go between the query for its row and the row.
        let _lock = self.programs.write().await;
        self.objects.delete_leftover_programs(&*self.reads, now).await
    }
}

#[cfg(all(test, feature = "suite"))]
mod tests {
    use crate::memory::Memory;
    use crate::suite::helpers::*;
    use crate::{ChangeKind, Submission};

    use super::*;

    #[tokio::test]
    async fn a_job_that_has_the_id_of_one_that_is_being_forgotten_has_payloads_of_its_own() {
        let store = Memory::new().store(KEEP_ALL).expect("a thread");
        store.submit(tasks_job(1, vec![raw("\"old\"")])).await.expect("room");
        assert_eq!(store.payloads(id(1), 0..1).await.expect("there")[0].get(), "\"old\"");
        store.commit(change(id(1), at(1), ChangeKind::Canceled)).await.expect("room");
        let retention = Retention { max_age: Duration::ZERO, max_bytes: u64::MAX };
        let expired = store.reads.expired(retention, Timestamp::now()).await.expect("readable");
        store.forget(&expired, &mut Pruned::default(), &mut Damaged::default()).await.expect("room");
        assert_eq!(store.submit(tasks_job(1, vec![raw("\"new\"")])).await, Ok(Submission::New));
        assert_eq!(store.payloads(id(1), 0..1).await.expect("there")[0].get(), "\"new\"");
    }
}
