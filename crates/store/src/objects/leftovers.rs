//! Objects of this store that no row names: left by a process that ended between storing an object and committing the row that
//! names it, or in the middle of an upload.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;

use super::Objects;
use crate::backend::Reads;
use crate::error::{PruneError, ReadError};

/// Age of an object without a row after which no row can still come.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);
/// Age of the last addition to a part of an object after which the object is never completed: every upload ends sooner if
/// nothing comes.
const PART_AGE: Duration = Duration::from_hours(1);
/// Names that are looked up in one query.
const NAMES: usize = 1000;

impl Objects {
    /// Deletes objects of this age that no row names. Returns their number.
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

    /// Deletes parts of objects that are never completed, from a directory of this machine: those to which nothing was added for
    /// [`PART_AGE`], by the machine's clock and by `now`, the believed time. An object store elsewhere has rules of its own for
    /// such parts.
    pub(crate) async fn delete_old_parts(&self, now: Timestamp) -> Result<u64, ReadError> {
        let Some(directory) = self.directory.clone() else { return Ok(0) };
        let objects = self.clone();
        let deleting = tokio::task::spawn_blocking(move || objects.delete_old_parts_in(&directory, now));
        let failed = |error: &dyn std::fmt::Display| ReadError::Unavailable(error.to_string());
        deleting.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    fn delete_old_parts_in(&self, directory: &Path, now: Timestamp) -> io::Result<u64> {
        let mut deleted = delete_parts(directory, now, |name| self.is_own(name))?;
        deleted += delete_parts(&directory.join("programs").join(self.tag_or_none()), now, |_| true)?;
        for job in entries(&directory.join("outputs").join(self.tag_or_none()))? {
            deleted += delete_parts(&job.path(), now, |_| true)?;
        }
        Ok(deleted)
    }
}

/// Deletes the old parts in a directory whose names are fit.
fn delete_parts(directory: &Path, now: Timestamp, is_fit: impl Fn(&str) -> bool) -> io::Result<u64> {
    let mut deleted = 0;
    for entry in entries(directory)? {
        // `LocalFileSystem` gives objects such names until they are complete.
        let is_part = entry.file_name().to_str().is_some_and(|name| name.contains('#') && is_fit(name));
        if is_part && is_old(&entry, now).unwrap_or(false) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => deleted += 1,
            }
        }
    }
    Ok(deleted)
}

/// Whether a part is older than [`PART_AGE`], by both clocks: each of them may be wrong. `None` if the age is not known.
fn is_old(part: &DirEntry, now: Timestamp) -> Option<bool> {
    let modified = part.metadata().ok()?.modified().ok()?;
    let believed = Duration::try_from(now.duration_since(Timestamp::try_from(modified).ok()?)).ok()?;
    Some(modified.elapsed().ok()?.min(believed) > PART_AGE)
}

/// Entries of a directory; none if the directory does not exist.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().collect()),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use model::{JobId, ProgramHash};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::super::parts::PART_BYTES;
    use super::super::{ProgramUpload, ResultWriter};
    use super::*;

    /// The files below a directory.
    fn files(directory: &Path) -> Vec<std::path::PathBuf> {
        let found = entries(directory)
            .expect("readable")
            .into_iter()
            .flat_map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { vec![entry.path()] });
        found.collect()
    }

    #[tokio::test]
    async fn parts_to_which_nothing_was_added_for_an_hour_are_deleted_and_those_of_other_stores_are_not() {
        let directory = TempDir::new().expect("a directory");
        let store = |id| Objects::local(directory.path()).expect("a directory").of_store(Uuid::from_u128(id));
        let (own, other) = (store(1), store(2));
        let piece = vec![b'1'; PART_BYTES + 1];
        let (mut programs, mut results) = (Vec::new(), Vec::new());
        for objects in [&own, &other] {
            let hash = ProgramHash([1; 32]);
            let mut program = ProgramUpload::at(objects, hash, objects.program_path(hash));
            program.push(&piece).await.expect("room");
            programs.push(program);
            let mut result = ResultWriter::new(objects, JobId(Uuid::from_u128(7)));
            result.push_bytes(&piece).await.expect("room");
            results.push(result);
            let object = model::OutputObject {
                attempt: model::AttemptId(Uuid::from_u128(9)),
                bytes: piece.len() as u64,
                sha256: ProgramHash([1; 32]),
                text: true,
            };
            let mut output = objects.upload_output(JobId(Uuid::from_u128(7)), 0, object);
            output.push(&piece).await.expect("room");
            // A process that ends leaves the output in this state.
            std::mem::forget(output);
        }
        let parts = files(directory.path());
        assert_eq!(parts.len(), 6, "{parts:?}");
        assert_eq!(own.delete_old_parts(Timestamp::now()).await, Ok(0), "they are on their way");
        for part in &parts {
            let file = File::options().append(true).open(part).expect("it is there");
            file.set_modified(SystemTime::now() - 2 * PART_AGE).expect("its owner");
        }
        // The machine's clock may have leapt ahead.
        let believed = Timestamp::now().checked_sub(3 * PART_AGE / 2).expect("a time");
        assert_eq!(own.delete_old_parts(believed).await, Ok(0), "half an hour ago something was added");
        assert_eq!(own.delete_old_parts(Timestamp::now()).await, Ok(3));
        let left = files(directory.path());
        assert_eq!(left.len(), 3, "{left:?}");
        let tag = Uuid::from_u128(2).simple().to_string();
        assert!(left.iter().all(|part| part.to_string_lossy().contains(&tag)), "{left:?}");
    }
}
