//! Uploaded programs, and the stderr of programs.

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
    pub async fn upload_program(&self, hash: ProgramHash) -> ProgramUpload {
        ProgramUpload::begin(&self.objects, &*self.reads, hash).await
    }

    /// Makes an uploaded program durable, once all its bytes are in. An existing program stays unchanged; returns whether the
    /// program is new.
    ///
    /// # Errors
    /// The bytes have another hash, or the program could not be stored; nothing of it stays then.
    pub async fn put_program(&self, mut upload: ProgramUpload, record: ProgramRecord) -> Result<bool, UploadError> {
        self.refuse_to_follow()?;
        let _lock = self.programs.write().await;
        // A leader that was followed leaves no object without a row.
        self.confirm().await?;
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

    /// Whether a program exists with its bytes.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn has_program(&self, hash: ProgramHash) -> Result<bool, ReadError> {
        Ok(self.reads.program(hash).await?.is_some() && self.objects.has_program(hash).await?)
    }

    /// At most `limit` programs in the order of their hashes, from after one of them.
    ///
    /// # Errors
    /// The programs could not be read.
    pub async fn programs(&self, after: Option<ProgramHash>, limit: usize) -> Result<Vec<ProgramRecord>, ReadError> {
        self.reads.programs(after, limit).await
    }

    /// A program's bytes in pieces; `None` if there is no such program.
    ///
    /// # Errors
    /// The bytes could not be found.
    pub async fn program_bytes(&self, hash: ProgramHash) -> Result<Option<ProgramBytes>, ReadError> {
        match self.reads.program(hash).await? {
            Some(record) => Ok(Some(self.objects.read_program(hash, record.bytes).await?)),
            None => Ok(None),
        }
    }

    /// Deletes a program. Returns whether it existed.
    ///
    /// # Errors
    /// [`WriteError::Refused`] if a job that is not over needs the program; or the program could not be deleted.
    pub async fn delete_program(&self, hash: ProgramHash) -> Result<bool, WriteError> {
        self.refuse_to_follow()?;
        let _lock = self.programs.write().await;
        // Before the row is deleted: an object that comes after that may be an upload to the next leader.
        let further = self.objects.further_programs(hash).await;
        let further = further.map_err(|error| WriteError::Results(error.to_string()))?;
        match self.call(Entry::Program(ProgramChange::Delete(hash))).await? {
            Answer::Deleted(count) if count > 0 => {
                self.objects.delete_program(hash, &further).await?;
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

    /// Prevents deletions of programs while the guard is held.
    pub async fn keep_programs(&self) -> RwLockReadGuard<'_, ()> {
        self.programs.read().await
    }

    /// Keeps the stderr of an attempt; durable when the future resolves. Without effect if the job does not exist, or the log
    /// does: a worker whose answer was lost reports again, also to the next coordinator.
    ///
    /// # Errors
    /// The log could not be made durable.
    pub async fn put_log(&self, log: TaskLog) -> Result<(), WriteError> {
        self.refuse_to_follow()?;
        self.call(Entry::Log(Box::new(log))).await.map(|_| ())
    }

    /// At most `limit` logs of attempts at some of a job's tasks, by task, then in the order in which they ended.
    ///
    /// # Errors
    /// The logs could not be read.
    pub async fn logs(&self, job: JobId, tasks: Range<u64>, limit: usize) -> Result<Vec<TaskLog>, ReadError> {
        self.reads.logs(job, tasks, limit).await
    }

    /// The last logs of attempts at a task, at most `limit`, in the order in which they ended.
    ///
    /// # Errors
    /// The logs could not be read.
    pub async fn last_logs(&self, job: JobId, task: u64, limit: usize) -> Result<Vec<TaskLog>, ReadError> {
        self.reads.last_logs(job, task, limit).await
    }
}

#[cfg(all(test, feature = "suite"))]
mod tests {
    use model::ProgramKind;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::error::PlaceError;
    use crate::memory::Memory;
    use crate::suite::helpers::*;

    fn record(bytes: &[u8]) -> ProgramRecord {
        ProgramRecord {
            hash: ProgramHash(Sha256::digest(bytes).into()),
            bytes: bytes.len() as u64,
            kind: ProgramKind::Wasm,
            uploaded_at: at(1),
            uploaded_by: None,
        }
    }

    async fn upload(store: &Store, bytes: &[u8]) -> ProgramUpload {
        let mut upload = store.upload_program(record(bytes).hash).await;
        upload.push(bytes).await.expect("room");
        upload
    }

    async fn put(store: &Store, bytes: &[u8]) -> ProgramHash {
        let upload = upload(store, bytes).await;
        assert_eq!(store.put_program(upload, record(bytes)).await, Ok(true));
        record(bytes).hash
    }

    #[tokio::test]
    async fn an_upload_that_ends_after_the_lead_is_lost_leaves_no_object() {
        let memory = Memory::new();
        let last = memory.store(KEEP_ALL).expect("a thread");
        let upload = upload(&last, b"one").await;
        let next = memory.store(KEEP_ALL).expect("a thread");
        let refused = last.put_program(upload, record(b"one")).await;
        assert!(matches!(refused, Err(UploadError::Write(WriteError::Superseded { .. }))), "{refused:?}");
        assert_eq!(next.objects.has_program(record(b"one").hash).await, Ok(false));
    }

    #[tokio::test]
    async fn a_place_without_the_bytes_of_a_program_is_told_as_another_one() {
        let store = Memory::new().store(KEEP_ALL).expect("a thread");
        let wait = std::time::Duration::from_mins(1);
        assert_eq!(store.try_place_of_results(wait).await, Ok(()), "it is empty");
        let hash = put(&store, b"one").await;
        assert_eq!(store.try_place_of_results(wait).await, Ok(()));
        store.objects.delete_program(hash, &[]).await.expect("room");
        let tried = store.try_place_of_results(wait).await;
        let is_told = |error: &PlaceError| matches!(error, PlaceError::Elsewhere { object, .. } if object.contains(&hash.to_string()));
        assert!(tried.as_ref().is_err_and(is_told), "{tried:?}");
    }

    #[tokio::test]
    async fn a_late_deletion_by_the_last_leader_leaves_what_was_uploaded_to_the_next_one() {
        // One is sent whole, the other in parts.
        for bytes in [vec![1_u8; 10], vec![2_u8; 9 << 20]] {
            let memory = Memory::new();
            let last = memory.store(KEEP_ALL).expect("a thread");
            let hash = put(&last, &bytes).await;
            // It stands still between the deletion of the row and that of the object.
            let further = last.objects.further_programs(hash).await.expect("readable");
            last.call(Entry::Program(ProgramChange::Delete(hash))).await.expect("it leads");

            let next = memory.store(KEEP_ALL).expect("a thread");
            put(&next, &bytes).await;
            last.objects.delete_program(hash, &further).await.expect("room");
            assert_eq!(next.has_program(hash).await, Ok(true));
            let mut read = next.program_bytes(hash).await.expect("readable").expect("there");
            let mut found = Vec::new();
            while let Some(piece) = read.next().await.expect("whole") {
                found.extend_from_slice(&piece);
            }
            assert!(found == bytes, "{} bytes", found.len());

            let copies = crate::Objects::in_memory().of_store(uuid::Uuid::from_u128(7));
            assert!(next.objects.copy_program(hash, &copies).await.expect("it is copied"));
            assert_eq!(copies.has_program(hash).await, Ok(true));

            assert_eq!(next.delete_program(hash).await, Ok(true));
            assert_eq!(next.objects.has_program(hash).await, Ok(false));
        }
    }
}
