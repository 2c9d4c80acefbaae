//! The store in one SQLite file of a data directory, with large results beside it. One process uses the directory at a time;
//! each opening is an epoch.

mod apply;
mod attempts;
mod backend;
mod column;
mod drains;
mod error;
mod file;
mod jobs;
mod ledger;
mod listing;
mod log;
mod open;
mod positions;
mod programs;
mod readers;
mod reads;
mod reserve;
mod results;
mod retention;
mod statistics;
mod submit;
mod transfer;
mod vacuum;

use std::path::PathBuf;
use std::sync::Arc;

use store::{Objects, Parts, Retention, Store};
use tokio::sync::watch;
use url::Url;

pub use error::OpenError;
pub use reserve::room;
pub use transfer::Transfer;

use backend::SqliteBackend;
use readers::Readers;
use reserve::Reserve;

/// Place and limits of a store.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Directory of the database, made if it does not exist. One process uses it at a time.
    pub data_dir: PathBuf,
    /// Place of results above 64 KiB. Default: `results` in the data directory.
    pub results_url: Option<Url>,
    /// Limits for jobs that are over.
    pub retention: Retention,
}

/// Opens the directory, made with its files if they do not exist. May take as long as reading a file of 64 MiB, and once as long
/// as rewriting a file of 256 MiB that an earlier release has made.
///
/// # Errors
/// The directory or the database cannot be used; neither is changed then, except that a full disk loses the room that was kept
/// for changes.
pub fn open(settings: StoreSettings) -> Result<Store, OpenError> {
    let (data_dir, retention) = (settings.data_dir.clone(), settings.retention);
    let parts = open_parts(settings)?;
    let path = data_dir.join(open::DATABASE_FILE);
    Store::start(parts, retention).map_err(|error| OpenError::Database { path, detail: error.to_string() })
}

/// Opens the directory without a writer's thread.
///
/// # Errors
/// The errors of [`open`].
pub fn open_parts(settings: StoreSettings) -> Result<Parts, OpenError> {
    let parts = try_open_parts(&settings);
    // Existing jobs go on and can be changed on a full disk, after a restart too.
    let is_full = match &parts {
        Err(OpenError::Full { .. }) => true,
        Err(OpenError::Database { .. }) => reserve::is_used_up(&settings.data_dir),
        Ok(_) | Err(_) => false,
    };
    if is_full && Reserve::give_up(&settings.data_dir) {
        return try_open_parts(&settings);
    }
    parts
}

fn try_open_parts(settings: &StoreSettings) -> Result<Parts, OpenError> {
    let opened = open::open(&settings.data_dir)?;
    let objects = match &settings.results_url {
        Some(url) => Objects::open(url),
        None => Objects::local(&settings.data_dir.join("results")),
    };
    let path = opened.path.clone();
    let failed = |error: rusqlite::Error| open::database_error(&path, &error);
    let reads = Arc::new(Readers::open(&opened.path).map_err(failed)?);
    let (epoch, id) = backend::next_epoch(&opened.db).map_err(failed)?;
    let latest_event = watch::Sender::new(apply::latest_event(&opened.db).map_err(failed)?);
    let backend = Box::new(SqliteBackend::new(opened, epoch)?);
    Ok(Parts { backend, reads, objects: objects?.of_store(id), epoch, last_batch: 0, latest_event })
}
