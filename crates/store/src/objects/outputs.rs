//! Outputs of tasks as objects: below the tag of their store and their job, named by attempt, task and the beginning of their
//! hash. Only content with this hash becomes visible under the name, so that an existing object is the intended one.

use std::collections::HashSet;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;
use std::{fs, io};

use futures_util::StreamExt;
use jiff::Timestamp;
use model::{AttemptId, JobId, OutputObject, TextCheck};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use uuid::Uuid;

use super::leftovers::entries;
use super::parts::Parts;
use super::{Objects, ResultStream};
use crate::backend::Reads;
use crate::error::{OutputError, PruneError, ReadError, WriteError};
use crate::record::AttemptEnd;

/// Age after which outputs of a job that is over are deleted if no row names them: a row may be about to be committed.
const UNCOUNTED_AGE: Duration = Duration::from_hours(1);

/// Hexadecimal digits of the hash in an object's name.
const HASH_CHARS: usize = 16;

/// An upload of an output into the object store. The output is visible there once it is complete and has the announced hash.
#[derive(Debug)]
pub struct OutputUpload {
    object: OutputObject,
    parts: Parts,
    text: TextCheck,
}

/// A list of a job's outputs, as they were at one moment.
#[derive(Debug)]
pub(crate) struct ListedOutputs {
    objects: Vec<(Path, Timestamp)>,
    /// Their directory, if they are files of this machine.
    directory: Option<PathBuf>,
    /// The files of the directory, including parts of uploads that were cut off.
    files: Vec<PathBuf>,
}

impl OutputUpload {
    /// Number of bytes received.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.bytes()
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The output is longer than announced, or the bytes could not be stored.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        if self.parts.bytes() + bytes.len() as u64 > self.object.bytes {
            return Err(OutputError::Different(format!("it has more than {} bytes", self.object.bytes)));
        }
        if self.object.text {
            self.text.push(bytes);
        }
        Ok(self.parts.push(bytes).await?)
    }

    /// Makes the output visible, if it is the announced one.
    ///
    /// # Errors
    /// The output is another one, or could not be stored; nothing of it stays then.
    pub async fn finish(mut self) -> Result<(), OutputError> {
        let OutputObject { bytes, sha256, text, .. } = self.object;
        let found = self.parts.bytes();
        let different = if found != bytes {
            Some(format!("it has {found} bytes, not {bytes}"))
        } else if self.parts.sha256() != sha256.0 {
            Some(format!("its SHA-256 is not {sha256}"))
        } else if text && !self.text.is_text() {
            Some("it is no text".to_owned())
        } else {
            None
        };
        if let Some(different) = different {
            self.abort().await;
            return Err(OutputError::Different(different));
        }
        let completed = self.parts.complete().await;
        self.abort().await;
        Ok(completed?)
    }

    /// Deletes the stored bytes.
    pub async fn abort(mut self) {
        self.parts.abort().await;
    }
}

impl Objects {
    fn outputs(&self) -> Path {
        self.root.clone().join("outputs").join(self.tag_or_none())
    }

    fn outputs_of(&self, job: JobId) -> Path {
        self.outputs().join(job.0.simple().to_string())
    }

    pub(super) fn output_path(&self, job: JobId, task: u64, object: &OutputObject) -> Path {
        let OutputObject { attempt, sha256, text, .. } = object;
        let (hash, form) = (sha256.to_string(), if *text { "txt" } else { "bin" });
        // Some servers of S3 make a file's name of the whole path: it stays below 150 characters.
        self.outputs_of(job).join(format!("{}.{task}.{}.{form}", attempt.0.simple(), &hash[..HASH_CHARS]))
    }

    pub(crate) fn upload_output(&self, job: JobId, task: u64, object: OutputObject) -> OutputUpload {
        let parts = Parts::new(self.store.clone(), self.output_path(job, task, &object));
        OutputUpload { object, parts, text: TextCheck::default() }
    }

