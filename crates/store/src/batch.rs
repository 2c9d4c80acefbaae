//! A batch: the entries of one transaction.

use std::sync::Arc;

use jiff::Timestamp;
use model::{Grain, JobId};

use crate::change::Change;
use crate::drains::DrainChange;
use crate::position::{Advance, Position};
use crate::programs::{ProgramChange, TaskLog};
use crate::record::{NewJob, Submission};
use crate::retention::job_bytes;

/// The term of an owner. Each owner of a store has a higher epoch than all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The entries of one transaction, in this order: all are written, or none.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The number of the batch within its epoch: one more than that of the last batch that was committed.
    pub id: u64,
    /// The epoch of the writer. A batch of an epoch that has passed is refused whole.
    pub epoch: Epoch,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// A part of a batch, which the store writes.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A job to be accepted.
    Submission(Arc<NewJob>),
    /// A change to a job.
    Change(Change),
    /// A position that moves.
    Advance(Box<Advance>),
    /// A deletion of rows that are no longer kept.
    Housekeeping(Housekeeping),
    /// A change to the programs.
    Program(ProgramChange),
    /// Text that an attempt of a stored job wrote to stderr. Without effect if the job does not exist.
    Log(Box<TaskLog>),
    /// A change to the drained workers.
    Drain(DrainChange),
    /// No entry: takes the place of an entry that cannot be written.
    Nothing,
}

impl Entry {
    /// Whether the entry adds a job or a program, instead of changing an existing row.
    #[must_use]
    pub fn is_new(&self) -> bool {
        match self {
            Self::Submission(_) | Self::Program(ProgramChange::Put(_)) => true,
            Self::Advance(advance) => advance.job.is_some(),
            Self::Change(_)
            | Self::Housekeeping(_)
            | Self::Program(_)
            | Self::Log(_)
            | Self::Drain(_)
            | Self::Nothing => false,
        }
    }

    /// About the bytes that a new job adds; 0 for other entries.
    pub(crate) fn added_bytes(&self) -> u64 {
        match self {
            Self::Submission(job) => job_bytes(job, 0, 0),
            Self::Advance(advance) => advance.job.as_ref().map_or(0, |(job, _)| job_bytes(job, 0, 0)),
            Self::Change(_)
            | Self::Housekeeping(_)
            | Self::Program(_)
            | Self::Log(_)
            | Self::Drain(_)
            | Self::Nothing => 0,
        }
    }
}

/// A store's own number for a job. It is never used again, while a job's id is free once the job was forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey(pub i64);

/// Deleting in pieces, so that no change waits long.
#[derive(Clone, Debug)]
pub enum Housekeeping {
    /// Hides those of the jobs that are over. Answered with their number. If there is a position [`crate::OUTBOX`],
    /// [`crate::OUTBOX_LOST`] grows by the number of their events from there on.
    Forget(Vec<JobKey>),
    /// Deletes some rows of a forgotten job. Answered with their number: 0 when all are gone.
    Sweep(JobKey),
    /// Notes that these objects, which no row names any more, are deleted.
    ObjectsDeleted(Vec<String>),
    /// Deletes some rows of statistics, of a stored grain, that begin before a moment. Answered with their number: 0 when all are
    /// gone.
    ForgetStatistics(Grain, Timestamp),
    /// Cancels a job that cannot be read, if it is not over: only its state, its end and the event are written, so that the rest
    /// of its row stays unchanged. Answered with the number of jobs.
    CancelUnread {
        /// The job.
        job: JobId,
        /// Time of the event.
        at: Timestamp,
        /// The reason why the row cannot be read: the event's error.
        why: String,
    },
}

/// The answer to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The entry is written, or has no effect.
    Done,
    /// The job is stored.
    Submitted(Submission),
    /// Another job has this job's id or idempotency key.
    Mismatch(JobId),
    /// Nothing is written: the position has this value.
    Elsewhere(Position),
    /// Jobs or rows that were deleted.
    Deleted(u64),
    /// The entry contradicts stored rows. Nothing of it is written; the rest of its batch stands.
    Refused(String),
}
