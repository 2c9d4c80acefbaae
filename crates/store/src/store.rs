//! The store for its users: one writer, one reader, one place for large results.

mod draining;
mod program_files;
mod pruning;
mod reading;
mod results;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::Timestamp;
use model::JobId;
use tokio::sync::watch;

use crate::backend::{Backend, Reads};
use crate::batch::{Answer, Entry, Epoch, Housekeeping};
use crate::blocks::Blocks;
use crate::calendar::Calendar;
use crate::change::Change;
use crate::error::{ReadError, SubmitError, WriteError};
use crate::objects::Objects;
use crate::position::{Advance, Advanced, Position};
use crate::queue::Work;
use crate::record::{NewJob, Submission, UnfinishedJob};
use crate::retention::Retention;
use crate::unreadable::Unreadable;
use crate::writer::Writer;

/// An opened store, of which a [`Store`] is made.
pub struct Parts {
    /// The writing half.
    pub backend: Box<dyn Backend>,
    /// The reading half.
    pub reads: Arc<dyn Reads>,
    /// Place of large results.
    pub objects: Objects,
    /// The epoch of this owner.
    pub epoch: Epoch,
    /// The id of the last batch of this epoch that was committed; 0 before the first.
    pub last_batch: u64,
    /// The number of the newest event. The writer raises it, and so does the store if other coordinators write.
    pub latest_event: watch::Sender<u64>,
}

/// A store that is opened by a follower, of which a [`Store`] is made.
pub struct FollowerParts {
    /// Writes batches of submissions, of any epoch, in order.
    pub submitter: Box<dyn Backend>,
    /// The reading half.
    pub reads: Arc<dyn Reads>,
    /// Place of large results.
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

/// A store, as the crate's description says. A drop commits the queue as [`Store::close`] does.
pub struct Store {
    // Dropped before the writer, so that a store's last connection is the writer's.
    reads: Arc<dyn Reads>,
    writer: Writer,
    objects: Objects,
    blocks: Blocks,
    retention: Retention,
    /// Epoch of this owner; `None` for a follower.
    epoch: Option<Epoch>,
    /// Instant of the last search for objects that no row names and for parts that are never completed.
    leftovers: Mutex<Option<Instant>>,
    parts: Mutex<Option<Instant>>,
    /// Held while the object and the row of a program are made or deleted, so that both or neither exist.
    programs: tokio::sync::RwLock<()>,
    /// The first unpublished event; `u64::MAX` if no events are published.
    unpublished_from: AtomicU64,
    /// Calendar by which old jobs are forgotten.
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
        let (epoch, programs) = (Some(epoch), tokio::sync::RwLock::new(()));
        let unpublished_from = AtomicU64::new(u64::MAX);
        let parts = Mutex::new(None);
        Ok(Self {
            reads,
            writer,
            objects,
            blocks,
            retention,
            epoch,
            leftovers,
            parts,
            programs,
            unpublished_from,
            calendar,
        })
    }

    /// Starts a store for a follower: it reads and accepts jobs. Changes, deletions and results are refused with
    /// [`WriteError::Following`].
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(parts: FollowerParts, retention: Retention) -> std::io::Result<Self> {
        let FollowerParts { submitter, reads, objects, latest_event } = parts;
        let writer = Writer::start(submitter, Epoch::default(), 0, latest_event)?;
        let (blocks, leftovers, calendar) = (Blocks::default(), Mutex::new(None), Mutex::default());
        let (programs, unpublished_from) = (tokio::sync::RwLock::new(()), AtomicU64::new(u64::MAX));
        Ok(Self {
            reads,
            writer,
            objects,
            blocks,
            retention,
            epoch: None,
            leftovers,
            parts: Mutex::new(None),
            programs,
            unpublished_from,
            calendar,
        })
    }

