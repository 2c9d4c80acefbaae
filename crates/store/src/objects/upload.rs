//! A result in the making: stays in memory while it is small, and goes out part by part when it is not.

use model::JobId;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{INLINE_BYTES, Objects};
use crate::change::{ResultBody, StoredObject};
use crate::error::WriteError;

/// What a large result is put together in: no object store takes smaller parts than 5 MiB, but for the last.
const PART_BYTES: usize = 8 * 1024 * 1024;

pub(crate) struct ResultWriter<'a> {
    objects: &'a Objects,
    name: String,
    part: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    hash: Sha256,
    bytes: u64,
}

impl<'a> ResultWriter<'a> {
    pub(crate) fn new(objects: &'a Objects, job: JobId) -> Self {
        let name = objects.new_name(job);
        Self { objects, name, part: Vec::new(), upload: None, hash: Sha256::new(), bytes: 0 }
    }

    pub(crate) async fn push(&mut self, text: &str) -> Result<(), WriteError> {
        let mut text = text.as_bytes();
        self.hash.update(text);
        self.bytes += text.len() as u64;
        while self.part.len() + text.len() > PART_BYTES {
            let (now, later) = text.split_at(PART_BYTES - self.part.len());
            self.part.extend_from_slice(now);
            self.put_part().await?;
            text = later;
        }
        self.part.extend_from_slice(text);
        Ok(())
    }

    async fn put_part(&mut self) -> Result<(), WriteError> {
        let part = std::mem::take(&mut self.part);
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => {
                let path = self.objects.path(&self.name);
                none.insert(self.objects.store.put_multipart(&path).await.map_err(|error| unstored(&error))?)
            }
        };
        upload.put_part(PutPayload::from(part)).await.map_err(|error| unstored(&error))
    }

    pub(crate) async fn finish(mut self) -> Result<ResultBody, WriteError> {
        if self.upload.is_none() && self.part.len() <= INLINE_BYTES {
            let text = String::from_utf8(self.part).map_err(|error| WriteError::Results(error.to_string()))?;
            let json = RawValue::from_string(text).map_err(|error| WriteError::Results(error.to_string()))?;
            return Ok(ResultBody::Inline(json));
        }
        if self.upload.is_none() {
            let part = std::mem::take(&mut self.part);
            let path = self.objects.path(&self.name);
            self.objects.store.put(&path, PutPayload::from(part)).await.map_err(|error| unstored(&error))?;
        } else {
            self.put_part().await?;
            if let Some(mut upload) = self.upload.take() {
                upload.complete().await.map_err(|error| unstored(&error))?;
            }
        }
        let sha256 = self.hash.finalize().into();
        Ok(ResultBody::Object(StoredObject { name: self.name, bytes: self.bytes, sha256 }))
    }

    pub(crate) async fn abort(self) {
        if let Some(mut upload) = self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, object = self.name, "cannot delete an unfinished result");
        }
    }
}

fn unstored(error: &object_store::Error) -> WriteError {
    WriteError::Results(error.to_string())
}
