//! The connections that only read. In WAL mode they neither wait for the writer nor hold it up.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::error::ReadError;
use crate::open;

/// Reads at once, beside the direct ones: more would only share the same disk and cores.
const READERS: usize = 4;

#[derive(Clone, Debug)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    idle: Mutex<Vec<Connection>>,
    direct: Mutex<Connection>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A connection is whole between two statements, whatever panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Readers {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Self> {
        let idle = (0..READERS).map(|_| open::reading(path)).collect::<Result<_, _>>()?;
        let shared = Shared { idle: Mutex::new(idle), direct: Mutex::new(open::reading(path)?) };
        Ok(Self { shared: Arc::new(shared), permits: Arc::new(Semaphore::new(READERS)) })
    }

    /// Reads on a thread that may wait.
    pub(crate) async fn read<T, R>(&self, read: R) -> Result<T, ReadError>
    where
        T: Send + 'static,
        R: FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    {
        let closed = |_| ReadError::Io("the store is closed".to_owned());
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let db = lock(&shared.idle).pop().expect("there is a connection for each permit");
            let lent = Lent { db: Some(db), idle: &shared.idle };
            read(lent.db.as_ref().expect("it is given back at the end"))
        });
        task.await.map_err(|error| ReadError::Io(error.to_string()))?
    }

    /// Reads on this thread.
    pub(crate) fn read_here<T>(&self, read: impl FnOnce(&Connection) -> Result<T, ReadError>) -> Result<T, ReadError> {
        read(&lock(&self.shared.direct))
    }
}

/// A connection that goes back even where the reading panics.
struct Lent<'a> {
    db: Option<Connection>,
    idle: &'a Mutex<Vec<Connection>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        lock(self.idle).extend(self.db.take());
    }
}
