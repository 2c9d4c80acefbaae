//! The one thread that writes. It takes what is queued, makes all of it in one transaction, and tells whoever waits.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};

use crate::apply;
use crate::error::WriteError;
use crate::ledger::Ledgers;
use crate::open;
use crate::queue::{Done, Next, Queue, Queued, Work};

/// Pauses between attempts while nothing can be written.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// How long a store that cannot write any more tries to when it is closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// The log is copied back when nothing has come for so long, where a commit does not wait for it,
const QUIET: Duration = Duration::from_millis(200);
/// or when it has so many pages of 4 KiB.
const LOG_PAGES: i64 = 4096;

/// The way to the thread. Dropped, it waits until all is committed.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Arc<Queue>,
    latest_event: watch::Receiver<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(db: Connection, latest_event: u64) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (events, receiver) = watch::channel(latest_event);
        let stop = StopOnDrop(queue.clone());
        let thread = WriterThread { queue: queue.clone(), db, events, ledgers: Ledgers::default(), pause: FIRST_PAUSE };
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            let _stop = stop;
            thread.run();
        })?;
        Ok(Self { queue, latest_event: receiver, thread: Some(thread) })
    }

    pub(crate) fn send(&self, work: Work) {
        self.queue.push(work, None);
    }

    pub(crate) async fn call(&self, work: Work) -> Result<Done, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(work, Some(reply));
        match answer.await {
            Ok(Ok(Done::Refused(reason))) => Err(WriteError::Refused(reason)),
            Ok(answer) => answer,
            Err(_) => Err(WriteError::Closed),
        }
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn latest_event(&self) -> watch::Receiver<u64> {
        self.latest_event.clone()
    }

    /// Commits what is queued and ends the thread. Returns how many changes could not be committed.
    pub(crate) fn close(&mut self) -> u64 {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
        self.queue.backlog()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// However the thread ends, nobody waits for it in vain.
struct StopOnDrop(Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let lost = self.0.stop();
        if lost > 0 {
            tracing::error!(changes = lost, "the store stopped before all changes were committed");
        }
    }
}

struct WriterThread {
    queue: Arc<Queue>,
    db: Connection,
    events: watch::Sender<u64>,
    ledgers: Ledgers,
    pause: Duration,
}

/// Why a group was not committed.
enum Fault {
    /// The change at this place cannot be made by itself.
    Change(usize, rusqlite::Error),
    /// Nothing can be written as things are.
    Disk(WriteError),
}

impl WriterThread {
    fn run(mut self) {
        let mut log_pages = 0;
        let mut closing_since = None;
        loop {
            let is_failing = self.pause != FIRST_PAUSE;
            match self.queue.next((log_pages > 0 || is_failing).then_some(QUIET)) {
                Next::Commit(group) => {
                    let is_committed = self.commit(group);
                    log_pages = self.log_pages();
                    if log_pages >= LOG_PAGES && is_committed {
                        log_pages = self.checkpoint();
                    }
                    if !is_committed && self.queue.is_closed() {
                        let since = *closing_since.get_or_insert_with(Instant::now);
                        if since.elapsed() > CLOSE_PATIENCE {
                            return;
                        }
                    }
                }
                // Who waits for the end of a failure before anything else is changed must not wait in vain.
                Next::Idle if is_failing => _ = self.commit(Vec::new()),
                Next::Idle => {
                    self.checkpoint();
                    log_pages = 0;
                }
                Next::End => {
                    self.checkpoint();
                    return;
                }
            }
        }
    }

    /// Commits the group but for changes that cannot be made. False: nothing is committed, and what nobody waits for is
    /// back in the queue.
    fn commit(&mut self, mut group: Vec<Queued>) -> bool {
        loop {
            match self.try_commit(&group) {
                Ok(done) => {
                    self.queue.finished(group.len() as u64);
                    self.recovered();
                    for (queued, done) in group.into_iter().zip(done) {
                        answer(queued, done);
                    }
                    return true;
                }
                Err(Fault::Change(index, error)) => {
                    self.queue.finished(1);
                    answer(group.remove(index), Done::Refused(error.to_string()));
                }
                Err(Fault::Disk(error)) => {
                    self.queue.set_failing(Some(error.to_string()));
                    if self.pause == FIRST_PAUSE {
                        tracing::error!(%error, changes = group.len(), "changes cannot be committed");
                    }
                    self.queue.put_back(group, &error);
                    self.queue.pause(self.pause);
                    self.pause = (self.pause * 2).min(LAST_PAUSE);
                    return false;
                }
            }
        }
    }

