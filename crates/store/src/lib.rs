//! The one door to durability. A [`Store`] keeps jobs, what is done of them, their events and results in one SQLite file
//! of a data directory; large results stand beside it. One thread writes and commits in groups: what [`Store::submit`]
//! and [`Store::commit`] answer to is on the disk, what [`Store::record`] takes is there about 10 ms later, and all of it
//! in the order in which it came. Reads see what is committed.

mod apply;
mod change;
mod column;
mod error;
mod jobs;
mod json;
mod ledger;
mod listing;
mod log;
mod open;
mod queue;
mod readers;
mod record;
mod results;
mod retention;
mod spans;
mod submit;
mod tasks;
mod writer;

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;

use jiff::Timestamp;
use model::{JobEvent, JobId};
use serde_json::value::RawValue;
use tokio::sync::watch;
use url::Url;

pub use change::{Change, Outcome, ResultBody, StoredObject};
pub use error::{ComposeError, OpenError, PruneError, ReadError, SubmitError, WriteError};
pub use record::{
    Attempt, AttemptEnd, Cursor, InvalidCursor, JobFilter, JobRecord, NewJob, Pruned, StoredResult, Submission,
    UnfinishedJob,
};
pub use retention::Retention;

use queue::{Done, Work};
use readers::Readers;
use results::Objects;
use tasks::Blocks;
use writer::Writer;

/// Where a store is and what it keeps.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The directory of the database; made if it is not there. One process at a time.
    pub data_dir: PathBuf,
    /// Where results above 64 KiB go. Default: `results` in the data directory.
    pub results_url: Option<Url>,
    /// What is kept of jobs that are over.
    pub retention: Retention,
}

/// See the crate's own words. Dropped, it commits what is queued as [`Store::close`] does.
#[derive(Debug)]
pub struct Store {
    // Before the writer, whose connection is the last to close and so copies the log back.
    readers: Readers,
    writer: Writer,
    objects: Objects,
    blocks: Blocks,
    retention: Retention,
    // Last: the directory is in use until all else is closed.
    _lock: File,
}

impl Store {
    /// Opens the directory, making it and what belongs in it where it is not there. May take as long as reading a file
    /// of 64 MiB.
    ///
    /// # Errors
    /// The directory or the database cannot be used; neither has been changed then.
    pub fn open(settings: StoreSettings) -> Result<Self, OpenError> {
        let opened = open::open(&settings.data_dir)?;
        let objects = Objects::open(settings.results_url.as_ref(), &settings.data_dir)?;
        let failed = |error: rusqlite::Error| open::database_error(&opened.path, &error);
        let readers = Readers::open(&opened.path).map_err(failed)?;
        let latest_event = apply::latest_event(&opened.db).map_err(failed)?;
        let writer = Writer::start(opened.db, latest_event)
            .map_err(|error| OpenError::Database { path: opened.path.clone(), detail: error.to_string() })?;
        let retention = settings.retention;
        Ok(Self { readers, writer, objects, blocks: Blocks::default(), retention, _lock: opened.lock })
    }

    /// Every job that is not over, in the order in which they came. Reads on this thread.
    ///
    /// # Errors
    /// It could not be read.
    pub fn unfinished(&self) -> Result<Vec<UnfinishedJob>, ReadError> {
        self.readers.read_here(|db| jobs::unfinished(db, None))
    }

