//! Large results as objects in an object store. Each composition has a name of its own, so that no object is ever written twice;
//! an object becomes a job's result by the row that names it.

mod copy;
mod leftovers;
mod marks;
mod outputs;
mod parts;
mod probe;
mod programs;
mod stream;
mod upload;

use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use model::JobId;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, ObjectStoreScheme};
use serde_json::value::RawValue;
use url::Url;
use uuid::Uuid;

use crate::backend::{ResultRow, ResultRowBody};
use crate::change::ResultBody;
use crate::error::{ObjectsError, PlaceUrlError, ReadError, WriteError};
use crate::record::StoredResult;

pub use outputs::OutputUpload;
pub use programs::{ProgramBytes, ProgramUpload};
pub use stream::ResultStream;
pub(crate) use upload::ResultWriter;

/// The largest result that stays in its job's row.
pub const INLINE_BYTES: usize = 64 * 1024;

/// Start of a URL of a directory: no host, and a path from the root on.
const FILE_URL: &str = "file:///";

/// Place of large results.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// The place as an operator knows it.
    place: String,
    /// Path of the place if that is a directory of this machine.
    directory: Option<std::path::PathBuf>,
    /// Part of the names of this store's objects. Other stores may have theirs in the same place.
    tag: String,
}

/// The feature that this build lacks for URLs of a scheme.
fn lacking_feature(scheme: &str) -> Option<&'static str> {
    match scheme {
        "az" | "adl" | "azure" | "abfs" | "abfss" if !cfg!(feature = "azure") => Some("azure"),
        "gs" if !cfg!(feature = "gcp") => Some("gcp"),
        _ => None,
    }
}

/// A URL for messages, without its secret parts.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    // A URL without a host has no password.
    let _ = shown.set_password(None);
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

impl Objects {
    /// Reads the URL of a place from text.
    ///
    /// # Errors
    /// The text is no URL, or a `file:` URL that does not begin with `file:///`: the syntax of URLs would make `file:results` and
    /// `file:/results` the same directory.
    pub fn parse_url(text: &str) -> Result<Url, PlaceUrlError> {
        let url = Url::parse(text)?;
        let start = text.trim_start().get(..FILE_URL.len());
        if url.scheme() == "file" && !start.is_some_and(|start| start.eq_ignore_ascii_case(FILE_URL)) {
            return Err(PlaceUrlError::File);
        }
        Ok(url)
    }

    /// Whether this build can use places of such a URL, without a look at the place and its settings.
    ///
    /// # Errors
    /// The URL has a password, names no place, or its scheme is not supported.
    pub fn check(url: &Url) -> Result<(), ObjectsError> {
        let unusable = |detail: String| ObjectsError { url: shown(url), detail };
        if url.password().is_some() {
            return Err(unusable(
                "it must not have a password: keys are in the environment, such as AWS_SECRET_ACCESS_KEY".to_owned(),
            ));
        }
        if url.scheme() == "file" {
            return url.to_file_path().map(drop).map_err(|()| unusable("not the path of a directory".to_owned()));
        }
        if let Some(feature) = lacking_feature(url.scheme()) {
            let scheme = url.scheme();
            return Err(unusable(format!(
                "this build has no {scheme}://, which needs the cargo feature store/{feature}"
            )));
        }
        ObjectStoreScheme::parse(url).map(drop).map_err(|error| unusable(error.to_string()))
    }

