//! An object under construction: hashed as its bytes come, kept in memory while it is small, and sent part by part when it is
//! not. The object is visible once it is complete. An object that is dropped before leaves nothing.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use crate::error::WriteError;

/// No object store takes smaller parts than 5 MiB, but for the last.
pub(super) const PART_BYTES: usize = 8 << 20;

pub(super) struct Parts {
    store: Arc<dyn ObjectStore>,
    path: Path,
    part: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    digest: Sha256,
    bytes: u64,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("path", &self.path).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Parts {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, part: Vec::new(), upload: None, digest: Sha256::new(), bytes: 0 }
    }

    /// Number of bytes received.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
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
            none => none.insert(self.store.put_multipart(&self.path).await.map_err(|error| unstored(&error))?),
        };
        upload.put_part(part).await.map_err(|error| unstored(&error))
    }

    /// Takes all bytes, if they are at most `most`: nothing has been sent then.
    pub(super) fn take_small(&mut self, most: usize) -> Option<Vec<u8>> {
        (self.upload.is_none() && self.part.len() <= most).then(|| std::mem::take(&mut self.part))
    }

    /// SHA-256 of the bytes received.
    pub(super) fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Makes the object visible.
    pub(super) async fn complete(&mut self) -> Result<(), WriteError> {
        if self.upload.is_none() {
            let whole = PutPayload::from(std::mem::take(&mut self.part));
            self.store.put(&self.path, whole).await.map_err(|error| unstored(&error))?;
            return Ok(());
        }
        self.put_part().await?;
        if let Some(upload) = &mut self.upload {
            upload.complete().await.map_err(|error| unstored(&error))?;
        }
        self.upload = None;
        Ok(())
    }

    /// Deletes the parts that were sent.
    pub(super) async fn abort(&mut self) {
        if let Some(upload) = self.upload.take() {
            abort(upload, &self.path).await;
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), tokio::runtime::Handle::try_current()) {
            let path = self.path.clone();
            runtime.spawn(async move { abort(upload, &path).await });
        }
    }
}

async fn abort(mut upload: Box<dyn MultipartUpload>, path: &Path) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%error, object = %path, "cannot delete an unfinished object");
    }
}

fn unstored(error: &object_store::Error) -> WriteError {
    WriteError::Results(error.to_string())
}
