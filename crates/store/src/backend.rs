//! The contract of a store: a [`Backend`] that writes and [`Reads`].

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;

use jiff::Timestamp;
use model::{Grain, JobEvent, JobId, ProgramHash};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::batch::{Answer, Batch, Epoch, JobKey};
use crate::drains::Drain;
use crate::error::{ReadError, WriteError};
use crate::position::Position;
use crate::programs::{ProgramRecord, TaskLog};
use crate::record::{Attempt, Cursor, JobFilter, JobRecord, UnfinishedJob};
use crate::retention::Retention;
use crate::statistics::{PendingRow, PeriodKey, PeriodRow, Query, TaskKey, TaskRow};
use crate::unreadable::Unreadable;
use crate::verified::Verified;

/// The writing half, on the one thread that writes; its methods may block.
pub trait Backend: Send {
    /// Writes a batch in one transaction. If the last committed batch is sent again, it is not written again and has the same
    /// answers.
    ///
    /// # Errors
    /// The batch is not written, or not known to be: see [`BatchError`].
    fn apply(&mut self, batch: &Batch) -> Result<Applied, BatchError>;

    /// Does work that no change waits for, such as copying a log back: after each batch only due work, and more when the writer
    /// is idle. Returns whether another call soon is useful.
    fn maintain(&mut self, is_idle: bool) -> bool {
        let _ = is_idle;
        false
    }

    /// Bytes of the log that are not copied back, as of the last [`Self::maintain`].
    fn log_bytes(&self) -> u64 {
        0
    }

    /// Checks, about twice a second, whether a batch could be written now. Must be cheap.
    ///
    /// # Errors
    /// A batch could not be written.
    fn check(&mut self) -> Result<(), WriteError> {
        Ok(())
    }

    /// Checks whether there is room for new jobs and programs of this size, beside the room that is kept for changes of existing
    /// ones. Called before every batch with a new entry, and about twice a second with 0. Must be cheap.
    ///
    /// # Errors
    /// There is no room.
    fn has_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        let _ = bytes;
        Ok(())
    }
}

/// A batch that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// An answer for each entry.
    pub answers: Vec<Answer>,
    /// The number of the newest event.
    pub latest_event: u64,
}

/// Raises the number of the newest event to at least this number: several writers may announce events.
pub fn raise_latest(events: &watch::Sender<u64>, latest_event: u64) {
    events.send_if_modified(|seq| std::mem::replace(seq, latest_event.max(*seq)) < latest_event);
}

/// The reason why a batch is not known to be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Nothing of the batch is written, and a later try may succeed. Its id may be used for another batch.
    #[error("not written, to be tried again: {0}")]
    RolledBack(WriteError),
    /// Nothing of the batch is written, nor would be later. Its id may be used for another batch.
    #[error("not written: {reason}")]
    Deterministic {
        /// The entry that cannot be written, if it is known.
        entry: Option<usize>,
        /// The reason of the refusal.
        reason: String,
    },
    /// Nothing of the batch is written: a row that it needs is damaged, in one of its jobs or in all of them. Its id may be used
    /// for another batch.
    #[error("not written: {error}")]
    Damaged {
        /// The damage.
        error: WriteError,
        /// Whether one job is damaged: a row was read that is not as it was written. Otherwise the database itself reports the
        /// damage.
        of_one: bool,
    },
    /// The batch may be committed. The same batch must be sent again until its state is known.
    #[error("not known to be written: {0}")]
    Unknown(WriteError),
    /// Another owner has taken the store over.
    #[error("superseded by epoch {current}")]
    Superseded {
        /// The epoch of the store.
        current: Epoch,
    },
}

/// The future of a read. Dropping it ends the read as soon as the store can stop it.
pub type Reading<'a, T> = Pin<Box<dyn Future<Output = Result<T, ReadError>> + Send + 'a>>;

/// The reading half. Reads see committed rows. A row that cannot be read is left out of a list and noted in
/// [`Reads::unreadable`], so that a list has fewer rows only if there are no more; a read of a single row is an error then.
/// error then.
pub trait Reads: Send + Sync {
    /// Rows that could not be read.
    fn unreadable(&self) -> &Unreadable;

    /// A job. [`ReadError::Unreadable`] where its row is damaged.
    fn job(&self, id: JobId) -> Reading<'_, Option<JobRecord>>;

    /// At most `limit` jobs, the newest first, from before a place in that order. The filter has at most
    /// [`crate::MAX_FILTER_TAGS`] tags.
    fn jobs(&self, filter: JobFilter, before: Option<Cursor>, limit: usize) -> Reading<'_, Vec<JobRecord>>;

    /// Number of jobs that a filter finds among those submitted at `since` or later. The filter is as for [`Reads::jobs`].
    fn count(&self, filter: JobFilter, since: Option<Timestamp>) -> Reading<'_, u64>;

    /// Every job that is not over, in the order in which they came.
    fn open_jobs(&self) -> Reading<'_, Vec<JobId>>;

