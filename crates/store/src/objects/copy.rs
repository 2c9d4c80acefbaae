//! Copying results from one place to another.

use futures_util::StreamExt;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use tokio::io::AsyncWriteExt;

use super::Objects;
use crate::transfer::TransferError;

impl Objects {
    /// Copies an object under its name, piece by piece. One that is there already is written anew.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub async fn copy(&self, name: &str, to: &Self) -> Result<(), TransferError> {
        let unread = |error: object_store::Error| TransferError::of(&self.place_of(name), error);
        let unwritten = |error: std::io::Error| TransferError::of(&to.place_of(name), error);
        let mut pieces = self.store.get(&self.path(name)).await.map_err(unread)?.into_stream();
        let mut writer = BufWriter::new(to.store.clone(), to.path(name));
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