    /// Opens an object store by its URL: `file://`, `s3://`, and by feature `az://` and `gs://`. Settings that are not in its URL
    /// are in the environment, as its own tools have them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT` and so on.
    ///
    /// # Errors
    /// The place does not support the URL, or the directory cannot be made.
    pub fn open(url: &Url) -> Result<Self, ObjectsError> {
        let is_setting = |name: &str| ["aws_", "azure_", "google_"].iter().any(|start| name.starts_with(start));
        let settings = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?.to_ascii_lowercase(), value.into_string().ok()?))
        });
        Self::open_with(url, settings.filter(|(name, _)| is_setting(name)))
    }

    /// Opens the place with these settings, such as `aws_endpoint`, instead of the environment's.
    ///
    /// # Errors
    /// The place does not support the URL or a setting, or the directory cannot be made.
    pub fn open_with(url: &Url, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self, ObjectsError> {
        let place = shown(url);
        let unusable = |detail: String| ObjectsError { url: place.clone(), detail };
        Self::check(url)?;
        if let ("file", Ok(directory)) = (url.scheme(), url.to_file_path()) {
            return Self::local(&directory);
        }
        // The client of the place takes the process's cryptography. Another part of the process may have set the same before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, root) = object_store::parse_url_opts(url, settings).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { store: store.into(), root, place, directory: None, tag: String::new() })
    }

    /// Opens a directory, made if it does not exist.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn local(directory: &FilePath) -> Result<Self, ObjectsError> {
        let place = directory.display().to_string();
        let unusable = |detail: String| ObjectsError { url: place.clone(), detail };
        std::fs::create_dir_all(directory).map_err(|error| unusable(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(directory).map_err(|error| unusable(error.to_string()))?;
        let (store, directory) = (Arc::new(store.with_fsync(true)), Some(directory.to_owned()));
        Ok(Self { store, root: Path::default(), place, directory, tag: String::new() })
    }

    /// Opens a place in memory; clones share it.
    #[must_use]
    pub fn in_memory() -> Self {
        let place = "the memory of this process".to_owned();
        Self { store: Arc::new(InMemory::new()), root: Path::default(), place, directory: None, tag: String::new() }
    }

    /// Marks the objects as those of one store, by the store's own id. Objects of other stores stay untouched.
    #[must_use]
    pub fn of_store(mut self, id: Uuid) -> Self {
        self.tag = id.simple().to_string();
        self
    }

    /// A name that no other composition has, of this or another process.
    fn new_name(&self, job: JobId) -> String {
        format!("{job}.{}.{}.json", self.tag, Uuid::new_v4().simple())
    }

    /// Whether `name` is an object of this store, or a part of such an object.
    fn is_own(&self, name: &str) -> bool {
        !self.tag.is_empty() && name.split('.').nth(1) == Some(&self.tag)
    }

    /// The tag as a part of a path.
    fn tag_or_none(&self) -> &str {
        if self.tag.is_empty() { "untagged" } else { &self.tag }
    }

    fn path(&self, name: &str) -> Path {
        self.root.clone().join(name)
    }

    fn place_of(&self, name: &str) -> String {
        format!("{}/{name}", self.place)
    }

    pub(crate) async fn put(&self, job: JobId, json: Box<RawValue>) -> Result<ResultBody, WriteError> {
        if json.get().len() <= INLINE_BYTES {
            return Ok(ResultBody::Inline(json));
        }
        let mut writer = ResultWriter::new(self, job);
        writer.push(json.get()).await?;
        writer.finish().await
    }

    /// Fetches a result as a whole, for results that fit into memory.
    pub(crate) async fn fetch(&self, row: Option<ResultRow>) -> Result<Option<StoredResult>, ReadError> {
        let Some(mut stream) = self.stream(row).await? else { return Ok(None) };
        let job = stream.job();
        let first = stream.next().await?.unwrap_or_default();
        if first.len() as u64 == stream.bytes() {
            stream.next().await?;
            return Ok(Some(StoredResult { job, json: first }));
        }
        let mut json = Vec::with_capacity(usize::try_from(stream.bytes()).unwrap_or(0));
        json.extend_from_slice(&first);
        while let Some(chunk) = stream.next().await? {
            json.extend_from_slice(&chunk);
        }
        Ok(Some(StoredResult { job, json: Bytes::from(json) }))
    }

    /// A result in pieces.
    pub(crate) async fn stream(&self, row: Option<ResultRow>) -> Result<Option<ResultStream>, ReadError> {
        let Some(ResultRow { job, body }) = row else { return Ok(None) };
        match body {
            ResultRowBody::Json(json) => Ok(Some(ResultStream::inline(job, Bytes::from(json)))),
            ResultRowBody::Object { name, bytes, sha256 } => {
                self.read(job, &self.path(&name), bytes, sha256).await.map(Some)
            }
        }
    }

    /// An object in pieces.
    async fn read(&self, job: JobId, path: &Path, bytes: u64, sha256: Vec<u8>) -> Result<ResultStream, ReadError> {
        let place = self.place_of(path.as_ref());
        match self.store.get(path).await {
            Ok(object) => ResultStream::object(job, place, bytes, sha256, object),
            Err(object_store::Error::NotFound { .. }) => {
                let detail = "it is gone, or is in another place than DIVVY_RESULTS_URL names".to_owned();
                Err(ReadError::Corrupt { place, detail })
            }
            Err(error) => Err(ReadError::Unavailable(error.to_string())),
        }
    }

    /// Whether a result is stored here under this name.
    ///
    /// # Errors
    /// The place does not answer.
    pub async fn has_result(&self, name: &str) -> Result<bool, ReadError> {
        self.is_there(&self.path(name)).await.map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    /// The name of every result that is stored here.
    ///
    /// # Errors
    /// They could not be listed.
    pub async fn names(&self) -> Result<Vec<String>, ReadError> {
        let names = self.store.list(Some(&self.root)).map_ok(|object| object.location.filename().map(str::to_owned));
        let names = names.try_filter_map(|name| std::future::ready(Ok(name))).try_collect().await;
        names.map_err(|error: object_store::Error| ReadError::Unavailable(error.to_string()))
    }

    pub(crate) async fn delete(&self, name: &str) -> Result<(), WriteError> {
        self.delete_at(&self.path(name)).await
    }

    async fn delete_at(&self, path: &Path) -> Result<(), WriteError> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(WriteError::Results(error.to_string())),
        }
    }
}
