//! Objects of this store that no row names: left by a process that ended between storing one and committing the row that names it.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;

use super::Objects;
use crate::backend::Reads;
use crate::error::{PruneError, ReadError};

/// An object that no row names after so long never will be.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);
/// Names that are looked up at once.
const NAMES: usize = 1000;

impl Objects {
    /// Deletes objects that no row names though they are old enough. Returns how many.
    pub(crate) async fn delete_leftovers(&self, reads: &dyn Reads, now: Timestamp) -> Result<u64, PruneError> {
        let oldest = now.checked_sub(LEFTOVER_AGE).unwrap_or(Timestamp::MIN).as_second();
        let mut objects = self.store.list(Some(&self.root));
        let (mut names, mut deleted) = (Vec::new(), 0);
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| ReadError::Unavailable(error.to_string()))?;
            if object.last_modified.timestamp() < oldest
                && let Some(name) = object.location.filename().filter(|name| self.is_own(name))
            {
                names.push(name.to_owned());
            }
            if names.len() == NAMES {
                deleted += self.delete_unnamed(reads, std::mem::take(&mut names)).await?;
            }
        }
        deleted += self.delete_unnamed(reads, names).await?;
        self.delete_old_parts().await?;
        Ok(deleted)
    }

    async fn delete_unnamed(&self, reads: &dyn Reads, names: Vec<String>) -> Result<u64, PruneError> {
        let named: HashSet<_> = reads.named_objects(names.clone()).await?.into_iter().collect();
        let mut deleted = 0;
        for name in names.iter().filter(|name| !named.contains(*name)) {
            self.delete(name).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Deletes old parts of results that were never completed, from a directory of this machine. An object store
    /// elsewhere has rules of its own for them.
    async fn delete_old_parts(&self) -> Result<(), ReadError> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let objects = self.clone();
        let deleting = tokio::task::spawn_blocking(move || {
            for entry in std::fs::read_dir(directory)?.flatten() {
                // As `LocalFileSystem` names them until they are complete.
                let name = entry.file_name();
                let is_part = name.to_str().is_some_and(|name| objects.is_own(name) && name.contains(".json#"));
                let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
                if is_part && age().is_some_and(|age| age > LEFTOVER_AGE) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok::<_, std::io::Error>(())
        });
        let failed = |error: &dyn std::fmt::Display| ReadError::Unavailable(error.to_string());
        deleting.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }
}
