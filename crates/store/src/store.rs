//! The store as its users see it: one writer, one reader, one place for large results.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use model::{Composition, Grain, JobEvent, JobId, JobKind, ProgramHash, ProgramOutput};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::backend::{Backend, PayloadBlock, Reads};
use crate::batch::{Answer, Entry, Epoch, Housekeeping, JobKey};
use crate::blocks::{Blocks, take_from};
use crate::calendar::Calendar;
use crate::change::{Change, ResultBody};
use crate::compose::Outputs;
use crate::error::{ComposeError, PruneError, ReadError, SubmitError, UploadError, WriteError};
use crate::objects::{Objects, ProgramBytes, ProgramUpload, ResultStream};
use crate::position::{Advance, Advanced, Position};
use crate::programs::{ProgramChange, ProgramRecord, TaskLog};
use crate::queue::Work;
use crate::record::{
    Attempt, Cursor, JobFilter, JobRecord, MAX_FILTER_TAGS, NewJob, Pruned, StoredResult, Submission, UnfinishedJob,
};
use crate::retention::Retention;
use crate::statistics::{PeriodKey, PeriodRow, Query, StatisticsRetention, TaskKey, TaskRow, filled, open_at, page};
use crate::writer::Writer;

/// Jobs that are taken out of sight in one batch.
const FORGOTTEN_AT_ONCE: usize = 256;
/// Objects that are deleted between two batches.
const DROPPED_AT_ONCE: usize = 256;
/// How far the newest event may be behind when the store is opened; a clock that is further ahead may have jumped.
const IDLE_TIME: SignedDuration = SignedDuration::from_hours(24);
/// More kinds than there are.
const KINDS: usize = 64;
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
    /// The number of the newest event. The writer raises it, and the store where others write, too.
    pub latest_event: watch::Sender<u64>,
}

/// A store that is opened by a follower, of which a [`Store`] is made.
pub struct FollowerParts {
    /// Takes batches of submissions, of any epoch, in order.
    pub submitter: Box<dyn Backend>,
    /// Reads.
    pub reads: Arc<dyn Reads>,
    /// Where large results are.
    pub objects: Objects,
    /// The number of the newest event, as [`Parts::latest_event`].
    pub latest_event: watch::Sender<u64>,
}

