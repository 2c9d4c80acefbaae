//! The store as its users see it: one writer, one reader, one place for large results.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{JobEvent, JobId};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::backend::{Backend, Reads};
use crate::batch::{Answer, Entry, Epoch, Housekeeping};
use crate::blocks::{Blocks, take_from};
use crate::change::{Change, ResultBody};
use crate::error::{ComposeError, PruneError, ReadError, SubmitError, WriteError};
use crate::objects::{Objects, ResultStream};
use crate::queue::Work;
use crate::record::{
    Attempt, Cursor, JobFilter, JobRecord, MAX_FILTER_TAGS, NewJob, Pruned, StoredResult, Submission, UnfinishedJob,
};
use crate::retention::Retention;
use crate::statistics::{PeriodKey, PeriodRow, Query, StatisticsRetention, TaskKey, TaskRow, page};
use crate::writer::Writer;

/// Jobs that are taken out of sight in one batch.
const FORGOTTEN_AT_ONCE: usize = 256;
/// Objects that are deleted between two batches.
const DROPPED_AT_ONCE: usize = 256;
/// How often objects that no row names are looked for.
const LEFTOVERS_INTERVAL: Duration = Duration::from_hours(6);

/// An opened store, of which a [`Store`] is made.
pub struct Parts {
    /// Writes.
    pub backend: Box<dyn Backend>,
    /// Reads.
    pub reads: Arc<dyn Reads>,
    /// Where large results go.
    pub objects: Objects,
    /// The epoch of this owner.
    pub epoch: Epoch,
    /// The id of the last batch of this epoch that was committed; 0 before the first.
    pub last_batch: u64,
    /// The number of the newest event.
    pub latest_event: u64,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("epoch", &self.epoch).field("objects", &self.objects).finish_non_exhaustive()
    }
}

/// See the crate. Dropped, it commits what is queued as [`Store::close`] does.
pub struct Store {
    // Before the writer, so that a store's last connection is the one that writes.
    reads: Arc<dyn Reads>,
    writer: Writer,
    objects: Objects,
    blocks: Blocks,
    retention: Retention,
    epoch: Epoch,
    /// When objects that no row names were looked for.
    leftovers: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("epoch", &self.epoch).field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl Store {
    /// Starts the writer of an opened store.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(parts: Parts, retention: Retention) -> std::io::Result<Self> {
        let Parts { backend, reads, objects, epoch, last_batch, latest_event } = parts;
        let writer = Writer::start(backend, epoch, last_batch, latest_event)?;
        let (blocks, leftovers) = (Blocks::default(), Mutex::new(None));
        Ok(Self { reads, writer, objects, blocks, retention, epoch, leftovers })
    }

