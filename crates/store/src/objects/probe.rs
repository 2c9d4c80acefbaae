//! Tries the place of large results before one is to be stored: a wrong URL or key is found at the start.

use bytes::Bytes;
use model::JobId;
use object_store::{ObjectStoreExt, PutPayload};
use uuid::Uuid;

use super::Objects;
use crate::error::PlaceError;

/// Content of the object that is written.
const CONTENT: &[u8] = b"[]";

impl Objects {
    /// Writes, reads and deletes a small object, which needs the rights that a large result needs. If the process ends half way,
    /// the object is deleted with those that no row names.
    pub(crate) async fn probe(&self) -> Result<(), PlaceError> {
        let path = self.path(&self.new_name(JobId(Uuid::nil())));
        let written = self.store.put(&path, PutPayload::from_static(CONTENT)).await;
        written.map_err(|error| self.fault("write", &error, is_absent(&error) || is_refused(&error)))?;
        let read = async { self.store.get(&path).await?.bytes().await }.await;
        let deleted = self.store.delete(&path).await;
        // Some services find an object only a while after it was written.
        let found = read.map_err(|error| self.fault("read", &error, is_refused(&error)))?;
        // Results can be stored and read without the right to delete them.
        deleted.map_err(|error| self.fault("delete", &error, false))?;
        if found == Bytes::from_static(CONTENT) { Ok(()) } else { Err(self.unusable("it gives back another object")) }
    }

    /// The fault of a step; `is_final` tells whether the place has refused it for good, as far as its answer shows.
    fn fault(&self, step: &str, error: &object_store::Error, is_final: bool) -> PlaceError {
        let detail = format!("cannot {step} an object: {error}");
        if is_final { PlaceError::Refused { place: self.place.clone(), detail } } else { self.unusable(&detail) }
    }

    /// The error of an object that should be here.
    pub(crate) fn lacks(&self, object: String) -> PlaceError {
        PlaceError::Elsewhere { place: self.place.clone(), object }
    }

    /// The error of a place that does not work at the moment.
    pub(crate) fn unusable(&self, detail: &str) -> PlaceError {
        PlaceError::Unusable { place: self.place.clone(), detail: detail.to_owned() }
    }
}

fn is_absent(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
}

fn is_refused(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_place_that_works_is_left_as_it_was() {
        let directory = TempDir::new().expect("a directory");
        for objects in [Objects::in_memory(), Objects::local(directory.path()).expect("a directory")] {
            let objects = objects.of_store(Uuid::from_u128(7));
            assert_eq!(objects.probe().await, Ok(()));
            assert_eq!(objects.names().await, Ok(Vec::new()));
        }
    }

    #[tokio::test]
    async fn a_place_that_is_gone_is_told_with_its_name() {
        let directory = TempDir::new().expect("a directory");
        let place = directory.path().join("results");
        let objects = Objects::local(&place).expect("a directory");
        std::fs::remove_dir(&place).expect("it is empty");
        // No directory can be made below a file.
        std::fs::write(&place, "").expect("room");
        let error = objects.probe().await.expect_err("it is gone").to_string();
        assert!(error.contains(&place.display().to_string()) && error.contains("write"), "{error}");
    }
}
