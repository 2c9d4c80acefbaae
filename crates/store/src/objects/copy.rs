//! Copying results and programs from one place to another.

use std::collections::HashSet;

use futures_util::StreamExt;
use model::ProgramHash;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;

use super::Objects;
use crate::transfer::{NamedOutput, TransferError};

impl Objects {
    /// Copies a result under its name, piece by piece. An object that exists already is written anew. Returns whether the result
    /// is there.
    ///
    /// # Errors
    /// The result cannot be read or written.
    pub async fn copy(&self, name: &str, to: &Self) -> Result<bool, TransferError> {
        let is_there = self.has_result(name).await.map_err(|error| TransferError::of(&self.place_of(name), error))?;
        if is_there {
            self.copy_object(&self.path(name), to, to.path(name)).await?;
        }
        Ok(is_there)
    }

    /// Copies a program of a store as [`Self::copy`] does. Both places must be marked by [`Self::of_store`]. Returns whether the
    /// program is there.
    ///
    /// # Errors
    /// The program cannot be read or written.
    pub async fn copy_program(&self, hash: ProgramHash, to: &Self) -> Result<bool, TransferError> {
        let unread = |error: object_store::Error| TransferError::of("a program", error);
        let mut path = self.program_path(hash);
        if !self.is_there(&path).await.map_err(unread)? {
            let Some(further) = self.further_programs(hash).await.map_err(unread)?.pop() else { return Ok(false) };
            path = further;
        }
        self.copy_object(&path, to, to.program_path(hash)).await?;
        Ok(true)
    }

    /// The names of those outputs that are not here. The place must be marked by [`Self::of_store`].
    ///
    /// # Errors
    /// The outputs cannot be listed.
    pub async fn lost_outputs(&self, named: &[NamedOutput]) -> Result<Vec<String>, TransferError> {
        let there = self.all_outputs().await.map_err(|error| TransferError::of("outputs", error))?;
        let there: HashSet<_> = there.into_iter().collect();
        let paths = named.iter().map(|NamedOutput { job, task, object }| self.output_path(*job, *task, object));
        Ok(paths.filter(|path| !there.contains(path)).map(|path| path.to_string()).collect())
    }

    /// Copies the outputs of a store's tasks as [`Self::copy`] does. Both places must be marked by [`Self::of_store`]. Returns
    /// the number of outputs.
    ///
    /// # Errors
    /// An output cannot be read or written.
    pub async fn copy_outputs(&self, to: &Self) -> Result<u64, TransferError> {
        let paths = self.all_outputs().await.map_err(|error| TransferError::of("outputs", error))?;
        let mut copied = 0;
        for path in paths {
            if let Some(new) = to.same_output(&path) {
                self.copy_object(&path, to, new).await?;
                copied += 1;
            }
        }
        Ok(copied)
    }

    async fn copy_object(&self, path: &Path, to: &Self, new: Path) -> Result<(), TransferError> {
        let unread = |error: object_store::Error| TransferError::of(&self.place_of(path.as_ref()), error);
        let place = to.place_of(new.as_ref());
        let unwritten = |error: std::io::Error| TransferError::of(&place, error);
        let mut pieces = self.store.get(path).await.map_err(unread)?.into_stream();
        let mut writer = BufWriter::new(to.store.clone(), new);
        while let Some(piece) = pieces.next().await {
            writer.write_all(&piece.map_err(unread)?).await.map_err(unwritten)?;
        }
        writer.shutdown().await.map_err(unwritten)
    }

    /// Whether both are the same place.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.place == other.place
    }
}
