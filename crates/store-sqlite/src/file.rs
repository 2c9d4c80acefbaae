//! Whether the open database is still the file at its path. After a data directory was deleted or replaced, SQLite would
//! go on writing into a file that nobody finds any more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use store::WriteError;

/// A file by what tells it from others of its machine.
#[derive(Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    identity: Identity,
}

type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Elsewhere an open file can be neither deleted nor replaced.
#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|_| (0, 0))
}

impl OpenFile {
    /// The file that was just opened.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }

    /// Refuses where another file, or none, is at the path.
    pub(crate) fn check(&self) -> Result<(), WriteError> {
        let path = self.path.display();
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(WriteError::Replaced(format!("another file has taken the place of the database {path}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(WriteError::Replaced(format!("the database {path} was deleted")))
            }
            Err(error) => Err(WriteError::Unavailable(format!("{path}: {error}"))),
        }
    }
}