    /// The jobs of `jobs` that are not over, in the order in which they came; all of one moment.
    fn unfinished(&self, jobs: Vec<JobId>) -> Reading<'_, Vec<UnfinishedJob>>;

    /// Verification of each of the newest `limit` jobs with a stored verification or with timed-out attempts, the newest first.
    fn verified(&self, limit: usize) -> Reading<'_, Vec<Verified>>;

    /// Every attempt that touches one of the individual tasks, by first task, then in the order in which they ended. An error if
    /// one of them cannot be read: its tasks must not look open.
    fn attempts(&self, job: JobId, tasks: Range<u64>) -> Reading<'_, Vec<Attempt>>;

    /// The block of payloads that the task is in.
    fn payloads(&self, job: JobId, task: u64) -> Reading<'_, Option<PayloadBlock>>;

    /// At most `limit` events with a number above `after`, of one job or of all, ascending. Figures and sources of events are
    /// left out if they cannot be read.
    fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Reading<'_, Vec<JobEvent>>;

    /// The last events of a job, at most `limit`, the newest first.
    fn last_events(&self, job: JobId, limit: usize) -> Reading<'_, Vec<JobEvent>>;

    /// A job's result.
    fn result(&self, job: JobId) -> Reading<'_, Option<ResultRow>>;

    /// The result of the job that succeeded last under an output's name.
    fn result_by_name(&self, output: &str) -> Reading<'_, Option<ResultRow>>;

    /// Some answers to individual tasks from task `next` on, by first task; none when there are no more. About 4 MiB at most.
    fn answers(&self, job: JobId, next: u64) -> Reading<'_, Vec<Answers>>;

    /// Every position, by stream.
    fn positions(&self) -> Reading<'_, Vec<(String, Position)>>;

    /// The jobs of `jobs` that have an event with this number or a higher one.
    fn with_events_from(&self, seq: u64, jobs: Vec<JobKey>) -> Reading<'_, Vec<JobKey>>;

    /// Jobs that retention forgets, with their sizes in bytes, the first to end in front.
    fn expired(&self, retention: Retention, now: Timestamp) -> Reading<'_, Vec<(JobKey, u64)>>;

    /// Forgotten jobs of which rows are left.
    fn unswept(&self) -> Reading<'_, Vec<(JobKey, JobId)>>;

    /// At most `limit` objects that no row names any more.
    fn dropped_objects(&self, limit: usize) -> Reading<'_, Vec<String>>;

    /// A program.
    fn program(&self, hash: ProgramHash) -> Reading<'_, Option<ProgramRecord>>;

    /// At most `limit` programs in the order of their hashes, from after one of them.
    fn programs(&self, after: Option<ProgramHash>, limit: usize) -> Reading<'_, Vec<ProgramRecord>>;

    /// Every drained worker, by name.
    fn drains(&self) -> Reading<'_, Vec<Drain>>;

    /// At most `limit` logs of attempts at a job's tasks from `task` on, by task, then in the order in which they ended.
    fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Reading<'_, Vec<TaskLog>>;

    /// The last logs of attempts at a task, at most `limit`, in the order in which they ended.
    fn last_logs(&self, job: JobId, task: u64, limit: usize) -> Reading<'_, Vec<TaskLog>>;

    /// The objects of `names` that a row names.
    fn named_objects(&self, names: Vec<String>) -> Reading<'_, Vec<String>>;

    /// At most `limit` figures of a stored grain after a key, by start and kind.
    fn periods(&self, query: Query, after: Option<PeriodKey>, limit: usize) -> Reading<'_, Vec<PeriodRow>>;

    /// The last row of each kind of a stored grain whose period begins before a moment.
    fn pending(&self, grain: Grain, before: Timestamp) -> Reading<'_, Vec<PendingRow>>;

    /// At most `limit` starts by name of a stored grain after a key, by start, kind and name.
    fn task_starts(&self, query: Query, after: Option<TaskKey>, limit: usize) -> Reading<'_, Vec<TaskRow>>;
}

/// Payloads of consecutive individual tasks.
#[derive(Clone, Debug)]
pub struct PayloadBlock {
    /// The tasks.
    pub tasks: Range<u64>,
    /// A payload for each.
    pub payloads: Vec<Box<RawValue>>,
}

/// The answers of an attempt.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Its tasks.
    pub tasks: Range<u64>,
    /// A JSON array with a value for each task, if it answered anything.
    pub json: Option<String>,
}

/// A result as its row has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRow {
    /// The job.
    pub job: JobId,
    /// The result, or its object.
    pub body: ResultRowBody,
}

/// See [`ResultRow`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultRowBody {
    /// The result itself.
    Json(String),
    /// An object.
    Object {
        /// Its name.
        name: String,
        /// Its length.
        bytes: u64,
        /// Its hash.
        sha256: Vec<u8>,
    },
}