    /// One job, if it is not over.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn unfinished_job(&self, id: JobId) -> Result<Option<UnfinishedJob>, ReadError> {
        Ok(self.readers.read(move |db| jobs::unfinished(db, Some(id))).await?.pop())
    }

    /// Accepts a job; durable when it resolves. Where it does not resolve, because nobody waits any more, the job may
    /// have been accepted.
    ///
    /// # Errors
    /// Another job has its name, or it could not be made durable: it is not accepted then and will not be.
    pub async fn submit(&self, job: NewJob) -> Result<Submission, SubmitError> {
        match self.writer.call(Work::Submit(Box::new(job))).await? {
            Done::Submitted(submission) => Ok(submission),
            Done::Mismatch(existing) => Err(SubmitError::Mismatch { existing }),
            other @ (Done::Changed | Done::Rows(_) | Done::Refused(_)) => {
                unreachable!("a submission is never answered with {other:?}")
            }
        }
    }

    /// Makes a change, after all that came before, within some 10 ms. While nothing can be written it waits in memory;
    /// see [`Store::backlog`]. A change that contradicts what is stored is logged and left out.
    pub fn record(&self, change: Change) {
        self.writer.send(Work::Change(change));
    }

    /// Makes a change, after all that came before; durable when it resolves.
    ///
    /// # Errors
    /// It could not be made durable, and will not be.
    pub async fn commit(&self, change: Change) -> Result<(), WriteError> {
        self.writer.call(Work::Change(change)).await.map(|_| ())
    }

    /// Resolves when all that came before is committed.
    ///
    /// # Errors
    /// It could not be committed yet; recorded changes still wait.
    pub async fn flush(&self) -> Result<(), WriteError> {
        self.writer.call(Work::Barrier).await.map(|_| ())
    }

    /// Changes that wait to be committed. They are held in memory without a bound: give out no more work when it is
    /// large.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.writer.queue().backlog()
    }

    /// Why the last group of changes could not be committed, until one could.
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
        self.readers.read(move |db| jobs::one(db, id)).await
    }

    /// At most `limit` jobs, the newest first, from before a place in that order.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn jobs(
        &self,
        filter: JobFilter,
        before: Option<Cursor>,
        limit: usize,
    ) -> Result<Vec<JobRecord>, ReadError> {
        self.readers.read(move |db| listing::page(db, &filter, before, limit)).await
    }

    /// Every recorded attempt that touches one of the `limit` individual tasks from `first` on: by first task, then in
    /// the order in which they ended. An attempt at more than 1024 tasks is in pieces.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn outcomes(&self, job: JobId, first: u64, limit: usize) -> Result<Vec<Attempt>, ReadError> {
        let tasks = first..first.saturating_add(limit as u64);
        self.readers.read(move |db| tasks::attempts(db, job, tasks)).await
    }

    /// The payloads of individual tasks, in order. Reads on this thread, but seldom: whole blocks stay in memory.
    ///
    /// # Errors
    /// The job has no such tasks, or they could not be read.
    pub fn payloads(&self, job: JobId, tasks: Range<u64>) -> Result<Vec<Box<RawValue>>, ReadError> {
        let read = |task| self.readers.read_here(|db| tasks::read_block(db, job, task));
        self.blocks.payloads(job, tasks, read)
    }

    /// At most `limit` events with a number above `after`, of one job or of all, ascending.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn events(&self, after: u64, job: Option<JobId>, limit: usize) -> Result<Vec<JobEvent>, ReadError> {
        self.readers.read(move |db| jobs::events(db, after, job, limit)).await
    }

    /// A job's result.
    ///
    /// # Errors
    /// It could not be read, or is not what was stored.
    pub async fn result(&self, job: JobId) -> Result<Option<StoredResult>, ReadError> {
        let row = self.readers.read(move |db| results::by_job(db, job)).await?;
        results::fetch(&self.objects, row).await
    }

    /// The newest result under an output's name.
    ///
    /// # Errors
    /// It could not be read, or is not what was stored.
    pub async fn result_by_name(&self, output: &str) -> Result<Option<StoredResult>, ReadError> {
        let output = output.to_owned();
        let row = self.readers.read(move |db| results::by_name(db, &output)).await?;
        results::fetch(&self.objects, row).await
    }

    /// Stores a result for [`Change::Ended`], which makes it the job's.
    ///
    /// # Errors
    /// It could not be stored.
    pub async fn put_result(&self, job: JobId, json: Box<RawValue>) -> Result<ResultBody, WriteError> {
        self.objects.put(job, json).await
    }

    /// Puts `{"tasks":[…]}` together from what the individual tasks answered, with null where there is no answer, and
    /// stores it for [`Change::Ended`]. Memory is bounded however many they are.
    ///
    /// # Errors
    /// There is no such job, the answers could not be read, or the result could not be stored.
    pub async fn compose_result(&self, job: JobId) -> Result<ResultBody, ComposeError> {
        self.flush().await?;
        results::compose(&self.objects, &self.readers, job).await
    }

    /// Forgets jobs that are over, the oldest first, as far as [`Retention`] asks: with their rows, events and results.
    ///
    /// # Errors
    /// Something could not be deleted; the next call goes on with it.
    pub async fn prune(&self) -> Result<Pruned, PruneError> {
        let (retention, now) = (self.retention, Timestamp::now());
        let victims = self.readers.read(move |db| retention::victims(db, retention, now)).await?;
        let mut pruned = Pruned::default();
        for some in victims.chunks(retention::DOOMED_AT_ONCE) {
            let keys = some.iter().map(|&(key, _)| key).collect();
            if let Done::Rows(jobs) = self.writer.call(Work::Doom(keys)).await? {
                pruned.jobs += jobs;
                pruned.bytes += some.iter().map(|&(_, bytes)| bytes).sum::<u64>();
            }
        }
        for (key, job, is_reused) in self.readers.read(retention::unswept).await? {
            self.blocks.forget(job);
            if !is_reused {
                self.objects.delete(job).await?;
            }
            while let Done::Rows(1..) = self.writer.call(Work::Sweep(key)).await? {}
        }
        Ok(pruned)
    }

    /// Commits what is queued and copies the log back into the database. Waits for it.
    ///
    /// # Errors
    /// Recorded changes could not be committed within some seconds, and are lost.
    pub fn close(self) -> Result<(), WriteError> {
        let Self { readers, mut writer, .. } = self;
        drop(readers);
        match (writer.close(), writer.queue().failing()) {
            (0, _) => Ok(()),
            (_, error) => Err(WriteError::Io(error.unwrap_or_default())),
        }
    }
}