    /// Whether the complete object exists.
    pub(crate) async fn has_output(&self, job: JobId, task: u64, object: &OutputObject) -> Result<bool, ReadError> {
        match self.store.head(&self.output_path(job, task, object)).await {
            Ok(found) => Ok(found.size == object.bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    /// Whether the complete object exists and stays: a process may have ended between its renaming and the write of the directory
    /// to the disk.
    pub(crate) async fn keeps_output(&self, job: JobId, task: u64, object: &OutputObject) -> Result<bool, ReadError> {
        if !self.has_output(job, task, object).await? {
            return Ok(false);
        }
        let Some(directory) = self.directory_of_outputs(job) else { return Ok(true) };
        let syncing = tokio::task::spawn_blocking(move || std::fs::File::open(directory)?.sync_all());
        let synced = syncing.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        synced.map(|()| true).map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    /// Directory of a job's outputs, if the objects are in a directory of this machine.
    fn directory_of_outputs(&self, job: JobId) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(directory.join("outputs").join(self.tag_or_none()).join(job.0.simple().to_string()))
    }

    /// An output in pieces.
    pub(crate) async fn read_output(
        &self,
        job: JobId,
        task: u64,
        object: &OutputObject,
    ) -> Result<ResultStream, ReadError> {
        self.read(job, &self.output_path(job, task, object), object.bytes, object.sha256.0.to_vec()).await
    }

    /// The jobs that have outputs here.
    pub(crate) async fn jobs_with_outputs(&self) -> Result<HashSet<JobId>, ReadError> {
        let listed = self.store.list_with_delimiter(Some(&self.outputs())).await;
        let listed = listed.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let names = listed.common_prefixes.iter().filter_map(|prefix| prefix.filename());
        Ok(names.filter_map(|name| Uuid::try_parse(name).ok().map(JobId)).collect())
    }

    async fn outputs_that_are_there(&self, job: JobId) -> Result<Vec<(Path, Timestamp)>, ReadError> {
        let mut objects = self.store.list(Some(&self.outputs_of(job)));
        let mut found = Vec::new();
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| ReadError::Unavailable(error.to_string()))?;
            let at = Timestamp::from_second(object.last_modified.timestamp()).unwrap_or(Timestamp::MAX);
            found.push((object.location, at));
        }
        Ok(found)
    }

    /// Lists a job's outputs, to be deleted if the job turns out to be forgotten.
    pub(crate) async fn list_outputs(&self, job: JobId) -> Result<ListedOutputs, ReadError> {
        let objects = self.outputs_that_are_there(job).await?;
        let directory = self.directory_of_outputs(job);
        let Some(listed) = directory.clone() else {
            return Ok(ListedOutputs { objects, directory, files: Vec::new() });
        };
        let listing = tokio::task::spawn_blocking(move || files_in(&listed)).await;
        let files = listing.unwrap_or_else(|error| Err(io::Error::other(error)));
        let files = files.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        Ok(ListedOutputs { objects, directory, files })
    }

    /// Deletes outputs of a job that was forgotten after they were listed. What has come since may be of a job that was accepted
    /// under the same id.
    pub(crate) async fn delete_outputs(&self, listed: ListedOutputs) -> Result<u64, PruneError> {
        let ListedOutputs { objects, directory, files } = listed;
        for (path, _) in &objects {
            self.delete_at(path).await?;
        }
        if let Some(directory) = directory {
            let deleting = tokio::task::spawn_blocking(move || delete_files(&directory, &files)).await;
            let deleted = deleting.unwrap_or_else(|error| Err(io::Error::other(error)));
            deleted.map_err(|error| WriteError::Results(error.to_string()))?;
        }
        Ok(objects.len() as u64)
    }

    /// Deletes outputs that never counted: those of forgotten jobs, and of jobs that are over those that no row names. Returns
    /// their number.
    pub(crate) async fn delete_uncounted_outputs(&self, reads: &dyn Reads, now: Timestamp) -> Result<u64, PruneError> {
        let oldest = now.checked_sub(UNCOUNTED_AGE).unwrap_or(Timestamp::MIN);
        let mut deleted = 0;
        for job in self.jobs_with_outputs().await? {
            // If the job is over, the objects that were listed before the look at the job belong to attempts that have ended.
            let found = self.list_outputs(job).await?;
            match reads.job(job).await {
                Ok(None) => deleted += self.delete_outputs(found).await?,
                Ok(Some(record)) if !record.state.is_over() => {}
                Ok(Some(_)) => {
                    for (path, _) in found.objects.iter().filter(|(_, at)| *at < oldest) {
                        if !is_counted(reads, job, path).await? {
                            self.delete_at(path).await?;
                            deleted += 1;
                        }
                    }
                }
                // All objects of an unreadable job stay.
                Err(ReadError::Unreadable { detail, .. }) => reads.unreadable().note_job(job, &detail),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(deleted)
    }

    /// The paths of all outputs of this store.
    pub(super) async fn all_outputs(&self) -> Result<Vec<Path>, ReadError> {
        let mut paths = Vec::new();
        for job in self.jobs_with_outputs().await? {
            paths.extend(self.outputs_that_are_there(job).await?.into_iter().map(|(path, _)| path));
        }
        Ok(paths)
    }

    /// The path of an output of a store at another place.
    pub(super) fn same_output(&self, path: &Path) -> Option<Path> {
        let mut parts: Vec<_> = path.parts().collect();
        let name = parts.pop()?;
        let job = parts.pop()?;
        Some(self.outputs().join(job).join(name))
    }
}

fn files_in(directory: &FilePath) -> io::Result<Vec<PathBuf>> {
    let files = entries(directory)?.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    Ok(files.map(|entry| entry.path()).collect())
}

/// Deletes files, and their directory where there is nothing else in it.
fn delete_files(directory: &FilePath, files: &[PathBuf]) -> io::Result<()> {
    for deleted in files.iter().map(fs::remove_file) {
        deleted.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    }
    let is_passed = |kind| [io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty].contains(&kind);
    fs::remove_dir(directory).or_else(|error| if is_passed(error.kind()) { Ok(()) } else { Err(error) })
}

/// Whether the attempt that has written an output is the one that completed its task.
async fn is_counted(reads: &dyn Reads, job: JobId, path: &Path) -> Result<bool, ReadError> {
    let Some((attempt, task)) = path.filename().and_then(attempt_and_task) else { return Ok(false) };
    let attempts = match reads.attempts(job, task..task.saturating_add(1)).await {
        Ok(attempts) => attempts,
        // The damaged row may name the output.
        Err(error @ ReadError::Corrupt { .. }) => {
            reads.unreadable().note_row("attempt at a task", &format!("{task} of job {job}"), &error);
            return Ok(true);
        }
        Err(error) => return Err(error),
    };
    Ok(attempts.iter().any(|found| matches!(found.end, AttemptEnd::Completed { attempt: by, .. } if by == attempt)))
}

fn attempt_and_task(name: &str) -> Option<(AttemptId, u64)> {
    let mut words = name.split('.');
    let attempt = Uuid::try_parse(words.next()?).ok()?;
    Some((AttemptId(attempt), words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use model::ProgramHash;
    use sha2::{Digest, Sha256};
    use tempfile::TempDir;

    use super::*;

    const CONTENT: &[u8] = b"text";

    async fn hand_in(objects: &Objects, job: JobId, attempt: u128) -> OutputObject {
        let sha256 = ProgramHash(Sha256::digest(CONTENT).into());
        let attempt = AttemptId(Uuid::from_u128(attempt));
        let object = OutputObject { attempt, bytes: CONTENT.len() as u64, sha256, text: true };
        let mut upload = objects.upload_output(job, 0, object);
        upload.push(CONTENT).await.expect("room");
        upload.finish().await.expect("it is what was announced");
        object
    }

    #[tokio::test]
    async fn what_is_handed_in_after_the_outputs_were_listed_stays() {
        let (temporary, job) = (TempDir::new().expect("a directory"), JobId(Uuid::from_u128(7)));
        for objects in [Objects::in_memory(), Objects::local(temporary.path()).expect("a directory")] {
            let objects = objects.of_store(Uuid::from_u128(1));
            let before = hand_in(&objects, job, 1).await;
            let listed = objects.list_outputs(job).await.expect("listed");
            let after = hand_in(&objects, job, 2).await;
            assert_eq!(objects.delete_outputs(listed).await.expect("deleted"), 1);
            assert!(!objects.has_output(job, 0, &before).await.expect("readable"));
            assert!(objects.has_output(job, 0, &after).await.expect("readable"));
            let listed = objects.list_outputs(job).await.expect("listed");
            assert_eq!(objects.delete_outputs(listed).await.expect("deleted"), 1);
            assert!(objects.jobs_with_outputs().await.expect("listed").is_empty());
        }
    }
}
