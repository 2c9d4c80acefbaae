//! Results: small ones in their job's row, large ones as objects beside the database, whose hash stands in the row.

use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use model::JobId;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use rusqlite::{Connection, OptionalExtension, Row};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use url::Url;

use crate::change::{ResultBody, StoredObject};
use crate::column::{self, Column};
use crate::error::{ComposeError, OpenError, ReadError, WriteError};
use crate::readers::Readers;
use crate::record::StoredResult;

/// The largest result that stays in its row.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;
/// What a large result is put together in: no object store takes smaller parts than 5 MiB, but for the last.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Attempts of which the answers are read at once.
const COMPOSED_ATTEMPTS: i64 = 4096;
/// About the most bytes of them.
const COMPOSED_BYTES: usize = 4 * 1024 * 1024;

/// Where large results are.
#[derive(Debug)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// As an operator finds it.
    place: String,
}

impl Objects {
    pub(crate) fn open(url: Option<&Url>, data_dir: &FilePath) -> Result<Self, OpenError> {
        match url {
            Some(url) if url.scheme() != "file" => {
                let opened = object_store::parse_url(url);
                let (store, root) =
                    opened.map_err(|error| OpenError::Results { url: url.to_string(), detail: error.to_string() })?;
                Ok(Self { store: store.into(), root, place: url.to_string() })
            }
            Some(url) => {
                let detail = "not the path of a directory".to_owned();
                let directory = url.to_file_path();
                Self::local(&directory.map_err(|()| OpenError::Results { url: url.to_string(), detail })?)
            }
            None => Self::local(&data_dir.join("results")),
        }
    }

    fn local(directory: &FilePath) -> Result<Self, OpenError> {
        let place = directory.display().to_string();
        let unusable = |detail: String| OpenError::Results { url: place.clone(), detail };
        std::fs::create_dir_all(directory).map_err(|error| unusable(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), root: Path::default(), place })
    }

    fn path(&self, name: &str) -> Path {
        self.root.clone().join(name)
    }

    pub(crate) async fn put(&self, job: JobId, json: Box<RawValue>) -> Result<ResultBody, WriteError> {
        if json.get().len() <= INLINE_BYTES {
            return Ok(ResultBody::Inline(json));
        }
        let mut writer = ResultWriter::new(self, job);
        writer.push(json.get()).await?;
        writer.finish().await
    }

    async fn get(&self, name: &str, sha256: &[u8]) -> Result<Bytes, ReadError> {
        let place = format!("{}/{name}", self.place);
        let object = match self.store.get(&self.path(name)).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(ReadError::Corrupt { place, detail: "it is gone".to_owned() });
            }
            Err(error) => return Err(ReadError::Io(error.to_string())),
        };
        let json = object.bytes().await.map_err(|error| ReadError::Io(error.to_string()))?;
        let hashed = json.clone();
        let hash = tokio::task::spawn_blocking(move || Sha256::digest(&hashed));
        let hash = hash.await.map_err(|error| ReadError::Io(error.to_string()))?;
        if hash.as_slice() != sha256 {
            return Err(ReadError::Corrupt { place, detail: "its hash is another than when it was stored".to_owned() });
        }
        Ok(json)
    }

    pub(crate) async fn delete(&self, job: JobId) -> Result<(), WriteError> {
        match self.store.delete(&self.path(&object_name(job))).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(WriteError::Results(error.to_string())),
        }
    }
}

fn object_name(job: JobId) -> String {
    format!("{job}.json")
}

/// A result in the making: stays in memory while it is small, and goes out part by part when it is not.
struct ResultWriter<'a> {
    objects: &'a Objects,
    name: String,
    part: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    hash: Sha256,
    bytes: u64,
}

impl<'a> ResultWriter<'a> {
    fn new(objects: &'a Objects, job: JobId) -> Self {
        let name = object_name(job);
        Self { objects, name, part: Vec::new(), upload: None, hash: Sha256::new(), bytes: 0 }
    }

    async fn push(&mut self, text: &str) -> Result<(), WriteError> {
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

    async fn finish(mut self) -> Result<ResultBody, WriteError> {
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

    async fn abort(self) {
        if let Some(mut upload) = self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%error, object = self.name, "an unfinished result could not be deleted");
        }
    }
}

fn unstored(error: &object_store::Error) -> WriteError {
    WriteError::Results(error.to_string())
}

/// Puts the answers to individual tasks together as `{"tasks":[…]}`, with null where there is none, in bounded memory.
pub(crate) async fn compose(objects: &Objects, readers: &Readers, job: JobId) -> Result<ResultBody, ComposeError> {
    let mut writer = ResultWriter::new(objects, job);
    match write_tasks(&mut writer, readers, job).await {
        Ok(()) => Ok(writer.finish().await?),
        Err(error) => {
            writer.abort().await;
            Err(error)
        }
    }
}