    fn recovered(&mut self) {
        if self.pause != FIRST_PAUSE {
            self.pause = FIRST_PAUSE;
            self.queue.set_failing(None);
            tracing::info!("changes are committed again");
        }
    }

    fn try_commit(&mut self, group: &[Queued]) -> Result<Vec<Done>, Fault> {
        let outcome = self.transact(group);
        match &outcome {
            Ok(_) => {
                self.ledgers.keep();
                if let Ok(latest) = apply::latest_event(&self.db) {
                    self.events.send_if_modified(|seq| std::mem::replace(seq, latest) != latest);
                }
            }
            Err(_) => {
                self.ledgers.forget();
                // Some errors have rolled back already.
                if !self.db.is_autocommit()
                    && let Err(error) = self.db.execute_batch("ROLLBACK")
                {
                    tracing::error!(%error, "a transaction could not be rolled back");
                }
            }
        }
        outcome
    }

    fn transact(&mut self, group: &[Queued]) -> Result<Vec<Done>, Fault> {
        let on_disk = |error: rusqlite::Error| Fault::Disk(write_error(&error));
        self.db.execute_batch("BEGIN IMMEDIATE").map_err(on_disk)?;
        let mut done = Vec::with_capacity(group.len());
        for (index, queued) in group.iter().enumerate() {
            let applied = apply::apply(&self.db, &mut self.ledgers, &queued.work);
            done.push(applied.map_err(|error| {
                if is_of_the_change(&error) { Fault::Change(index, error) } else { on_disk(error) }
            })?);
        }
        self.ledgers.store(&self.db).map_err(on_disk)?;
        if group.is_empty() {
            // Nothing is changed, yet the page is written: what a failed commit has left in the log is overwritten.
            open::set_version(&self.db).map_err(on_disk)?;
        }
        self.db.execute_batch("COMMIT").map_err(on_disk)?;
        Ok(done)
    }

    fn log_pages(&self) -> i64 {
        self.wal_checkpoint("NOOP").unwrap_or(0)
    }

    fn checkpoint(&self) -> i64 {
        self.wal_checkpoint("PASSIVE").unwrap_or_else(|error| {
            tracing::warn!(%error, "the write-ahead log could not be copied back");
            0
        })
    }

    /// Pages in the log that are not copied back.
    fn wal_checkpoint(&self, mode: &str) -> rusqlite::Result<i64> {
        let mut pragma = self.db.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
        pragma.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
    }
}

fn answer(queued: Queued, done: Done) {
    if let Done::Refused(reason) = &done {
        match &queued.work {
            Work::Change(change) => tracing::error!(job_id = %change.job(), %reason, "a change was refused"),
            Work::Submit(job) => tracing::error!(job_id = %job.id, %reason, "a job was refused"),
            Work::Barrier | Work::Doom(_) | Work::Sweep(_) => tracing::error!(%reason, "a deletion was refused"),
        }
    }
    if let Some(reply) = queued.reply {
        // Whoever asked may have gone: the change stands all the same.
        let _ = reply.send(Ok(done));
    }
}

/// Whether it is the change that failed, as it would on any disk.
fn is_of_the_change(error: &rusqlite::Error) -> bool {
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::NotADatabase
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
        )
    )
}

pub(crate) fn write_error(error: &rusqlite::Error) -> WriteError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => WriteError::DiskFull,
        Some(ErrorCode::ReadOnly) => WriteError::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => WriteError::Corrupt(error.to_string()),
        _ => WriteError::Io(error.to_string()),
    }
}