    /// The epoch of this owner: higher than that of every owner before it.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Every job that is not over, in the order in which they came.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn unfinished(&self) -> Result<Vec<UnfinishedJob>, ReadError> {
        self.reads.unfinished(None).await
    }

    /// One job, if it is not over.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn unfinished_job(&self, id: JobId) -> Result<Option<UnfinishedJob>, ReadError> {
        Ok(self.reads.unfinished(Some(id)).await?.pop())
    }

    /// Accepts a job; durable when it resolves. Dropped before, it may or may not accept the job.
    ///
    /// # Errors
    /// Another job has its name, or it could not be made durable: unless that is in doubt it is not accepted then and
    /// will not be.
    pub async fn submit(&self, job: NewJob) -> Result<Submission, SubmitError> {
        match self.call(Entry::Submission(Box::new(job))).await? {
            Answer::Submitted(submission) => Ok(submission),
            Answer::Mismatch(existing) => Err(SubmitError::Mismatch { existing }),
            other @ (Answer::Done | Answer::Deleted(_) | Answer::Refused(_)) => {
                Err(WriteError::Unavailable(format!("a submission was answered with {other:?}")).into())
            }
        }
    }

    /// Makes a change, after all that came before, within some 10 ms. While nothing can be written it waits in memory;
    /// see [`Store::backlog`]. A change that contradicts what is stored is logged and left out. Returns the number of
    /// the change, which grows by one each time; see [`Store::durable`].
    pub fn record(&self, change: Change) -> u64 {
        self.writer.record(Entry::Change(change))
    }

    /// Makes a change, after all that came before; durable when it resolves.
    ///
    /// # Errors
    /// It could not be made durable, and unless that is in doubt it will not be.
    pub async fn commit(&self, change: Change) -> Result<(), WriteError> {
        self.call(Entry::Change(change)).await.map(|_| ())
    }

    async fn call(&self, entry: Entry) -> Result<Answer, WriteError> {
        self.writer.call(Work::Entry(entry)).await
    }

    /// Resolves when all that came before is committed.
    ///
    /// # Errors
    /// It could not be committed yet; recorded changes still wait.
    pub async fn flush(&self) -> Result<(), WriteError> {
        self.writer.call(Work::Barrier).await.map(|_| ())
    }

    /// The number up to which every recorded change is committed, or refused.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.writer.durable()
    }

    /// Changes that wait to be committed. They are held in memory without a bound: lease no more work when it is large.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.writer.queue().backlog()
    }

    /// Why changes cannot be committed, until they can.
    #[must_use]
    pub fn is_failing(&self) -> Option<String> {
        self.writer.queue().failing()
    }

    /// The number of the newest committed event; 0 before the first.
    #[must_use]
    pub fn latest_event(&self) -> watch::Receiver<u64> {
        self.writer.latest_event()
    }

    /// One job.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn job(&self, id: JobId) -> Result<Option<JobRecord>, ReadError> {
        self.reads.job(id).await
    }

    /// At most `limit` jobs, the newest first, from before a place in that order.
    ///
    /// # Errors
    /// The filter has more than [`MAX_FILTER_TAGS`] tags, or they could not be read.
    pub async fn jobs(
        &self,
        filter: JobFilter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<JobRecord>, ReadError> {
        if filter.tags.len() > MAX_FILTER_TAGS {
            return Err(ReadError::TooManyTags { limit: MAX_FILTER_TAGS });
        }
        self.reads.jobs(filter, before, limit).await
    }

    /// Every attempt that is kept and touches one of the `limit` individual tasks from `first` on: by first task, then
    /// in the order in which they ended. An attempt at more than 1024 tasks is in pieces.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn outcomes(&self, job: JobId, first: u64, limit: usize) -> Result<Vec<Attempt>, ReadError> {
        self.reads.attempts(job, first..first.saturating_add(limit as u64)).await
    }

    /// The payloads of individual tasks, in order. Whole blocks of them stay in memory for the next call.
    ///
    /// # Errors
    /// The job has no such tasks, or they could not be read.
    pub async fn payloads(&self, job: JobId, tasks: Range<u64>) -> Result<Vec<Box<RawValue>>, ReadError> {
        let mut payloads = Vec::new();
        let mut next = tasks.start;
        while next < tasks.end {
            if let Some(beyond) = self.blocks.take(job, next, tasks.end, &mut payloads) {
                next = beyond;
                continue;
            }
            let block = self.reads.payloads(job, next).await?.filter(|block| block.tasks.contains(&next));
            let block = block.ok_or(ReadError::NoSuchTasks { job, first: tasks.start, beyond: tasks.end })?;
            if block.payloads.len() as u64 != block.tasks.end - block.tasks.start {
                let detail = format!("{} for tasks {:?}", block.payloads.len(), block.tasks);
                return Err(ReadError::Corrupt { place: format!("payloads of job {job}"), detail });
            }
            next = take_from(&block, next, tasks.end, &mut payloads);
            self.blocks.keep(job, block);
        }
        Ok(payloads)
    }

    /// At most `limit` events with a number above `after`, of one job or of all, ascending.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Result<Vec<JobEvent>, ReadError> {
        self.reads.events(after, job, limit).await
    }

    /// At most `limit` figures by period and kind, after a key, by start and kind. Periods in which nothing was counted are
    /// left out.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn periods(
        &self,
        query: Query,
        after: Option<PeriodKey>,
        limit: usize,
    ) -> Result<Vec<PeriodRow>, ReadError> {
        page(query, after, limit, |query, after, limit| self.reads.periods(query, after, limit)).await
    }

    /// At most `limit` starts of tasks by period, kind and name, after a key, in that order.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn task_starts(
        &self,
        query: Query,
        after: Option<TaskKey>,
        limit: usize,
    ) -> Result<Vec<TaskRow>, ReadError> {
        page(query, after, limit, |query, after, limit| self.reads.task_starts(query, after, limit)).await
    }

    /// A job's result, whole. See [`Store::result_stream`] for large ones.
    ///
    /// # Errors
    /// It could not be read, or is not what was stored.
    pub async fn result(&self, job: JobId) -> Result<Option<StoredResult>, ReadError> {
        self.objects.fetch(self.reads.result(job).await?).await
    }

    /// The newest result under an output's name, whole.
    ///
    /// # Errors
    /// It could not be read, or is not what was stored.
    pub async fn result_by_name(&self, output: &str) -> Result<Option<StoredResult>, ReadError> {
        self.objects.fetch(self.reads.result_by_name(output).await?).await
    }

    /// A job's result in pieces.
    ///
    /// # Errors
    /// It could not be found.
    pub async fn result_stream(&self, job: JobId) -> Result<Option<ResultStream>, ReadError> {
        self.objects.stream(self.reads.result(job).await?).await
    }

    /// The newest result under an output's name in pieces.
    ///
    /// # Errors
    /// It could not be found.
    pub async fn result_stream_by_name(&self, output: &str) -> Result<Option<ResultStream>, ReadError> {
        self.objects.stream(self.reads.result_by_name(output).await?).await
    }

    /// Stores a result for [`crate::ChangeKind::Ended`], which makes it the job's.
    ///
    /// # Errors
    /// It could not be stored.
    pub async fn put_result(&self, job: JobId, json: Box<RawValue>) -> Result<ResultBody, WriteError> {
        self.objects.put(job, json).await
    }

    /// Puts `{"tasks":[…]}` together from the answers to individual tasks, with null where there is no answer, and
    /// stores it for [`crate::ChangeKind::Ended`]. Memory is bounded however many they are.
    ///
    /// # Errors
    /// There is no such job, the answers could not be read, or the result could not be stored.
    pub async fn compose_result(&self, job: JobId) -> Result<ResultBody, ComposeError> {
        self.flush().await?;
        crate::compose::compose(&self.objects, &*self.reads, job).await
    }

    /// Forgets jobs that are over, the oldest first, as far as [`Retention`] asks, with their rows, events and results;
    /// and deletes objects that no row names.
    ///
    /// # Errors
    /// Something could not be deleted; the next call goes on with it.
    pub async fn prune(&self) -> Result<Pruned, PruneError> {
        let mut pruned = Pruned::default();
        let expired = self.reads.expired(self.retention, Timestamp::now()).await?;
        for some in expired.chunks(FORGOTTEN_AT_ONCE) {
            let keys = some.iter().map(|&(key, _)| key).collect();
            let forgotten = self.housekeep(Housekeeping::Forget(keys)).await?;
            pruned.jobs += forgotten;
            if forgotten > 0 {
                pruned.bytes += some.iter().map(|&(_, bytes)| bytes).sum::<u64>();
            }
        }
        for (key, job) in self.reads.unswept().await? {
            self.blocks.forget(job);
            while self.housekeep(Housekeeping::Sweep(key)).await? > 0 {}
        }
        self.delete_objects().await?;
        Ok(pruned)
    }

    /// Forgets statistics that are kept no longer. Returns how many rows.
    ///
    /// # Errors
    /// Something could not be deleted; the next call goes on with it.
    pub async fn prune_statistics(&self, retention: StatisticsRetention) -> Result<u64, WriteError> {
        let mut rows = 0;
        for (grain, before) in retention.bounds(Timestamp::now()) {
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

    async fn delete_objects(&self) -> Result<(), PruneError> {
        loop {
            let names = self.reads.dropped_objects(DROPPED_AT_ONCE).await?;
            if names.is_empty() {
                break;
            }
            for name in &names {
                self.objects.delete(name).await?;
            }
            self.housekeep(Housekeeping::ObjectsDeleted(names)).await?;
        }
        let last = *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > LEFTOVERS_INTERVAL) {
            // What names an object may be waiting to be committed.
            self.flush().await?;
            let deleted = self.objects.delete_leftovers(&*self.reads, Timestamp::now()).await?;
            if deleted > 0 {
                tracing::info!(objects = deleted, "deleted results that no job has");
            }
            *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(())
    }

    async fn housekeep(&self, housekeeping: Housekeeping) -> Result<u64, WriteError> {
        match self.call(Entry::Housekeeping(housekeeping)).await? {
            Answer::Deleted(count) => Ok(count),
            Answer::Done | Answer::Submitted(_) | Answer::Mismatch(_) | Answer::Refused(_) => Ok(0),
        }
    }

    /// Commits what is queued. Blocks until that is done.
    ///
    /// # Errors
    /// Recorded changes could not be committed within some seconds, and are lost.
    pub fn close(self) -> Result<(), WriteError> {
        let Self { reads, mut writer, .. } = self;
        drop(reads);
        match (writer.close(), writer.queue().failing()) {
            (0, _) => Ok(()),
            (_, error) => Err(WriteError::Unavailable(error.unwrap_or_default())),
        }
    }
}
