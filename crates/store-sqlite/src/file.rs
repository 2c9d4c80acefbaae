//! Checks whether the open database is still the file at its path. SQLite goes on writing into the old file after a data
//! directory was deleted or replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use store::WriteError;

/// Identity of a file on its machine.
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

/// An open file cannot be deleted or replaced on other systems.
#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|_| (0, 0))
}

impl OpenFile {
    /// The file at the path, which was just opened.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }

    /// Its length in bytes, without the pages that only the log has.
    pub(crate) fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(u64::MAX, |metadata| metadata.len())
    }

    /// Fails if another file, or none, is at the path.
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
