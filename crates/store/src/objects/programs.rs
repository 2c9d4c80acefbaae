//! Programs as objects, named by their hashes below the tag of their store.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use model::{JobId, ProgramHash};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use uuid::Uuid;

use super::parts::Parts;
use super::{Objects, ResultStream};
use crate::backend::Reads;
use crate::error::{PruneError, ReadError, UploadError, WriteError};

/// Age after which an object without a row was left by a process that ended between the two.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// An upload of a program into the object store. The program is visible there once it is complete and its hash is right.
#[derive(Debug)]
pub struct ProgramUpload {
    hash: ProgramHash,
    parts: Parts,
}

/// A program's bytes, piece by piece. The last piece comes only if all of them have the right hash.
#[derive(Debug)]
pub struct ProgramBytes(ResultStream);

impl ProgramBytes {
    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// The program could not be read, or has another hash.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        self.0.next().await
    }
}

impl ProgramUpload {
    pub(crate) fn new(objects: &Objects, hash: ProgramHash) -> Self {
        Self { hash, parts: Parts::new(objects.store.clone(), objects.program_path(hash)) }
    }

    /// The program.
    #[must_use]
    pub fn hash(&self) -> ProgramHash {
        self.hash
    }

    /// Number of bytes received.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.bytes()
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// The bytes could not be stored.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.parts.push(bytes).await
    }

    /// Completes the object if its hash is right, else drops it.
    pub(crate) async fn finish(&mut self) -> Result<(), UploadError> {
        let found = ProgramHash(self.parts.sha256());
        if found != self.hash {
            self.abort().await;
            return Err(UploadError::Mismatch { expected: self.hash, found });
        }
        Ok(self.parts.complete().await?)
    }

    /// Deletes the stored bytes.
    pub async fn abort(&mut self) {
        self.parts.abort().await;
    }
}

impl Objects {
    fn programs(&self) -> Path {
        self.root.clone().join("programs").join(self.tag_or_none())
    }

    pub(super) fn program_path(&self, hash: ProgramHash) -> Path {
        self.programs().join(hash.to_string())
    }

    /// Whether the object exists.
    pub(crate) async fn has_program(&self, hash: ProgramHash) -> Result<bool, ReadError> {
        match self.store.head(&self.program_path(hash)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    pub(crate) async fn read_program(&self, hash: ProgramHash, bytes: u64) -> Result<ProgramBytes, ReadError> {
        // The objects of a result and a program differ in their names only; a program belongs to no job.
        let nobody = JobId(Uuid::nil());
        Ok(ProgramBytes(self.read(nobody, &self.program_path(hash), bytes, hash.0.to_vec()).await?))
    }

    pub(crate) async fn delete_program(&self, hash: ProgramHash) -> Result<(), WriteError> {
        self.delete_at(&self.program_path(hash)).await
    }

    /// Deletes old objects of programs that have no row. Returns their number.
    pub(crate) async fn delete_leftover_programs(&self, reads: &dyn Reads, now: Timestamp) -> Result<u64, PruneError> {
        let oldest = now.checked_sub(LEFTOVER_AGE).unwrap_or(Timestamp::MIN).as_second();
        let mut objects = self.store.list(Some(&self.programs()));
        let mut deleted = 0;
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| ReadError::Unavailable(error.to_string()))?;
            let hash = object.location.filename().and_then(|name| name.parse().ok());
            if object.last_modified.timestamp() < oldest
                && let Some(hash) = hash
                && has_no_row(reads, hash).await?
            {
                self.delete_program(hash).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

async fn has_no_row(reads: &dyn Reads, hash: ProgramHash) -> Result<bool, ReadError> {
    match reads.program(hash).await {
        Ok(program) => Ok(program.is_none()),
        Err(error @ ReadError::Corrupt { .. }) => {
            reads.unreadable().note_row("program", &hash, &error);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