impl std::fmt::Debug for FollowerParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FollowerParts").field("objects", &self.objects).finish_non_exhaustive()
    }
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
    /// None: it follows.
    epoch: Option<Epoch>,
    /// When objects that no row names were looked for.
    leftovers: Mutex<Option<Instant>>,
    /// Held while the object and the row of a program are made or deleted, so that there is both or neither.
    programs: tokio::sync::Mutex<()>,
    /// The first event that is to be published; `u64::MAX` where none is.
    unpublished_from: AtomicU64,
    /// By which old jobs are forgotten.
    calendar: Mutex<Calendar>,
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
        let (blocks, leftovers, calendar) = (Blocks::default(), Mutex::new(None), Mutex::default());
        let (epoch, programs) = (Some(epoch), tokio::sync::Mutex::new(()));
        let unpublished_from = AtomicU64::new(u64::MAX);
        Ok(Self { reads, writer, objects, blocks, retention, epoch, leftovers, programs, unpublished_from, calendar })
    }

    /// Starts a store for a coordinator that follows: it reads and accepts jobs. Changes, deletions and results are
    /// refused with [`WriteError::Following`].
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(parts: FollowerParts, retention: Retention) -> std::io::Result<Self> {
        let FollowerParts { submitter, reads, objects, latest_event } = parts;
        let writer = Writer::start(submitter, Epoch::default(), 0, latest_event)?;
        let (blocks, leftovers, calendar) = (Blocks::default(), Mutex::new(None), Mutex::default());
        let (programs, unpublished_from) = (tokio::sync::Mutex::new(()), AtomicU64::new(u64::MAX));
        Ok(Self {
            reads,
            writer,
            objects,
            blocks,
            retention,
            epoch: None,
            leftovers,
            programs,
            unpublished_from,
            calendar,
        })
    }

    /// The epoch of this owner: higher than that of every owner before it. 0 where it follows.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch.unwrap_or_default()
    }

    /// Whether it makes changes, rather than follow one that does.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.epoch.is_some()
    }

    fn refuse_to_follow(&self) -> Result<(), WriteError> {
        if self.leads() { Ok(()) } else { Err(WriteError::Following) }
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
            other @ (Answer::Done | Answer::Elsewhere(_) | Answer::Deleted(_) | Answer::Refused(_)) => {
                Err(WriteError::Unavailable(format!("a submission was answered with {other:?}")).into())
            }
        }
    }

    /// Moves a position, with the job that it stands for; durable when it resolves. Dropped before, it may or may not move.
    ///
    /// # Errors
    /// The job is not accepted, or nothing could be made durable: unless that is in doubt nothing is written then.
    pub async fn advance(&self, advance: Advance) -> Result<Advanced, SubmitError> {
        advanced(self.call(Entry::Advance(Box::new(advance))).await)
    }

    /// The same for many, in this order. An answer for each.
    pub async fn advance_all(&self, moves: Vec<Advance>) -> Vec<Result<Advanced, SubmitError>> {
        let entries = moves.into_iter().map(|advance| Work::Entry(Entry::Advance(Box::new(advance))));
        self.writer.call_all(entries).await.into_iter().map(advanced).collect()
    }

    /// Every position that is committed, by stream.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn positions(&self) -> Result<Vec<(String, Position)>, ReadError> {
        self.reads.positions().await
    }

    /// Events are published from this one on: retention keeps a job that is only past its age until its events are. A
    /// job that is one too many is forgotten nevertheless; see [`crate::OUTBOX_LOST`].
    pub fn keep_events_from(&self, seq: u64) {
        self.unpublished_from.store(seq, Ordering::Relaxed);
    }

    /// Makes a change, after all that came before, within some 10 ms. While nothing can be written it waits in memory;
    /// see [`Store::backlog`]. A change that contradicts what is stored is logged and left out. Returns the number of
    /// the change, which grows by one each time; see [`Store::durable`]. A follower leaves every change out.
    pub fn record(&self, change: Change) -> u64 {
        if !self.leads() {
            tracing::error!(job_id = %change.job, "a change was left out: this coordinator does not lead");
            return 0;
        }
        self.writer.record(Entry::Change(change))
    }

    /// Makes a change, after all that came before; durable when it resolves.
    ///
    /// # Errors
    /// It could not be made durable, and unless that is in doubt it will not be.
    pub async fn commit(&self, change: Change) -> Result<(), WriteError> {
        self.refuse_to_follow()?;
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

    /// The length of the store's log of what is not yet in its place; 0 for a store without one.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.writer.queue().log_bytes()
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
        self.first_payloads(job, tasks, usize::MAX).await
    }

    /// As [`Self::payloads`], but only the first of them, that have `max_bytes` together; one at least.
    ///
    /// # Errors
    /// The job has no such tasks, or they could not be read.
    pub async fn first_payloads(
        &self,
        job: JobId,
        tasks: Range<u64>,
        max_bytes: usize,
    ) -> Result<Vec<Box<RawValue>>, ReadError> {
        let mut payloads = Vec::<Box<RawValue>>::new();
        let (mut next, mut room) = (tasks.start, max_bytes);
        while next < tasks.end {
            let before = payloads.len();
            next = match self.blocks.take(job, next, tasks.end, &mut payloads) {
                Some(beyond) => beyond,
                None => {
                    let block = self.payload_block(job, next, &tasks).await?;
                    let beyond = take_from(&block, next, tasks.end, &mut payloads);
                    self.blocks.keep(job, block);
                    beyond
                }
            };
            let fits = |length: &usize| {
                let length = *length;
                let fits = length <= room;
                room = room.saturating_sub(length);
                fits
            };
            let fitting =
                before + payloads[before..].iter().map(|payload| payload.get().len()).take_while(fits).count();
            if fitting < payloads.len() {
                payloads.truncate(fitting.max(1));
                break;
            }
            // Copying all that a claim may ask for takes longer than other requests on this thread may wait.
            tokio::task::yield_now().await;
        }
        Ok(payloads)
    }

    async fn payload_block(&self, job: JobId, task: u64, tasks: &Range<u64>) -> Result<PayloadBlock, ReadError> {
        let block = self.reads.payloads(job, task).await?.filter(|block| block.tasks.contains(&task));
        let block = block.ok_or(ReadError::NoSuchTasks { job, first: tasks.start, beyond: tasks.end })?;
        if block.payloads.len() as u64 != block.tasks.end - block.tasks.start {
            let detail = format!("{} for tasks {:?}", block.payloads.len(), block.tasks);
            return Err(ReadError::Corrupt { place: format!("payloads of job {job}"), detail });
        }
        Ok(block)
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

    /// The same, and a row for each period and kind in which nothing was counted while jobs of the kind were open.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn filled_periods(
        &self,
        query: Query,
        after: Option<PeriodKey>,
        limit: usize,
    ) -> Result<Vec<PeriodRow>, ReadError> {
        let (grain, kind) = (query.grain, query.kind);
        let start = after.map_or_else(|| grain.start_of(query.starts.start), |(start, _)| start);
        let starts = start..query.starts.end;
        let open = self.open_at(grain, start, kind).await?;
        // Those of the first period that the page before has had are there again.
        let query = Query { starts: starts.clone(), ..query };
        let rows = self.periods(query, None, limit + KINDS).await?;
        let mut rows = filled(grain, starts, open, rows, limit + KINDS);
        rows.retain(|row| after.is_none_or(|after| (row.start, row.kind) > after));
        rows.truncate(limit);
        Ok(rows)
    }

    /// Open jobs and tasks by kind at the start of a period. Rows of shorter periods may be forgotten.
    async fn open_at(
        &self,
        grain: Grain,
        start: Timestamp,
        kind: Option<JobKind>,
    ) -> Result<BTreeMap<JobKind, (i64, i64)>, ReadError> {
        let mut rows = Vec::new();
        for stored in Grain::STORED.into_iter().filter(|stored| *stored >= grain.stored()) {
            // Up to a whole period, so that nothing later is in it.
            let found = self.reads.pending(stored, stored.start_of(start)).await?;
            rows.extend(found.into_iter().map(|row| (stored, row)));
        }
        rows.retain(|(_, row)| kind.is_none_or(|kind| row.kind == kind));
        Ok(open_at(rows))
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
        self.refuse_to_follow()?;
        self.objects.put(job, json).await
    }

    /// Puts `{"tasks":[…]}` together from the answers to individual tasks, with null where there is no answer, and
    /// stores it for [`crate::ChangeKind::Ended`]. Memory is bounded however many they are.
    ///
    /// # Errors
    /// There is no such job, the answers could not be read, or the result could not be stored.
    pub async fn compose_result(&self, job: JobId) -> Result<ResultBody, ComposeError> {
        self.combine_results(job, Composition::TaskResults).await
    }

    /// As [`Self::compose_result`], for any composition.
    ///
    /// # Errors
    /// As there; also where the answers do not combine so, such as text that is no number.
    pub async fn combine_results(&self, job: JobId, composition: Composition) -> Result<ResultBody, ComposeError> {
        self.refuse_to_follow()?;
        self.flush().await?;
        crate::compose::compose(&self.objects, &*self.reads, job, composition).await
    }

    /// The outputs of individual tasks from task `next` on, in order, about 4 MiB of them; none after the last.
    ///
    /// # Errors
    /// They could not be read, or a task before the last one that is done has none.
    pub async fn outputs(&self, job: JobId, next: u64) -> Result<Vec<(u64, ProgramOutput)>, ComposeError> {
        Outputs::new(&*self.reads, job, next).next().await
    }

    /// Begins to store a program under its hash. See [`Self::put_program`].
    #[must_use]
    pub fn upload_program(&self, hash: ProgramHash) -> ProgramUpload {
        ProgramUpload::new(self.objects.clone(), hash)
    }

    /// Makes an uploaded program durable, once all its bytes are in. A program that is there stays as it is; answers
    /// whether it is new.
    ///
    /// # Errors
    /// The bytes are not those of its hash, or it could not be stored; nothing of it is there then.
    pub async fn put_program(&self, mut upload: ProgramUpload, record: ProgramRecord) -> Result<bool, UploadError> {
        self.refuse_to_follow()?;
        let _lock = self.programs.lock().await;
        upload.finish().await?;
        let unreadable = |error: ReadError| WriteError::Unavailable(error.to_string());
        let is_new = self.reads.program(record.hash).await.map_err(unreadable)?.is_none();
        self.call(Entry::Program(ProgramChange::Put(record))).await?;
        Ok(is_new)
    }

    /// One program.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn program(&self, hash: ProgramHash) -> Result<Option<ProgramRecord>, ReadError> {
        self.reads.program(hash).await
    }

    /// Whether a program is there with its bytes.
    ///
    /// # Errors
    /// It could not be found out.
    pub async fn has_program(&self, hash: ProgramHash) -> Result<bool, ReadError> {
        Ok(self.reads.program(hash).await?.is_some() && self.objects.has_program(hash).await?)
    }

    /// At most `limit` programs in the order of their hashes, from after one of them.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn programs(&self, after: Option<ProgramHash>, limit: usize) -> Result<Vec<ProgramRecord>, ReadError> {
        self.reads.programs(after, limit).await
    }

    /// A program's bytes in pieces; none where there is no such program.
    ///
    /// # Errors
    /// They could not be found.
    pub async fn program_bytes(&self, hash: ProgramHash) -> Result<Option<ProgramBytes>, ReadError> {
        match self.reads.program(hash).await? {
            Some(record) => Ok(Some(self.objects.read_program(hash, record.bytes).await?)),
            None => Ok(None),
        }
    }

    /// Deletes a program. Answers whether it was there.
    ///
    /// # Errors
    /// [`WriteError::Refused`] where a job that is not over needs it; or it could not be deleted.
    pub async fn delete_program(&self, hash: ProgramHash) -> Result<bool, WriteError> {
        self.refuse_to_follow()?;
        let _lock = self.programs.lock().await;
        match self.call(Entry::Program(ProgramChange::Delete(hash))).await? {
            Answer::Deleted(count) if count > 0 => {
                self.objects.delete_program(hash).await?;
                Ok(true)
            }
            Answer::Deleted(_)
            | Answer::Done
            | Answer::Submitted(_)
            | Answer::Mismatch(_)
            | Answer::Elsewhere(_)
            | Answer::Refused(_) => Ok(false),
        }
    }

    /// Keeps what an attempt wrote to stderr; durable when it resolves. Without effect where the job is not there.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn put_log(&self, log: TaskLog) -> Result<(), WriteError> {
        self.refuse_to_follow()?;
        self.call(Entry::Log(Box::new(log))).await.map(|_| ())
    }

    /// At most `limit` logs of attempts at some of a job's tasks, by task, then in the order in which they ended.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Result<Vec<TaskLog>, ReadError> {
        self.reads.logs(job, tasks, limit).await
    }

    /// Forgets jobs that are over, the oldest first, as far as [`Retention`] asks, with their rows, events and results;
    /// and deletes objects that no row names. Where the clock has jumped forward, nothing is forgotten for its new time
    /// before an hour has really passed.
    ///
    /// # Errors
    /// Something could not be deleted; the next call goes on with it.
    pub async fn prune(&self) -> Result<Pruned, PruneError> {
        self.prune_at(Instant::now(), Timestamp::now()).await
    }

    /// As [`Self::prune`], at a moment by both clocks of the system.
    ///
    /// # Errors
    /// As [`Self::prune`].
    pub async fn prune_at(&self, instant: Instant, system: Timestamp) -> Result<Pruned, PruneError> {
        self.refuse_to_follow()?;
        let mut pruned = Pruned::default();
        let now = self.believed_time(instant, system).await?;
        let expired = self.expired(now).await?;
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
        self.delete_objects(now).await?;
        Ok(pruned)
    }

    /// Jobs to be forgotten: not those that are only past their age and have events to be published.
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

    /// The time by which may be deleted.
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

    /// Forgets statistics that are kept no longer. Returns how many rows.
    ///
    /// # Errors
    /// Something could not be deleted; the next call goes on with it.
    pub async fn prune_statistics(&self, retention: StatisticsRetention) -> Result<u64, PruneError> {
        self.refuse_to_follow()?;
        let mut rows = 0;
        let now = self.believed_time(Instant::now(), Timestamp::now()).await?;
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
        let last = *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > LEFTOVERS_INTERVAL) {
            // What names an object may be waiting to be committed.
            self.confirm().await?;
            let mut deleted = self.objects.delete_leftovers(&*self.reads, now).await?;
            deleted += self.objects.delete_leftover_programs(&*self.reads, now).await?;
            if deleted > 0 {
                tracing::info!(objects = deleted, "deleted objects that no row names");
            }
            *self.leftovers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(())
    }

    /// Commits all that came before, and an empty entry behind it: an owner whose epoch has passed gets the error.
    async fn confirm(&self) -> Result<(), WriteError> {
        self.call(Entry::Nothing).await.map(|_| ())
    }

    async fn housekeep(&self, housekeeping: Housekeeping) -> Result<u64, WriteError> {
        match self.call(Entry::Housekeeping(housekeeping)).await? {
            Answer::Deleted(count) => Ok(count),
            Answer::Done | Answer::Submitted(_) | Answer::Mismatch(_) | Answer::Elsewhere(_) | Answer::Refused(_) => {
                Ok(0)
            }
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

fn advanced(answer: Result<Answer, WriteError>) -> Result<Advanced, SubmitError> {
    match answer? {
        Answer::Done => Ok(Advanced::Moved),
        Answer::Submitted(submission) => Ok(Advanced::Submitted(submission)),
        Answer::Elsewhere(position) => Ok(Advanced::Elsewhere(position)),
        Answer::Mismatch(existing) => Err(SubmitError::Mismatch { existing }),
        other @ (Answer::Deleted(_) | Answer::Refused(_)) => {
            Err(WriteError::Unavailable(format!("a move was answered with {other:?}")).into())
        }
    }
}
