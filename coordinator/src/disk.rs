//! The space of the data directory's file system. It is read every ten seconds, away from the threads that serve: a network
//! volume may answer late.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::DiskStats;
use tokio::task::spawn_blocking;

const READ_INTERVAL: Duration = Duration::from_secs(10);

/// The last reading.
#[derive(Debug)]
pub(crate) struct Disk {
    /// `None` where jobs are kept in a database.
    data_dir: Option<PathBuf>,
    last: Mutex<Option<DiskStats>>,
}

impl Disk {
    pub(crate) fn new(data_dir: Option<PathBuf>) -> Self {
        let last = Mutex::new(data_dir.as_deref().and_then(read));
        Self { data_dir, last }
    }

    /// `None` where there is no data directory, or its file system has no figures.
    pub(crate) fn space(&self) -> Option<DiskStats> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads it again and again. Runs for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let Some(data_dir) = &self.data_dir else { return std::future::pending().await };
        loop {
            tokio::time::sleep(READ_INTERVAL).await;
            let data_dir = data_dir.clone();
            let space = spawn_blocking(move || read(&data_dir)).await.ok().flatten();
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = space;
        }
    }
}

fn read(data_dir: &Path) -> Option<DiskStats> {
    let (total_bytes, free_bytes) = store_sqlite::room(data_dir);
    (total_bytes > 0).then_some(DiskStats { free_bytes, total_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_a_data_directory_is_known_immediately_and_that_of_a_database_never() {
        let directory = tempfile::tempdir().expect("a directory");
        let space = Disk::new(Some(directory.path().to_owned())).space().expect("figures");
        assert!(space.free_bytes <= space.total_bytes, "{space:?}");
        assert_eq!(Disk::new(Some(directory.path().join("absent"))).space(), None);
        assert_eq!(Disk::new(None).space(), None);
    }
}
