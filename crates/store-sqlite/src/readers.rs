//! The connections that only read. In WAL mode they neither wait for the writer nor hold it up.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, InterruptHandle};
use store::{ReadError, Unreadable};
use tokio::sync::Semaphore;

use crate::error::read_error;
use crate::open;

/// Concurrent reads of single jobs, results or programs, each short: more would only share the same disk and cores.
const READERS: usize = 4;

/// Concurrent reads of many rows.
const LISTS: usize = 2;

/// All connections that read.
#[derive(Debug)]
pub(crate) struct Readers {
    /// For any other read.
    pub(crate) any: Pool,
    /// For lists, statistics and retention, so that no other read waits behind them.
    pub(crate) lists: Pool,
    /// For payloads, so that a worker never waits behind lists of clients.
    pub(crate) payloads: Pool,
    pub(crate) unreadable: Arc<Unreadable>,
}

impl Readers {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let (any, lists) = (Pool::open(path, READERS)?, Pool::open(path, LISTS)?);
        Ok(Self { any, lists, payloads: Pool::open(path, 1)?, unreadable: Arc::default() })
    }
}

/// Connections that take turns.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A connection is consistent between two statements, also after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn open(path: &Path, size: usize) -> rusqlite::Result<Self> {
        let idle = (0..size).map(|_| open::reading(path)).collect::<Result<_, _>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(idle)), permits: Arc::new(Semaphore::new(size)) })
    }

    /// Reads on a thread that may block. Dropping the future interrupts the query.
    pub(crate) async fn read<T, R>(&self, read: R) -> Result<T, ReadError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let closed = |_| ReadError::Unavailable("the store is closed".to_owned());
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let idle = self.idle.clone();
        let caller = Caller(Arc::new(Mutex::new(Query::Waits)));
        let query = caller.0.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let db = lock(&idle).pop().expect("there is a connection for each permit");
            let lent = Lent { db: Some(db), idle: &idle, query: &query };
            let db = lent.db.as_ref().expect("it is given back at the end");
            if !lent.begin(db) {
                return Err(ReadError::Unavailable("the caller has left".to_owned()));
            }
            read(db).map_err(|error| read_error(&error))
        });
        task.await.map_err(|error| ReadError::Unavailable(error.to_string()))?
    }
}

/// State of a query, shared between its caller and its thread.
enum Query {
    Waits,
    Runs(InterruptHandle),
    /// The query has ended, or must not begin.
    Over,
}

/// The caller, which may be gone when the answer comes.
struct Caller(Arc<Mutex<Query>>);

impl Drop for Caller {
    fn drop(&mut self) {
        // The interrupt happens under the lock, so that the connection cannot have gone to another caller yet.
        let mut query = lock(&self.0);
        if let Query::Runs(handle) = &*query {
            handle.interrupt();
        }
        *query = Query::Over;
    }
}

/// A connection that returns to the pool even if the reading panics.
struct Lent<'a> {
    db: Option<Connection>,
    idle: &'a Mutex<Vec<Connection>>,
    query: &'a Mutex<Query>,
}

impl Lent<'_> {
    /// Begins the query; false if the caller has left.
    fn begin(&self, db: &Connection) -> bool {
        let mut query = lock(self.query);
        let waits = matches!(*query, Query::Waits);
        if waits {
            *query = Query::Runs(db.get_interrupt_handle());
        }
        waits
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        *lock(self.query) = Query::Over;
        lock(self.idle).extend(self.db.take());
    }
}

#[cfg(test)]
mod tests;
