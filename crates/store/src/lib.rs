//! The contract of durability. A [`Store`] keeps jobs, the states of their tasks, their events and results. One thread writes
//! and commits in groups: [`Store::submit`] and [`Store::commit`] answer after the commit, a change of [`Store::record`] is
//! durable about 10 ms later, and all changes are committed in their order. Reads see committed rows.
//!
//! Several coordinators may share a store: see [`shared`]. The leader makes changes; the others read and submit.
//!
//! A store implements [`backend::Backend`] and [`backend::Reads`], applies the [`rules`], keeps values in the forms of
//! [`stored`], and passes the tests of `suite`. [`memory`] is a store without files. This crate has no SQL.

pub mod backend;
mod batch;
mod blocks;
mod calendar;
mod change;
mod compose;
mod drains;
mod error;
mod json;
pub mod memory;
mod objects;
mod outputs;
mod payloads;
mod position;
mod programs;
mod queue;
mod record;
pub mod retention;
pub mod rules;
pub mod shared;
mod spans;
pub mod statistics;
mod store;
pub mod stored;
#[cfg(feature = "suite")]
pub mod suite;
pub mod transfer;
mod unfinished;
mod unreadable;
mod verified;
mod writer;

pub use batch::{Answer, Batch, Entry, Epoch, Housekeeping, JobKey};
pub use change::{Change, ChangeKind, CompletedAttempt, ResultBody, StoredObject};
pub use drains::{Drain, DrainChange, DrainedWorker};
pub use error::{
    ComposeError, LeadershipError, ObjectsError, OutputError, PlaceError, PlaceUrlError, PruneError, ROW, ReadError,
    SubmitError, UploadError, WriteError,
};
pub use json::array;
pub use objects::{INLINE_BYTES, Objects, OutputUpload, ProgramBytes, ProgramUpload, ResultStream};
pub use outputs::{OutputBytes, OutputLines};
pub use payloads::payload_blocks;
pub use position::{Advance, Advanced, OUTBOX, OUTBOX_LOST, OUTBOX_LOST_TOLD, Position};
pub use programs::{ProgramChange, ProgramRecord, TaskLog, in_use, missing};
pub use record::{
    Attempt, AttemptEnd, Cursor, InvalidCursor, JobFilter, JobRecord, MAX_FILTER_TAGS, NewJob, Pruned, StoredResult,
    Submission, UnfinishedJob,
};
pub use retention::Retention;
pub use shared::{Leadership, Shared};
pub use store::{FollowerParts, Parts, Store};
pub use unfinished::{StoredSpan, UnfinishedRows};
pub use unreadable::Unreadable;
pub use verified::{MAX_TIMED_OUT, SetAsideWorker, Verified};
