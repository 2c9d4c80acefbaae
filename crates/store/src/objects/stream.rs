//! Streams results, hashed as their pieces pass, in bounded memory.

use std::fs::File;
use std::io::Read;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use model::JobId;
use object_store::{GetResult, GetResultPayload};
use sha2::{Digest, Sha256};

use crate::error::ReadError;

/// Size of a read from a file.
const CHUNK_BYTES: usize = 256 * 1024;

/// A job's result: JSON in UTF-8, piece by piece. The last piece comes only if all of it has the right hash.
pub struct ResultStream {
    job: JobId,
    bytes: u64,
    /// Number of bytes read.
    read: u64,
    source: Source,
    /// The piece that is given out when the next one has come, or the hash is right.
    held: Option<Bytes>,
    check: Option<Check>,
}

enum Source {
    Ended,
    Memory(Bytes),
    File(File),
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
}

struct Check {
    place: String,
    hash: Sha256,
    sha256: Vec<u8>,
}

impl std::fmt::Debug for ResultStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultStream").field("job", &self.job).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl ResultStream {
    pub(super) fn inline(job: JobId, json: Bytes) -> Self {
        let bytes = json.len() as u64;
        Self { job, bytes, read: 0, source: Source::Memory(json), held: None, check: None }
    }

    pub(super) fn object(
        job: JobId,
        place: String,
        bytes: u64,
        sha256: Vec<u8>,
        object: GetResult,
    ) -> Result<Self, ReadError> {
        if object.meta.size != bytes {
            let detail = format!("it has {} bytes instead of {bytes}", object.meta.size);
            return Err(ReadError::Corrupt { place, detail });
        }
        let source = match object.payload {
            GetResultPayload::File(file, _) => Source::File(file),
            GetResultPayload::Stream(stream) => Source::Stream(stream),
        };
        let check = Some(Check { place, hash: Sha256::new(), sha256 });
        Ok(Self { job, bytes, read: 0, source, held: None, check })
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// The result could not be read, or has another hash. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let next = self.advance().await;
        if !matches!(next, Ok(Some(_))) {
            self.source = Source::Ended;
            self.held = None;
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let piece = self.read().await?;
            if piece.is_empty() {
                self.verify()?;
                return Ok(self.held.take());
            }
            self.read += piece.len() as u64;
            if let Some(check) = &mut self.check {
                check.hash.update(&piece);
            }
            if let Some(before) = self.held.replace(piece) {
                return Ok(Some(before));
            }
        }
    }

    /// Some bytes; none at the end.
    async fn read(&mut self) -> Result<Bytes, ReadError> {
        let failed = |error: &dyn std::fmt::Display| ReadError::Unavailable(error.to_string());
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Ended => Ok(Bytes::new()),
            Source::Memory(json) => Ok(json),
            Source::File(mut file) => {
                let reading = tokio::task::spawn_blocking(move || {
                    let mut piece = Vec::with_capacity(CHUNK_BYTES);
                    file.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut piece).map(|_| (file, piece))
                });
                let (file, piece) = reading.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
                self.source = Source::File(file);
                Ok(Bytes::from(piece))
            }
            Source::Stream(mut stream) => loop {
                match stream.next().await {
                    None => return Ok(Bytes::new()),
                    Some(Ok(piece)) if piece.is_empty() => {}
                    Some(piece) => {
                        self.source = Source::Stream(stream);
                        return piece.map_err(|error| failed(&error));
                    }
                }
            },
        }
    }

    fn verify(&mut self) -> Result<(), ReadError> {
        let Some(Check { place, hash, sha256 }) = self.check.take() else { return Ok(()) };
        if self.read != self.bytes || hash.finalize().as_slice() != sha256 {
            let detail = "its hash is another than when it was stored".to_owned();
            return Err(ReadError::Corrupt { place, detail });
        }
        Ok(())
    }
}
