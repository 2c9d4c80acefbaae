//! A result under construction.

use model::JobId;
use serde_json::value::RawValue;

use super::parts::Parts;
use super::{INLINE_BYTES, Objects};
use crate::change::{ResultBody, StoredObject};
use crate::error::WriteError;

#[derive(Debug)]
pub(crate) struct ResultWriter {
    name: String,
    parts: Parts,
}

impl ResultWriter {
    pub(crate) fn new(objects: &Objects, job: JobId) -> Self {
        let name = objects.new_name(job);
        let parts = Parts::new(objects.store.clone(), objects.path(&name));
        Self { name, parts }
    }

    pub(crate) async fn push(&mut self, text: &str) -> Result<(), WriteError> {
        self.push_bytes(text.as_bytes()).await
    }

    /// As [`Self::push`], for pieces of text that may end within a character.
    pub(crate) async fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.parts.push(bytes).await
    }

    pub(crate) async fn finish(mut self) -> Result<ResultBody, WriteError> {
        if let Some(whole) = self.parts.take_small(INLINE_BYTES) {
            let text = String::from_utf8(whole).map_err(|error| WriteError::Results(error.to_string()))?;
            let json = RawValue::from_string(text).map_err(|error| WriteError::Results(error.to_string()))?;
            return Ok(ResultBody::Inline(json));
        }
        self.parts.complete().await?;
        let (bytes, sha256) = (self.parts.bytes(), self.parts.sha256());
        Ok(ResultBody::Object(StoredObject { name: self.name, bytes, sha256 }))
    }

    pub(crate) async fn abort(mut self) {
        self.parts.abort().await;
    }
}
