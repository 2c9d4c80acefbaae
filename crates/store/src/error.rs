//! Errors of the store, one enum for each operation.

use model::{JobId, ProgramHash};

use crate::batch::Epoch;

/// The reason why a change is not durable. Unless it is [`WriteError::InDoubt`], the change never will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The store has no room. The text names what is full.
    #[error("{0}")]
    Full(String),
    /// The store is read-only. The text names the read-only part.
    #[error("{0}")]
    ReadOnly(String),
    /// The store cannot be reached, or writing failed.
    #[error("the store cannot be written: {0}")]
    Unavailable(String),
    /// The store's files are gone or replaced by others.
    #[error("{0}")]
    Replaced(String),
    /// The stored rows are damaged.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The object store refused a result.
    #[error("the result cannot be stored: {0}")]
    Results(String),
    /// The change contradicts stored rows, such as a task that is done twice.
    #[error("the change cannot be made: {0}")]
    Refused(String),
    /// Another owner has taken the store over. The store refuses all further changes of this owner.
    #[error("another coordinator has taken the store over (epoch {current}, this one has {own})")]
    Superseded {
        /// The epoch of the store.
        current: Epoch,
        /// The epoch of this owner.
        own: Epoch,
    },
    /// The store has not said whether the change was committed. The writer goes on to find out; a submission may be repeated
    /// under its id or its idempotency key.
    #[error("the store has not confirmed the change yet; repeat it under the same id or idempotency key")]
    InDoubt,
    /// This coordinator follows: only the leader makes changes.
    #[error("this coordinator does not lead, and only the leader makes changes")]
    Following,
    /// The store has stopped.
    #[error("the store is closed")]
    Closed,
}

/// The reason why the leadership could not be taken, kept or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeadershipError {
    /// The epoch has passed: the lease has expired, or another member has taken it over.
    #[error("the leadership of epoch {epoch} has ended (epoch now: {current})")]
    Lost {
        /// The requested epoch.
        epoch: Epoch,
        /// The epoch of the store.
        current: Epoch,
    },
    /// The store cannot be reached, or cannot be used.
    #[error("the store cannot be used: {0}")]
    Unavailable(String),
}

/// The reason why a job was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Another job has the id or the idempotency key.
    #[error("job {existing} has the same id or idempotency key and another body")]
    Mismatch {
        /// The existing job.
        existing: JobId,
    },
    /// The job could not be made durable.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Place of damage in a row of the database.
pub const ROW: &str = "a row of the database";

/// The reason why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The stored rows are damaged.
    #[error("{place} is damaged: {detail}")]
    Corrupt {
        /// The file or object, or [`ROW`].
        place: String,
        /// Description of the damage.
        detail: String,
    },
    /// The stored form of a job cannot be read by this version.
    #[error("job {job} is stored, but cannot be read by this version: {detail}")]
    Unreadable {
        /// The job.
        job: JobId,
        /// Description of the damage.
        detail: String,
    },
    /// There are no such tasks.
    #[error("job {job} has no tasks {first} to {beyond}")]
    NoSuchTasks {
        /// The requested job.
        job: JobId,
        /// The first requested task.
        first: u64,
        /// The task after the last.
        beyond: u64,
    },
    /// A filter has too many tags.
    #[error("a filter has at most {limit} tags")]
    TooManyTags {
        /// Most tags of a filter.
        limit: usize,
    },
    /// Reading failed.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
}

impl ReadError {
    /// The error of a read of one job: damage makes `job` unreadable.
    #[must_use]
    pub fn of_job(self, job: JobId) -> Self {
        match self {
            Self::Corrupt { place, detail } if place == ROW => Self::Unreadable { job, detail },
            other @ (Self::Corrupt { .. }
            | Self::Unreadable { .. }
            | Self::NoSuchTasks { .. }
            | Self::TooManyTags { .. }
            | Self::Unavailable(_)) => other,
        }
    }
}

/// The reason why a program was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The bytes have another hash than the name.
    #[error("the SHA-256 of the bytes is {found}, not {expected}")]
    Mismatch {
        /// The name.
        expected: ProgramHash,
        /// Hash of the bytes.
        found: ProgramHash,
    },
    /// The program could not be made durable.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The reason why an output was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The bytes are not the announced ones.
    #[error("the output is not what was announced: {0}")]
    Different(String),
    /// The output could not be stored.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The reason why no result could be composed of the tasks' answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The answers could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The result could not be stored.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The answers do not combine in this way.
    #[error("{0}")]
    Combine(String),
}

/// The reason why pruning stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PruneError {
    /// The rows could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The rows or objects could not be deleted.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A fault of the place of large results, found before it is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The place does not exist, or refuses the keys: without another URL or other keys no large result can be stored.
    #[error(
        "results cannot be stored at {place}: {detail}; check the URL (DIVVY_RESULTS_URL) and the keys in the environment"
    )]
    Refused {
        /// The place.
        place: String,
        /// Description of the fault.
        detail: String,
    },
    /// The place does not work at the moment, or not in each step.
    #[error("the place of results {place} (DIVVY_RESULTS_URL) cannot be used: {detail}")]
    Unusable {
        /// The place.
        place: String,
        /// Description of the fault.
        detail: String,
    },
    /// The place works, and lacks an object that it should have.
    #[error("{object} is not in the place of results {place}: all coordinators need the same one (DIVVY_RESULTS_URL)")]
    Elsewhere {
        /// The place.
        place: String,
        /// The object.
        object: String,
    },
}

/// Text that is no URL of a place of large results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceUrlError {
    /// It is no URL.
    #[error(transparent)]
    Syntax(#[from] url::ParseError),
    /// It names a directory, but not by a path from the root on.
    #[error("it must name a directory as file:///path, such as file:///mnt/results")]
    File,
}

/// An object store that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("results cannot be stored at {url}: {detail}; check the URL (DIVVY_RESULTS_URL)")]
pub struct ObjectsError {
    /// The place.
    pub url: String,
    /// Description of the fault.
    pub detail: String,
}
