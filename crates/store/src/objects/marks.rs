//! Marks by which coordinators notice that their places of results differ: the leader leaves its epoch in its place, and the others
//! look for it in theirs.

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::Objects;
use crate::batch::Epoch;
use crate::error::{ReadError, WriteError};

impl Objects {
    fn leaders(&self) -> Path {
        self.root.clone().join("leaders").join(self.tag_or_none())
    }

    /// Leaves the mark of an epoch, and deletes those of earlier ones as far as the place allows: an old mark does no harm.
    pub(crate) async fn mark_epoch(&self, epoch: Epoch) -> Result<(), WriteError> {
        let own = self.leaders().join(epoch.0.to_string());
        let written = self.store.put(&own, PutPayload::from_static(b"{}")).await;
        written.map_err(|error| WriteError::Results(error.to_string()))?;
        let mut marks = self.store.list(Some(&self.leaders()));
        while let Some(Ok(mark)) = marks.next().await {
            let found = mark.location.filename().and_then(|name| name.parse::<u64>().ok());
            if found.is_some_and(|found| found < epoch.0)
                && let Err(error) = self.delete_at(&mark.location).await
            {
                tracing::debug!(%error, path = %mark.location, "cannot delete the mark of an earlier leader");
                break;
            }
        }
        Ok(())
    }

    /// Whether the mark of an epoch is here.
    pub(crate) async fn has_mark(&self, epoch: Epoch) -> Result<bool, ReadError> {
        let path = self.leaders().join(epoch.0.to_string());
        self.is_there(&path).await.map_err(|error| ReadError::Unavailable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn the_mark_of_the_last_leader_is_in_its_place_alone() {
        let (one, other) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
        let open = |directory: &TempDir, id| {
            Objects::local(directory.path()).expect("a directory").of_store(Uuid::from_u128(id))
        };
        let (here, neighbour, elsewhere) = (open(&one, 7), open(&one, 8), open(&other, 7));
        assert_eq!(neighbour.mark_epoch(Epoch(1)).await, Ok(()));
        for epoch in [9, 10] {
            assert_eq!(here.mark_epoch(Epoch(epoch)).await, Ok(()));
        }
        assert_eq!(here.has_mark(Epoch(10)).await, Ok(true));
        assert_eq!(here.has_mark(Epoch(9)).await, Ok(false), "it is over");
        assert_eq!(elsewhere.has_mark(Epoch(10)).await, Ok(false));
        assert_eq!(neighbour.has_mark(Epoch(1)).await, Ok(true), "it is of another store");
    }
}