async fn write_tasks(writer: &mut ResultWriter<'_>, readers: &Readers, job: JobId) -> Result<(), ComposeError> {
    let tasks = readers.read(move |db| count_tasks(db, job)).await?;
    writer.push("{\"tasks\":[").await?;
    let mut next = 0;
    loop {
        let some = readers.read(move |db| answers(db, job, next)).await?;
        if some.is_empty() {
            break;
        }
        for Answers { tasks, json } in some {
            write_nulls(writer, next..tasks.start).await?;
            next = tasks.end;
            match json.as_deref().and_then(|json| json.strip_prefix('[')?.strip_suffix(']')) {
                Some(json) => {
                    writer.push(if tasks.start > 0 { "," } else { "" }).await?;
                    writer.push(json).await?;
                }
                None => write_nulls(writer, tasks).await?,
            }
        }
    }
    write_nulls(writer, next..tasks).await?;
    Ok(writer.push("]}").await?)
}

async fn write_nulls(writer: &mut ResultWriter<'_>, tasks: Range<u64>) -> Result<(), WriteError> {
    for task in tasks {
        writer.push(if task > 0 { ",null" } else { "null" }).await?;
    }
    Ok(())
}

fn count_tasks(db: &Connection, job: JobId) -> Result<u64, ReadError> {
    let mut select = db.prepare_cached("SELECT tasks FROM jobs WHERE id = ?1")?;
    let tasks = select.query_row([job.0.as_bytes()], |row| column::count(row, 0)).optional()?;
    tasks.ok_or(ReadError::NoSuchTasks { job, first: 0, beyond: 0 })
}

/// What an attempt answered: a JSON array with as many values as it has tasks.
struct Answers {
    tasks: Range<u64>,
    json: Option<String>,
}

/// Some answers from task `next` on, in order.
fn answers(db: &Connection, job: JobId, next: u64) -> Result<Vec<Answers>, ReadError> {
    let mut select = db.prepare_cached(
        "SELECT first, beyond, results FROM attempts WHERE job = (SELECT key FROM jobs WHERE id = ?1)
         AND first >= ?2 AND completed_at IS NOT NULL ORDER BY first LIMIT ?3",
    )?;
    let mut rows = select.query((job.0.as_bytes(), next.column(), COMPOSED_ATTEMPTS))?;
    let (mut some, mut reached, mut bytes) = (Vec::new(), next, 0);
    while bytes < COMPOSED_BYTES
        && let Some(row) = rows.next()?
    {
        let tasks = column::count(row, 0)?..column::count(row, 1)?;
        if tasks.start < reached || tasks.is_empty() {
            let detail = format!("tasks {} to {} are recorded twice", tasks.start, tasks.end);
            return Err(ReadError::Corrupt { place: format!("attempts of job {job}"), detail });
        }
        reached = tasks.end;
        let json: Option<String> = row.get(2)?;
        bytes += json.as_ref().map_or(0, String::len);
        some.push(Answers { tasks, json });
    }
    Ok(some)
}

/// A result as its row has it.
pub(crate) struct ResultRow {
    job: JobId,
    body: RowBody,
}

enum RowBody {
    Json(String),
    Object { name: String, sha256: Vec<u8> },
}

fn result_row(row: &Row<'_>) -> rusqlite::Result<ResultRow> {
    let body = match row.get(1)? {
        Some(json) => RowBody::Json(json),
        None => RowBody::Object { name: row.get(2)?, sha256: row.get(3)? },
    };
    Ok(ResultRow { job: column::job_id(row, 0)?, body })
}

pub(crate) fn by_job(db: &Connection, job: JobId) -> Result<Option<ResultRow>, ReadError> {
    let mut select = db.prepare_cached(
        "SELECT id, json, object, sha256 FROM jobs JOIN results ON results.job = jobs.key WHERE id = ?1",
    )?;
    Ok(select.query_row([job.0.as_bytes()], result_row).optional()?)
}

pub(crate) fn by_name(db: &Connection, output: &str) -> Result<Option<ResultRow>, ReadError> {
    let mut select = db.prepare_cached(
        "SELECT id, json, object, sha256 FROM jobs JOIN results ON results.job = jobs.key
         WHERE output = ?1 AND state = 'succeeded' ORDER BY finished_at DESC LIMIT 1",
    )?;
    Ok(select.query_row([output], result_row).optional()?)
}

pub(crate) async fn fetch(objects: &Objects, row: Option<ResultRow>) -> Result<Option<StoredResult>, ReadError> {
    let Some(ResultRow { job, body }) = row else { return Ok(None) };
    let json = match body {
        RowBody::Json(json) => Bytes::from(json),
        RowBody::Object { name, sha256 } => objects.get(&name, &sha256).await?,
    };
    Ok(Some(StoredResult { job, json }))
}
