//! Programs as objects, named by their hashes below the tag of their store.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use model::{JobId, ProgramHash};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Objects, ResultStream};
use crate::backend::Reads;
use crate::error::{PruneError, ReadError, UploadError, WriteError};

/// No object store takes smaller parts than 5 MiB, but for the last.
const PART_BYTES: usize = 8 << 20;
/// An object without a row for so long was left by a process that ended between the two.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// A program on its way into the object store. It is visible there once it is whole and its hash is right.
pub struct ProgramUpload {
    objects: Objects,
    hash: ProgramHash,
    part: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    digest: Sha256,
    bytes: u64,
}

impl std::fmt::Debug for ProgramUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProgramUpload").field("hash", &self.hash).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// A program's bytes, piece by piece. The last piece comes only when all of them are what was stored.
#[derive(Debug)]
pub struct ProgramBytes(ResultStream);

impl ProgramBytes {
    /// How many bytes it has in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// The next piece, none after the last.
    ///
    /// # Errors
    /// It could not be read, or is not what was stored.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        self.0.next().await
    }
}

impl ProgramUpload {
    pub(crate) fn new(objects: Objects, hash: ProgramHash) -> Self {
        Self { objects, hash, part: Vec::new(), upload: None, digest: Sha256::new(), bytes: 0 }
    }

    /// The program.
    #[must_use]
    pub fn hash(&self) -> ProgramHash {
        self.hash
    }

    /// How many bytes have come.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// They could not be stored.
    pub async fn push(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        while self.part.len() + bytes.len() > PART_BYTES {
            let (now, later) = bytes.split_at(PART_BYTES - self.part.len());
            self.part.extend_from_slice(now);
            self.put_part().await?;
            bytes = later;
        }
        self.part.extend_from_slice(bytes);
        Ok(())
    }

    async fn put_part(&mut self) -> Result<(), WriteError> {
        let part = PutPayload::from(std::mem::take(&mut self.part));
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let path = self.objects.program_path(self.hash);
                none.insert(self.objects.store.put_multipart(&path).await.map_err(|error| unstored(&error))?)
            }
        };
        upload.put_part(part).await.map_err(|error| unstored(&error))
    }

    /// Completes the object if its hash is right, else drops it.
    pub(crate) async fn finish(&mut self) -> Result<(), UploadError> {
        let found = ProgramHash(std::mem::take(&mut self.digest).finalize().into());
        if found != self.hash {
            self.abort().await;
            return Err(UploadError::Mismatch { expected: self.hash, found });
        }
        if self.upload.is_none() {
            let part = PutPayload::from(std::mem::take(&mut self.part));
            let path = self.objects.program_path(self.hash);
            self.objects.store.put(&path, part).await.map_err(|error| unstored(&error))?;
            return Ok(());
        }
        self.put_part().await?;
        if let Some(mut upload) = self.upload.take() {
            upload.complete().await.map_err(|error| unstored(&error))?;
        }
        Ok(())
    }

    /// Drops what has been stored.
    pub async fn abort(&mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, program = %self.hash, "cannot delete an unfinished upload");
        }
    }
}

impl Objects {
    fn programs(&self) -> Path {
        let tag = if self.tag.is_empty() { "untagged" } else { &self.tag };
        self.root.clone().join("programs").join(tag)
    }

    fn program_path(&self, hash: ProgramHash) -> Path {
        self.programs().join(hash.to_string())
    }

    /// Whether the object is there.
    pub(crate) async fn has_program(&self, hash: ProgramHash) -> Result<bool, ReadError> {
        match self.store.head(&self.program_path(hash)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    pub(crate) async fn read_program(&self, hash: ProgramHash, bytes: u64) -> Result<ProgramBytes, ReadError> {
        let path = self.program_path(hash);
        let place = self.place_of(path.as_ref());
        match self.store.get(&path).await {
            // A result and a program differ in their names only; a program is no job's.
            Ok(object) => {
                let nobody = JobId(Uuid::nil());
                Ok(ProgramBytes(ResultStream::object(nobody, place, bytes, hash.0.to_vec(), object)?))
            }
            Err(object_store::Error::NotFound { .. }) => {
                Err(ReadError::Corrupt { place, detail: "it is gone".to_owned() })
            }
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    pub(crate) async fn delete_program(&self, hash: ProgramHash) -> Result<(), WriteError> {
        match self.store.delete(&self.program_path(hash)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unstored(&error)),
        }
    }

    /// Deletes old objects of programs that have no row. Returns how many.
    pub(crate) async fn delete_leftover_programs(&self, reads: &dyn Reads, now: Timestamp) -> Result<u64, PruneError> {
        let oldest = now.checked_sub(LEFTOVER_AGE).unwrap_or(Timestamp::MIN).as_second();
        let mut objects = self.store.list(Some(&self.programs()));
        let mut deleted = 0;
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| ReadError::Unavailable(error.to_string()))?;
            let hash = object.location.filename().and_then(|name| name.parse().ok());
            if object.last_modified.timestamp() < oldest
                && let Some(hash) = hash
                && reads.program(hash).await?.is_none()
            {
                self.delete_program(hash).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

fn unstored(error: &object_store::Error) -> WriteError {
    WriteError::Results(error.to_string())
}