    /// The epoch of this owner: higher than that of every owner before it. 0 for a follower.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch.unwrap_or_default()
    }

    /// Whether the store makes changes, rather than follows a leader.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.epoch.is_some()
    }

    fn refuse_to_follow(&self) -> Result<(), WriteError> {
        if self.leads() { Ok(()) } else { Err(WriteError::Following) }
    }

    /// Rows that could not be read. Callers also note rows here whose content they cannot interpret.
    #[must_use]
    pub fn unreadable(&self) -> &Unreadable {
        self.reads.unreadable()
    }

    /// Every job that is not over, in the order of submission, to be read by [`Store::unfinished_jobs`] in parts.
    ///
    /// # Errors
    /// The jobs could not be read.
    pub async fn open_jobs(&self) -> Result<Vec<JobId>, ReadError> {
        self.unreadable().forget_jobs();
        self.reads.open_jobs().await
    }

    /// Every job that is not over and can be read, in the order of submission; [`Store::unreadable`] has the others.
    ///
    /// # Errors
    /// The jobs could not be read.
    pub async fn unfinished(&self) -> Result<Vec<UnfinishedJob>, ReadError> {
        let jobs = self.open_jobs().await?;
        self.unfinished_jobs(jobs).await
    }

    /// A job, if it is not over and can be read.
    ///
    /// # Errors
    /// The job could not be read.
    pub async fn unfinished_job(&self, id: JobId) -> Result<Option<UnfinishedJob>, ReadError> {
        Ok(self.unfinished_jobs(vec![id]).await?.pop())
    }

    /// The jobs of `ids` that are not over and can be read, in the order of submission.
    ///
    /// # Errors
    /// The jobs could not be read.
    pub async fn unfinished_jobs(&self, ids: Vec<JobId>) -> Result<Vec<UnfinishedJob>, ReadError> {
        // Another coordinator may have accepted a job under the id of a forgotten job.
        ids.iter().for_each(|id| self.blocks.forget(*id));
        self.reads.unfinished(ids).await
    }

    /// Accepts a job; durable when the future resolves. A future that is dropped before may or may not accept the job.
    ///
    /// # Errors
    /// Another job has the id or the idempotency key, or the job could not be made durable: unless that is in doubt, the job is
    /// not accepted and will not be.
    pub async fn submit(&self, job: impl Into<Arc<NewJob>>) -> Result<Submission, SubmitError> {
        let job: Arc<NewJob> = job.into();
        let id = job.id;
        match self.call(Entry::Submission(job)).await? {
            Answer::Submitted(submission) => {
                if submission == Submission::New {
                    // Payloads of a forgotten job may be cached under its id.
                    self.blocks.forget(id);
                }
                Ok(submission)
            }
            Answer::Mismatch(existing) => Err(SubmitError::Mismatch { existing }),
            other @ (Answer::Done | Answer::Elsewhere(_) | Answer::Deleted(_) | Answer::Refused(_)) => {
                Err(WriteError::Unavailable(format!("a submission was answered with {other:?}")).into())
            }
        }
    }

    /// Moves a position, with the job of its record; durable when the future resolves. A future that is dropped before may or may
    /// not move it.
    ///
    /// # Errors
    /// The job is not accepted, or nothing could be made durable: unless that is in doubt nothing is written then.
    pub async fn advance(&self, advance: Advance) -> Result<Advanced, SubmitError> {
        advanced(self.call(Entry::Advance(Box::new(advance))).await)
    }

    /// Moves many positions in this order, and returns a result for each.
    pub async fn advance_all(&self, moves: Vec<Advance>) -> Vec<Result<Advanced, SubmitError>> {
        let entries = moves.into_iter().map(|advance| Work::Entry(Entry::Advance(Box::new(advance))));
        self.writer.call_all(entries).await.into_iter().map(advanced).collect()
    }

    /// Every position that is committed, by stream.
    ///
    /// # Errors
    /// The positions could not be read.
    pub async fn positions(&self) -> Result<Vec<(String, Position)>, ReadError> {
        self.reads.positions().await
    }

    /// Sets the first unpublished event: retention keeps a job that is only past its age until its events are published. A job
    /// beyond the limit of size is forgotten nevertheless; see [`crate::OUTBOX_LOST`].
    pub fn keep_events_from(&self, seq: u64) {
        self.unpublished_from.store(seq, Ordering::Relaxed);
    }

    /// Makes a change, after all earlier ones, within some 10 ms. The change waits in memory while nothing can be written; see
    /// [`Store::backlog`]. A change that contradicts stored state is logged and left out. Returns the number of the change, which
    /// grows by one each time; see [`Store::durable`]. A follower leaves every change out.
    pub fn record(&self, change: Change) -> u64 {
        if !self.leads() {
            tracing::error!(job_id = %change.job, "a change was left out: this coordinator does not lead");
            return 0;
        }
        self.writer.record(Entry::Change(change))
    }

    /// Makes a change, after all earlier ones; durable when the future resolves.
    ///
    /// # Errors
    /// The change could not be made durable, and unless that is in doubt it will not be.
    pub async fn commit(&self, change: Change) -> Result<(), WriteError> {
        self.refuse_to_follow()?;
        self.call(Entry::Change(change)).await.map(|_| ())
    }

    /// Cancels a job that cannot be read; durable when the future resolves. Returns whether the job was not over. The rest of its
    /// row stays, and the job is no longer listed as unreadable.
    ///
    /// # Errors
    /// The change could not be made durable.
    pub async fn cancel_unread(&self, job: JobId, at: Timestamp, why: String) -> Result<bool, WriteError> {
        self.refuse_to_follow()?;
        let canceled = self.housekeep(Housekeeping::CancelUnread { job, at, why }).await?;
        self.unreadable().dismiss(job);
        Ok(canceled > 0)
    }

    async fn call(&self, entry: Entry) -> Result<Answer, WriteError> {
        self.writer.call(Work::Entry(entry)).await
    }

    /// Resolves when all earlier changes are committed.
    ///
    /// # Errors
    /// The changes could not be committed yet; recorded changes still wait.
    pub async fn flush(&self) -> Result<(), WriteError> {
        self.writer.call(Work::Barrier).await.map(|_| ())
    }

    /// The number up to which every recorded change is committed, or refused.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.writer.durable()
    }

    /// The number of the last recorded change; 0 before the first.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.writer.queue().recorded()
    }

    /// Number of changes that wait for their commit. They are held in memory without a bound: lease no more work when it is
    /// large.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.writer.queue().backlog()
    }

    /// Bytes of the store's log that are not copied back; 0 for a store without a log.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.writer.queue().log_bytes()
    }

    /// The reason why changes cannot be committed at present; `None` if they can.
    #[must_use]
    pub fn is_failing(&self) -> Option<String> {
        self.writer.queue().failing()
    }

    /// Whether the store's files are gone or replaced by others, so that nothing can be stored.
    #[must_use]
    pub fn is_replaced(&self) -> watch::Receiver<bool> {
        self.writer.replaced()
    }

    /// Jobs whose changes cannot be written while those of others can, with the reason: their stored rows are damaged. All their
    /// later changes are left out.
    #[must_use]
    pub fn unwritable(&self) -> watch::Receiver<BTreeMap<JobId, WriteError>> {
        self.writer.unwritable()
    }

    /// The number of the newest committed event; 0 before the first.
    #[must_use]
    pub fn latest_event(&self) -> watch::Receiver<u64> {
        self.writer.latest_event()
    }

    /// Commits all earlier changes, and an empty entry behind them: an owner whose epoch has passed gets the error.
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

    /// Commits the queue. Blocks until it is committed.
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
