//! Programs as objects, named by their hashes below the tag of their store. Where an object without a row is in the place of a
//! program, an upload adds an object with a name of its own beside it: the leader that has deleted the row may delete the object
//! late, when another coordinator leads. All objects of a program have the same bytes, so any of them will do.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use jiff::Timestamp;
use model::{JobId, ProgramHash};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::time::timeout;
use uuid::Uuid;

use super::parts::Parts;
use super::{Objects, ResultStream};
use crate::backend::Reads;
use crate::error::{PruneError, ReadError, UploadError, WriteError};

/// Age after which an object without a row was left by a process that ended between the two.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// Hexadecimal digits that tell the further objects of a program apart.
const RANDOM_CHARS: usize = 16;

/// Longest time that the body of an upload waits for the look at its place: a third of the time after which a listener closes a
/// connection whose body is not read.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

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
    pub(crate) async fn begin(objects: &Objects, reads: &dyn Reads, hash: ProgramHash) -> Self {
        let place = objects.program_path(hash);
        let look = async {
            matches!(reads.program(hash).await, Ok(None)) && matches!(objects.is_there(&place).await, Ok(true))
        };
        // Where neither answers, the end of the upload fails too.
        let is_unnamed = timeout(LOOK_TIMEOUT, look).await.unwrap_or(false);
        Self::at(objects, hash, if is_unnamed { objects.further_path(hash) } else { place })
    }

    pub(super) fn at(objects: &Objects, hash: ProgramHash, path: Path) -> Self {
        Self { hash, parts: Parts::new(objects.store.clone(), path) }
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

    /// A path beside [`Self::program_path`] that no other upload has.
    fn further_path(&self, hash: ProgramHash) -> Path {
        let random = Uuid::new_v4().simple().to_string();
        // Some servers of S3 make a file's name of the whole path: it stays below 150 characters.
        self.programs().join(format!("{hash}.{}", &random[..RANDOM_CHARS]))
    }

    /// The objects of a program that are not in its place.
    pub(crate) async fn further_programs(&self, hash: ProgramHash) -> object_store::Result<Vec<Path>> {
        let place = self.program_path(hash);
        let mut objects = self.store.list(Some(&self.programs()));
        let mut found = Vec::new();
        while let Some(object) = objects.next().await {
            let path = object?.location;
            if path != place && path.filename().and_then(program_of) == Some(hash) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Whether an object exists.
    pub(super) async fn is_there(&self, path: &Path) -> object_store::Result<bool> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the program has an object.
    pub(crate) async fn has_program(&self, hash: ProgramHash) -> Result<bool, ReadError> {
        Ok(self.is_there(&self.program_path(hash)).await.map_err(|error| unread(&error))?
            || !self.further_programs(hash).await.map_err(|error| unread(&error))?.is_empty())
    }

    pub(crate) async fn read_program(&self, hash: ProgramHash, bytes: u64) -> Result<ProgramBytes, ReadError> {
        // The objects of a result and a program differ in their names only; a program belongs to no job.
        let nobody = JobId(Uuid::nil());
        match self.read(nobody, &self.program_path(hash), bytes, hash.0.to_vec()).await {
            Err(gone @ ReadError::Corrupt { .. }) => {
                match self.further_programs(hash).await.map_err(|error| unread(&error))?.pop() {
                    Some(path) => Ok(ProgramBytes(self.read(nobody, &path, bytes, hash.0.to_vec()).await?)),
                    None => Err(gone),
                }
            }
            read => read.map(ProgramBytes),
        }
    }

    /// Deletes the object in the place of a program, and those of [`Self::further_programs`].
    pub(crate) async fn delete_program(&self, hash: ProgramHash, further: &[Path]) -> Result<(), WriteError> {
        self.delete_at(&self.program_path(hash)).await?;
        for path in further {
            self.delete_at(path).await?;
        }
        Ok(())
    }

    /// Deletes old objects of programs that have no row. Returns their number.
    pub(crate) async fn delete_leftover_programs(&self, reads: &dyn Reads, now: Timestamp) -> Result<u64, PruneError> {
        let oldest = now.checked_sub(LEFTOVER_AGE).unwrap_or(Timestamp::MIN).as_second();
        let mut objects = self.store.list(Some(&self.programs()));
        let mut deleted = 0;
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| unread(&error))?;
            let hash = object.location.filename().and_then(program_of);
            if object.last_modified.timestamp() < oldest
                && let Some(hash) = hash
                && has_no_row(reads, hash).await?
            {
                self.delete_at(&object.location).await?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }
}

/// The program of an object of this name.
fn program_of(name: &str) -> Option<ProgramHash> {
    name.split('.').next()?.parse().ok()
}

fn unread(error: &object_store::Error) -> ReadError {
    ReadError::Unavailable(error.to_string())
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
