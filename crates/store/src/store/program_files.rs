//! Uploaded programs, and what programs wrote to stderr.

use std::ops::Range;

use model::{JobId, ProgramHash};
use tokio::sync::RwLockReadGuard;

use super::Store;
use crate::batch::{Answer, Entry};
use crate::error::{ReadError, UploadError, WriteError};
use crate::objects::{ProgramBytes, ProgramUpload};
use crate::programs::{ProgramChange, ProgramRecord, TaskLog};

impl Store {
    /// Begins to store a program under its hash. See [`Self::put_program`].
    #[must_use]
    pub fn upload_program(&self, hash: ProgramHash) -> ProgramUpload {
        ProgramUpload::new(&self.objects, hash)
    }

    /// Makes an uploaded program durable, once all its bytes are in. A program that is there stays as it is; answers
    /// whether it is new.
    ///
    /// # Errors
    /// The bytes are not those of its hash, or it could not be stored; nothing of it is there then.
    pub async fn put_program(&self, mut upload: ProgramUpload, record: ProgramRecord) -> Result<bool, UploadError> {
        self.refuse_to_follow()?;
        let _lock = self.programs.write().await;
        upload.finish().await?;
        let unreadable = |error: ReadError| WriteError::Unavailable(error.to_string());
        let is_new = self.reads.program(record.hash).await.map_err(unreadable)?.is_none();
        self.call(Entry::Program(ProgramChange::Put(record))).await?;
        Ok(is_new)
    }

    /// A program.
    ///
    /// # Errors
    /// The program could not be read.
    pub async fn program(&self, hash: ProgramHash) -> Result<Option<ProgramRecord>, ReadError> {
        self.reads.program(hash).await
    }

    /// Whether a program is there with its bytes.
    ///
    /// # Errors
    /// It could not be found out.
    pub async fn has_program(&self, hash: ProgramHash) -> Result<bool, ReadError> {
        Ok(self.reads.program(hash).await?.is_some() && self.objects.has_program(hash).await?)
    }

    /// At most `limit` programs in the order of their hashes, from after one of them.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn programs(&self, after: Option<ProgramHash>, limit: usize) -> Result<Vec<ProgramRecord>, ReadError> {
        self.reads.programs(after, limit).await
    }

    /// A program's bytes in pieces; none where there is no such program.
    ///
    /// # Errors
    /// They could not be found.
    pub async fn program_bytes(&self, hash: ProgramHash) -> Result<Option<ProgramBytes>, ReadError> {
        match self.reads.program(hash).await? {
            Some(record) => Ok(Some(self.objects.read_program(hash, record.bytes).await?)),
            None => Ok(None),
        }
    }

    /// Deletes a program. Answers whether it was there.
    ///
    /// # Errors
    /// [`WriteError::Refused`] where a job that is not over needs it; or it could not be deleted.
    pub async fn delete_program(&self, hash: ProgramHash) -> Result<bool, WriteError> {
        self.refuse_to_follow()?;
        let _lock = self.programs.write().await;
        match self.call(Entry::Program(ProgramChange::Delete(hash))).await? {
            Answer::Deleted(count) if count > 0 => {
                self.objects.delete_program(hash).await?;
                Ok(true)
            }
            Answer::Deleted(_)
            | Answer::Done
            | Answer::Submitted(_)
            | Answer::Mismatch(_)
            | Answer::Elsewhere(_)
            | Answer::Refused(_) => Ok(false),
        }
    }

    /// While the guard is held, no program is deleted.
    pub async fn keep_programs(&self) -> RwLockReadGuard<'_, ()> {
        self.programs.read().await
    }

    /// Keeps what an attempt wrote to stderr; durable when it resolves. Without effect where the job is not there, or the log
    /// is: a worker whose answer was lost reports again, also to the next coordinator.
    ///
    /// # Errors
    /// It could not be made durable.
    pub async fn put_log(&self, log: TaskLog) -> Result<(), WriteError> {
        self.refuse_to_follow()?;
        self.call(Entry::Log(Box::new(log))).await.map(|_| ())
    }

    /// At most `limit` logs of attempts at some of a job's tasks, by task, then in the order in which they ended.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Result<Vec<TaskLog>, ReadError> {
        self.reads.logs(job, tasks, limit).await
    }

    /// The last logs of attempts at a task, at most `limit`, in the order in which they ended.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn last_logs(&self, job: JobId, task: u64, limit: usize) -> Result<Vec<TaskLog>, ReadError> {
        self.reads.last_logs(job, task, limit).await
    }
}
